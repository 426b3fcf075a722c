package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// ToDevice is a message that waits for a device.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
type ToDevice struct {
	User    matrix.UserID // whose device
	Device  matrix.DeviceID
	Sender  matrix.UserID
	Type    string
	Content json.RawMessage // an object
	Num     int64           // order in which the messages of all devices came
	Pos     int64           // where a sync finds it
}

const toDeviceColumns = `user_id, device_id, sender, type, content, num, pos`

// ToDevice lists up to limit messages for a device behind since and not behind
// upto, in the order in which they came.
func (s *Store) ToDevice(ctx context.Context, user matrix.UserID, device matrix.DeviceID, since, upto int64, limit int) ([]ToDevice, error) {
	if !s.ChangedSince(ToDeviceChanged, string(user), since) {
		return nil, nil
	}
	return s.queryToDevice(ctx, `SELECT `+toDeviceColumns+` FROM to_device
		WHERE user_id = $1 AND device_id = $2 AND pos > $3 AND pos <= $4 ORDER BY pos, num LIMIT $5`, user, device, since, upto, limit)
}

// ToDeviceLog lists about limit messages that wait for any device of this
// server and came behind since, in the order in which they came. Messages with
// the same Num are all in it, or none of them is.
func (s *Store) ToDeviceLog(ctx context.Context, since int64, limit int) ([]ToDevice, error) {
	if !s.ChangedSince(ToDeviceChanged, "", since) {
		return nil, nil
	}
	return s.queryToDevice(ctx, `SELECT `+toDeviceColumns+` FROM to_device
		WHERE num > $1 AND num <= (SELECT COALESCE(MAX(num), 0) FROM (
			SELECT num FROM to_device WHERE num > $1 AND num <= $2 ORDER BY num LIMIT $3) AS first)
		ORDER BY num, user_id, device_id`, since, s.Position(), limit)
}

func (s *Store) queryToDevice(ctx context.Context, q string, args ...any) ([]ToDevice, error) {
	rows, err := s.db.Query(ctx, q, args...)
	if err != nil {
		return nil, fmt.Errorf("to-device messages: %w", err)
	}
	defer rows.Close()
	var list []ToDevice
	for rows.Next() {
		var m ToDevice
		if err := rows.Scan(&m.User, &m.Device, &m.Sender, &m.Type, &m.Content, &m.Num, &m.Pos); err != nil {
			return nil, fmt.Errorf("to-device messages: %w", err)
		}
		list = append(list, m)
	}
	return list, rows.Err()
}

// PutToDevice writes messages, of which each device gets at most one, at the
// next position of the log, which it returns. Their Num and Pos are not looked
// at.
func (tx *Tx) PutToDevice(ctx context.Context, messages []ToDevice) (int64, error) {
	pos, err := tx.NextPosition(ctx)
	if err != nil {
		return 0, fmt.Errorf("put to-device message: %w", err)
	}
	const q = `
		INSERT INTO to_device (user_id, device_id, num, pos, sender, type, content)
		VALUES ($1, $2, $3, $3, $4, $5, $6)`
	for _, m := range messages {
		if err := tx.Exec(ctx, q, m.User, m.Device, pos, m.Sender, m.Type, m.Content); err != nil {
			return 0, fmt.Errorf("put to-device message: %w", err)
		}
		tx.Note(ToDeviceChanged, string(m.User), pos)
	}
	tx.Note(ToDeviceChanged, "", pos)
	return pos, nil
}

// HasToDevice tells whether messages up to a position wait for a device.
func (s *Store) HasToDevice(ctx context.Context, user matrix.UserID, device matrix.DeviceID, upto int64) (bool, error) {
	var one int
	err := s.db.QueryRow(ctx, `SELECT 1 FROM to_device WHERE user_id = $1 AND device_id = $2 AND pos <= $3 LIMIT 1`, user, device, upto).Scan(&one)
	if errors.Is(err, database.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("has to-device messages: %w", err)
	}
	return true, nil
}

// DropToDevice deletes the messages for a device up to a position.
func (tx *Tx) DropToDevice(ctx context.Context, user matrix.UserID, device matrix.DeviceID, upto int64) error {
	if err := tx.Exec(ctx, `DELETE FROM to_device WHERE user_id = $1 AND device_id = $2 AND pos <= $3`, user, device, upto); err != nil {
		return fmt.Errorf("drop to-device messages: %w", err)
	}
	return nil
}

// PutOffToDevice moves the messages for a device that stand behind last, a
// message, to the next position of the log. They keep their order.
func (tx *Tx) PutOffToDevice(ctx context.Context, last ToDevice) error {
	pos, err := tx.NextPosition(ctx)
	if err != nil {
		return fmt.Errorf("put off to-device messages: %w", err)
	}
	const q = `
		UPDATE to_device SET pos = $1 WHERE user_id = $2 AND device_id = $3
		AND (pos > $4 OR pos = $4 AND num > $5)`
	if err := tx.Exec(ctx, q, pos, last.User, last.Device, last.Pos, last.Num); err != nil {
		return fmt.Errorf("put off to-device messages: %w", err)
	}
	tx.Note(ToDeviceChanged, string(last.User), pos)
	return nil
}

// AddToDeviceRequest remembers a sendToDevice request at a time (ms). added is
// false if it came before.
func (tx *Tx) AddToDeviceRequest(ctx context.Context, user matrix.UserID, device matrix.DeviceID, typ, txn string, at int64) (added bool, err error) {
	n, err := tx.ExecCount(ctx, `
		INSERT INTO to_device_requests (user_id, device_id, type, txn, at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (user_id, device_id, type, txn) DO NOTHING`, user, device, typ, txn, at)
	if err != nil {
		return false, fmt.Errorf("add to-device request: %w", err)
	}
	return n > 0, nil
}

// DropToDeviceRequests forgets the sendToDevice requests before a time (ms).
func (tx *Tx) DropToDeviceRequests(ctx context.Context, before int64) error {
	if err := tx.Exec(ctx, `DELETE FROM to_device_requests WHERE at < $1`, before); err != nil {
		return fmt.Errorf("drop to-device requests: %w", err)
	}
	return nil
}
