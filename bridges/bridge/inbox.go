package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// inbox keeps what users do until the bridge knows what became of it, because
// mautrix acknowledges a transaction when its events are in memory. What is
// still kept when a bridge starts was cut off, and is handled again. So an event
// may be handled twice, if the process ends between the two, but never less than
// once.
type inbox struct {
	db   *dbutil.Database
	held held
}

// handlings is how often an event may be handled. One that ends the process each
// time must not do so for ever.
const handlings = 3

// openInbox makes the table the first time.
func openInbox(ctx context.Context, db *dbutil.Database) (*inbox, error) {
	const create = `CREATE TABLE IF NOT EXISTS bridge_inbox (
		num BIGINT PRIMARY KEY, event TEXT NOT NULL UNIQUE, room TEXT NOT NULL, type TEXT NOT NULL,
		txn TEXT NOT NULL, body TEXT NOT NULL, handlings INTEGER NOT NULL, settled INTEGER NOT NULL)`
	if _, err := db.Exec(ctx, create); err != nil {
		return nil, fmt.Errorf("create inbox: %w", err)
	}
	return &inbox{db: db, held: held{events: make(map[id.EventID][]json.RawMessage)}}, nil
}

// letter is an event of a transaction, as far as the inbox reads it.
type letter struct {
	ID       id.EventID     `json:"event_id"`
	Room     id.RoomID      `json:"room_id"`
	Type     string         `json:"type"`
	Sender   id.UserID      `json:"sender"`
	StateKey *string        `json:"state_key"`
	Redacts  id.EventID     `json:"redacts"`
	Time     float64        `json:"origin_server_ts"`
	Content  map[string]any `json:"content"`
}

// invites reports whether somebody is invited.
func (l *letter) invites() bool {
	return l.Type == event.StateMember.Type && l.StateKey != nil && l.Content["membership"] == string(event.MembershipInvite)
}

// settles reports whether the bridge tells what became of an event of this
// type, so that it can be kept until then.
func (l *letter) settles() bool {
	switch l.Type {
	case event.EventMessage.Type, event.EventSticker.Type, event.EventReaction.Type, event.EventRedaction.Type,
		event.EventUnstablePollStart.Type, event.EventUnstablePollResponse.Type:
		return l.StateKey == nil && l.ID != ""
	case event.StateRoomName.Type, event.StateTopic.Type, event.StateRoomAvatar.Type, event.StatePowerLevels.Type, event.StateMember.Type:
		return l.StateKey != nil && l.ID != ""
	}
	return false
}

// take keeps the events of a transaction that are wanted, and returns the
// transaction without those that it had already, because after an end in the middle
// the homeserver sends the newest one again, and those that have to wait.
func (b *inbox) take(ctx context.Context, txn string, body []byte, wanted func(*letter) bool) ([]byte, error) {
	var whole map[string]json.RawMessage
	var events, rest []json.RawMessage
	letters := make(map[int]letter)
	if err := json.Unmarshal(body, &whole); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(whole["events"], &events); whole["events"] != nil && err != nil {
		return nil, err
	}
	for i, e := range events {
		var l letter
		if json.Unmarshal(e, &l) == nil && l.settles() && wanted(&l) {
			letters[i] = l
		}
	}
	err := b.db.DoTxn(ctx, nil, func(ctx context.Context) error {
		rest = rest[:0]
		// Whoever sends another transaction knows that the one before arrived.
		if _, err := b.db.Exec(ctx, `DELETE FROM bridge_inbox WHERE settled = 1 AND txn <> $1`, txn); err != nil {
			return err
		}
		for i, e := range events {
			l, keep := letters[i]
			if !keep {
				rest = append(rest, e)
				continue
			}
			const put = `INSERT INTO bridge_inbox (num, event, room, type, txn, body, handlings, settled)
				SELECT COALESCE(MAX(num), 0) + 1, $1, $2, $3, $4, $5, 1, 0 FROM bridge_inbox WHERE TRUE
				ON CONFLICT (event) DO NOTHING`
			done, err := b.db.Exec(ctx, put, l.ID, l.Room, l.Type, txn, string(e))
			if err != nil {
				return err
			}
			if n, err := done.RowsAffected(); err != nil {
				return err
			} else if n > 0 {
				rest = append(rest, e)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("keep transaction: %w", err)
	}
	rest = b.hold(ctx, rest)
	if len(events) == len(rest) {
		return body, nil
	}
	if whole["events"], err = json.Marshal(rest); err != nil {
		return nil, err
	}
	return json.Marshal(whole)
}

// settle notes that it is known what became of an event. It stays, without its
// body, until the homeserver does not send it any more.
func (b *inbox) settle(ctx context.Context, e id.EventID) error {
	_, err := b.db.Exec(ctx, `UPDATE bridge_inbox SET settled = 1, body = '' WHERE event = $1`, e)
	return err
}

// cutOff is an event that was not settled.
type cutOff struct {
	letter
	body      json.RawMessage
	handlings int // how often it has been handled
}

// unsettled returns what was cut off, in the order in which it came, and counts
// that it is about to be handled once more.
func (b *inbox) unsettled(ctx context.Context) (list []cutOff, err error) {
	err = b.db.DoTxn(ctx, nil, func(ctx context.Context) error {
		list = nil
		rows, err := b.db.Query(ctx, `SELECT body, handlings FROM bridge_inbox WHERE settled = 0 ORDER BY num`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var c cutOff
			var body string
			if err := rows.Scan(&body, &c.handlings); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(body), &c.letter); err != nil {
				return err
			}
			c.body = json.RawMessage(body)
			list = append(list, c)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		_, err = b.db.Exec(ctx, `UPDATE bridge_inbox SET handlings = handlings + 1 WHERE settled = 0`)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read inbox: %w", err)
	}
	return list, nil
}
