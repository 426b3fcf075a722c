package store

import (
	"context"
	"fmt"
)

// AddCallTestLink writes a one-time link to the call test, of which sum is the
// SHA-256. All that have expired by now (ms) go.
func (tx *Tx) AddCallTestLink(ctx context.Context, sum []byte, expiresTS, now int64) error {
	if err := tx.Exec(ctx, `DELETE FROM call_test_links WHERE expires_ts <= $1`, now); err != nil {
		return fmt.Errorf("expire call test links: %w", err)
	}
	if err := tx.Exec(ctx, `INSERT INTO call_test_links (link, expires_ts) VALUES ($1, $2)`, sum, expiresTS); err != nil {
		return fmt.Errorf("add call test link: %w", err)
	}
	return nil
}

// HasCallTestLink tells whether there is a link that has not expired by now (ms).
func (s *Store) HasCallTestLink(ctx context.Context, sum []byte, now int64) (bool, error) {
	var n int64
	err := s.db.QueryRow(ctx, `SELECT count(*) FROM call_test_links WHERE link = $1 AND expires_ts > $2`, sum, now).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("call test link: %w", err)
	}
	return n > 0, nil
}

// TakeCallTestLink uses a link up. It reports false if there is none, or if it
// has expired by now (ms).
func (tx *Tx) TakeCallTestLink(ctx context.Context, sum []byte, now int64) (bool, error) {
	var n int64
	err := tx.QueryRow(ctx, `SELECT count(*) FROM call_test_links WHERE link = $1 AND expires_ts > $2`, sum, now).Scan(&n)
	if err == nil {
		err = tx.Exec(ctx, `DELETE FROM call_test_links WHERE link = $1`, sum)
	}
	if err != nil {
		return false, fmt.Errorf("take call test link: %w", err)
	}
	return n > 0, nil
}
