package store

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"switchboard/homeserver/matrix"
)

// DelayedEvent is an event that a client wants sent later.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/4140
type DelayedEvent struct {
	ID       string
	User     matrix.UserID
	Device   matrix.DeviceID
	Txn      string // "" where the request had none
	Room     matrix.RoomID
	Type     string
	StateKey *string
	Content  json.RawMessage
	At       int64 // time (ms) that an appservice gives the event; 0 for when it is sent
	Delay    int64 // ms
	SinceTS  int64 // when the delay began, ms
	FinalTS  int64 // when it was sent or given up, ms; 0: not yet
	Event    matrix.EventID
	Error    string // JSON; "" unless one kept it from being sent
}

// Due is when the event is to be sent, ms.
func (d *DelayedEvent) Due() int64 { return d.SinceTS + d.Delay }

const delayedColumns = `delay_id, user_id, device_id, txn, room_id, type, state_key, content, at, delay, since_ts, final_ts, event_id, error`

func (s *Store) queryDelayed(ctx context.Context, where string, args ...any) ([]DelayedEvent, error) {
	rows, err := s.db.Query(ctx, `SELECT `+delayedColumns+` FROM delayed_events `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read delayed events: %w", err)
	}
	defer rows.Close()
	var list []DelayedEvent
	for rows.Next() {
		var d DelayedEvent
		err := rows.Scan(&d.ID, &d.User, &d.Device, &d.Txn, &d.Room, &d.Type, &d.StateKey, &d.Content, &d.At, &d.Delay, &d.SinceTS, &d.FinalTS, &d.Event, &d.Error)
		if err != nil {
			return nil, fmt.Errorf("read delayed events: %w", err)
		}
		list = append(list, d)
	}
	return list, rows.Err()
}

// ScheduledEvents lists all delayed events that are still to be sent.
func (s *Store) ScheduledEvents(ctx context.Context) ([]DelayedEvent, error) {
	return s.queryDelayed(ctx, `WHERE final_ts = 0 ORDER BY delay_id`)
}

// DelayedEvent finds a delayed event, or answers ErrNotFound.
func (s *Store) DelayedEvent(ctx context.Context, id string) (DelayedEvent, error) {
	return s.oneDelayed(ctx, `WHERE delay_id = $1`, id)
}

// DelayedByTxn finds the delayed event with the user, device, transaction ID, room
// and type of d, or answers ErrNotFound.
func (s *Store) DelayedByTxn(ctx context.Context, d DelayedEvent) (DelayedEvent, error) {
	return s.oneDelayed(ctx, `WHERE user_id = $1 AND device_id = $2 AND txn = $3 AND room_id = $4 AND type = $5`, d.User, d.Device, d.Txn, d.Room, d.Type)
}

func (s *Store) oneDelayed(ctx context.Context, where string, args ...any) (DelayedEvent, error) {
	list, err := s.queryDelayed(ctx, where, args...)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return DelayedEvent{}, err
	}
	return list[0], nil
}

// DelayedEvents lists a user's delayed events, those first that are due first.
func (s *Store) DelayedEvents(ctx context.Context, user matrix.UserID) ([]DelayedEvent, error) {
	return s.queryDelayed(ctx, `WHERE user_id = $1 ORDER BY since_ts + delay, delay_id`, user)
}

// DelayedEndpoint is the endpoint of the request of a delayed event: its
// transaction ID is the delayed event's.
const DelayedEndpoint = "delayed"

// delayers are the users who have delayed events, or had some lately.
type delayers struct {
	mu    sync.RWMutex // tier 1; guards users
	users map[matrix.UserID]struct{}
}

// Delays tells whether a user may have sent delayed events.
func (s *Store) Delays(user matrix.UserID) bool {
	s.delayers.mu.RLock()
	defer s.delayers.mu.RUnlock()
	_, ok := s.delayers.users[user]
	return ok
}

func (s *Store) loadDelayers(ctx context.Context) error {
	s.delayers.users = map[matrix.UserID]struct{}{}
	list, err := s.queryDelayed(ctx, ``)
	for _, d := range list {
		s.delayers.users[d.User] = struct{}{}
	}
	return err
}

// PutDelayedEvent writes a delayed event, in place of what it was.
func (tx *Tx) PutDelayedEvent(ctx context.Context, d DelayedEvent) error {
	err := tx.Exec(ctx, `INSERT INTO delayed_events (`+delayedColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
		ON CONFLICT (delay_id) DO UPDATE SET since_ts = excluded.since_ts, final_ts = excluded.final_ts, event_id = excluded.event_id, error = excluded.error`,
		d.ID, d.User, d.Device, d.Txn, d.Room, d.Type, d.StateKey, string(d.Content), d.At, d.Delay, d.SinceTS, d.FinalTS, d.Event, d.Error)
	if err != nil {
		return fmt.Errorf("put delayed event: %w", err)
	}
	tx.OnCommit(func() {
		tx.s.delayers.mu.Lock()
		defer tx.s.delayers.mu.Unlock()
		tx.s.delayers.users[d.User] = struct{}{}
	})
	return nil
}

// DropDelayedEvents forgets what became of delayed events before a time, ms.
func (tx *Tx) DropDelayedEvents(ctx context.Context, before int64) error {
	if err := tx.Exec(ctx, `DELETE FROM delayed_events WHERE final_ts > 0 AND final_ts < $1`, before); err != nil {
		return fmt.Errorf("drop delayed events: %w", err)
	}
	return nil
}
