package e2ee

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

const (
	alice = matrix.UserID("@alice:a.test")
	bob   = matrix.UserID("@bob:a.test")
)

// each runs f on both databases, with the devices A1, A2 of alice and B1 of
// bob.
func each(t *testing.T, f func(t *testing.T, s *Service)) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := newService(st)
		for _, d := range []store.Device{{User: alice, ID: "A1", DisplayName: "Phone"}, {User: alice, ID: "A2"}, {User: bob, ID: "B1"}} {
			s.write(t, func(tx *store.Tx) error { return tx.PutDevice(t.Context(), d) })
		}
		f(t, s)
	})
}

func newService(st *store.Store) *Service {
	return &Service{Store: st, Bell: &notify.Bell{}, ServerName: "a.test"}
}

func (s *Service) write(t *testing.T, f func(tx *store.Tx) error) {
	t.Helper()
	if err := s.Store.Update(context.WithoutCancel(t.Context()), f); err != nil {
		t.Fatal(err)
	}
}

// code is the errcode of an error that a client may see, "" for none.
func code(t *testing.T, err error) matrix.Code {
	t.Helper()
	var e *matrix.Error
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &e):
		t.Fatalf("%v is no answer for a client", err)
	}
	return e.Code
}

// key makes an Ed25519 key that is always the same for a word.
func key(word string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte((word + strings.Repeat("-", 32))[:32]))
}

func public(word string) string {
	return signing.EncodeBase64(key(word).Public().(ed25519.PublicKey))
}

// sign signs an object as a user's key with an ID.
func sign(t *testing.T, obj string, user matrix.UserID, keyID, word string) string {
	t.Helper()
	b, err := signing.SignJSON([]byte(obj), matrix.ServerName(user), signing.Key{ID: keyID, Private: key(word)})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// deviceJSON makes signed identity keys, whose Ed25519 key is made of word.
func deviceJSON(t *testing.T, user matrix.UserID, device, word string) string {
	obj := fmt.Sprintf(`{"user_id":%q,"device_id":%q,"algorithms":["m.olm.v1.curve25519-aes-sha2"],"keys":{"ed25519:%s":%q,"curve25519:%s":%q}}`,
		user, device, device, public(word), device, public(word+" curve"))
	return sign(t, obj, user, "ed25519:"+device, word)
}

// crossJSON makes a cross-signing key of word.
func crossJSON(user matrix.UserID, usage, word string) string {
	return fmt.Sprintf(`{"user_id":%q,"usage":[%q],"keys":{"ed25519:%s":%q}}`, user, usage, public(word), public(word))
}

// crossSigning makes three keys whose names begin with word.
func crossSigning(t *testing.T, user matrix.UserID, word string) CrossSigning {
	t.Helper()
	by := func(usage, name string) json.RawMessage {
		return json.RawMessage(sign(t, crossJSON(user, usage, name), user, "ed25519:"+public(word+" master"), word+" master"))
	}
	return CrossSigning{
		Master:      json.RawMessage(crossJSON(user, "master", word+" master")),
		SelfSigning: by("self_signing", word+" self"),
		UserSigning: by("user_signing", word+" user"),
	}
}

// oneTime makes n one-time keys from number first on.
func oneTime(first, n int) map[string]json.RawMessage {
	keys := map[string]json.RawMessage{}
	for i := first; i < first+n; i++ {
		keys[fmt.Sprintf("signed_curve25519:K%03d", i)] = json.RawMessage(fmt.Sprintf(`{"key":"key%d","signatures":{"@alice:a.test":{"ed25519:A1":"x"}}}`, i))
	}
	return keys
}

// query gives the keys of one user as observer sees them, as text.
func (s *Service) query1(t *testing.T, observer, user matrix.UserID) map[string]string {
	t.Helper()
	k, err := s.Query(t.Context(), observer, map[matrix.UserID][]matrix.DeviceID{user: nil})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for d, keys := range k.Devices[user] {
		found[string(d)] = string(keys)
	}
	for name, keys := range map[string]map[matrix.UserID]json.RawMessage{"master": k.Master, "self": k.SelfSigning, "user": k.UserSigning} {
		if raw := keys[user]; raw != nil {
			found[name] = string(raw)
		}
	}
	return found
}
