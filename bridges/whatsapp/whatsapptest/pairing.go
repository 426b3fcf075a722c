package whatsapptest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/curve25519"
	"golang.org/x/crypto/pbkdf2"
	"google.golang.org/protobuf/proto"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waAdv"
	"go.mau.fi/whatsmeow/proto/waWa6"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/util/hkdfutil"
	"go.mau.fi/whatsmeow/util/keys"
)

const pairSuccessID = "pair-success"

// Codes is how many QR codes a client gets to show, one after the other.
const Codes = 3

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// offerLink gives a client that is not linked what to show as QR codes.
func (c *conn) offerLink(data *waWa6.ClientPayload_DevicePairingRegistrationData) {
	c.applies = data
	c.server.mu.Lock()
	c.server.linking[base64.StdEncoding.EncodeToString(c.noiseKey)] = c
	c.server.mu.Unlock()
	var refs []waBinary.Node
	for range Codes {
		refs = append(refs, waBinary.Node{Tag: "ref", Content: []byte("2@" + base64.StdEncoding.EncodeToString(random(12)))})
	}
	c.send(waBinary.Node{
		Tag: "iq", Attrs: waBinary.Attrs{"from": types.ServerJID, "type": "set", "id": "pair-device", "xmlns": "md"},
		Content: []waBinary.Node{{Tag: "pair-device", Content: refs}},
	})
}

// Scan plays a phone that scans a QR code.
func (s *Server) Scan(code string, a *Account) error {
	_, fields, ok := strings.Cut(code, "#")
	parts := strings.Split(fields, ",")
	if !ok || len(parts) < 4 {
		return fmt.Errorf("%q is no code to link with", code)
	}
	identity, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		return err
	}
	secret, err := base64.StdEncoding.DecodeString(parts[3])
	if err != nil {
		return err
	}
	s.mu.Lock()
	c := s.linking[parts[1]]
	s.mu.Unlock()
	if c == nil {
		return errors.New("nobody shows this code any more")
	}
	s.link(c, a, identity, secret)
	return nil
}

// accept signs a device of an account.
func (a *Account) accept(number uint16, identity []byte) *waAdv.ADVSignedDeviceIdentity {
	details := must(proto.Marshal(&waAdv.ADVDeviceIdentity{
		RawID: proto.Uint32(1), Timestamp: proto.Uint64(uint64(time.Now().Unix())), KeyIndex: proto.Uint32(uint32(number)),
	}))
	message := append(append([]byte{6, 0}, details...), identity...)
	return &waAdv.ADVSignedDeviceIdentity{
		Details: details, AccountSignatureKey: a.identity.Pub[:], AccountSignature: sign(a.identity, message),
	}
}

// link makes the client at the other end of a connection a device of an account.
func (s *Server) link(c *conn, a *Account, identity, secret []byte) {
	s.mu.Lock()
	a.linked++
	number := a.linked
	d := &device{account: a, number: number, registration: c.applies.ERegid, identity: c.applies.EIdent}
	d.signedKey = waBinary.Node{Tag: "skey", Content: []waBinary.Node{
		{Tag: "id", Content: c.applies.ESkeyID}, {Tag: "value", Content: c.applies.ESkeyVal}, {Tag: "signature", Content: c.applies.ESkeySig},
	}}
	s.devices[d.jid()] = d
	c.linked = d.jid()
	s.mu.Unlock()

	signed := must(proto.Marshal(a.accept(number, identity)))
	mac := hmac.New(sha256.New, secret)
	mac.Write(signed)
	content := must(proto.Marshal(&waAdv.ADVSignedDeviceIdentityHMAC{Details: signed, HMAC: mac.Sum(nil)}))
	pn := a.PN
	pn.Device = number
	c.send(waBinary.Node{
		Tag: "iq", Attrs: waBinary.Attrs{"from": types.ServerJID, "type": "set", "id": pairSuccessID, "t": now()},
		Content: []waBinary.Node{{Tag: "pair-success", Content: []waBinary.Node{
			{Tag: "device-identity", Content: content},
			{Tag: "device", Attrs: waBinary.Attrs{"jid": pn, "lid": d.jid()}},
			{Tag: "platform", Attrs: waBinary.Attrs{"name": "android"}},
			{Tag: "biz", Attrs: waBinary.Attrs{"name": ""}},
		}}},
	})
	s.announceDevices(a)
}

// pairing is a link by code that is under way.
type pairing struct {
	wrapped   []byte // the client's key, encrypted with the code
	reference []byte
	phone     *Account
	ephemeral *keys.KeyPair // the phone's
	shared    []byte
}

// pairByCode takes the two messages by which a client is linked with a code.
func (c *conn) pairByCode(n *waBinary.Node, what waBinary.Node) {
	jid, _ := what.Attrs["jid"].(types.JID)
	s := c.server
	switch what.Attrs["stage"] {
	case "companion_hello":
		s.mu.Lock()
		a := s.accounts[jid.User]
		if a != nil {
			c.code = pairing{wrapped: bytesOf(what.GetChildByTag("link_code_pairing_wrapped_companion_ephemeral_pub")), reference: random(8)}
			s.codes[jid.User] = c
		}
		s.mu.Unlock()
		if a == nil {
			c.refuse(n, 404, "item-not-found")
			return
		}
		c.result(n, waBinary.Node{Tag: "link_code_companion_reg", Content: []waBinary.Node{{Tag: "link_code_pairing_ref", Content: c.code.reference}}})
	case "companion_finish":
		if err := c.finishCode(what); err != nil {
			c.refuse(n, 400, "bad-request")
			return
		}
		c.result(n)
	}
}

// wrap encrypts or decrypts a key with a code.
func wrap(code string, salt, iv, key []byte) []byte {
	block := must(aes.NewCipher(pbkdf2.Key([]byte(code), salt, 2<<16, 32, sha256.New)))
	out := make([]byte, len(key))
	cipher.NewCTR(block, iv).XORKeyStream(out, key)
	return out
}

// Enter plays a phone in which somebody enters a pairing code.
func (s *Server) Enter(code string, a *Account) error {
	s.mu.Lock()
	c := s.codes[a.PN.User]
	s.mu.Unlock()
	if c == nil {
		return errors.New("nobody waits for a code")
	}
	code = strings.ReplaceAll(code, "-", "")
	theirs := wrap(code, c.code.wrapped[:32], c.code.wrapped[32:48], c.code.wrapped[48:80])
	ours := keys.NewKeyPair()
	shared, err := curve25519.X25519(ours.Priv[:], theirs)
	if err != nil {
		return err
	}
	salt, iv := random(32), random(16)
	c.code.phone, c.code.ephemeral, c.code.shared = a, ours, shared
	wrapped := append(append(append([]byte(nil), salt...), iv...), wrap(code, salt, iv, ours.Pub[:])...)
	c.send(waBinary.Node{
		Tag: "notification", Attrs: waBinary.Attrs{"type": "link_code_companion_reg", "from": types.ServerJID, "id": "code", "t": now()},
		Content: []waBinary.Node{{Tag: "link_code_companion_reg", Content: []waBinary.Node{
			{Tag: "link_code_pairing_ref", Content: c.code.reference},
			{Tag: "link_code_pairing_wrapped_primary_ephemeral_pub", Content: wrapped},
			{Tag: "primary_identity_pub", Content: a.identity.Pub[:]},
		}}},
	})
	return nil
}

// finishCode opens what the client answers to the phone and links it. A wrong
// code makes it unreadable.
func (c *conn) finishCode(what waBinary.Node) error {
	p := c.code
	bundle := bytesOf(what.GetChildByTag("link_code_pairing_wrapped_key_bundle"))
	if p.phone == nil || len(bundle) < 44 {
		return errNoAccount
	}
	key := hkdfutil.SHA256(p.shared, bundle[:32], []byte("link_code_pairing_key_bundle_encryption_key"), 32)
	sealer := must(cipher.NewGCM(must(aes.NewCipher(key))))
	plain, err := sealer.Open(nil, bundle[32:44], bundle[44:], nil)
	if err != nil || len(plain) != 96 {
		return errors.New("the code was wrong")
	}
	identity, secret := plain[:32], plain[64:]
	mutual, err := curve25519.X25519(p.phone.identity.Priv[:], identity)
	if err != nil {
		return err
	}
	input := append(append(append([]byte(nil), p.shared...), mutual...), secret...)
	c.server.link(c, p.phone, identity, hkdfutil.SHA256(input, nil, []byte("adv_secret"), 32))
	return nil
}
