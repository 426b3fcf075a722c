package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// PutDeviceListChange writes at the next position of the log, which it returns,
// that the keys of a user changed. Observer is "" where everybody may see the
// change, else the only user who can.
func (tx *Tx) PutDeviceListChange(ctx context.Context, user, observer matrix.UserID) (int64, error) {
	pos, err := tx.NextPosition(ctx)
	if err != nil {
		return 0, fmt.Errorf("put device list change: %w", err)
	}
	const q = `
		INSERT INTO device_list_changes (user_id, observer, pos) VALUES ($1, $2, $3)
		ON CONFLICT (user_id, observer) DO UPDATE SET pos = excluded.pos`
	if err := tx.Exec(ctx, q, user, observer, pos); err != nil {
		return 0, fmt.Errorf("put device list change: %w", err)
	}
	tx.Note(DeviceListsChanged, "", pos)
	return pos, nil
}

// DeviceListChanges lists the users whose keys changed behind since and not
// behind upto, as far as observer may see it ("" sees what everybody may). Who
// changed again behind upto may be missing: a later call has that.
func (s *Store) DeviceListChanges(ctx context.Context, observer matrix.UserID, since, upto int64) ([]matrix.UserID, error) {
	if !s.ChangedSince(DeviceListsChanged, "", since) {
		return nil, nil
	}
	rows, err := s.db.Query(ctx, `
		SELECT DISTINCT user_id FROM device_list_changes
		WHERE pos > $1 AND pos <= $2 AND (observer = '' OR observer = $3)`, since, upto, observer)
	if err != nil {
		return nil, fmt.Errorf("device list changes: %w", err)
	}
	defer rows.Close()
	var list []matrix.UserID
	for rows.Next() {
		var u matrix.UserID
		if err := rows.Scan(&u); err != nil {
			return nil, fmt.Errorf("device list changes: %w", err)
		}
		list = append(list, u)
	}
	return list, rows.Err()
}

// isMember is true for rows of events that are memberships.
const isMember = `EXISTS (SELECT 1 FROM state_keys k WHERE k.num = events.key AND k.type = 'm.room.member')`

// MemberEvents lists the m.room.member events of some rooms behind since and
// not behind upto, in the order of the log within each room.
func (s *Store) MemberEvents(ctx context.Context, rooms []RoomNum, since, upto int64) ([]*Event, error) {
	var found []*Event
	var missing []RoomNum
	for _, r := range rooms {
		events, ok := s.log.inRoom(r, since, upto)
		if !ok {
			missing = append(missing, r)
		}
		for _, e := range events {
			if e.PDU.Type == "m.room.member" && e.PDU.StateKey != nil {
				found = append(found, e)
			}
		}
	}
	for part := range slices.Chunk(missing, 500) {
		list, err := s.queryEvents(ctx, `SELECT `+eventColumns+` FROM events
			WHERE room IN LIST($1) AND pos > $2 AND pos <= $3 AND `+isMember+` ORDER BY pos`, part, since, upto)
		if err != nil {
			return nil, err
		}
		found = append(found, list...)
	}
	return found, nil
}

// SharesRoom tells whether a user of this server and any user are joined to a
// common room.
func (s *Store) SharesRoom(ctx context.Context, local, other matrix.UserID) (bool, error) {
	if s.ShareRoom(local, other) {
		return true, nil
	}
	if local.Server() == other.Server() {
		return false, nil // all of that is in memory
	}
	var one int
	err := s.db.QueryRow(ctx, `
		SELECT 1 FROM memberships a JOIN memberships b ON b.room = a.room
		WHERE a.user_id = $1 AND a.membership = 'join' AND b.user_id = $2 AND b.membership = 'join' LIMIT 1`, local, other).Scan(&one)
	if errors.Is(err, database.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("shares room: %w", err)
	}
	return true, nil
}

// ShareRooms lists those of others who are joined to a room in which a user of
// this server is. It asks the database once for all users of other servers.
func (s *Store) ShareRooms(ctx context.Context, local matrix.UserID, others []matrix.UserID) ([]matrix.UserID, error) {
	var list, ask []matrix.UserID
	for _, u := range others {
		switch {
		case s.ShareRoom(local, u):
			list = append(list, u)
		case u.Server() != local.Server():
			ask = append(ask, u)
		}
	}
	if len(ask) == 0 {
		return list, nil
	}
	rows, err := s.db.Query(ctx, `
		SELECT DISTINCT b.user_id FROM memberships a JOIN memberships b ON b.room = a.room
		WHERE a.user_id = $1 AND a.membership = 'join' AND b.user_id IN LIST($2) AND b.membership = 'join'`, local, ask)
	if err != nil {
		return nil, fmt.Errorf("share rooms: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var u matrix.UserID
		if err := rows.Scan(&u); err != nil {
			return nil, fmt.Errorf("share rooms: %w", err)
		}
		list = append(list, u)
	}
	return list, rows.Err()
}
