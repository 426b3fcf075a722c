// Package signing knows ed25519 keys as Matrix writes them, and how JSON objects
// are signed and checked. It fetches no keys and does not know when one expires.
package signing

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
)

// Algorithm is the only signing algorithm.
const Algorithm = "ed25519"

// The ways in which a check fails.
var (
	ErrUnsigned = errors.New("no signature with this key")
	ErrWrong    = errors.New("the signature is wrong")
)

// Key is a key that signs. ID is "ed25519:" and a version, by which others tell
// the keys of one server apart.
type Key struct {
	ID      string
	Private ed25519.PrivateKey
}

// Generate makes a new key with a random version of the form "a_XXXX".
func Generate() (Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("generate signing key: %w", err)
	}
	return Key{ID: Algorithm + ":a_" + rand.Text()[:6], Private: private}, nil
}

// ParseKey reads "ed25519 version seed", the form of String. The seed is base64
// of 32 bytes. Space around and between the words is ignored.
func ParseKey(text string) (Key, error) {
	words := strings.Fields(text)
	if len(words) != 3 || words[0] != Algorithm {
		return Key{}, errors.New("a signing key must read: ed25519 version base64-seed")
	}
	if !validVersion(words[1]) {
		return Key{}, errors.New("the version of a signing key may only have letters, digits and _")
	}
	seed, err := DecodeBase64(words[2])
	if err != nil || len(seed) != ed25519.SeedSize {
		return Key{}, errors.New("the seed of a signing key must be base64 of 32 bytes")
	}
	return Key{ID: Algorithm + ":" + words[1], Private: ed25519.NewKeyFromSeed(seed)}, nil
}

func validVersion(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_') {
			return false
		}
	}
	return s != ""
}

// String writes the key as "ed25519 version seed", for the key file. It is the
// secret itself.
func (k Key) String() string {
	return Algorithm + " " + k.Version() + " " + EncodeBase64(k.Private.Seed())
}

// Format prints only the key's ID, so that no log or error ever holds the secret.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.ID) }

// Version is the part of the ID behind the colon.
func (k Key) Version() string {
	_, version, _ := strings.Cut(k.ID, ":")
	return version
}

// Public is the key that checks what k signed.
func (k Key) Public() ed25519.PublicKey {
	return k.Private.Public().(ed25519.PublicKey)
}

// Sign signs bytes and answers the signature in unpadded base64.
func (k Key) Sign(msg []byte) string {
	return EncodeBase64(ed25519.Sign(k.Private, msg))
}

// Verify checks a signature in base64 over bytes. It answers ErrWrong.
func Verify(msg []byte, signature string, pub ed25519.PublicKey) error {
	sig, err := DecodeBase64(signature)
	if err != nil || len(sig) != ed25519.SignatureSize || len(pub) != ed25519.PublicKeySize ||
		!ed25519.Verify(pub, msg, sig) {
		return ErrWrong
	}
	return nil
}

// SignJSON adds server's signature with k to a JSON object, beside those it has,
// and answers the whole object in canonical form, with its "unsigned".
//
// Spec: https://spec.matrix.org/v1.19/appendices/#signing-details
func SignJSON(obj []byte, server matrix.ServerName, k Key) ([]byte, error) {
	members, err := canonjson.Members(nil, obj, canonjson.Whole)
	if err != nil {
		return nil, fmt.Errorf("sign JSON: %w", err)
	}
	var old []byte
	for _, m := range members {
		if string(m.Key) == "signatures" {
			old = m.Value
		}
	}
	all, err := AddSignature(old, string(server), k.ID, k.Sign(signed(members)))
	if err != nil {
		return nil, fmt.Errorf("sign JSON: %w", err)
	}
	return canonjson.Canonical(canonjson.Object(nil, replace(members, "signatures", all), nil))
}

// signed is what a signature of an object covers.
func signed(members []canonjson.Member) []byte {
	return canonjson.Object(nil, members, func(key []byte) bool {
		return string(key) == "signatures" || string(key) == "unsigned"
	})
}

// Payload is what the signatures of a JSON object cover, for Verify.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#checking-for-a-signature
func Payload(obj []byte) ([]byte, error) {
	members, err := canonjson.Members(nil, obj, canonjson.Whole)
	if err != nil {
		return nil, fmt.Errorf("signed JSON: %w", err)
	}
	return signed(members), nil
}

// replace answers members with one value replaced, or added in its place.
func replace(members []canonjson.Member, key string, value []byte) []canonjson.Member {
	out := make([]canonjson.Member, 0, len(members)+1)
	placed := false
	for _, m := range members {
		if !placed && string(m.Key) >= key {
			out = append(out, canonjson.Member{Key: []byte(key), Value: value})
			placed = true
			if string(m.Key) == key {
				continue
			}
		}
		out = append(out, m)
	}
	if !placed {
		out = append(out, canonjson.Member{Key: []byte(key), Value: value})
	}
	return out
}

// AddSignature adds a signature to the object signatures, which maps entities to
// key IDs to signatures and may be nil, and answers it in canonical form.
func AddSignature(signatures []byte, entity, keyID, signature string) ([]byte, error) {
	if signatures == nil {
		signatures = []byte("{}")
	}
	entities, err := canonjson.Members(nil, signatures, canonjson.Whole)
	if err != nil {
		return nil, fmt.Errorf("signatures: %w", err)
	}
	name := quoted(entity)
	keys := []byte("{}")
	for _, m := range entities {
		if string(m.Key) == string(name) {
			keys = m.Value
		}
	}
	members, err := canonjson.Members(nil, keys, canonjson.Whole)
	if err != nil {
		return nil, fmt.Errorf("signatures of %s: %w", entity, err)
	}
	keys = canonjson.Object(nil, replace(members, string(quoted(keyID)), canonjson.AppendText(nil, signature)), nil)
	return canonjson.Canonical(canonjson.Object(nil, replace(entities, string(name), keys), nil))
}

// quoted is a key as it stands between the quotes.
func quoted(s string) []byte {
	b := canonjson.AppendText(nil, s)
	return b[1 : len(b)-1]
}

// VerifyJSON checks that entity signed the JSON object with the key pub, known
// as keyID. It answers ErrUnsigned or ErrWrong, or what is wrong with the JSON.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#checking-for-a-signature
func VerifyJSON(obj []byte, entity, keyID string, pub ed25519.PublicKey) error {
	members, err := canonjson.Members(nil, obj, canonjson.Whole)
	if err != nil {
		return fmt.Errorf("verify JSON: %w", err)
	}
	for _, m := range members {
		if string(m.Key) == "signatures" {
			for id, sig := range Signatures(m.Value, entity) {
				if id == keyID {
					return Verify(signed(members), sig, pub)
				}
			}
		}
	}
	return ErrUnsigned
}

// EncodeBase64 writes bytes in unpadded base64.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#unpadded-base64
func EncodeBase64(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

// DecodeBase64 reads base64 in the standard or the URL-safe alphabet, padded or
// not.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#unpadded-base64
func DecodeBase64(s string) ([]byte, error) {
	s = strings.TrimRight(s, "=")
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("base64 with line breaks")
	}
	if strings.ContainsAny(s, "-_") {
		return base64.RawURLEncoding.DecodeString(s)
	}
	return base64.RawStdEncoding.DecodeString(s)
}

// PolicyKeyID is the ID of the key with which policy servers sign.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#validating-policy-server-signatures
const PolicyKeyID = Algorithm + ":policy_server"

// ParsePublicKey reads a public key in base64.
func ParsePublicKey(text string) (ed25519.PublicKey, error) {
	key, err := DecodeBase64(text)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("a key must be base64 of %d bytes", ed25519.PublicKeySize)
	}
	return key, nil
}
