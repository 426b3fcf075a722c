package store

import (
	"context"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
)

// Past is the part of a room's timeline, behind its creation, that is kept free
// for history which comes later: the places behind Since and not behind Upto.
type Past struct{ Since, Upto int64 }

// Past is what is left of a room's free past; empty where nothing is.
func (s *Store) Past(ctx context.Context, room RoomNum) (Past, error) {
	var p Past
	err := s.db.QueryRow(ctx, `SELECT since, upto FROM pasts WHERE room = $1`, room).Scan(&p.Since, &p.Upto)
	if err != nil && !errors.Is(err, database.ErrNoRows) {
		return p, fmt.Errorf("read past: %w", err)
	}
	return p, nil
}

// PutPast writes what is left of a room's free past.
func (tx *Tx) PutPast(ctx context.Context, room RoomNum, p Past) error {
	const q = `INSERT INTO pasts (room, since, upto) VALUES ($1, $2, $3)
		ON CONFLICT (room) DO UPDATE SET since = excluded.since, upto = excluded.upto`
	if err := tx.Exec(ctx, q, room, p.Since, p.Upto); err != nil {
		return fmt.Errorf("put past: %w", err)
	}
	return nil
}

// HasMessages tells whether something that is no state stands in a room's
// timeline.
func (s *Store) HasMessages(ctx context.Context, room RoomNum) (bool, error) {
	var one int
	err := s.db.QueryRow(ctx, `SELECT 1 FROM events WHERE room = $1 AND pos IS NOT NULL AND key IS NULL LIMIT 1`, room).Scan(&one)
	if err != nil && !errors.Is(err, database.ErrNoRows) {
		return false, fmt.Errorf("has messages: %w", err)
	}
	return err == nil, nil
}
