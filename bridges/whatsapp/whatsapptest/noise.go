package whatsapptest

import (
	"context"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"

	"golang.org/x/crypto/curve25519"
	"golang.org/x/crypto/hkdf"
	"google.golang.org/protobuf/proto"

	"go.mau.fi/whatsmeow/proto/waWa6"
	"go.mau.fi/whatsmeow/util/gcmutil"
	"go.mau.fi/whatsmeow/util/keys"
)

// noise is the state of a handshake, Noise_XX_25519_AESGCM_SHA256, on the side
// of who answers.
type noise struct {
	hash, salt []byte
	key        cipher.AEAD
	count      uint32
	err        error // the first that happened
}

func newNoise(prologue []byte) *noise {
	start := []byte("Noise_XX_25519_AESGCM_SHA256\x00\x00\x00\x00")
	n := &noise{hash: start, salt: start}
	n.key, n.err = gcmutil.Prepare(start)
	n.authenticate(prologue)
	return n
}

func nonce(count uint32) []byte {
	b := make([]byte, 12)
	binary.BigEndian.PutUint32(b[8:], count)
	return b
}

func (n *noise) authenticate(data []byte) {
	h := sha256.New()
	h.Write(n.hash)
	h.Write(data)
	n.hash = h.Sum(nil)
}

// split derives two keys.
func (n *noise) split(secret []byte) (a, b []byte) {
	r := hkdf.New(sha256.New, secret, n.salt, nil)
	a, b = make([]byte, 32), make([]byte, 32)
	for _, key := range [][]byte{a, b} {
		if _, err := io.ReadFull(r, key); err != nil && n.err == nil {
			n.err = err
		}
	}
	return a, b
}

func (n *noise) mix(private, public []byte) {
	if n.err != nil {
		return
	}
	secret, err := curve25519.X25519(private, public)
	if err != nil {
		n.err = err
		return
	}
	var key []byte
	n.salt, key = n.split(secret)
	n.key, n.err = gcmutil.Prepare(key)
	n.count = 0
}

func (n *noise) seal(plain []byte) []byte {
	sealed := n.key.Seal(nil, nonce(n.count), plain, n.hash)
	n.count++
	n.authenticate(sealed)
	return sealed
}

func (n *noise) open(sealed []byte) []byte {
	if n.err != nil {
		return nil
	}
	plain, err := n.key.Open(nil, nonce(n.count), sealed, n.hash)
	n.err = err
	n.count++
	n.authenticate(sealed)
	return plain
}

// handshake agrees on keys with the client and returns what it says of itself.
func (c *conn) handshake(ctx context.Context) (*waWa6.ClientPayload, error) {
	_, first, err := c.socket.Read(ctx)
	if err != nil {
		return nil, err
	}
	if len(first) < 4 {
		return nil, errors.New("the connection has no prologue")
	}
	c.unread = first[4:]
	n := newNoise(first[:4])
	var hello, finish waWa6.HandshakeMessage
	if err := c.readProto(ctx, &hello); err != nil {
		return nil, err
	}
	theirs := hello.GetClientHello().GetEphemeral()
	n.authenticate(theirs)
	ours := keys.NewKeyPair()
	n.authenticate(ours.Pub[:])
	n.mix(ours.Priv[:], theirs)
	static := n.seal(c.server.static.Pub[:])
	n.mix(c.server.static.Priv[:], theirs)
	answer := &waWa6.HandshakeMessage{ServerHello: &waWa6.HandshakeMessage_ServerHello{
		Ephemeral: ours.Pub[:], Static: static, Payload: n.seal(c.server.chain),
	}}
	if err := c.writeFrame(must(proto.Marshal(answer))); err != nil {
		return nil, err
	}
	if err := c.readProto(ctx, &finish); err != nil {
		return nil, err
	}
	c.noiseKey = n.open(finish.GetClientFinish().GetStatic())
	n.mix(ours.Priv[:], c.noiseKey)
	payload := &waWa6.ClientPayload{}
	plain := n.open(finish.GetClientFinish().GetPayload())
	read, write := n.split(nil)
	if n.err != nil {
		return nil, n.err
	}
	c.read, c.write = must(gcmutil.Prepare(read)), must(gcmutil.Prepare(write))
	return payload, proto.Unmarshal(plain, payload)
}

func (c *conn) readProto(ctx context.Context, m proto.Message) error {
	frame, err := c.readFrame(ctx)
	if err != nil {
		return err
	}
	return proto.Unmarshal(frame, m)
}
