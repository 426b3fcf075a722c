package store

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// Filter reads a filter of a user, as it was stored. ok is false if there is
// none.
func (s *Store) Filter(ctx context.Context, user matrix.UserID, id int64) (filter json.RawMessage, ok bool, err error) {
	err = s.db.QueryRow(ctx, `SELECT filter FROM filters WHERE user_id = $1 AND filter_id = $2`, user, id).Scan(&filter)
	if errors.Is(err, database.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("filter: %w", err)
	}
	return filter, true, nil
}

// FilterID finds the number of a filter that the user has stored before. ok is
// false if there is none.
func (s *Store) FilterID(ctx context.Context, user matrix.UserID, filter json.RawMessage) (id int64, ok bool, err error) {
	return filterID(ctx, s.db, user, filter)
}

func filterID(ctx context.Context, q querier, user matrix.UserID, filter json.RawMessage) (int64, bool, error) {
	var id int64
	sum := sha256.Sum256(filter)
	err := q.QueryRow(ctx, `SELECT filter_id FROM filters WHERE user_id = $1 AND sum = $2`, user, sum[:]).Scan(&id)
	if errors.Is(err, database.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("filter ID: %w", err)
	}
	return id, true, nil
}

// AddFilter stores a filter, unless the user has stored it before, and returns
// its number. added is false, and nothing is stored, if the user has most
// filters already.
func (tx *Tx) AddFilter(ctx context.Context, user matrix.UserID, filter json.RawMessage, most int64) (id int64, added bool, err error) {
	id, ok, err := filterID(ctx, tx, user, filter)
	if err != nil || ok {
		return id, ok, err
	}
	if err := tx.QueryRow(ctx, `SELECT COALESCE(MAX(filter_id), 0) + 1 FROM filters WHERE user_id = $1`, user).Scan(&id); err != nil {
		return 0, false, fmt.Errorf("add filter: %w", err)
	}
	if id > most {
		return 0, false, nil
	}
	sum := sha256.Sum256(filter)
	if err := tx.Exec(ctx, `INSERT INTO filters (user_id, filter_id, sum, filter) VALUES ($1, $2, $3, $4)`, user, id, sum[:], string(filter)); err != nil {
		return 0, false, fmt.Errorf("add filter: %w", err)
	}
	return id, true, nil
}
