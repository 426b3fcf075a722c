package store

import (
	"context"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// Token is an access token with the refresh token that was given with it. The
// tokens themselves are nowhere kept, only their SHA-256 sums.
type Token struct {
	Access    []byte
	Refresh   []byte // nil where there is none
	User      matrix.UserID
	Device    matrix.DeviceID
	ExpiresTS int64  // of the access token, milliseconds; 0: never
	Replaces  []byte // Access of the pair that ends when this one is first used; may be nil
	CreatedTS int64
}

const tokenColumns = `access, refresh, user_id, device_id, expires_ts, replaces, created_ts`

// TokenByAccess finds a token and its user by the sum of the access token. ok
// is false if there is none.
func (s *Store) TokenByAccess(ctx context.Context, sum []byte) (t Token, u User, ok bool, err error) {
	const q = `
		SELECT t.access, t.refresh, t.user_id, t.device_id, t.expires_ts, t.replaces, t.created_ts,
			u.user_id, u.password, u.kind, u.appservice, u.admin, u.deactivated, u.erased, u.locked, u.suspended, u.created_ts
		FROM tokens AS t JOIN users AS u ON u.user_id = t.user_id
		WHERE t.access = $1`
	err = s.db.QueryRow(ctx, q, sum).Scan(&t.Access, &t.Refresh, &t.User, &t.Device, &t.ExpiresTS, &t.Replaces, &t.CreatedTS,
		&u.ID, &u.Password, &u.Kind, &u.Appservice, &u.Admin, &u.Deactivated, &u.Erased, &u.Locked, &u.Suspended, &u.CreatedTS)
	if errors.Is(err, database.ErrNoRows) {
		return Token{}, User{}, false, nil
	}
	if err != nil {
		return Token{}, User{}, false, fmt.Errorf("token by access: %w", err)
	}
	return t, u, true, nil
}

// TokenByRefresh finds a token by the sum of its refresh token. ok is false if
// there is none.
func (tx *Tx) TokenByRefresh(ctx context.Context, sum []byte) (t Token, ok bool, err error) {
	err = tx.QueryRow(ctx, `SELECT `+tokenColumns+` FROM tokens WHERE refresh = $1`, sum).
		Scan(&t.Access, &t.Refresh, &t.User, &t.Device, &t.ExpiresTS, &t.Replaces, &t.CreatedTS)
	if errors.Is(err, database.ErrNoRows) {
		return Token{}, false, nil
	}
	if err != nil {
		return Token{}, false, fmt.Errorf("token by refresh: %w", err)
	}
	return t, true, nil
}

// AddToken writes a new token.
func (tx *Tx) AddToken(ctx context.Context, t Token) error {
	const q = `
		INSERT INTO tokens (access, refresh, user_id, device_id, expires_ts, replaces, created_ts)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`
	err := tx.Exec(ctx, q, t.Access, t.Refresh, t.User, t.Device, t.ExpiresTS, t.Replaces, t.CreatedTS)
	if err != nil {
		return fmt.Errorf("add token: %w", err)
	}
	return nil
}

// UseToken ends the pair that t replaces: t has been used.
func (tx *Tx) UseToken(ctx context.Context, t Token) error {
	if err := tx.DeleteToken(ctx, t.Replaces); err != nil {
		return err
	}
	if err := tx.Exec(ctx, `UPDATE tokens SET replaces = NULL WHERE access = $1`, t.Access); err != nil {
		return fmt.Errorf("use token: %w", err)
	}
	return nil
}

// DeleteToken deletes the pair with this sum of the access token.
func (tx *Tx) DeleteToken(ctx context.Context, access []byte) error {
	if err := tx.Exec(ctx, `DELETE FROM tokens WHERE access = $1`, access); err != nil {
		return fmt.Errorf("delete token: %w", err)
	}
	return nil
}

// DeleteSuccessors deletes pairs that were given in place of this one and were
// never used: the answer with them was lost.
func (tx *Tx) DeleteSuccessors(ctx context.Context, access []byte) error {
	if err := tx.Exec(ctx, `DELETE FROM tokens WHERE replaces = $1`, access); err != nil {
		return fmt.Errorf("delete successors: %w", err)
	}
	return nil
}

// DeleteDeviceTokens ends the sessions of a device and keeps the device.
func (tx *Tx) DeleteDeviceTokens(ctx context.Context, user matrix.UserID, id matrix.DeviceID) error {
	if err := tx.Exec(ctx, `DELETE FROM tokens WHERE user_id = $1 AND device_id = $2`, user, id); err != nil {
		return fmt.Errorf("delete device tokens: %w", err)
	}
	return nil
}

// AddLoginToken writes a token of one use, of which sum is the SHA-256.
func (tx *Tx) AddLoginToken(ctx context.Context, sum []byte, user matrix.UserID, expiresTS int64) error {
	const q = `INSERT INTO login_tokens (token, user_id, expires_ts) VALUES ($1, $2, $3)`
	if err := tx.Exec(ctx, q, sum, user, expiresTS); err != nil {
		return fmt.Errorf("add login token: %w", err)
	}
	return nil
}

// TakeLoginToken uses a login token up and tells whose it was. All that have
// expired by now go, too. ok is false if there is none.
func (tx *Tx) TakeLoginToken(ctx context.Context, sum []byte, now int64) (user matrix.UserID, ok bool, err error) {
	if err := tx.Exec(ctx, `DELETE FROM login_tokens WHERE expires_ts <= $1`, now); err != nil {
		return "", false, fmt.Errorf("expire login tokens: %w", err)
	}
	err = tx.QueryRow(ctx, `SELECT user_id FROM login_tokens WHERE token = $1`, sum).Scan(&user)
	if errors.Is(err, database.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("take login token: %w", err)
	}
	if err := tx.Exec(ctx, `DELETE FROM login_tokens WHERE token = $1`, sum); err != nil {
		return "", false, fmt.Errorf("take login token: %w", err)
	}
	return user, true, nil
}
