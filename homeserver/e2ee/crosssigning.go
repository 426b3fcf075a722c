package e2ee

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
)

// CrossSigning are the cross-signing keys that a user publishes. Each may be
// absent.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload
type CrossSigning struct {
	Master      json.RawMessage `json:"master_key"`
	SelfSigning json.RawMessage `json:"self_signing_key"`
	UserSigning json.RawMessage `json:"user_signing_key"`
}

// NeedsConfirmation tells whether the user must confirm an upload of these
// keys: there is a master key already, and one of them is new.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload
func (s *Service) NeedsConfirmation(ctx context.Context, user matrix.UserID, keys CrossSigning) (bool, error) {
	stored, err := s.Store.CrossSigningKeys(ctx, []matrix.UserID{user})
	if err != nil {
		return false, err
	}
	if find(stored, store.MasterKey) == nil {
		return false, nil
	}
	given, err := keys.read(user)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(given, func(k store.CrossSigningKey) bool {
		old := find(stored, k.Usage)
		return old == nil || old.Public != k.Public || !sameObject(old.Keys, k.Keys)
	}), nil
}

func find(list []store.CrossSigningKey, u store.Usage) *store.CrossSigningKey {
	for i := range list {
		if list[i].Usage == u {
			return &list[i]
		}
	}
	return nil
}

// sameObject tells whether two canonical objects are the same but for their
// signatures.
func sameObject(a, b json.RawMessage) bool {
	x, errX := strip(a, "signatures", "unsigned")
	y, errY := strip(b, "signatures", "unsigned")
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// read checks the shape of the keys that are given.
func (c *CrossSigning) read(user matrix.UserID) ([]store.CrossSigningKey, error) {
	var list []store.CrossSigningKey
	for _, k := range []struct {
		usage store.Usage
		raw   json.RawMessage
	}{{store.MasterKey, c.Master}, {store.SelfSigningKey, c.SelfSigning}, {store.UserSigningKey, c.UserSigning}} {
		if len(k.raw) == 0 || string(k.raw) == "null" {
			continue
		}
		key, err := readCrossSigningKey(user, k.usage, k.raw)
		if err != nil {
			return nil, err
		}
		list = append(list, key)
	}
	return list, nil
}

func readCrossSigningKey(user matrix.UserID, usage store.Usage, raw json.RawMessage) (store.CrossSigningKey, error) {
	out := store.CrossSigningKey{User: user, Usage: usage}
	var k struct {
		User  matrix.UserID     `json:"user_id"`
		Usage []store.Usage     `json:"usage"`
		Keys  map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(raw, &k); err != nil || len(raw) > mostKeyBytes {
		return out, matrix.Errorf(matrix.BadJSON, "the %s key is not a cross-signing key", usage)
	}
	if k.User != user || !slices.Contains(k.Usage, usage) || len(k.Keys) != 1 {
		return out, matrix.Errorf(matrix.InvalidParam, "the %s key needs the user's ID, its usage and exactly one key", usage)
	}
	for id, public := range k.Keys {
		if id != "ed25519:"+public || publicKey(public) == nil {
			return out, matrix.Errorf(matrix.InvalidParam, "the %s key is not an Ed25519 key under its own name", usage)
		}
		out.Public = public
	}
	var err error
	if out.Keys, err = strip(raw, "unsigned"); err != nil {
		return out, matrix.Errorf(matrix.BadJSON, "the %s key cannot be signed: %v", usage, err)
	}
	return out, nil
}

// UploadCrossSigning publishes cross-signing keys. Whether the user has
// confirmed that is for the caller to know, see NeedsConfirmation. The errors
// are M_BAD_JSON, M_INVALID_PARAM, M_INVALID_SIGNATURE, M_MISSING_PARAM for a
// key without a master key, and M_FORBIDDEN for one that is named as a device.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#cross-signing
func (s *Service) UploadCrossSigning(ctx context.Context, user matrix.UserID, keys CrossSigning) error {
	given, err := keys.read(user)
	if err != nil || len(given) == 0 {
		return err
	}
	var changed bool
	err = s.Store.Update(ctx, func(tx *store.Tx) (err error) {
		changed, err = putCrossSigning(ctx, tx, user, given)
		return err
	})
	if err == nil && changed {
		s.changed(user)
	}
	return err
}

// putCrossSigning checks keys against those that are stored and writes what is
// new.
func putCrossSigning(ctx context.Context, tx *store.Tx, user matrix.UserID, given []store.CrossSigningKey) (changed bool, err error) {
	stored, err := tx.CrossSigningKeys(ctx, []matrix.UserID{user})
	if err != nil {
		return false, err
	}
	devices, err := tx.Devices(ctx, user)
	if err != nil {
		return false, err
	}
	master := find(given, store.MasterKey)
	if master == nil {
		master = find(stored, store.MasterKey)
	}
	if master == nil {
		return false, matrix.Errorf(matrix.MissingParam, "there is no master key")
	}
	for _, k := range given {
		if slices.ContainsFunc(devices, func(d store.Device) bool { return string(d.ID) == k.Public }) {
			return false, matrix.Errorf(matrix.Forbidden, "one of the user's devices has the ID of the %s key", k.Usage)
		}
		if k.Usage != store.MasterKey && signing.VerifyJSON(k.Keys, string(user), "ed25519:"+master.Public, publicKey(master.Public)) != nil {
			return false, matrix.Errorf(matrix.InvalidSignature, "the %s key is not signed by the master key", k.Usage)
		}
		if old := find(stored, k.Usage); old != nil && bytes.Equal(old.Keys, k.Keys) {
			continue
		}
		if err := tx.PutCrossSigningKey(ctx, k); err != nil {
			return false, err
		}
		changed = true
	}
	if changed {
		_, err = tx.PutDeviceListChange(ctx, user, "")
	}
	return changed, err
}

// Signatures are keys with new signatures, by user and by device ID or public
// master key.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload
type Signatures map[matrix.UserID]map[string]json.RawMessage

// Failures say why signatures were not taken, by user and key ID.
type Failures map[matrix.UserID]map[string]*matrix.Error

// UploadSignatures stores signatures that a user made: of the user's own devices
// with the self-signing key, of the own master key with a device, of others'
// master keys with the user-signing key. What is wrong with one of them does
// not hinder the others.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload
func (s *Service) UploadSignatures(ctx context.Context, user matrix.UserID, up Signatures) (Failures, error) {
	n := 0
	users := []matrix.UserID{user}
	for u, keys := range up {
		if _, err := matrix.ParseUserID(string(u)); err != nil {
			return nil, err
		}
		n += len(keys)
		users = append(users, u)
	}
	if n > mostAsked {
		return nil, matrix.Errorf(matrix.InvalidParam, "too many signatures")
	}
	var failures Failures
	var own bool
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		failures, own = Failures{}, false
		book, err := readBook(ctx, tx, users)
		if err != nil {
			return err
		}
		for u, keys := range up {
			taken, err := putSignatures(ctx, tx, book, user, u, keys, failures)
			if err != nil {
				return err
			}
			own = own || taken && u == user
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case own:
		s.changed(user)
	default:
		s.Bell.Ring(string(user))
	}
	return failures, nil
}

// book holds the keys of some users.
type book struct {
	devices map[signed]json.RawMessage
	cross   map[matrix.UserID]map[store.Usage]store.CrossSigningKey
}

func readBook(ctx context.Context, tx *store.Tx, users []matrix.UserID) (*book, error) {
	b := &book{devices: map[signed]json.RawMessage{}, cross: map[matrix.UserID]map[store.Usage]store.CrossSigningKey{}}
	for part := range slices.Chunk(users, 500) {
		devices, err := tx.DeviceKeys(ctx, part)
		if err != nil {
			return nil, err
		}
		for _, d := range devices {
			b.devices[signed{d.User, string(d.Device)}] = d.Keys
		}
		cross, err := tx.CrossSigningKeys(ctx, part)
		if err != nil {
			return nil, err
		}
		for _, k := range cross {
			if b.cross[k.User] == nil {
				b.cross[k.User] = map[store.Usage]store.CrossSigningKey{}
			}
			b.cross[k.User][k.Usage] = k
		}
	}
	return b, nil
}

// putSignatures stores the signatures of one user's keys and tells whether
// there was a good one.
func putSignatures(ctx context.Context, tx *store.Tx, b *book, signer, user matrix.UserID, keys map[string]json.RawMessage, failures Failures) (bool, error) {
	taken := false
	for id, obj := range keys {
		list, err := b.check(signer, user, id, obj)
		var wrong *matrix.Error
		if errors.As(err, &wrong) {
			if failures[user] == nil {
				failures[user] = map[string]*matrix.Error{}
			}
			failures[user][id] = wrong
			continue
		}
		if err != nil {
			return false, err
		}
		for _, sig := range list {
			if err := tx.PutKeySignature(ctx, sig); err != nil {
				return false, err
			}
		}
		taken = true
	}
	if !taken {
		return false, nil
	}
	observer := signer // nobody else sees signatures of others' keys
	if user == signer {
		observer = ""
	}
	_, err := tx.PutDeviceListChange(ctx, user, observer)
	return true, err
}

// check gives the signatures that signer may add to a key, which must be the
// one that is stored.
func (b *book) check(signer, user matrix.UserID, id string, raw json.RawMessage) ([]store.KeySignature, error) {
	obj, err := canonjson.Canonical(raw)
	if err != nil || !canonjson.IsObject(obj) {
		return nil, matrix.Errorf(matrix.BadJSON, "not a JSON object that can be signed")
	}
	master, hasMaster := b.cross[user][store.MasterKey]
	ofMaster := hasMaster && master.Public == id
	stored := master.Keys
	if !ofMaster {
		stored = b.devices[signed{user, id}]
	}
	switch {
	case stored == nil || signer != user && !ofMaster:
		return nil, matrix.Errorf(matrix.NotFound, "there is no such key that you can sign")
	case !sameObject(stored, obj):
		return nil, matrix.Errorf(matrix.InvalidSignature, "the key is not the one that is known here")
	}
	by := b.signers(signer, user, ofMaster)
	var list []store.KeySignature
	all, _ := canonjson.Lookup(obj, "signatures")
	for keyID, sig := range signing.Signatures(all, string(signer)) {
		public, ok := by[keyID]
		if !ok {
			continue // such as the device's own, which stands in the key itself
		}
		if err := signing.VerifyJSON(obj, string(signer), keyID, publicKey(public)); err != nil {
			return nil, matrix.Errorf(matrix.InvalidSignature, "the signature by %s is wrong", keyID)
		}
		list = append(list, store.KeySignature{User: user, Key: id, Signer: signer, SignedBy: keyID, Signature: sig})
	}
	if len(list) == 0 {
		return nil, matrix.Errorf(matrix.InvalidSignature, "there is no signature by a key that may sign this one")
	}
	return list, nil
}

// signers lists the public keys with which signer may sign a key of user, by
// key ID.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#cross-signing
func (b *book) signers(signer, user matrix.UserID, ofMaster bool) map[string]string {
	by := map[string]string{}
	add := func(u store.Usage) {
		if k, ok := b.cross[signer][u]; ok {
			by["ed25519:"+k.Public] = k.Public
		}
	}
	switch {
	case signer != user:
		add(store.UserSigningKey)
	case !ofMaster:
		add(store.SelfSigningKey)
	default:
		for k, keys := range b.devices {
			var i identity
			if k.user == signer && json.Unmarshal(keys, &i) == nil {
				id := fmt.Sprintf("ed25519:%s", k.key)
				by[id] = i.Keys[id]
			}
		}
	}
	return by
}
