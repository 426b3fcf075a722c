package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// Receipt says up to which event a user has read.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#receipts
type Receipt struct {
	Room   RoomNum
	User   matrix.UserID
	Type   string // "m.read" or "m.read.private"
	Thread string // "main", the root's event ID, or "" for the whole room
	Event  matrix.EventID
	Place  int64 // of the event in the room's timeline
	TS     int64 // milliseconds
	Pos    int64 // when it was written
}

// Receipts lists the receipts in some rooms that were written behind since and
// not behind upto, in order of position: public ones, and the private ones of
// observer ("" for none).
func (s *Store) Receipts(ctx context.Context, observer matrix.UserID, rooms []RoomNum, since, upto int64) ([]Receipt, error) {
	var changed []RoomNum
	for _, r := range rooms {
		if s.ChangedSince(ReceiptsChanged, roomKey(r), since) {
			changed = append(changed, r)
		}
	}
	if len(changed) == 0 {
		return nil, nil
	}
	return s.queryReceipts(ctx, `SELECT `+receiptColumns+` FROM receipts
		WHERE room IN LIST($1) AND pos > $2 AND pos <= $3 AND (type <> 'm.read.private' OR user_id = $4) ORDER BY pos`, changed, since, upto, observer)
}

// ReceiptNews is Receipts for all rooms that observer, a user of this server, is in
// now.
func (s *Store) ReceiptNews(ctx context.Context, observer matrix.UserID, since, upto int64) ([]Receipt, error) {
	if !s.ChangedSince(ReceiptsChanged, "", since) {
		return nil, nil
	}
	type key struct {
		room              RoomNum
		user, typ, thread string
	}
	list, sure := rows(s.receipts, since, upto,
		func(r *Receipt) bool {
			return (r.Type != "m.read.private" || r.User == observer) && s.Membership(observer, r.Room).Membership == "join"
		},
		func(r *Receipt) key { return key{r.Room, string(r.User), r.Type, r.Thread} })
	if sure {
		return list, nil
	}
	return s.queryReceipts(ctx, `SELECT `+receiptColumns+` FROM receipts
		WHERE room IN (SELECT room FROM memberships WHERE user_id = $1 AND membership = 'join')
		AND pos > $2 AND pos <= $3 AND (type <> 'm.read.private' OR user_id = $1) ORDER BY pos`, observer, since, upto)
}

const receiptColumns = `room, user_id, type, thread, event_id, place, ts, pos`

func (s *Store) queryReceipts(ctx context.Context, q string, args ...any) ([]Receipt, error) {
	rows, err := s.db.Query(ctx, q, args...)
	if err != nil {
		return nil, fmt.Errorf("receipts: %w", err)
	}
	defer rows.Close()
	var list []Receipt
	for rows.Next() {
		var r Receipt
		if err := rows.Scan(&r.Room, &r.User, &r.Type, &r.Thread, &r.Event, &r.Place, &r.TS, &r.Pos); err != nil {
			return nil, fmt.Errorf("receipts: %w", err)
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

// UserReceipts lists all receipts of a user in a room, private ones too.
func (s *Store) UserReceipts(ctx context.Context, user matrix.UserID, room RoomNum) ([]Receipt, error) {
	return s.queryReceipts(ctx, `SELECT `+receiptColumns+` FROM receipts WHERE room = $1 AND user_id = $2`, room, user)
}

// ReceiptsOf lists all receipts of a user in some rooms, private ones too.
func (s *Store) ReceiptsOf(ctx context.Context, user matrix.UserID, rooms []RoomNum) ([]Receipt, error) {
	return s.queryReceipts(ctx, `SELECT `+receiptColumns+` FROM receipts WHERE room IN LIST($1) AND user_id = $2`, rooms, user)
}

// UserReceiptNews lists what a user has read in a room behind since, and false if
// memory does not reach back that far.
func (s *Store) UserReceiptNews(user matrix.UserID, room RoomNum, since int64) ([]Receipt, bool) {
	return s.receipts.after(since, func(r *Receipt) bool { return r.Room == room && r.User == user })
}

// ReceiptLog lists up to limit public receipts of all rooms behind since, in
// order of position, for those who carry them to other servers.
func (s *Store) ReceiptLog(ctx context.Context, since int64, limit int) ([]Receipt, error) {
	return s.queryReceipts(ctx, `SELECT `+receiptColumns+` FROM receipts
		WHERE pos > $1 AND pos <= $2 AND type <> 'm.read.private' ORDER BY pos LIMIT $3`, since, s.Position(), limit)
}

// roomKey is the key of a room for Note and ChangedSince.
func roomKey(r RoomNum) string { return strconv.FormatInt(int64(r), 10) }

// PutReceipt writes a receipt at the next position of the log, unless the user
// has one of that type and thread for the same event or a later one. moved
// tells whether it was written. r.Pos is not looked at.
func (tx *Tx) PutReceipt(ctx context.Context, r Receipt) (moved bool, err error) {
	pos, err := tx.NextPosition(ctx)
	if err != nil {
		return false, fmt.Errorf("put receipt: %w", err)
	}
	n, err := tx.ExecCount(ctx, `
		INSERT INTO receipts (room, user_id, type, thread, event_id, place, ts, pos) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (room, user_id, type, thread) DO UPDATE
		SET event_id = excluded.event_id, place = excluded.place, ts = excluded.ts, pos = excluded.pos
		WHERE receipts.place < excluded.place`,
		r.Room, r.User, r.Type, r.Thread, r.Event, r.Place, r.TS, pos)
	if err != nil {
		return false, fmt.Errorf("put receipt: %w", err)
	}
	if n > 0 {
		r.Pos = pos
		tx.OnCommit(func() { tx.s.receipts.add(r) })
		tx.Note(ReceiptsChanged, roomKey(r.Room), pos)
		tx.Note(ReceiptsChanged, "", pos)
	}
	return n > 0, nil
}

// HasReceipt tells whether a user has a receipt of a type and thread for the
// event at a place of a room's timeline or a later one.
func (s *Store) HasReceipt(ctx context.Context, r Receipt) (bool, error) {
	var place int64
	err := s.db.QueryRow(ctx, `SELECT place FROM receipts WHERE room = $1 AND user_id = $2 AND type = $3 AND thread = $4`,
		r.Room, r.User, r.Type, r.Thread).Scan(&place)
	if errors.Is(err, database.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("has receipt: %w", err)
	}
	return place >= r.Place, nil
}

// ReceiptsChangedSince tells whether somebody may have written a receipt in a
// room behind since.
func (s *Store) ReceiptsChangedSince(room RoomNum, since int64) bool {
	return s.ChangedSince(ReceiptsChanged, roomKey(room), since)
}
