package store

import (
	"context"
	"encoding/json"
	"fmt"

	"switchboard/homeserver/matrix"
)

// Outgoing is an ephemeral message to another server that must not be lost.
type Outgoing struct {
	Num     int64 // order in which the messages came
	Server  matrix.ServerName
	Type    string // of the EDU
	Content json.RawMessage
}

// Outbox lists up to limit messages that wait for a server, oldest first.
func (s *Store) Outbox(ctx context.Context, server matrix.ServerName, limit int) ([]Outgoing, error) {
	rows, err := s.db.Query(ctx, `SELECT num, type, content FROM outbox WHERE server = $1 ORDER BY num LIMIT $2`, server, limit)
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	defer rows.Close()
	var list []Outgoing
	for rows.Next() {
		o := Outgoing{Server: server}
		if err := rows.Scan(&o.Num, &o.Type, &o.Content); err != nil {
			return nil, fmt.Errorf("read outbox: %w", err)
		}
		list = append(list, o)
	}
	return list, rows.Err()
}

// OutboxServers lists the servers for which messages wait behind num, and the
// newest message.
func (s *Store) OutboxServers(ctx context.Context, after int64) (servers []matrix.ServerName, newest int64, err error) {
	rows, err := s.db.Query(ctx, `SELECT server, MAX(num) FROM outbox WHERE num > $1 GROUP BY server`, after)
	if err != nil {
		return nil, 0, fmt.Errorf("read outbox: %w", err)
	}
	defer rows.Close()
	newest = after
	for rows.Next() {
		var server matrix.ServerName
		var n int64
		if err := rows.Scan(&server, &n); err != nil {
			return nil, 0, fmt.Errorf("read outbox: %w", err)
		}
		servers, newest = append(servers, server), max(newest, n)
	}
	return servers, newest, rows.Err()
}

// PutOutgoing adds a message for a server; o.Num is not looked at. Ring LogBell
// afterwards.
func (tx *Tx) PutOutgoing(ctx context.Context, o Outgoing) error {
	pos, err := tx.NextPosition(ctx)
	if err != nil {
		return err
	}
	err = tx.Exec(ctx, `INSERT INTO outbox (num, server, type, content) VALUES ($1, $2, $3, $4)`, pos, o.Server, o.Type, string(o.Content))
	if err != nil {
		return fmt.Errorf("put outgoing: %w", err)
	}
	tx.Note(OutboxChanged, "", pos)
	return nil
}

// DropOutgoing deletes the messages for a server up to one that it has.
func (tx *Tx) DropOutgoing(ctx context.Context, server matrix.ServerName, upto int64) error {
	if err := tx.Exec(ctx, `DELETE FROM outbox WHERE server = $1 AND num <= $2`, server, upto); err != nil {
		return fmt.Errorf("drop outgoing: %w", err)
	}
	return nil
}

// Latest gives, in order, what leads a server to everything of some rooms behind a
// position of the log: of each room the newest event of users of us, and the
// newest membership of a user of neither server, who may have come in by us.
func (s *Store) Latest(ctx context.Context, rooms []RoomNum, us, them matrix.ServerName, since int64) ([]*Event, error) {
	return s.places(ctx, `SELECT num FROM events WHERE pos IN (
		SELECT MAX(pos) FROM events WHERE room IN LIST($1) AND pos > $2
			AND (sender LIKE $3 ESCAPE '!' OR `+isMember+` AND sender NOT LIKE $4 ESCAPE '!')
		GROUP BY room, sender LIKE $3 ESCAPE '!') ORDER BY pos`,
		rooms, since, "%:"+likeText(string(us)), "%:"+likeText(string(them)))
}
