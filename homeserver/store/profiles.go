package store

import (
	"context"
	"encoding/json"
	"fmt"

	"switchboard/homeserver/matrix"
)

// Profile is what a user tells about itself: the value of each field, as JSON.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#profiles
type Profile map[string]json.RawMessage

// DisplayName is the field "displayname", "" if it is none or no text.
func (p Profile) DisplayName() string { return p.text("displayname") }

// AvatarURL is the field "avatar_url", "" if it is none or no text.
func (p Profile) AvatarURL() string { return p.text("avatar_url") }

func (p Profile) text(name string) string {
	var s string
	if json.Unmarshal(p[name], &s) != nil {
		return ""
	}
	return s
}

// Size is about how many bytes the profile takes as JSON.
func (p Profile) Size() int {
	n := 2
	for name, value := range p {
		n += len(name) + len(value) + 4
	}
	return n
}

// Profile gives the fields of a local user, none if there is no such user.
func (s *Store) Profile(ctx context.Context, user matrix.UserID) (Profile, error) {
	return profile(ctx, s.db, user)
}

// Profile gives the fields of a local user as the transaction sees them.
func (tx *Tx) Profile(ctx context.Context, user matrix.UserID) (Profile, error) {
	return profile(ctx, tx, user)
}

func profile(ctx context.Context, q querier, user matrix.UserID) (Profile, error) {
	rows, err := q.Query(ctx, `SELECT name, value FROM profile_fields WHERE user_id = $1`, user)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	defer rows.Close()
	p := Profile{}
	for rows.Next() {
		var name string
		var value json.RawMessage
		if err := rows.Scan(&name, &value); err != nil {
			return nil, fmt.Errorf("profile: %w", err)
		}
		p[name] = value
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	return p, nil
}

// SetProfileField writes one field of a profile.
func (tx *Tx) SetProfileField(ctx context.Context, user matrix.UserID, name string, value json.RawMessage) error {
	const q = `
		INSERT INTO profile_fields (user_id, name, value) VALUES ($1, $2, $3)
		ON CONFLICT (user_id, name) DO UPDATE SET value = excluded.value`
	if err := tx.Exec(ctx, q, user, name, string(value)); err != nil {
		return fmt.Errorf("set profile field: %w", err)
	}
	return nil
}

// DeleteProfileField deletes one field of a profile.
func (tx *Tx) DeleteProfileField(ctx context.Context, user matrix.UserID, name string) error {
	if err := tx.Exec(ctx, `DELETE FROM profile_fields WHERE user_id = $1 AND name = $2`, user, name); err != nil {
		return fmt.Errorf("delete profile field: %w", err)
	}
	return nil
}

// DeleteProfile deletes all fields of a profile.
func (tx *Tx) DeleteProfile(ctx context.Context, user matrix.UserID) error {
	if err := tx.Exec(ctx, `DELETE FROM profile_fields WHERE user_id = $1`, user); err != nil {
		return fmt.Errorf("delete profile: %w", err)
	}
	return nil
}
