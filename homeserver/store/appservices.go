package store

import (
	"context"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// AppserviceSender is how far an appservice has been told of the log.
type AppserviceSender struct {
	Appservice string // ID of the registration
	Pos        int64  // everything up to it was told
	Txn        int64  // number of the newest transaction
	Upto       int64  // Pos when the transaction under way is through
	Body       []byte // the transaction under way; nil: none
}

// AppserviceSender finds how far an appservice has been told. ok is false if it
// was told nothing yet.
func (s *Store) AppserviceSender(ctx context.Context, appservice string) (a AppserviceSender, ok bool, err error) {
	a.Appservice = appservice
	err = s.db.QueryRow(ctx, `SELECT pos, txn, upto, body FROM appservice_senders WHERE appservice = $1`, appservice).
		Scan(&a.Pos, &a.Txn, &a.Upto, &a.Body)
	if errors.Is(err, database.ErrNoRows) {
		return AppserviceSender{}, false, nil
	}
	if err != nil {
		return AppserviceSender{}, false, fmt.Errorf("appservice sender: %w", err)
	}
	return a, true, nil
}

// PutAppserviceSender writes how far an appservice has been told.
func (tx *Tx) PutAppserviceSender(ctx context.Context, a AppserviceSender) error {
	const q = `
		INSERT INTO appservice_senders (appservice, pos, txn, upto, body) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (appservice)
		DO UPDATE SET pos = excluded.pos, txn = excluded.txn, upto = excluded.upto, body = excluded.body`
	if err := tx.Exec(ctx, q, a.Appservice, a.Pos, a.Txn, a.Upto, a.Body); err != nil {
		return fmt.Errorf("put appservice sender: %w", err)
	}
	return nil
}

// AllReceipts lists up to limit receipts behind since and not behind upto,
// private ones too, in order of position.
func (s *Store) AllReceipts(ctx context.Context, since, upto int64, limit int) ([]Receipt, error) {
	if !s.ChangedSince(ReceiptsChanged, "", since) {
		return nil, nil
	}
	return s.queryReceipts(ctx, `SELECT `+receiptColumns+` FROM receipts
		WHERE pos > $1 AND pos <= $2 ORDER BY pos LIMIT $3`, since, upto, limit)
}

// DropDelivered deletes the messages for a device up to a number.
func (tx *Tx) DropDelivered(ctx context.Context, user matrix.UserID, device matrix.DeviceID, num int64) error {
	if err := tx.Exec(ctx, `DELETE FROM to_device WHERE user_id = $1 AND device_id = $2 AND num <= $3`, user, device, num); err != nil {
		return fmt.Errorf("drop delivered messages: %w", err)
	}
	return nil
}

// DepartedSince lists the users of this server who were made to leave a room,
// or left, behind a position of the log.
func (s *Store) DepartedSince(ctx context.Context, room RoomNum, since int64) ([]matrix.UserID, error) {
	rows, err := s.db.Query(ctx, `SELECT user_id FROM memberships
		WHERE room = $1 AND membership IN ('leave', 'ban') AND local AND event > $2`, room, since)
	if err != nil {
		return nil, fmt.Errorf("departed since: %w", err)
	}
	defer rows.Close()
	var list []matrix.UserID
	for rows.Next() {
		var u matrix.UserID
		if err := rows.Scan(&u); err != nil {
			return nil, fmt.Errorf("departed since: %w", err)
		}
		list = append(list, u)
	}
	return list, rows.Err()
}
