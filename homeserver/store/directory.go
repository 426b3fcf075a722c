package store

import (
	"context"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// Alias is a name of a room on this server.
type Alias struct {
	Alias   matrix.RoomAlias
	Room    RoomNum
	Creator matrix.UserID
}

// Alias finds the room that a name of this server stands for, or answers
// ErrNotFound.
func (s *Store) Alias(ctx context.Context, alias matrix.RoomAlias) (Alias, error) {
	a := Alias{Alias: alias}
	err := s.db.QueryRow(ctx, `SELECT room, creator FROM aliases WHERE alias = $1`, alias).Scan(&a.Room, &a.Creator)
	if errors.Is(err, database.ErrNoRows) {
		return a, ErrNotFound
	}
	if err != nil {
		return a, fmt.Errorf("read alias: %w", err)
	}
	return a, nil
}

// Aliases lists the names that a room has on this server, in order.
func (s *Store) Aliases(ctx context.Context, room RoomNum) ([]matrix.RoomAlias, error) {
	rows, err := s.db.Query(ctx, `SELECT alias FROM aliases WHERE room = $1 ORDER BY alias`, room)
	if err != nil {
		return nil, fmt.Errorf("read aliases: %w", err)
	}
	defer rows.Close()
	list := []matrix.RoomAlias{}
	for rows.Next() {
		var a matrix.RoomAlias
		if err := rows.Scan(&a); err != nil {
			return nil, fmt.Errorf("read aliases: %w", err)
		}
		list = append(list, a)
	}
	return list, rows.Err()
}

// PutAlias gives a room a name, and tells false if the name is taken.
func (tx *Tx) PutAlias(ctx context.Context, a Alias) (bool, error) {
	n, err := tx.ExecCount(ctx, `INSERT INTO aliases (alias, room, creator) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, a.Alias, a.Room, a.Creator)
	if err != nil {
		return false, fmt.Errorf("put alias: %w", err)
	}
	return n == 1, nil
}

// DropAlias takes a name away.
func (tx *Tx) DropAlias(ctx context.Context, alias matrix.RoomAlias) error {
	if err := tx.Exec(ctx, `DELETE FROM aliases WHERE alias = $1`, alias); err != nil {
		return fmt.Errorf("drop alias: %w", err)
	}
	return nil
}

// Publish puts a room into a list of public rooms ("" is the server's own), or
// takes it out.
func (tx *Tx) Publish(ctx context.Context, list string, room RoomNum, public bool) error {
	q := `DELETE FROM published WHERE list = $1 AND room = $2`
	if public {
		q = `INSERT INTO published (list, room) VALUES ($1, $2) ON CONFLICT DO NOTHING`
	}
	if err := tx.Exec(ctx, q, list, room); err != nil {
		return fmt.Errorf("publish room: %w", err)
	}
	return nil
}

// Published tells whether a room is in a list of public rooms.
func (s *Store) Published(ctx context.Context, list string, room RoomNum) (bool, error) {
	var n int64
	err := s.db.QueryRow(ctx, `SELECT COUNT(*) FROM published WHERE list = $1 AND room = $2`, list, room).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("read public rooms: %w", err)
	}
	return n > 0, nil
}

// PublicRooms lists the rooms of a list ("*" for all lists), the largest first.
func (s *Store) PublicRooms(ctx context.Context, list string) ([]*Room, error) {
	const q = `SELECT ` + roomColumns + ` FROM rooms
		WHERE num IN (SELECT room FROM published WHERE list = $1 OR $1 = '*') ORDER BY joined DESC, num`
	rows, err := s.db.Query(ctx, q, list)
	if err != nil {
		return nil, fmt.Errorf("read public rooms: %w", err)
	}
	defer rows.Close()
	var rooms []*Room
	for rows.Next() {
		r, err := scanRoom(rows.Scan)
		if err != nil {
			return nil, err
		}
		rooms = append(rooms, r)
	}
	return rooms, rows.Err()
}
