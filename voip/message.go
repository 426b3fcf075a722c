package voip

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pion/stun/v3"
)

// attrAdditionalAddressFamily asks for a second relayed address, of IPv6, and
// attrAddressErrorCode says why there is none (RFC 8656, 18.12 and 18.13).
// coturn asks by the number of a draft.
const (
	attrAdditionalAddressFamily stun.AttrType = 0x8000
	attrAddressErrorCode        stun.AttrType = 0x8001
	attrAdditionalInDraft       stun.AttrType = 0x8032
)

// protocolUDP is UDP in REQUESTED-TRANSPORT.
const protocolUDP = 17

// known are the attributes of requests that must be understood and are.
var known = map[stun.AttrType]bool{
	stun.AttrUsername: true, stun.AttrMessageIntegrity: true, stun.AttrRealm: true, stun.AttrNonce: true,
	stun.AttrChannelNumber: true, stun.AttrLifetime: true, stun.AttrXORPeerAddress: true, stun.AttrData: true,
	stun.AttrEvenPort: true, stun.AttrRequestedTransport: true, stun.AttrReservationToken: true, stun.AttrRequestedAddressFamily: true,
	stun.AttrPriority: true, stun.AttrUseCandidate: true, stun.AttrConnectionID: true,
}

// errMalformed is a packet that is no STUN message.
var errMalformed = errors.New("malformed message")

// parse reads a STUN message, which stays valid as long as b does. Attributes
// that nobody signed are none of its (RFC 8489, 14.5), but for those that pion's
// client puts there, by which nobody on the way gains anything.
func parse(b []byte) (*stun.Message, error) {
	if len(b) < 20 || b[0]&0xc0 != 0 || !stun.IsMessage(b) || int(binary.BigEndian.Uint16(b[2:]))+20 != len(b) || len(b)%4 != 0 {
		return nil, errMalformed
	}
	m := &stun.Message{Raw: b[:len(b):len(b)]} // the library writes behind what it is given
	if err := m.Decode(); err != nil {
		return nil, errMalformed
	}
	if m.Contains(stun.AttrFingerprint) && stun.Fingerprint.Check(m) != nil {
		return nil, errMalformed
	}
	signed := true
	m.Attributes = slices.DeleteFunc(m.Attributes, func(a stun.RawAttribute) bool {
		drop := !signed && a.Type != stun.AttrRequestedAddressFamily && a.Type != stun.AttrReservationToken && a.Type != stun.AttrEvenPort
		signed = signed && a.Type != stun.AttrMessageIntegrity
		return drop
	})
	return m, nil
}

// unknown lists the attributes of m that must be understood and are not.
func unknown(m *stun.Message) stun.UnknownAttributes {
	var list stun.UnknownAttributes
	for _, a := range m.Attributes {
		if a.Type.Required() && !known[a.Type] {
			list = append(list, a.Type)
		}
	}
	return list
}

// address is an attribute with an address, exclusive-ored as RFC 8489, 14.2 says.
type address struct {
	attr stun.AttrType
	netip.AddrPort
}

// AddTo implements stun.Setter.
func (a address) AddTo(m *stun.Message) error {
	return stun.XORMappedAddress{IP: net.IP(a.Addr().AsSlice()), Port: int(a.Port())}.AddToAs(m, a.attr)
}

// readAddress reads the value of such an attribute. The address may be an IPv4
// address in the clothes of IPv6.
func readAddress(m *stun.Message, v []byte) (netip.AddrPort, bool) {
	if len(v) < 4 {
		return netip.AddrPort{}, false
	}
	key := append(binary.BigEndian.AppendUint32(make([]byte, 0, 16), 0x2112A442), m.TransactionID[:]...)
	var ip []byte
	switch {
	case v[1] == 1 && len(v) == 8:
		ip = v[4:8]
	case v[1] == 2 && len(v) == 20:
		ip = v[4:20]
	default:
		return netip.AddrPort{}, false
	}
	plain := make([]byte, len(ip))
	for i := range ip {
		plain[i] = ip[i] ^ key[i]
	}
	a, _ := netip.AddrFromSlice(plain)
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(v[2:])^0x2112), true
}

// peerAddresses reads all XOR-PEER-ADDRESS attributes; false if there is none or
// one of them is broken.
func peerAddresses(m *stun.Message) ([]netip.AddrPort, bool) {
	var list []netip.AddrPort
	for _, a := range m.Attributes {
		if a.Type != stun.AttrXORPeerAddress {
			continue
		}
		p, ok := readAddress(m, a.Value)
		if !ok {
			return nil, false
		}
		list = append(list, p)
	}
	return list, len(list) > 0
}

// attribute reads an attribute of a known size; present is false if there is
// none, ok if it has another size.
func attribute(m *stun.Message, t stun.AttrType, size int) (v []byte, present, ok bool) {
	v, err := m.Get(t)
	if err != nil {
		return nil, false, true
	}
	return v, true, len(v) == size
}

// seconds is a LIFETIME.
func seconds(d time.Duration) stun.RawAttribute {
	return stun.RawAttribute{Type: stun.AttrLifetime, Value: binary.BigEndian.AppendUint32(nil, uint32(d/time.Second))}
}

// nonces makes and knows nonces. Each holds for one address of a client and for
// an hour, and nothing is stored of it.
type nonces struct{ key []byte }

const nonceLifetime = time.Hour

func newNonces() nonces { return nonces{[]byte(rand.Text() + rand.Text())} }

// at makes the nonce of a client that is made at a time: the time and an HMAC.
func (n nonces) at(client netip.AddrPort, made uint32) string {
	stamp := binary.BigEndian.AppendUint32(nil, made)
	mac := hmac.New(sha256.New, n.key)
	mac.Write(stamp)
	mac.Write(addressBytes(client))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(stamp)[:16])
}

// valid tells whether a client was given this nonce, and not too long ago.
func (n nonces) valid(nonce string, client netip.AddrPort, now time.Time) bool {
	b, err := base64.RawURLEncoding.DecodeString(nonce)
	if err != nil || len(b) != 16 {
		return false
	}
	made := binary.BigEndian.Uint32(b)
	age := now.Unix() - int64(made)
	return age >= 0 && age <= int64(nonceLifetime/time.Second) && hmac.Equal([]byte(nonce), []byte(n.at(client, made)))
}
