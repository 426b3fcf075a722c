package store

import (
	"context"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// Threepid is an address of a user outside of Matrix.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3account3pid
type Threepid struct {
	User        matrix.UserID `json:"-"`
	Medium      string        `json:"medium"`  // "email"
	Address     string        `json:"address"` // in small letters
	ValidatedTS int64         `json:"validated_at"`
	AddedTS     int64         `json:"added_at"`
}

// Threepids lists the addresses of a user, the oldest first.
func (s *Store) Threepids(ctx context.Context, user matrix.UserID) ([]Threepid, error) {
	const q = `SELECT medium, address, validated_ts, added_ts FROM threepids WHERE user_id = $1 ORDER BY added_ts, medium, address`
	rows, err := s.db.Query(ctx, q, user)
	if err != nil {
		return nil, fmt.Errorf("threepids: %w", err)
	}
	defer rows.Close()
	list := []Threepid{}
	for rows.Next() {
		t := Threepid{User: user}
		if err := rows.Scan(&t.Medium, &t.Address, &t.ValidatedTS, &t.AddedTS); err != nil {
			return nil, fmt.Errorf("threepids: %w", err)
		}
		list = append(list, t)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("threepids: %w", err)
	}
	return list, nil
}

// ThreepidUser tells whose an address is, "" for nobody's.
func (s *Store) ThreepidUser(ctx context.Context, medium, address string) (matrix.UserID, error) {
	return threepidUser(ctx, s.db, medium, address)
}

func threepidUser(ctx context.Context, q querier, medium, address string) (user matrix.UserID, err error) {
	err = q.QueryRow(ctx, `SELECT user_id FROM threepids WHERE medium = $1 AND address = $2`, medium, address).Scan(&user)
	if err != nil && !errors.Is(err, database.ErrNoRows) {
		return "", fmt.Errorf("threepid: %w", err)
	}
	return user, nil
}

// AddThreepid gives an address to a user, and tells whose it is now: another's,
// if it was taken.
func (tx *Tx) AddThreepid(ctx context.Context, t Threepid) (matrix.UserID, error) {
	const q = `
		INSERT INTO threepids (medium, address, user_id, validated_ts, added_ts) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (medium, address) DO NOTHING`
	if err := tx.Exec(ctx, q, t.Medium, t.Address, t.User, t.ValidatedTS, t.AddedTS); err != nil {
		return "", fmt.Errorf("add threepid: %w", err)
	}
	return threepidUser(ctx, tx, t.Medium, t.Address)
}

// DeleteThreepid takes an address from a user, and tells whether it was the
// user's.
func (tx *Tx) DeleteThreepid(ctx context.Context, user matrix.UserID, medium, address string) (bool, error) {
	owner, err := threepidUser(ctx, tx, medium, address)
	if err != nil || owner != user {
		return false, err
	}
	if err := tx.Exec(ctx, `DELETE FROM threepids WHERE medium = $1 AND address = $2`, medium, address); err != nil {
		return false, fmt.Errorf("delete threepid: %w", err)
	}
	return true, nil
}

// DeleteThreepids takes all addresses from a user.
func (tx *Tx) DeleteThreepids(ctx context.Context, user matrix.UserID) error {
	if err := tx.Exec(ctx, `DELETE FROM threepids WHERE user_id = $1`, user); err != nil {
		return fmt.Errorf("delete threepids: %w", err)
	}
	return nil
}
