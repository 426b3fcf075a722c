package store

import (
	"context"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// Device is one of a local user's devices.
type Device struct {
	User        matrix.UserID
	ID          matrix.DeviceID
	DisplayName string // "" where none was given
	CreatedTS   int64  // milliseconds
	LastSeen    Sighting
}

// Sighting is when and where a device was last seen.
type Sighting struct {
	TS        int64  // milliseconds; 0: never
	Address   string // IP address
	UserAgent string
}

const deviceColumns = `user_id, device_id, display_name, created_ts, last_seen_ts, last_seen_ip, last_seen_agent`

func scanDevice(row scanner) (Device, error) {
	var d Device
	err := row.Scan(&d.User, &d.ID, &d.DisplayName, &d.CreatedTS, &d.LastSeen.TS, &d.LastSeen.Address, &d.LastSeen.UserAgent)
	return d, err
}

// Device finds a device. ok is false if there is none.
func (s *Store) Device(ctx context.Context, user matrix.UserID, id matrix.DeviceID) (d Device, ok bool, err error) {
	return device(ctx, s.db, user, id)
}

// Device finds a device as the transaction sees it. ok is false if there is
// none.
func (tx *Tx) Device(ctx context.Context, user matrix.UserID, id matrix.DeviceID) (d Device, ok bool, err error) {
	return device(ctx, tx, user, id)
}

func device(ctx context.Context, q querier, user matrix.UserID, id matrix.DeviceID) (Device, bool, error) {
	d, err := scanDevice(q.QueryRow(ctx, `SELECT `+deviceColumns+` FROM devices WHERE user_id = $1 AND device_id = $2`, user, id))
	if errors.Is(err, database.ErrNoRows) {
		return Device{}, false, nil
	}
	if err != nil {
		return Device{}, false, fmt.Errorf("device: %w", err)
	}
	return d, true, nil
}

// Devices lists the user's devices in order of their IDs.
func (s *Store) Devices(ctx context.Context, user matrix.UserID) ([]Device, error) {
	return devices(ctx, s.db, user)
}

// Devices lists the user's devices in order of their IDs, as the transaction
// sees them.
func (tx *Tx) Devices(ctx context.Context, user matrix.UserID) ([]Device, error) {
	return devices(ctx, tx, user)
}

func devices(ctx context.Context, q querier, user matrix.UserID) ([]Device, error) {
	rows, err := q.Query(ctx, `SELECT `+deviceColumns+` FROM devices WHERE user_id = $1 ORDER BY device_id`, user)
	if err != nil {
		return nil, fmt.Errorf("devices: %w", err)
	}
	defer rows.Close()
	var list []Device
	for rows.Next() {
		d, err := scanDevice(rows)
		if err != nil {
			return nil, fmt.Errorf("devices: %w", err)
		}
		list = append(list, d)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("devices: %w", err)
	}
	return list, nil
}

// PutDevice writes a device. Of one that exists only the display name changes,
// and that only if d has one.
func (tx *Tx) PutDevice(ctx context.Context, d Device) error {
	const q = `
		INSERT INTO devices (user_id, device_id, display_name, created_ts, last_seen_ts, last_seen_ip, last_seen_agent)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (user_id, device_id) DO UPDATE
		SET display_name = CASE WHEN excluded.display_name = '' THEN devices.display_name ELSE excluded.display_name END`
	err := tx.Exec(ctx, q, d.User, d.ID, d.DisplayName, d.CreatedTS, d.LastSeen.TS, d.LastSeen.Address, d.LastSeen.UserAgent)
	if err != nil {
		return fmt.Errorf("put device: %w", err)
	}
	return nil
}

// SetDeviceName renames a device that exists.
func (tx *Tx) SetDeviceName(ctx context.Context, user matrix.UserID, id matrix.DeviceID, name string) error {
	err := tx.Exec(ctx, `UPDATE devices SET display_name = $3 WHERE user_id = $1 AND device_id = $2`, user, id, name)
	if err != nil {
		return fmt.Errorf("set device name: %w", err)
	}
	return nil
}

// SetDeviceSeen notes a newer sighting of a device; an older one is ignored.
func (tx *Tx) SetDeviceSeen(ctx context.Context, user matrix.UserID, id matrix.DeviceID, at Sighting) error {
	const q = `
		UPDATE devices SET last_seen_ts = $3, last_seen_ip = $4, last_seen_agent = $5
		WHERE user_id = $1 AND device_id = $2 AND last_seen_ts <= $3`
	if err := tx.Exec(ctx, q, user, id, at.TS, at.Address, at.UserAgent); err != nil {
		return fmt.Errorf("set device seen: %w", err)
	}
	return nil
}

// DeleteDevice deletes a device with its tokens and pushers, also if it is
// dehydrated.
func (tx *Tx) DeleteDevice(ctx context.Context, user matrix.UserID, id matrix.DeviceID) error {
	for _, table := range []string{"tokens", "pushers", "dehydrated_devices", "devices"} {
		if err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE user_id = $1 AND device_id = $2`, user, id); err != nil {
			return fmt.Errorf("delete device from %s: %w", table, err)
		}
	}
	return nil
}
