package store

import (
	"context"
	"fmt"

	"switchboard/homeserver/matrix"
)

// Report is what a user finds inappropriate: an event, a room, or another user.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#reporting-content
type Report struct {
	Reporter matrix.UserID
	Room     matrix.RoomID  // "" for a user
	Event    matrix.EventID // "" for a user or a whole room
	User     matrix.UserID  // who is reported: the event's sender; "" for a room
	Reason   string
	TS       int64 // milliseconds
}

// PutReport stores a report, in place of an older one by the same user of the same;
// without a reason it has that of the older one.
func (tx *Tx) PutReport(ctx context.Context, r Report) error {
	err := tx.Exec(ctx, `INSERT INTO reports (reporter, room_id, event_id, user_id, reason, ts) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (reporter, room_id, event_id, user_id) DO UPDATE
		SET reason = CASE WHEN excluded.reason = '' THEN reports.reason ELSE excluded.reason END, ts = excluded.ts`,
		r.Reporter, r.Room, r.Event, r.User, r.Reason, r.TS)
	if err != nil {
		return fmt.Errorf("put report: %w", err)
	}
	return nil
}

// Reports lists up to limit reports, the newest first.
func (s *Store) Reports(ctx context.Context, limit int) ([]Report, error) {
	rows, err := s.db.Query(ctx, `SELECT reporter, room_id, event_id, user_id, reason, ts FROM reports ORDER BY ts DESC LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("read reports: %w", err)
	}
	defer rows.Close()
	var list []Report
	for rows.Next() {
		var r Report
		if err := rows.Scan(&r.Reporter, &r.Room, &r.Event, &r.User, &r.Reason, &r.TS); err != nil {
			return nil, fmt.Errorf("read reports: %w", err)
		}
		list = append(list, r)
	}
	return list, rows.Err()
}
