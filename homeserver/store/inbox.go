package store

import (
	"context"
	"encoding/json"
	"fmt"

	"switchboard/homeserver/matrix"
)

// Incoming is an event of another server that cannot be taken just now.
type Incoming struct {
	Num        int64 // order in which the events came
	Room       matrix.RoomID
	ID         matrix.EventID
	Origin     matrix.ServerName // who sent it
	JSON       json.RawMessage
	ReceivedTS int64 // milliseconds
}

// InboxBounds are how many events may wait.
type InboxBounds struct{ Server, Room, Total int }

// Inbox lists up to limit events that wait for a room, oldest first.
func (s *Store) Inbox(ctx context.Context, room matrix.RoomID, limit int) ([]Incoming, error) {
	rows, err := s.db.Query(ctx, `
		SELECT num, event_id, origin, json, received_ts FROM inbox WHERE room_id = $1 ORDER BY num LIMIT $2`, room, limit)
	if err != nil {
		return nil, fmt.Errorf("read inbox: %w", err)
	}
	defer rows.Close()
	var list []Incoming
	for rows.Next() {
		in := Incoming{Room: room}
		if err := rows.Scan(&in.Num, &in.ID, &in.Origin, &in.JSON, &in.ReceivedTS); err != nil {
			return nil, fmt.Errorf("read inbox: %w", err)
		}
		list = append(list, in)
	}
	return list, rows.Err()
}

// InboxRooms lists the rooms for which events wait.
func (s *Store) InboxRooms(ctx context.Context) ([]matrix.RoomID, error) {
	rows, err := s.db.Query(ctx, `SELECT DISTINCT room_id FROM inbox`)
	if err != nil {
		return nil, fmt.Errorf("read inbox: %w", err)
	}
	defer rows.Close()
	var list []matrix.RoomID
	for rows.Next() {
		var id matrix.RoomID
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("read inbox: %w", err)
		}
		list = append(list, id)
	}
	return list, rows.Err()
}

// PutIncoming adds an event, unless the same server sent it before; in.Num is
// not looked at. Where more than most wait then, the oldest of them are dropped,
// and counted.
func (tx *Tx) PutIncoming(ctx context.Context, in Incoming, most InboxBounds) (dropped int64, err error) {
	num, err := tx.NextPosition(ctx)
	if err != nil {
		return 0, err
	}
	n, err := tx.ExecCount(ctx, `
		INSERT INTO inbox (num, room_id, event_id, origin, json, received_ts) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT DO NOTHING`, num, in.Room, in.ID, in.Origin, string(in.JSON), in.ReceivedTS)
	if err != nil {
		return 0, fmt.Errorf("put incoming: %w", err)
	}
	if n == 0 {
		return 0, nil
	}
	trim := func(which string, most int, args ...any) {
		if err == nil {
			n, err = tx.ExecCount(ctx, `DELETE FROM inbox WHERE `+which+`
				num <= (SELECT num FROM inbox WHERE `+which+` num > 0 ORDER BY num DESC LIMIT 1 OFFSET $1)`, append([]any{most}, args...)...)
			dropped += n
		}
	}
	trim(`origin = $2 AND`, most.Server, in.Origin)
	trim(`room_id = $2 AND`, most.Room, in.Room)
	trim(``, most.Total)
	if err != nil {
		return 0, fmt.Errorf("trim inbox: %w", err)
	}
	return dropped, nil
}

// DropIncoming deletes events that wait no longer.
func (tx *Tx) DropIncoming(ctx context.Context, nums []int64) error {
	if err := tx.Exec(ctx, `DELETE FROM inbox WHERE num IN LIST($1)`, nums); err != nil {
		return fmt.Errorf("drop incoming: %w", err)
	}
	return nil
}

// DropOldIncoming deletes events that came before a time (ms), and counts them.
func (tx *Tx) DropOldIncoming(ctx context.Context, before int64) (int64, error) {
	n, err := tx.ExecCount(ctx, `DELETE FROM inbox WHERE received_ts < $1`, before)
	if err != nil {
		return 0, fmt.Errorf("drop old incoming: %w", err)
	}
	return n, nil
}
