package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// DeviceKeys are the identity keys of a device.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#device-keys
type DeviceKeys struct {
	User        matrix.UserID
	Device      matrix.DeviceID
	Keys        json.RawMessage // as uploaded, without "unsigned"
	DisplayName string          // of the device; "" for none
}

// DeviceKeys lists the keys of all devices of some users. Devices that are gone
// are left out.
func (s *Store) DeviceKeys(ctx context.Context, users []matrix.UserID) ([]DeviceKeys, error) {
	return deviceKeys(ctx, s.db, users)
}

// DeviceKeys lists the keys of all devices of some users as the transaction
// sees them.
func (tx *Tx) DeviceKeys(ctx context.Context, users []matrix.UserID) ([]DeviceKeys, error) {
	return deviceKeys(ctx, tx, users)
}

func deviceKeys(ctx context.Context, q querier, users []matrix.UserID) ([]DeviceKeys, error) {
	rows, err := q.Query(ctx, `
		SELECT k.user_id, k.device_id, k.keys, d.display_name
		FROM device_keys k JOIN devices d ON d.user_id = k.user_id AND d.device_id = k.device_id
		WHERE k.user_id IN LIST($1)`, users)
	if err != nil {
		return nil, fmt.Errorf("device keys: %w", err)
	}
	defer rows.Close()
	var list []DeviceKeys
	for rows.Next() {
		var k DeviceKeys
		if err := rows.Scan(&k.User, &k.Device, &k.Keys, &k.DisplayName); err != nil {
			return nil, fmt.Errorf("device keys: %w", err)
		}
		list = append(list, k)
	}
	return list, rows.Err()
}

// PutDeviceKeys writes the identity keys of a device.
func (tx *Tx) PutDeviceKeys(ctx context.Context, k DeviceKeys) error {
	const q = `
		INSERT INTO device_keys (user_id, device_id, keys) VALUES ($1, $2, $3)
		ON CONFLICT (user_id, device_id) DO UPDATE SET keys = excluded.keys`
	if err := tx.Exec(ctx, q, k.User, k.Device, k.Keys); err != nil {
		return fmt.Errorf("put device keys: %w", err)
	}
	return nil
}

// DropDeviceKeys forgets everything of a device's encryption: identity keys,
// one-time and fallback keys, signatures, and the messages that wait for it. If
// it had identity keys, others learn at the next position that they are gone.
// Whoever deletes a device calls it.
func (tx *Tx) DropDeviceKeys(ctx context.Context, user matrix.UserID, device matrix.DeviceID) error {
	n, err := tx.ExecCount(ctx, `DELETE FROM device_keys WHERE user_id = $1 AND device_id = $2`, user, device)
	if err != nil {
		return fmt.Errorf("drop device keys: %w", err)
	}
	if err := tx.DropOneTimeKeys(ctx, user, device); err != nil {
		return err
	}
	for _, table := range []string{"to_device", "to_device_requests"} {
		if err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE user_id = $1 AND device_id = $2`, user, device); err != nil {
			return fmt.Errorf("drop device keys from %s: %w", table, err)
		}
	}
	if err := tx.DropKeySignatures(ctx, user, string(device)); err != nil {
		return err
	}
	if n == 0 {
		return nil
	}
	_, err = tx.PutDeviceListChange(ctx, user, "")
	return err
}

// Usage is what a cross-signing key is for.
type Usage string

// The cross-signing keys of a user.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#cross-signing
const (
	MasterKey      Usage = "master"
	SelfSigningKey Usage = "self_signing"
	UserSigningKey Usage = "user_signing"
)

// CrossSigningKey is one of a user's cross-signing keys.
type CrossSigningKey struct {
	User   matrix.UserID
	Usage  Usage
	Public string          // unpadded base64
	Keys   json.RawMessage // as uploaded
}

// CrossSigningKeys lists the cross-signing keys of some users.
func (s *Store) CrossSigningKeys(ctx context.Context, users []matrix.UserID) ([]CrossSigningKey, error) {
	return crossSigningKeys(ctx, s.db, users)
}

// CrossSigningKeys lists the cross-signing keys of some users as the
// transaction sees them.
func (tx *Tx) CrossSigningKeys(ctx context.Context, users []matrix.UserID) ([]CrossSigningKey, error) {
	return crossSigningKeys(ctx, tx, users)
}

func crossSigningKeys(ctx context.Context, q querier, users []matrix.UserID) ([]CrossSigningKey, error) {
	rows, err := q.Query(ctx, `SELECT user_id, usage, public, keys FROM cross_signing_keys WHERE user_id IN LIST($1)`, users)
	if err != nil {
		return nil, fmt.Errorf("cross-signing keys: %w", err)
	}
	defer rows.Close()
	var list []CrossSigningKey
	for rows.Next() {
		var k CrossSigningKey
		if err := rows.Scan(&k.User, &k.Usage, &k.Public, &k.Keys); err != nil {
			return nil, fmt.Errorf("cross-signing keys: %w", err)
		}
		list = append(list, k)
	}
	return list, rows.Err()
}

// PutCrossSigningKey writes a cross-signing key in place of the user's older
// one. What the older one signed, and what was signed of it, is forgotten.
func (tx *Tx) PutCrossSigningKey(ctx context.Context, k CrossSigningKey) error {
	var old string
	err := tx.QueryRow(ctx, `SELECT public FROM cross_signing_keys WHERE user_id = $1 AND usage = $2`, k.User, k.Usage).Scan(&old)
	switch {
	case errors.Is(err, database.ErrNoRows):
	case err != nil:
		return fmt.Errorf("put cross-signing key: %w", err)
	case old != k.Public:
		if err := tx.DropKeySignatures(ctx, k.User, old); err != nil {
			return err
		}
		if err := tx.Exec(ctx, `DELETE FROM key_signatures WHERE signer = $1 AND signed_by = $2`, k.User, "ed25519:"+old); err != nil {
			return fmt.Errorf("put cross-signing key: %w", err)
		}
	}
	const q = `
		INSERT INTO cross_signing_keys (user_id, usage, public, keys) VALUES ($1, $2, $3, $4)
		ON CONFLICT (user_id, usage) DO UPDATE SET public = excluded.public, keys = excluded.keys`
	if err := tx.Exec(ctx, q, k.User, k.Usage, k.Public, k.Keys); err != nil {
		return fmt.Errorf("put cross-signing key: %w", err)
	}
	return nil
}

// KeySignature is a signature that was uploaded after the key it signs.
type KeySignature struct {
	User      matrix.UserID // whose key is signed
	Key       string        // a device ID, or a public master key
	Signer    matrix.UserID
	SignedBy  string // ID of the signing key, with its algorithm
	Signature string // unpadded base64
}

// KeySignatures lists the signatures of the keys of some users that observer
// may see: those that the users made themselves, and the observer's own.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#key-and-signature-security
func (s *Store) KeySignatures(ctx context.Context, users []matrix.UserID, observer matrix.UserID) ([]KeySignature, error) {
	rows, err := s.db.Query(ctx, `
		SELECT user_id, key_id, signer, signed_by, signature FROM key_signatures
		WHERE user_id IN LIST($1) AND (signer = user_id OR signer = $2)`, users, observer)
	if err != nil {
		return nil, fmt.Errorf("key signatures: %w", err)
	}
	defer rows.Close()
	var list []KeySignature
	for rows.Next() {
		var k KeySignature
		if err := rows.Scan(&k.User, &k.Key, &k.Signer, &k.SignedBy, &k.Signature); err != nil {
			return nil, fmt.Errorf("key signatures: %w", err)
		}
		list = append(list, k)
	}
	return list, rows.Err()
}

// PutKeySignature writes a signature, replacing an older one by the same key.
func (tx *Tx) PutKeySignature(ctx context.Context, k KeySignature) error {
	const q = `
		INSERT INTO key_signatures (user_id, key_id, signer, signed_by, signature) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (user_id, key_id, signer, signed_by) DO UPDATE SET signature = excluded.signature`
	if err := tx.Exec(ctx, q, k.User, k.Key, k.Signer, k.SignedBy, k.Signature); err != nil {
		return fmt.Errorf("put key signature: %w", err)
	}
	return nil
}

// DropKeySignatures forgets the signatures of a key: a device ID, or a public
// master key.
func (tx *Tx) DropKeySignatures(ctx context.Context, user matrix.UserID, key string) error {
	if err := tx.Exec(ctx, `DELETE FROM key_signatures WHERE user_id = $1 AND key_id = $2`, user, key); err != nil {
		return fmt.Errorf("drop key signatures: %w", err)
	}
	return nil
}
