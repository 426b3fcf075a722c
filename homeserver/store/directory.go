package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

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

// MoveDirectory gives the names of a room, and its places in lists of public
// rooms, to another room, which has none yet.
func (tx *Tx) MoveDirectory(ctx context.Context, from, to RoomNum) error {
	for _, q := range []string{`UPDATE aliases SET room = $2 WHERE room = $1`, `UPDATE published SET room = $2 WHERE room = $1`} {
		if err := tx.Exec(ctx, q, from, to); err != nil {
			return fmt.Errorf("move names of a room: %w", err)
		}
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

// Person is a user as others see them in a room.
type Person struct {
	User                   matrix.UserID
	DisplayName, AvatarURL string
}

// Visible calls f for each user of this server who shares a room with user or is
// in one that everybody may join or read, in order of their IDs, until f answers
// false. User is not among them.
func (s *Store) Visible(ctx context.Context, user matrix.UserID, f func(Person) bool) error {
	const q = `
		SELECT p.user_id, COALESCE(n.value, '""'), COALESCE(a.value, '""')
		FROM (SELECT DISTINCT m.user_id FROM memberships m WHERE m.membership = 'join' AND m.local AND (
				m.room IN (SELECT room FROM memberships WHERE user_id = $1 AND membership = 'join')
				OR m.room IN (SELECT num FROM rooms WHERE open))) p
			LEFT JOIN profile_fields n ON n.user_id = p.user_id AND n.name = 'displayname'
			LEFT JOIN profile_fields a ON a.user_id = p.user_id AND a.name = 'avatar_url'
		WHERE p.user_id <> $1 ORDER BY p.user_id`
	rows, err := s.db.Query(ctx, q, user)
	if err != nil {
		return fmt.Errorf("visible users: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var p Person
		var name, avatar string
		if err := rows.Scan(&p.User, &name, &avatar); err != nil {
			return fmt.Errorf("visible users: %w", err)
		}
		if json.Unmarshal([]byte(name), &p.DisplayName) != nil || json.Unmarshal([]byte(avatar), &p.AvatarURL) != nil {
			return fmt.Errorf("visible users: the profile of %s is broken", p.User)
		}
		if !f(p) {
			return nil
		}
	}
	return rows.Err()
}

// Elsewhere lists up to limit users of other servers who share a room with user or
// are in one that everybody may join or read, each with their membership in the
// smallest of these rooms; those of small rooms come first.
func (s *Store) Elsewhere(ctx context.Context, user matrix.UserID, limit int) ([]Membership, error) {
	const q = `SELECT m.user_id, m.room, m.event FROM memberships m JOIN rooms r ON r.num = m.room
		WHERE m.membership = 'join' AND NOT m.local AND (r.open OR m.room IN (SELECT room FROM memberships WHERE user_id = $1 AND membership = 'join'))
		ORDER BY r.joined, m.room, m.user_id LIMIT $2`
	rows, err := s.db.Query(ctx, q, user, limit)
	if err != nil {
		return nil, fmt.Errorf("visible users: %w", err)
	}
	defer rows.Close()
	var list []Membership
	known := map[matrix.UserID]bool{}
	for rows.Next() {
		m := Membership{Membership: "join"}
		if err := rows.Scan(&m.User, &m.Room, &m.Event); err != nil {
			return nil, fmt.Errorf("visible users: %w", err)
		}
		if !known[m.User] {
			known[m.User] = true
			list = append(list, m)
		}
	}
	return list, rows.Err()
}

// likeText is a text as part of a LIKE pattern with the escape character "!", in
// which it stands for itself.
func likeText(s string) string {
	return strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(s)
}
