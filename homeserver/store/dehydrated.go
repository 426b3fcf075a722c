package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// Dehydrated is what the next device of a user needs to wake up the one that
// takes messages meanwhile.
type Dehydrated struct {
	User   matrix.UserID
	Device matrix.DeviceID
	Data   json.RawMessage // an object
}

// Dehydrated finds a user's dehydrated device. ok is false if there is none.
func (s *Store) Dehydrated(ctx context.Context, user matrix.UserID) (d Dehydrated, ok bool, err error) {
	return dehydrated(ctx, s.db, user)
}

// Dehydrated finds a user's dehydrated device as the transaction sees it. ok is
// false if there is none.
func (tx *Tx) Dehydrated(ctx context.Context, user matrix.UserID) (d Dehydrated, ok bool, err error) {
	return dehydrated(ctx, tx, user)
}

func dehydrated(ctx context.Context, q querier, user matrix.UserID) (Dehydrated, bool, error) {
	d := Dehydrated{User: user}
	err := q.QueryRow(ctx, `SELECT device_id, data FROM dehydrated_devices WHERE user_id = $1`, user).Scan(&d.Device, &d.Data)
	if errors.Is(err, database.ErrNoRows) {
		return d, false, nil
	}
	if err != nil {
		return d, false, fmt.Errorf("dehydrated device: %w", err)
	}
	return d, true, nil
}

// PutDehydrated makes a device the user's dehydrated one. DeleteDevice ends it.
func (tx *Tx) PutDehydrated(ctx context.Context, d Dehydrated) error {
	const q = `
		INSERT INTO dehydrated_devices (user_id, device_id, data) VALUES ($1, $2, $3)
		ON CONFLICT (user_id) DO UPDATE SET device_id = excluded.device_id, data = excluded.data`
	if err := tx.Exec(ctx, q, d.User, d.Device, string(d.Data)); err != nil {
		return fmt.Errorf("put dehydrated device: %w", err)
	}
	return nil
}
