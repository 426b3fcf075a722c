package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// Servers lists the servers that have members in a room, those with the most
// first.
func (s *Store) Servers(ctx context.Context, room RoomNum) ([]matrix.ServerName, error) {
	rows, err := s.db.Query(ctx, `SELECT server FROM room_servers WHERE room = $1 AND joined > 0 ORDER BY joined DESC, server`, room)
	if err != nil {
		return nil, fmt.Errorf("read servers: %w", err)
	}
	defer rows.Close()
	var list []matrix.ServerName
	for rows.Next() {
		var name matrix.ServerName
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("read servers: %w", err)
		}
		list = append(list, name)
	}
	return list, rows.Err()
}

// RoomsOf lists the rooms in which a server has members.
func (s *Store) RoomsOf(ctx context.Context, server matrix.ServerName) ([]RoomNum, error) {
	rows, err := s.db.Query(ctx, `SELECT room FROM room_servers WHERE server = $1 AND joined > 0 ORDER BY room`, server)
	if err != nil {
		return nil, fmt.Errorf("read rooms: %w", err)
	}
	defer rows.Close()
	var list []RoomNum
	for rows.Next() {
		var n RoomNum
		if err := rows.Scan(&n); err != nil {
			return nil, fmt.Errorf("read rooms: %w", err)
		}
		list = append(list, n)
	}
	return list, rows.Err()
}

// Departures lists the membership events that took users of a server out of rooms
// in which it has nobody any more, behind a position of the log, in order.
func (s *Store) Departures(ctx context.Context, server matrix.ServerName, since int64) ([]EventNum, error) {
	const q = `SELECT m.event FROM room_servers s JOIN memberships m ON m.room = s.room
		WHERE s.server = $1 AND s.joined = 0 AND m.pos > $2 AND m.user_id LIKE $3 ESCAPE '!' AND m.membership IN ('leave', 'ban') ORDER BY m.pos`
	rows, err := s.db.Query(ctx, q, server, since, "%:"+likeText(string(server)))
	if err != nil {
		return nil, fmt.Errorf("read departures: %w", err)
	}
	defer rows.Close()
	var list []EventNum
	for rows.Next() {
		var n EventNum
		if err := rows.Scan(&n); err != nil {
			return nil, fmt.Errorf("read departures: %w", err)
		}
		list = append(list, n)
	}
	return list, rows.Err()
}

// AllServers lists the servers that have or had members in some room.
func (s *Store) AllServers(ctx context.Context) ([]matrix.ServerName, error) {
	rows, err := s.db.Query(ctx, `SELECT DISTINCT server FROM room_servers ORDER BY server`)
	if err != nil {
		return nil, fmt.Errorf("read servers: %w", err)
	}
	defer rows.Close()
	var list []matrix.ServerName
	for rows.Next() {
		var name matrix.ServerName
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("read servers: %w", err)
		}
		list = append(list, name)
	}
	return list, rows.Err()
}

// ServerInRoom tells whether a server has members in a room.
func (s *Store) ServerInRoom(ctx context.Context, server matrix.ServerName, room RoomNum) (bool, error) {
	var n int64
	err := s.db.QueryRow(ctx, `SELECT joined FROM room_servers WHERE room = $1 AND server = $2`, room, server).Scan(&n)
	if errors.Is(err, database.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read servers: %w", err)
	}
	return n > 0, nil
}

// CountServer adds to how many members a server has in a room.
func (tx *Tx) CountServer(ctx context.Context, room RoomNum, server matrix.ServerName, more int) error {
	const q = `INSERT INTO room_servers (room, server, joined) VALUES ($1, $2, $3)
		ON CONFLICT (room, server) DO UPDATE SET joined = room_servers.joined + excluded.joined`
	if err := tx.Exec(ctx, q, room, server, more); err != nil {
		return fmt.Errorf("count server: %w", err)
	}
	return nil
}

// Stripped gives what an invitation or a knock of a user said of a room, none
// if nothing is known.
func (s *Store) Stripped(ctx context.Context, room RoomNum, user matrix.UserID) ([]json.RawMessage, error) {
	var raw string
	err := s.db.QueryRow(ctx, `SELECT events FROM stripped WHERE room = $1 AND user_id = $2`, room, user).Scan(&raw)
	if errors.Is(err, database.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read stripped state: %w", err)
	}
	var list []json.RawMessage
	if err := json.Unmarshal([]byte(raw), &list); err != nil {
		return nil, fmt.Errorf("read stripped state: %w", err)
	}
	return list, nil
}

// PutStripped keeps what an invitation or a knock of a user said of a room.
func (tx *Tx) PutStripped(ctx context.Context, room RoomNum, user matrix.UserID, events []json.RawMessage) error {
	raw, err := json.Marshal(events)
	if err != nil {
		return fmt.Errorf("put stripped state: %w", err)
	}
	const q = `INSERT INTO stripped (room, user_id, events) VALUES ($1, $2, $3)
		ON CONFLICT (room, user_id) DO UPDATE SET events = excluded.events`
	if err := tx.Exec(ctx, q, room, user, string(raw)); err != nil {
		return fmt.Errorf("put stripped state: %w", err)
	}
	return nil
}
