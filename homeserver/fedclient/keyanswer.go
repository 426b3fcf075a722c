package fedclient

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
)

// The bounds of what a server publishes.
const (
	maxKeyAnswer   = 64 << 10 // bytes
	maxCurrentKeys = 8
	maxOldKeys     = 32

	// longestValidity is how long a key is taken for valid without asking
	// again.
	longestValidity = 7 * 24 * time.Hour
)

// keyAnswer is what a server says about its keys.
type keyAnswer struct {
	server     matrix.ServerName
	json       []byte // canonical, with the signatures
	keys       []store.ServerKey
	validUntil int64 // as the server says it, milliseconds
}

// parseKeyAnswer reads the keys that a server publishes. The answer must be that
// of the server that was asked for, and signed with its own keys: a current key
// that has not signed is left out, and there must be one that has.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server
func parseKeyAnswer(asked matrix.ServerName, body []byte, now time.Time) (*keyAnswer, error) {
	if len(body) > maxKeyAnswer {
		return nil, ErrAnswerSize
	}
	obj, err := canonjson.Canonical(body)
	if err != nil {
		return nil, err
	}
	fields := map[string][]byte{}
	for name, value := range canonjson.Fields(obj) {
		fields[canonjson.Key(name)] = value
	}
	if name, ok := canonjson.Text(fields["server_name"]); !ok || name != string(asked) {
		return nil, fmt.Errorf("the keys of %q, not of %s", clean(name), asked)
	}
	a := &keyAnswer{server: asked, json: obj}
	var ok bool
	if a.validUntil, ok = canonjson.Int(fields["valid_until_ts"]); !ok || a.validUntil <= 0 {
		return nil, errors.New("no valid_until_ts")
	}
	if err := a.current(fields["verify_keys"], fields["signatures"], now); err != nil {
		return nil, err
	}
	a.old(fields["old_verify_keys"], now)
	return a, nil
}

// current reads the keys in use.
func (a *keyAnswer) current(keys, signatures []byte, now time.Time) error {
	payload, err := signing.Payload(a.json)
	if err != nil {
		return err
	}
	signed := map[string]string{}
	for id, sig := range signing.Signatures(signatures, string(a.server)) {
		signed[id] = sig
	}
	until := min(a.validUntil, now.Add(longestValidity).UnixMilli())
	for name, value := range canonjson.Fields(keys) {
		id := canonjson.Key(name)
		public, err := readKey(id, value)
		if err != nil || signing.Verify(payload, signed[id], public) != nil {
			continue
		}
		a.keys = append(a.keys, store.ServerKey{
			Server: a.server, ID: id, Public: public, ValidUntilTS: until, FetchedTS: now.UnixMilli(), Answer: a.json,
		})
		if len(a.keys) == maxCurrentKeys {
			break
		}
	}
	if len(a.keys) == 0 {
		return errors.New("no key has signed the answer")
	}
	return nil
}

// old reads the keys that were in use before. A key that is also a current one
// is taken for an old one.
func (a *keyAnswer) old(keys []byte, now time.Time) {
	count := 0
	for name, value := range canonjson.Fields(keys) {
		id := canonjson.Key(name)
		public, err := readKey(id, value)
		raw, _ := canonjson.Lookup(value, "expired_ts")
		expired, ok := canonjson.Int(raw)
		if err != nil || !ok || expired <= 0 || count == maxOldKeys {
			continue
		}
		count++
		k := store.ServerKey{Server: a.server, ID: id, Public: public, ValidUntilTS: expired, ExpiredTS: expired, FetchedTS: now.UnixMilli()}
		replaced := false
		for i := range a.keys {
			if a.keys[i].ID == id {
				k.Answer = a.json
				a.keys[i], replaced = k, true
			}
		}
		if !replaced {
			a.keys = append(a.keys, k)
		}
	}
}

// readKey reads {"key": base64}.
func readKey(id string, value []byte) (ed25519.PublicKey, error) {
	raw, _ := canonjson.Lookup(value, "key")
	text, _ := canonjson.Text(raw)
	return publicKey(id, text)
}

// halfLife is when a notary should ask again: half way to the end of what the
// answer, fetched at a time in milliseconds, says about itself.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server
func (a *keyAnswer) halfLife(fetched int64) int64 { return fetched + (a.validUntil-fetched)/2 }
