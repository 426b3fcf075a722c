package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// UIASession is a user-interactive authentication that has begun.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
type UIASession struct {
	ID        string
	Operation string        // what may be done with it, and to what
	User      matrix.UserID // "" at registration
	Completed []UIAStage    // in order
	ExpiresTS int64         // milliseconds
}

// UIAStage is a stage that was completed.
type UIAStage struct {
	Type   string `json:"type"`
	Result string `json:"result,omitempty"` // such as the registration token
}

// UIASession finds a session that has not expired. ok is false if there is
// none.
func (s *Store) UIASession(ctx context.Context, id string, now int64) (u UIASession, ok bool, err error) {
	var completed []byte
	err = s.db.QueryRow(ctx, `SELECT session, operation, user_id, completed, expires_ts FROM uia_sessions WHERE session = $1 AND expires_ts > $2`, id, now).
		Scan(&u.ID, &u.Operation, &u.User, &completed, &u.ExpiresTS)
	if errors.Is(err, database.ErrNoRows) {
		return UIASession{}, false, nil
	}
	if err == nil {
		err = json.Unmarshal(completed, &u.Completed)
	}
	if err != nil {
		return UIASession{}, false, fmt.Errorf("uia session: %w", err)
	}
	return u, true, nil
}

// PutUIASession writes a session, replacing an older state of it. Sessions that
// have expired by now go.
func (tx *Tx) PutUIASession(ctx context.Context, u UIASession, now int64) error {
	if u.Completed == nil {
		u.Completed = []UIAStage{}
	}
	completed, err := json.Marshal(u.Completed)
	if err != nil {
		return fmt.Errorf("put uia session: %w", err)
	}
	if err := tx.Exec(ctx, `DELETE FROM uia_sessions WHERE expires_ts <= $1`, now); err != nil {
		return fmt.Errorf("expire uia sessions: %w", err)
	}
	const q = `
		INSERT INTO uia_sessions (session, operation, user_id, completed, expires_ts)
		VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (session) DO UPDATE SET completed = excluded.completed`
	if err := tx.Exec(ctx, q, u.ID, u.Operation, u.User, string(completed), u.ExpiresTS); err != nil {
		return fmt.Errorf("put uia session: %w", err)
	}
	return nil
}

// DeleteUIASession ends a session.
func (tx *Tx) DeleteUIASession(ctx context.Context, id string) error {
	if err := tx.Exec(ctx, `DELETE FROM uia_sessions WHERE session = $1`, id); err != nil {
		return fmt.Errorf("delete uia session: %w", err)
	}
	return nil
}
