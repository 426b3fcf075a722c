package e2ee

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
)

const (
	// mostKeys is how many unclaimed one-time keys a device may have.
	mostKeys = 1000

	// mostKeyBytes is how large one key may be.
	mostKeyBytes = 10 << 10

	// claimedKeeps is how long a claimed key is known, so that a repeated
	// upload does not bring it back.
	claimedKeeps = 14 * 24 * time.Hour
)

// Upload is what a device publishes. All of it may be absent.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload
type Upload struct {
	DeviceKeys   json.RawMessage            `json:"device_keys"`
	OneTimeKeys  map[string]json.RawMessage `json:"one_time_keys"` // by "algorithm:id"
	FallbackKeys map[string]json.RawMessage `json:"fallback_keys"` // by "algorithm:id"
}

// identity is what the server reads of the identity keys of a device.
type identity struct {
	User       matrix.UserID                `json:"user_id"`
	Device     matrix.DeviceID              `json:"device_id"`
	Algorithms []string                     `json:"algorithms"`
	Keys       map[string]string            `json:"keys"`
	Signatures map[string]map[string]string `json:"signatures"`
}

// fingerprint is the Ed25519 key of the device, nil if there is none.
func (i *identity) fingerprint() ed25519.PublicKey {
	return publicKey(i.Keys["ed25519:"+string(i.Device)])
}

// publicKey decodes an Ed25519 key; nil if it is none.
func publicKey(s string) ed25519.PublicKey {
	b, err := signing.DecodeBase64(s)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil
	}
	return b
}

// Upload stores the keys that a device publishes and counts the one-time keys
// that it has then, by algorithm. A repeated upload changes nothing. The errors
// are M_BAD_JSON, M_INVALID_PARAM, M_INVALID_SIGNATURE and M_UNKNOWN_DEVICE.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#uploading-keys
func (s *Service) Upload(ctx context.Context, user matrix.UserID, device matrix.DeviceID, up Upload) (map[string]int, error) {
	p, err := up.read(user, device)
	if err != nil {
		return nil, err
	}
	if p.identity == nil && len(p.oneTime)+len(p.fallback) == 0 {
		c, err := s.KeyCounts(ctx, user, device)
		return c.OneTime, err
	}
	var counts store.KeyCounts
	var changed bool
	err = s.Store.Update(ctx, func(tx *store.Tx) (err error) {
		if err = s.device(ctx, tx, user, device); err != nil {
			return err
		}
		if changed, err = p.put(ctx, tx, user, device); err != nil {
			return err
		}
		counts, err = tx.KeyCounts(ctx, user, device)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case changed:
		s.changed(user)
	default:
		s.Bell.Ring(string(user)) // its syncs tell the new counts
	}
	return counts.OneTime, nil
}

// published is an Upload that was checked.
type published struct {
	identity          json.RawMessage // nil for none
	oneTime, fallback []store.OneTimeKey
}

// read checks what a device publishes.
func (up Upload) read(user matrix.UserID, device matrix.DeviceID) (p published, err error) {
	if p.identity, err = readIdentity(user, device, up.DeviceKeys); err != nil {
		return p, err
	}
	if p.oneTime, err = readKeys("one_time_keys", up.OneTimeKeys); err != nil {
		return p, err
	}
	if p.fallback, err = readKeys("fallback_keys", up.FallbackKeys); err != nil {
		return p, err
	}
	for i := 1; i < len(p.fallback); i++ {
		if p.fallback[i].Algorithm == p.fallback[i-1].Algorithm {
			return p, matrix.Errorf(matrix.InvalidParam, "there can be one fallback key of %s, not more", p.fallback[i].Algorithm)
		}
	}
	return p, nil
}

// put writes what is new and tells whether the identity keys are.
func (p published) put(ctx context.Context, tx *store.Tx, user matrix.UserID, device matrix.DeviceID) (bool, error) {
	changed, err := putIdentity(ctx, tx, user, device, p.identity)
	if err != nil {
		return false, err
	}
	return changed, putKeys(ctx, tx, user, device, p.oneTime, p.fallback)
}

// readIdentity checks identity keys and brings them into canonical form; nil if
// there are none.
func readIdentity(user matrix.UserID, device matrix.DeviceID, raw json.RawMessage) (json.RawMessage, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var i identity
	if err := json.Unmarshal(raw, &i); err != nil || i.Algorithms == nil || i.Keys == nil {
		return nil, matrix.Errorf(matrix.BadJSON, "device_keys needs user_id, device_id, algorithms and keys")
	}
	switch {
	case len(raw) > mostKeyBytes:
		return nil, matrix.Errorf(matrix.TooLarge, "device_keys may have %d bytes", mostKeyBytes)
	case i.User != user || i.Device != device:
		return nil, matrix.Errorf(matrix.InvalidParam, "device_keys are those of another device than the one that uploads them")
	}
	for id, key := range i.Keys {
		algorithm, of, _ := strings.Cut(id, ":")
		if of != string(device) {
			return nil, matrix.Errorf(matrix.InvalidParam, "the key %q is not named after the device", id)
		}
		if b, err := signing.DecodeBase64(key); err != nil || (algorithm == "ed25519" || algorithm == "curve25519") && len(b) != 32 {
			return nil, matrix.Errorf(matrix.InvalidParam, "the key %q is not 32 bytes in base64", id)
		}
	}
	canonical, err := strip(raw, "unsigned")
	if err != nil {
		return nil, matrix.Errorf(matrix.BadJSON, "device_keys cannot be signed: %v", err)
	}
	keyID := "ed25519:" + string(device)
	if _, signed := i.Signatures[string(user)][keyID]; signed && signing.VerifyJSON(canonical, string(user), keyID, i.fingerprint()) != nil {
		return nil, matrix.Errorf(matrix.InvalidSignature, "device_keys are not signed by the device")
	}
	return canonical, nil
}

// strip takes members out of an object and answers it in canonical form.
func strip(obj []byte, names ...string) (json.RawMessage, error) {
	members, err := canonjson.Members(nil, obj, canonjson.Whole)
	if err != nil {
		return nil, err
	}
	return canonjson.Object(nil, members, func(key []byte) bool { return slices.Contains(names, string(key)) }), nil
}

// readKeys checks one-time or fallback keys and orders them by name.
func readKeys(what string, keys map[string]json.RawMessage) ([]store.OneTimeKey, error) {
	if len(keys) > mostKeys {
		return nil, matrix.Errorf(matrix.InvalidParam, "%s: a device may have %d keys", what, mostKeys)
	}
	list := make([]store.OneTimeKey, 0, len(keys))
	for id, raw := range keys {
		var k store.OneTimeKey
		k.Algorithm, k.ID, _ = strings.Cut(id, ":")
		if err := errors.Join(name("an algorithm", k.Algorithm), name("a key ID", k.ID)); err != nil {
			return nil, matrix.Errorf(matrix.InvalidParam, "%s: %q is not an algorithm and a key ID", what, id)
		}
		var err error
		if k.Content, err = canonjson.Canonical(raw); err != nil || len(raw) > mostKeyBytes {
			return nil, matrix.Errorf(matrix.InvalidParam, "%s: %q is not canonical JSON of at most %d bytes", what, id, mostKeyBytes)
		}
		if err := checkKey(&k); err != nil {
			return nil, matrix.Errorf(matrix.InvalidParam, "%s: %q is not a key of this algorithm", what, id)
		}
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b store.OneTimeKey) int {
		return strings.Compare(a.Algorithm+":"+a.ID, b.Algorithm+":"+b.ID)
	})
	return list, nil
}

// checkKey checks the shape of a one-time key. Whether it is signed well is for
// whoever claims it to check: the server may be the attacker.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#key-algorithms
func checkKey(k *store.OneTimeKey) error {
	var object struct {
		Key        *string                      `json:"key"`
		Signatures map[string]map[string]string `json:"signatures"`
	}
	var text string
	switch {
	case k.Algorithm == "signed_curve25519":
		if err := json.Unmarshal(k.Content, &object); err != nil {
			return err
		}
		if object.Key == nil || object.Signatures == nil {
			return errors.New("no key or no signatures")
		}
	case k.Algorithm == "curve25519":
		return json.Unmarshal(k.Content, &text)
	case k.Content[0] != '"' && k.Content[0] != '{':
		return errors.New("neither text nor an object")
	}
	return nil
}

// putIdentity writes identity keys if they are new and tells whether they are.
func putIdentity(ctx context.Context, tx *store.Tx, user matrix.UserID, device matrix.DeviceID, keys json.RawMessage) (bool, error) {
	if keys == nil {
		return false, nil
	}
	all, err := tx.DeviceKeys(ctx, []matrix.UserID{user})
	if err != nil {
		return false, err
	}
	crossKeys, err := tx.CrossSigningKeys(ctx, []matrix.UserID{user})
	if err != nil {
		return false, err
	}
	for _, k := range crossKeys {
		if k.Public == string(device) {
			return false, matrix.Errorf(matrix.Forbidden, "the device ID is that of a cross-signing key")
		}
	}
	for _, old := range all {
		if old.Device != device {
			continue
		}
		if bytes.Equal(old.Keys, keys) {
			return false, nil
		}
		if !sameFingerprint(old.Keys, keys) { // the device began anew
			if err := tx.DropOneTimeKeys(ctx, user, device); err != nil {
				return false, err
			}
		}
		if err := tx.DropKeySignatures(ctx, user, string(device)); err != nil {
			return false, err
		}
	}
	if err := tx.PutDeviceKeys(ctx, store.DeviceKeys{User: user, Device: device, Keys: keys}); err != nil {
		return false, err
	}
	_, err = tx.PutDeviceListChange(ctx, user, "")
	return true, err
}

func sameFingerprint(a, b json.RawMessage) bool {
	var x, y identity
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && bytes.Equal(x.fingerprint(), y.fingerprint())
}

// putKeys writes the one-time keys that are new, and fallback keys.
func putKeys(ctx context.Context, tx *store.Tx, user matrix.UserID, device matrix.DeviceID, oneTime, fallback []store.OneTimeKey) error {
	if len(oneTime)+len(fallback) == 0 {
		return nil
	}
	if err := tx.NoteOneTimeKeys(ctx, user); err != nil {
		return err
	}
	if err := tx.ForgetClaimed(ctx, user, device, now()-claimedKeeps.Milliseconds()); err != nil {
		return err
	}
	known, err := tx.OneTimeKeys(ctx, user, device)
	if err != nil {
		return err
	}
	contents := make(map[string]json.RawMessage, len(known))
	waiting := 0
	for _, k := range known {
		contents[k.Algorithm+":"+k.ID] = k.Content
		if k.Content != nil {
			waiting++
		}
	}
	for _, k := range oneTime {
		old, ok := contents[k.Algorithm+":"+k.ID]
		switch {
		case !ok && waiting >= mostKeys:
			return matrix.Errorf(matrix.InvalidParam, "a device may have %d one-time keys", mostKeys)
		case !ok:
			waiting++
			if err := tx.AddOneTimeKey(ctx, user, device, k); err != nil {
				return err
			}
		case old != nil && !bytes.Equal(old, k.Content):
			return matrix.Errorf(matrix.InvalidParam, "the one-time key %s:%s already exists and is another one", k.Algorithm, k.ID)
		}
	}
	for _, k := range fallback {
		if err := tx.PutFallbackKey(ctx, user, device, k); err != nil {
			return err
		}
	}
	return nil
}

// counted is what a device had when the log was at pos.
type counted struct {
	pos    int64
	counts store.KeyCounts
}

// KeyCounts tells how many one-time keys a device has left, by algorithm, and
// of which algorithms its fallback key was not used yet. The answer is shared:
// it must not be changed.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync
func (s *Service) KeyCounts(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (store.KeyCounts, error) {
	k := deviceKey{user, device}
	if c, ok := s.counts.Find(k); ok && !s.Store.ChangedSince(store.OneTimeKeysChanged, string(user), c.pos) {
		return c.counts, nil
	}
	pos := s.Store.Position()
	counts, err := s.Store.KeyCounts(ctx, user, device)
	if err != nil {
		return counts, err
	}
	s.counts.Put(k, counted{pos, counts})
	return counts, nil
}
