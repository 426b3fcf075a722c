package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// OneTimeKey is a one-time or fallback key of a device.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys
type OneTimeKey struct {
	Algorithm, ID string
	Content       json.RawMessage // a string or an object; nil if it was claimed
}

// KeyCounts is what a device still has on the server.
type KeyCounts struct {
	// OneTime counts keys by algorithm. The one that everybody uses is always there:
	// clients make no new keys where they are not told that none are left.
	OneTime map[string]int
	Unused  []string // algorithms of the fallback keys that nobody was given yet
}

// KeyCounts counts the unclaimed one-time keys and unused fallback keys of a
// device.
func (s *Store) KeyCounts(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (KeyCounts, error) {
	return keyCounts(ctx, s.db, user, device)
}

// KeyCounts is as Store's, as the transaction sees it.
func (tx *Tx) KeyCounts(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (KeyCounts, error) {
	return keyCounts(ctx, tx, user, device)
}

func keyCounts(ctx context.Context, q querier, user matrix.UserID, device matrix.DeviceID) (KeyCounts, error) {
	c := KeyCounts{OneTime: map[string]int{"signed_curve25519": 0}, Unused: []string{}}
	rows, err := q.Query(ctx, `
		SELECT algorithm, COUNT(*) FROM one_time_keys WHERE user_id = $1 AND device_id = $2 AND claimed = 0 GROUP BY algorithm
		UNION ALL
		SELECT algorithm, -1 FROM fallback_keys WHERE user_id = $1 AND device_id = $2 AND NOT used`, user, device)
	if err != nil {
		return c, fmt.Errorf("key counts: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var algorithm string
		var n int
		if err := rows.Scan(&algorithm, &n); err != nil {
			return c, fmt.Errorf("key counts: %w", err)
		}
		if n < 0 {
			c.Unused = append(c.Unused, algorithm)
		} else {
			c.OneTime[algorithm] = n
		}
	}
	return c, rows.Err()
}

// OneTimeKeys lists the one-time keys of a device, also those that were claimed
// a short while ago.
func (tx *Tx) OneTimeKeys(ctx context.Context, user matrix.UserID, device matrix.DeviceID) ([]OneTimeKey, error) {
	rows, err := tx.Query(ctx, `SELECT algorithm, key_id, claimed, content FROM one_time_keys WHERE user_id = $1 AND device_id = $2`, user, device)
	if err != nil {
		return nil, fmt.Errorf("one-time keys: %w", err)
	}
	defer rows.Close()
	var list []OneTimeKey
	for rows.Next() {
		var k OneTimeKey
		var claimed int64
		if err := rows.Scan(&k.Algorithm, &k.ID, &claimed, &k.Content); err != nil {
			return nil, fmt.Errorf("one-time keys: %w", err)
		}
		if claimed != 0 {
			k.Content = nil
		}
		list = append(list, k)
	}
	return list, rows.Err()
}

// AddOneTimeKey writes a new one-time key.
func (tx *Tx) AddOneTimeKey(ctx context.Context, user matrix.UserID, device matrix.DeviceID, k OneTimeKey) error {
	num, err := tx.NextNumber(ctx, "one_time_keys")
	if err != nil {
		return fmt.Errorf("add one-time key: %w", err)
	}
	const q = `
		INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, num, claimed, content)
		VALUES ($1, $2, $3, $4, $5, 0, $6)`
	if err := tx.Exec(ctx, q, user, device, k.Algorithm, k.ID, num, k.Content); err != nil {
		return fmt.Errorf("add one-time key: %w", err)
	}
	return nil
}

// ForgetClaimed deletes what is left of the one-time keys of a device that were
// claimed before a time (ms).
func (tx *Tx) ForgetClaimed(ctx context.Context, user matrix.UserID, device matrix.DeviceID, before int64) error {
	const q = `DELETE FROM one_time_keys WHERE user_id = $1 AND device_id = $2 AND claimed > 0 AND claimed < $3`
	if err := tx.Exec(ctx, q, user, device, before); err != nil {
		return fmt.Errorf("forget claimed keys: %w", err)
	}
	return nil
}

// DropOneTimeKeys deletes the one-time and fallback keys of a device, because
// its identity is another one now, or it is gone. If it had some, its counts are
// others at the next position.
func (tx *Tx) DropOneTimeKeys(ctx context.Context, user matrix.UserID, device matrix.DeviceID) error {
	dropped := int64(0)
	for _, table := range []string{"one_time_keys", "fallback_keys"} {
		n, err := tx.ExecCount(ctx, `DELETE FROM `+table+` WHERE user_id = $1 AND device_id = $2`, user, device)
		if err != nil {
			return fmt.Errorf("drop %s: %w", table, err)
		}
		dropped += n
	}
	if dropped == 0 {
		return nil
	}
	return tx.NoteOneTimeKeys(ctx, user)
}

// PutFallbackKey writes a fallback key in place of the older one of its
// algorithm. It is unused, unless it is the older one.
func (tx *Tx) PutFallbackKey(ctx context.Context, user matrix.UserID, device matrix.DeviceID, k OneTimeKey) error {
	const q = `
		INSERT INTO fallback_keys (user_id, device_id, algorithm, key_id, used, content)
		VALUES ($1, $2, $3, $4, FALSE, $5)
		ON CONFLICT (user_id, device_id, algorithm) DO UPDATE
		SET key_id = excluded.key_id, content = excluded.content,
			used = fallback_keys.used AND fallback_keys.key_id = excluded.key_id AND fallback_keys.content = excluded.content`
	if err := tx.Exec(ctx, q, user, device, k.Algorithm, k.ID, k.Content); err != nil {
		return fmt.Errorf("put fallback key: %w", err)
	}
	return nil
}

// NoteOneTimeKeys takes the next position of the log and tells the user's syncs
// of it that the counts of keys changed. Take it before claiming: it keeps
// others, in other processes too, from claiming the same key.
func (tx *Tx) NoteOneTimeKeys(ctx context.Context, user matrix.UserID) error {
	pos, err := tx.NextPosition(ctx)
	if err != nil {
		return fmt.Errorf("note one-time keys: %w", err)
	}
	tx.Note(OneTimeKeysChanged, string(user), pos)
	return nil
}

// ClaimOneTimeKey takes the oldest one-time key of a device, at a time in ms,
// so that nobody gets it again; else its fallback key, which stays. ok is false
// if there is neither. NoteOneTimeKeys must have been called before.
func (tx *Tx) ClaimOneTimeKey(ctx context.Context, user matrix.UserID, device matrix.DeviceID, algorithm string, at int64) (k OneTimeKey, ok bool, err error) {
	k.Algorithm = algorithm
	err = tx.QueryRow(ctx, `
		SELECT key_id, content FROM one_time_keys
		WHERE user_id = $1 AND device_id = $2 AND algorithm = $3 AND claimed = 0 ORDER BY num LIMIT 1`,
		user, device, algorithm).Scan(&k.ID, &k.Content)
	switch {
	case err == nil:
		err = tx.Exec(ctx, `
			UPDATE one_time_keys SET claimed = $5, content = ''
			WHERE user_id = $1 AND device_id = $2 AND algorithm = $3 AND key_id = $4`,
			user, device, algorithm, k.ID, at)
	case errors.Is(err, database.ErrNoRows):
		err = tx.QueryRow(ctx, `
			UPDATE fallback_keys SET used = TRUE WHERE user_id = $1 AND device_id = $2 AND algorithm = $3
			RETURNING key_id, content`,
			user, device, algorithm).Scan(&k.ID, &k.Content)
		if errors.Is(err, database.ErrNoRows) {
			return k, false, nil
		}
	}
	if err != nil {
		return k, false, fmt.Errorf("claim one-time key: %w", err)
	}
	return k, true, nil
}
