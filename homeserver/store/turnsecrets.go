package store

import (
	"context"
	"fmt"
)

// TURNSecret signs the credentials of our TURN server.
type TURNSecret struct {
	Value  []byte
	MadeTS int64 // milliseconds
}

// TURNSecrets lists the secrets that are kept, the newest first.
func (s *Store) TURNSecrets(ctx context.Context) ([]TURNSecret, error) {
	rows, err := s.db.Query(ctx, `SELECT secret, made_ts FROM turn_secrets ORDER BY made_ts DESC`)
	if err != nil {
		return nil, fmt.Errorf("turn secrets: %w", err)
	}
	defer rows.Close()
	var list []TURNSecret
	for rows.Next() {
		var t TURNSecret
		if err := rows.Scan(&t.Value, &t.MadeTS); err != nil {
			return nil, fmt.Errorf("turn secrets: %w", err)
		}
		list = append(list, t)
	}
	return list, rows.Err()
}

// AddTURNSecret keeps one more and forgets those made before a time (ms).
func (tx *Tx) AddTURNSecret(ctx context.Context, t TURNSecret, before int64) error {
	if err := tx.Exec(ctx, `DELETE FROM turn_secrets WHERE made_ts < $1`, before); err != nil {
		return fmt.Errorf("add turn secret: %w", err)
	}
	if err := tx.Exec(ctx, `INSERT INTO turn_secrets (secret, made_ts) VALUES ($1, $2)`, t.Value, t.MadeTS); err != nil {
		return fmt.Errorf("add turn secret: %w", err)
	}
	return nil
}
