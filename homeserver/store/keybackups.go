package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// KeyBackup is a version of a user's backup of room keys.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups
type KeyBackup struct {
	User      matrix.UserID
	Version   int64 // grows with each new backup
	Algorithm string
	AuthData  json.RawMessage // an object
	Etag      int64           // grows with each change of the keys
	Keys      int64           // how many there are
}

// BackedUpKey is the key of one session in a backup.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomidsessionid
type BackedUpKey struct {
	Room              matrix.RoomID   `json:"-"`
	Session           string          `json:"-"`
	FirstMessageIndex int64           `json:"first_message_index"`
	ForwardedCount    int64           `json:"forwarded_count"`
	IsVerified        bool            `json:"is_verified"`
	SessionData       json.RawMessage `json:"session_data"` // an object
}

// KeyBackup finds a version of a user's backup; 0 is the newest one. ok is
// false if there is none.
func (s *Store) KeyBackup(ctx context.Context, user matrix.UserID, version int64) (b KeyBackup, ok bool, err error) {
	return keyBackup(ctx, s.db, user, version)
}

// KeyBackup is as Store's, as the transaction sees it.
func (tx *Tx) KeyBackup(ctx context.Context, user matrix.UserID, version int64) (b KeyBackup, ok bool, err error) {
	return keyBackup(ctx, tx, user, version)
}

func keyBackup(ctx context.Context, q querier, user matrix.UserID, version int64) (KeyBackup, bool, error) {
	var b KeyBackup
	err := q.QueryRow(ctx, `
		SELECT user_id, version, algorithm, auth_data, etag, keys FROM key_backups
		WHERE user_id = $1 AND (version = $2 OR $2 = 0) ORDER BY version DESC LIMIT 1`, user, version).
		Scan(&b.User, &b.Version, &b.Algorithm, &b.AuthData, &b.Etag, &b.Keys)
	if errors.Is(err, database.ErrNoRows) {
		return b, false, nil
	}
	if err != nil {
		return b, false, fmt.Errorf("key backup: %w", err)
	}
	return b, true, nil
}

// AddKeyBackup writes a new, empty version of a user's backup and returns its
// number.
func (tx *Tx) AddKeyBackup(ctx context.Context, b KeyBackup) (version int64, err error) {
	if version, err = tx.NextNumber(ctx, "key_backups"); err != nil {
		return 0, fmt.Errorf("add key backup: %w", err)
	}
	const q = `INSERT INTO key_backups (user_id, version, algorithm, auth_data, etag, keys) VALUES ($1, $2, $3, $4, 0, 0)`
	if err := tx.Exec(ctx, q, b.User, version, b.Algorithm, b.AuthData); err != nil {
		return 0, fmt.Errorf("add key backup: %w", err)
	}
	return version, nil
}

// SetKeyBackup replaces the auth data, the etag and the count of keys of a
// version.
func (tx *Tx) SetKeyBackup(ctx context.Context, b KeyBackup) error {
	const q = `UPDATE key_backups SET auth_data = $3, etag = $4, keys = $5 WHERE user_id = $1 AND version = $2`
	if err := tx.Exec(ctx, q, b.User, b.Version, b.AuthData, b.Etag, b.Keys); err != nil {
		return fmt.Errorf("set key backup: %w", err)
	}
	return nil
}

// DeleteKeyBackup deletes a version with all its keys.
func (tx *Tx) DeleteKeyBackup(ctx context.Context, user matrix.UserID, version int64) error {
	for _, table := range []string{"key_backups", "backed_up_keys"} {
		if err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE user_id = $1 AND version = $2`, user, version); err != nil {
			return fmt.Errorf("delete key backup from %s: %w", table, err)
		}
	}
	return nil
}

// BackedUpKeys lists the keys of a version: all, those of a room, or one
// session's. Room and session may be "".
func (s *Store) BackedUpKeys(ctx context.Context, user matrix.UserID, version int64, room matrix.RoomID, session string) ([]BackedUpKey, error) {
	rows, err := s.db.Query(ctx, `
		SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, session_data FROM backed_up_keys
		WHERE user_id = $1 AND version = $2 AND ($3 = '' OR room_id = $3) AND ($4 = '' OR session_id = $4)`,
		user, version, room, session)
	if err != nil {
		return nil, fmt.Errorf("backed-up keys: %w", err)
	}
	defer rows.Close()
	var list []BackedUpKey
	for rows.Next() {
		var k BackedUpKey
		if err := rows.Scan(&k.Room, &k.Session, &k.FirstMessageIndex, &k.ForwardedCount, &k.IsVerified, &k.SessionData); err != nil {
			return nil, fmt.Errorf("backed-up keys: %w", err)
		}
		list = append(list, k)
	}
	return list, rows.Err()
}

// PutBackedUpKey writes a key unless a better one is there: one that is
// verified, else one with a lower index, else one that was forwarded less
// often. It tells whether the session is new, and whether anything was written.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups
func (tx *Tx) PutBackedUpKey(ctx context.Context, user matrix.UserID, version int64, k BackedUpKey) (added, changed bool, err error) {
	n, err := tx.ExecCount(ctx, `
		INSERT INTO backed_up_keys (user_id, version, room_id, session_id, first_message_index, forwarded_count, is_verified, session_data)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (user_id, version, room_id, session_id) DO NOTHING`,
		user, version, k.Room, k.Session, k.FirstMessageIndex, k.ForwardedCount, k.IsVerified, k.SessionData)
	if err == nil && n == 0 {
		var m int64
		m, err = tx.ExecCount(ctx, `
			UPDATE backed_up_keys SET first_message_index = $5, forwarded_count = $6, is_verified = $7, session_data = $8
			WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id = $4
				AND ((NOT is_verified AND $7) OR (is_verified = $7 AND (first_message_index > $5
					OR (first_message_index = $5 AND forwarded_count > $6))))`,
			user, version, k.Room, k.Session, k.FirstMessageIndex, k.ForwardedCount, k.IsVerified, k.SessionData)
		changed = m > 0
	}
	if err != nil {
		return false, false, fmt.Errorf("put backed-up key: %w", err)
	}
	return n > 0, n > 0 || changed, nil
}

// DeleteBackedUpKeys deletes keys of a version: all, those of a room, or one
// session's. It returns how many there were.
func (tx *Tx) DeleteBackedUpKeys(ctx context.Context, user matrix.UserID, version int64, room matrix.RoomID, session string) (int64, error) {
	n, err := tx.ExecCount(ctx, `
		DELETE FROM backed_up_keys
		WHERE user_id = $1 AND version = $2 AND ($3 = '' OR room_id = $3) AND ($4 = '' OR session_id = $4)`,
		user, version, room, session)
	if err != nil {
		return 0, fmt.Errorf("delete backed-up keys: %w", err)
	}
	return n, nil
}
