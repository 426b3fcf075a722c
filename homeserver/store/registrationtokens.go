package store

import (
	"context"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
)

// RegistrationToken lets who knows it make accounts.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration
type RegistrationToken struct {
	Token       string
	UsesAllowed *int64 // nil: any number
	Completed   int64  // accounts made with it
	ExpiresTS   int64  // milliseconds; 0: never
	Admin       bool   // its accounts are administrators
	CreatedTS   int64
}

// Valid tells whether another account can be made with the token at a time in
// milliseconds.
func (t RegistrationToken) Valid(now int64) bool {
	return (t.ExpiresTS == 0 || now < t.ExpiresTS) && (t.UsesAllowed == nil || t.Completed < *t.UsesAllowed)
}

const registrationTokenColumns = `token, uses_allowed, completed, expires_ts, admin, created_ts`

func scanRegistrationToken(row scanner) (RegistrationToken, error) {
	var t RegistrationToken
	err := row.Scan(&t.Token, &t.UsesAllowed, &t.Completed, &t.ExpiresTS, &t.Admin, &t.CreatedTS)
	return t, err
}

// RegistrationToken finds a registration token. ok is false if there is none.
func (s *Store) RegistrationToken(ctx context.Context, token string) (t RegistrationToken, ok bool, err error) {
	return registrationToken(ctx, s.db, token)
}

// RegistrationToken finds a registration token as the transaction sees it. ok
// is false if there is none.
func (tx *Tx) RegistrationToken(ctx context.Context, token string) (t RegistrationToken, ok bool, err error) {
	return registrationToken(ctx, tx, token)
}

func registrationToken(ctx context.Context, q querier, token string) (RegistrationToken, bool, error) {
	t, err := scanRegistrationToken(q.QueryRow(ctx, `SELECT `+registrationTokenColumns+` FROM registration_tokens WHERE token = $1`, token))
	if errors.Is(err, database.ErrNoRows) {
		return RegistrationToken{}, false, nil
	}
	if err != nil {
		return RegistrationToken{}, false, fmt.Errorf("registration token: %w", err)
	}
	return t, true, nil
}

// RegistrationTokens lists the registration tokens, the oldest first.
func (s *Store) RegistrationTokens(ctx context.Context) ([]RegistrationToken, error) {
	rows, err := s.db.Query(ctx, `SELECT `+registrationTokenColumns+` FROM registration_tokens ORDER BY created_ts, token`)
	if err != nil {
		return nil, fmt.Errorf("registration tokens: %w", err)
	}
	defer rows.Close()
	var list []RegistrationToken
	for rows.Next() {
		t, err := scanRegistrationToken(rows)
		if err != nil {
			return nil, fmt.Errorf("registration tokens: %w", err)
		}
		list = append(list, t)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("registration tokens: %w", err)
	}
	return list, nil
}

// AddRegistrationToken writes a new token. added is false, and nothing is
// written, if it exists.
func (tx *Tx) AddRegistrationToken(ctx context.Context, t RegistrationToken) (added bool, err error) {
	const q = `
		INSERT INTO registration_tokens (token, uses_allowed, completed, expires_ts, admin, created_ts)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (token) DO NOTHING`
	n, err := tx.ExecCount(ctx, q, t.Token, t.UsesAllowed, t.Completed, t.ExpiresTS, t.Admin, t.CreatedTS)
	if err != nil {
		return false, fmt.Errorf("add registration token: %w", err)
	}
	return n > 0, nil
}

// UseRegistrationToken counts an account made with the token at a time in
// milliseconds. used is false if the token does not allow another.
func (tx *Tx) UseRegistrationToken(ctx context.Context, token string, now int64) (used bool, err error) {
	const q = `
		UPDATE registration_tokens SET completed = completed + 1
		WHERE token = $1 AND (expires_ts = 0 OR expires_ts > $2) AND (uses_allowed IS NULL OR completed < uses_allowed)`
	n, err := tx.ExecCount(ctx, q, token, now)
	if err != nil {
		return false, fmt.Errorf("use registration token: %w", err)
	}
	return n > 0, nil
}

// DeleteRegistrationToken deletes a token. deleted is false if there was none.
func (tx *Tx) DeleteRegistrationToken(ctx context.Context, token string) (deleted bool, err error) {
	n, err := tx.ExecCount(ctx, `DELETE FROM registration_tokens WHERE token = $1`, token)
	if err != nil {
		return false, fmt.Errorf("delete registration token: %w", err)
	}
	return n > 0, nil
}
