package store

import (
	"context"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// Destination is another server as we reach it.
type Destination struct {
	Server    matrix.ServerName
	Failures  int64 // in a row, since the server was last reached
	FailingTS int64 // when the first of them was, milliseconds; 0: none
	RetryTS   int64 // not to be asked before, milliseconds
	SuccessTS int64 // when it was last reached, to about an hour, milliseconds; 0: never
	Pos       int64 // of the log: everything up to it was sent; 0: sending has not begun
}

const destinationColumns = `server, failures, failing_ts, retry_ts, success_ts, pos`

func (d *Destination) columns() []any {
	return []any{&d.Server, &d.Failures, &d.FailingTS, &d.RetryTS, &d.SuccessTS, &d.Pos}
}

// Destination finds what is known of another server. ok is false if that is
// nothing.
func (s *Store) Destination(ctx context.Context, server matrix.ServerName) (d Destination, ok bool, err error) {
	err = s.db.QueryRow(ctx, `SELECT `+destinationColumns+` FROM destinations WHERE server = $1`, server).Scan(d.columns()...)
	if errors.Is(err, database.ErrNoRows) {
		return Destination{Server: server}, false, nil
	}
	if err != nil {
		return Destination{}, false, fmt.Errorf("destination: %w", err)
	}
	return d, true, nil
}

// Destinations lists up to limit servers in order of their names, those behind
// after.
func (s *Store) Destinations(ctx context.Context, after matrix.ServerName, limit int) ([]Destination, error) {
	rows, err := s.db.Query(ctx, `SELECT `+destinationColumns+` FROM destinations WHERE server > $1 ORDER BY server LIMIT $2`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("destinations: %w", err)
	}
	defer rows.Close()
	var list []Destination
	for rows.Next() {
		var d Destination
		if err := rows.Scan(d.columns()...); err != nil {
			return nil, fmt.Errorf("destinations: %w", err)
		}
		list = append(list, d)
	}
	return list, rows.Err()
}

// PutReach writes how a server is reached: all of d but its position, which
// stays.
func (tx *Tx) PutReach(ctx context.Context, d Destination) error {
	const q = `
		INSERT INTO destinations (server, failures, failing_ts, retry_ts, success_ts, pos) VALUES ($1, $2, $3, $4, $5, 0)
		ON CONFLICT (server) DO UPDATE SET
			failures = excluded.failures, failing_ts = excluded.failing_ts, retry_ts = excluded.retry_ts, success_ts = excluded.success_ts`
	if err := tx.Exec(ctx, q, d.Server, d.Failures, d.FailingTS, d.RetryTS, d.SuccessTS); err != nil {
		return fmt.Errorf("put reach: %w", err)
	}
	return nil
}

// PutSent writes up to which position of the log a server was sent everything.
// How it is reached stays.
func (tx *Tx) PutSent(ctx context.Context, server matrix.ServerName, pos int64) error {
	const q = `
		INSERT INTO destinations (server, failures, failing_ts, retry_ts, success_ts, pos) VALUES ($1, 0, 0, 0, 0, $2)
		ON CONFLICT (server) DO UPDATE SET pos = excluded.pos`
	if err := tx.Exec(ctx, q, server, pos); err != nil {
		return fmt.Errorf("put sent: %w", err)
	}
	return nil
}
