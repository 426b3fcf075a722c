package store

import (
	"context"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// Presence is whether a user is there.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#presence
type Presence struct {
	User       matrix.UserID
	State      string // "online", "unavailable" or "offline"
	StatusMsg  string // "" for none
	LastActive int64  // milliseconds since 1970; 0: never
	Pos        int64  // when it was written
}

const presenceColumns = `user_id, presence, status_msg, last_active, pos`

// Presence finds the presence of a user. ok is false if none was ever written.
func (s *Store) Presence(ctx context.Context, user matrix.UserID) (p Presence, ok bool, err error) {
	err = s.db.QueryRow(ctx, `SELECT `+presenceColumns+` FROM presence WHERE user_id = $1`, user).
		Scan(&p.User, &p.State, &p.StatusMsg, &p.LastActive, &p.Pos)
	if errors.Is(err, database.ErrNoRows) {
		return p, false, nil
	}
	if err != nil {
		return p, false, fmt.Errorf("presence: %w", err)
	}
	return p, true, nil
}

// PresenceChanges lists the presence that was written behind since and not
// behind upto, in order of position.
func (s *Store) PresenceChanges(ctx context.Context, since, upto int64) ([]Presence, error) {
	if !s.ChangedSince(PresenceChanged, "", since) {
		return nil, nil
	}
	list, sure := rows(s.presence, since, upto, func(*Presence) bool { return true }, func(p *Presence) matrix.UserID { return p.User })
	if sure {
		return list, nil
	}
	return s.queryPresence(ctx, `SELECT `+presenceColumns+` FROM presence WHERE pos > $1 AND pos <= $2 ORDER BY pos`, since, upto)
}

// PresenceOf lists the presence of those of some users who are not offline.
func (s *Store) PresenceOf(ctx context.Context, users []matrix.UserID) ([]Presence, error) {
	if len(users) == 0 {
		return nil, nil
	}
	return s.queryPresence(ctx, `SELECT `+presenceColumns+` FROM presence WHERE user_id IN LIST($1) AND presence <> 'offline'`, users)
}

// PresentUsers lists the presence of all who are not offline.
func (s *Store) PresentUsers(ctx context.Context) ([]Presence, error) {
	return s.queryPresence(ctx, `SELECT `+presenceColumns+` FROM presence WHERE presence <> 'offline' ORDER BY pos`)
}

func (s *Store) queryPresence(ctx context.Context, q string, args ...any) ([]Presence, error) {
	rows, err := s.db.Query(ctx, q, args...)
	if err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	defer rows.Close()
	var list []Presence
	for rows.Next() {
		var p Presence
		if err := rows.Scan(&p.User, &p.State, &p.StatusMsg, &p.LastActive, &p.Pos); err != nil {
			return nil, fmt.Errorf("presence: %w", err)
		}
		list = append(list, p)
	}
	return list, rows.Err()
}

// PutPresence writes the presence of a user at the next position of the log; with
// keep the status message stays what it is, and p's is not looked at. p.Pos never
// is.
func (tx *Tx) PutPresence(ctx context.Context, p Presence, keep bool) error {
	pos, err := tx.NextPosition(ctx)
	if err != nil {
		return fmt.Errorf("put presence: %w", err)
	}
	const q = `
		INSERT INTO presence (user_id, presence, status_msg, last_active, pos) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (user_id) DO UPDATE
		SET presence = excluded.presence, status_msg = CASE WHEN $6 THEN presence.status_msg ELSE excluded.status_msg END,
			last_active = excluded.last_active, pos = excluded.pos
		RETURNING status_msg`
	if keep {
		p.StatusMsg = ""
	}
	if err := tx.QueryRow(ctx, q, p.User, p.State, p.StatusMsg, p.LastActive, pos, keep).Scan(&p.StatusMsg); err != nil {
		return fmt.Errorf("put presence: %w", err)
	}
	p.Pos = pos
	tx.OnCommit(func() { tx.s.presence.add(p) })
	tx.Note(PresenceChanged, "", pos)
	return nil
}
