package store

import (
	"context"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// RemoteDeviceList is how well the devices of a user of another server are
// known.
type RemoteDeviceList struct {
	User   matrix.UserID
	Stream int64 // of the newest update, as the user's server counts
	Stale  bool  // updates were missed
	Pos    int64 // of the log, when the user's server was asked last; 0: never
}

// RemoteDeviceLists lists what is known of some users of other servers. Users
// of whom nothing is known are left out.
func (s *Store) RemoteDeviceLists(ctx context.Context, users []matrix.UserID) ([]RemoteDeviceList, error) {
	return queryRemoteDeviceLists(ctx, s.db, `SELECT user_id, stream_id, stale, pos FROM remote_device_lists WHERE user_id IN LIST($1)`, users)
}

// StaleDeviceLists lists up to limit lists that somebody has asked for and of
// which updates were missed.
func (s *Store) StaleDeviceLists(ctx context.Context, limit int) ([]RemoteDeviceList, error) {
	return queryRemoteDeviceLists(ctx, s.db, `SELECT user_id, stream_id, stale, pos FROM remote_device_lists WHERE stale AND pos > 0 ORDER BY user_id LIMIT $1`, limit)
}

func queryRemoteDeviceLists(ctx context.Context, q querier, text string, args ...any) ([]RemoteDeviceList, error) {
	rows, err := q.Query(ctx, text, args...)
	if err != nil {
		return nil, fmt.Errorf("remote device lists: %w", err)
	}
	defer rows.Close()
	var list []RemoteDeviceList
	for rows.Next() {
		var l RemoteDeviceList
		if err := rows.Scan(&l.User, &l.Stream, &l.Stale, &l.Pos); err != nil {
			return nil, fmt.Errorf("remote device lists: %w", err)
		}
		list = append(list, l)
	}
	return list, rows.Err()
}

// RemoteDeviceList is what the transaction sees of one user; ok is false if
// nothing is known.
func (tx *Tx) RemoteDeviceList(ctx context.Context, user matrix.UserID) (l RemoteDeviceList, ok bool, err error) {
	err = tx.QueryRow(ctx, `SELECT user_id, stream_id, stale, pos FROM remote_device_lists WHERE user_id = $1`, user).Scan(&l.User, &l.Stream, &l.Stale, &l.Pos)
	if errors.Is(err, database.ErrNoRows) {
		return l, false, nil
	}
	if err != nil {
		return l, false, fmt.Errorf("remote device list: %w", err)
	}
	return l, true, nil
}

// RemoteDevices lists the devices of some users of other servers, with their
// keys; Keys is empty for those without. They may be stale.
func (s *Store) RemoteDevices(ctx context.Context, users []matrix.UserID) ([]DeviceKeys, error) {
	return queryRemoteDevices(ctx, s.db, users)
}

// RemoteDevices is the same as the transaction sees it.
func (tx *Tx) RemoteDevices(ctx context.Context, users []matrix.UserID) ([]DeviceKeys, error) {
	return queryRemoteDevices(ctx, tx, users)
}

func queryRemoteDevices(ctx context.Context, q querier, users []matrix.UserID) ([]DeviceKeys, error) {
	rows, err := q.Query(ctx, `SELECT user_id, device_id, keys, display_name FROM remote_devices WHERE user_id IN LIST($1)`, users)
	if err != nil {
		return nil, fmt.Errorf("remote devices: %w", err)
	}
	defer rows.Close()
	var list []DeviceKeys
	for rows.Next() {
		var k DeviceKeys
		if err := rows.Scan(&k.User, &k.Device, &k.Keys, &k.DisplayName); err != nil {
			return nil, fmt.Errorf("remote devices: %w", err)
		}
		list = append(list, k)
	}
	return list, rows.Err()
}

// PutRemoteDeviceList writes how well the devices of a user are known.
func (tx *Tx) PutRemoteDeviceList(ctx context.Context, l RemoteDeviceList) error {
	const q = `
		INSERT INTO remote_device_lists (user_id, stream_id, stale, pos) VALUES ($1, $2, $3, $4)
		ON CONFLICT (user_id) DO UPDATE SET stream_id = excluded.stream_id, stale = excluded.stale, pos = excluded.pos`
	if err := tx.Exec(ctx, q, l.User, l.Stream, l.Stale, l.Pos); err != nil {
		return fmt.Errorf("put remote device list: %w", err)
	}
	return nil
}

// PutRemoteDevice writes a device of a user of another server.
func (tx *Tx) PutRemoteDevice(ctx context.Context, k DeviceKeys) error {
	const q = `
		INSERT INTO remote_devices (user_id, device_id, keys, display_name) VALUES ($1, $2, $3, $4)
		ON CONFLICT (user_id, device_id) DO UPDATE SET keys = excluded.keys, display_name = excluded.display_name`
	if err := tx.Exec(ctx, q, k.User, k.Device, string(k.Keys), k.DisplayName); err != nil {
		return fmt.Errorf("put remote device: %w", err)
	}
	return nil
}

// DropRemoteDevice forgets a device of a user of another server.
func (tx *Tx) DropRemoteDevice(ctx context.Context, user matrix.UserID, device matrix.DeviceID) error {
	if err := tx.Exec(ctx, `DELETE FROM remote_devices WHERE user_id = $1 AND device_id = $2`, user, device); err != nil {
		return fmt.Errorf("drop remote device: %w", err)
	}
	return nil
}

// DropRemoteDevices forgets all devices of a user of another server.
func (tx *Tx) DropRemoteDevices(ctx context.Context, user matrix.UserID) error {
	if err := tx.Exec(ctx, `DELETE FROM remote_devices WHERE user_id = $1`, user); err != nil {
		return fmt.Errorf("drop remote devices: %w", err)
	}
	return nil
}

// CountRemoteDevices tells how many devices of a user of another server are
// known.
func (tx *Tx) CountRemoteDevices(ctx context.Context, user matrix.UserID) (n int, err error) {
	if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM remote_devices WHERE user_id = $1`, user).Scan(&n); err != nil {
		return 0, fmt.Errorf("count remote devices: %w", err)
	}
	return n, nil
}

// LocalNeighbours lists the users of this server who share a room with a user
// of any server.
func (s *Store) LocalNeighbours(ctx context.Context, user matrix.UserID) ([]matrix.UserID, error) {
	rows, err := s.db.Query(ctx, `SELECT room FROM memberships WHERE user_id = $1 AND membership = 'join'`, user)
	if err != nil {
		return nil, fmt.Errorf("neighbours: %w", err)
	}
	nums, err := scanNums(rows)
	if err != nil {
		return nil, fmt.Errorf("neighbours: %w", err)
	}
	seen := map[matrix.UserID]bool{}
	var list []matrix.UserID
	for _, n := range nums {
		for _, u := range s.LocalMembers(RoomNum(n)) {
			if !seen[u] {
				seen[u] = true
				list = append(list, u)
			}
		}
	}
	return list, nil
}

// SharedSince gives for each of some users of other servers a position of the
// log since which the user has shared a room with a user of this server without
// a break. It may be later than it could be, as when a user's name changed.
// Users who share no room are left out.
func (s *Store) SharedSince(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]int64, error) {
	rows, err := s.db.Query(ctx, `SELECT user_id, room, pos FROM memberships WHERE user_id IN LIST($1) AND membership = 'join'`, users)
	if err != nil {
		return nil, fmt.Errorf("shared rooms: %w", err)
	}
	defer rows.Close()
	since := map[matrix.UserID]int64{}
	ours := map[RoomNum]int64{}
	for rows.Next() {
		var u matrix.UserID
		var room RoomNum
		var pos int64
		if err := rows.Scan(&u, &room, &pos); err != nil {
			return nil, fmt.Errorf("shared rooms: %w", err)
		}
		from, seen := ours[room]
		if !seen {
			from = s.members.since(room)
			ours[room] = from
		}
		if from == 0 {
			continue
		}
		pos = max(pos, from)
		if old, ok := since[u]; !ok || pos < old {
			since[u] = pos
		}
	}
	return since, rows.Err()
}

// CameToUs tells whether a user of another server came into the rooms that it
// shares with users of this server later than the first of these.
func (s *Store) CameToUs(ctx context.Context, user matrix.UserID) (bool, error) {
	rows, err := s.db.Query(ctx, `SELECT room, pos FROM memberships WHERE user_id = $1 AND membership = 'join'`, user)
	if err != nil {
		return false, fmt.Errorf("shared rooms: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var room RoomNum
		var pos int64
		if err := rows.Scan(&room, &pos); err != nil {
			return false, fmt.Errorf("shared rooms: %w", err)
		}
		if from := s.members.since(room); from != 0 && pos <= from {
			return false, nil
		}
	}
	return true, rows.Err()
}

// NewestDeviceListChange is the position of the newest change of a user's keys
// that everybody may see; 0 if there was none.
func (s *Store) NewestDeviceListChange(ctx context.Context, user matrix.UserID) (pos int64, err error) {
	err = s.db.QueryRow(ctx, `SELECT pos FROM device_list_changes WHERE user_id = $1 AND observer = ''`, user).Scan(&pos)
	if errors.Is(err, database.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("newest device list change: %w", err)
	}
	return pos, nil
}
