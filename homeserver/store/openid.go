package store

import (
	"context"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// OpenIDUser finds whose OpenID token this is, by its SHA-256 sum, and until when
// it is good (ms). ok is false if there is no such token.
func (s *Store) OpenIDUser(ctx context.Context, sum []byte) (user matrix.UserID, expires int64, ok bool, err error) {
	err = s.db.QueryRow(ctx, `SELECT user_id, expires_ts FROM openid_tokens WHERE token = $1`, sum).Scan(&user, &expires)
	if errors.Is(err, database.ErrNoRows) {
		return "", 0, false, nil
	}
	if err != nil {
		return "", 0, false, fmt.Errorf("openid token: %w", err)
	}
	return user, expires, true, nil
}

// AddOpenIDToken writes a token, by its SHA-256 sum, and forgets those that
// ended before a time (ms).
func (tx *Tx) AddOpenIDToken(ctx context.Context, sum []byte, user matrix.UserID, expires, before int64) error {
	if err := tx.Exec(ctx, `DELETE FROM openid_tokens WHERE expires_ts < $1`, before); err != nil {
		return fmt.Errorf("add openid token: %w", err)
	}
	if err := tx.Exec(ctx, `INSERT INTO openid_tokens (token, user_id, expires_ts) VALUES ($1, $2, $3)`, sum, user, expires); err != nil {
		return fmt.Errorf("add openid token: %w", err)
	}
	return nil
}
