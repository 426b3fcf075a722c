package store

import (
	"context"
	"encoding/json"
	"fmt"

	"switchboard/homeserver/matrix"
)

// Pusher is where notifications of a user are sent.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushers
type Pusher struct {
	User       matrix.UserID   `json:"-"`
	Device     matrix.DeviceID `json:"-"` // whose logout ends the pusher; "" for none
	AppID      string          `json:"app_id"`
	Pushkey    string          `json:"pushkey"`
	Kind       string          `json:"kind"`
	AppName    string          `json:"app_display_name"`
	DeviceName string          `json:"device_display_name"`
	ProfileTag string          `json:"profile_tag,omitempty"`
	Lang       string          `json:"lang"`
	Data       json.RawMessage `json:"data"`
	CreatedTS  int64           `json:"-"`
	Pos        int64           `json:"-"` // of the log: everything up to it was told
	Pauses     json.RawMessage `json:"-"` // when one of kind "email" may tell of a room again; nil for nothing
}

// PushersBell is rung when there are other pushers than before.
const PushersBell = "pushers"

const pusherColumns = `user_id, device_id, app_id, pushkey, kind, app_name, device_name, profile_tag, lang, data, created_ts, pos, pauses`

// Pushers lists the user's pushers, the oldest first.
func (s *Store) Pushers(ctx context.Context, user matrix.UserID) ([]Pusher, error) {
	return s.readPushers(ctx, `WHERE user_id = $1 ORDER BY created_ts, app_id, pushkey`, user)
}

// AllPushers lists the pushers of all users.
func (s *Store) AllPushers(ctx context.Context) ([]Pusher, error) { return s.readPushers(ctx, ``) }

// Pusher finds a user's pusher for an app and key; ok is false if there is none.
func (s *Store) Pusher(ctx context.Context, user matrix.UserID, appID, pushkey string) (p Pusher, ok bool, err error) {
	list, err := s.readPushers(ctx, `WHERE user_id = $1 AND app_id = $2 AND pushkey = $3`, user, appID, pushkey)
	if err != nil || len(list) == 0 {
		return p, false, err
	}
	return list[0], true, nil
}

func (s *Store) readPushers(ctx context.Context, where string, args ...any) ([]Pusher, error) {
	rows, err := s.db.Query(ctx, `SELECT `+pusherColumns+` FROM pushers `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("pushers: %w", err)
	}
	defer rows.Close()
	var list []Pusher
	for rows.Next() {
		var p Pusher
		err := rows.Scan(&p.User, &p.Device, &p.AppID, &p.Pushkey, &p.Kind, &p.AppName, &p.DeviceName, &p.ProfileTag, &p.Lang, &p.Data, &p.CreatedTS, &p.Pos, &p.Pauses)
		if err != nil {
			return nil, fmt.Errorf("pushers: %w", err)
		}
		if len(p.Pauses) == 0 {
			p.Pauses = nil
		}
		list = append(list, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("pushers: %w", err)
	}
	return list, nil
}

// PutPusher writes a pusher. One that takes the place of another of the same user,
// app and key goes on where that was.
func (tx *Tx) PutPusher(ctx context.Context, p Pusher) error {
	const q = `
		INSERT INTO pushers (` + pusherColumns + `)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
		ON CONFLICT (user_id, app_id, pushkey) DO UPDATE
		SET device_id = excluded.device_id, kind = excluded.kind, app_name = excluded.app_name, device_name = excluded.device_name,
			profile_tag = excluded.profile_tag, lang = excluded.lang, data = excluded.data`
	err := tx.Exec(ctx, q, p.User, p.Device, p.AppID, p.Pushkey, p.Kind, p.AppName, p.DeviceName, p.ProfileTag, p.Lang, string(p.Data), p.CreatedTS, p.Pos, string(p.Pauses))
	if err != nil {
		return fmt.Errorf("put pusher: %w", err)
	}
	return nil
}

// MovePusher says up to where a pusher has told of the log, and when it may tell
// of rooms again. One that is further already, as it was made anew, stays there.
func (tx *Tx) MovePusher(ctx context.Context, p Pusher) error {
	err := tx.Exec(ctx, `UPDATE pushers SET pos = $4, pauses = $5 WHERE user_id = $1 AND app_id = $2 AND pushkey = $3 AND pos <= $4`, p.User, p.AppID, p.Pushkey, p.Pos, string(p.Pauses))
	if err != nil {
		return fmt.Errorf("move pusher: %w", err)
	}
	return nil
}

// DeletePusher deletes a pusher of a user.
func (tx *Tx) DeletePusher(ctx context.Context, user matrix.UserID, appID, pushkey string) error {
	if err := tx.Exec(ctx, `DELETE FROM pushers WHERE user_id = $1 AND app_id = $2 AND pushkey = $3`, user, appID, pushkey); err != nil {
		return fmt.Errorf("delete pusher: %w", err)
	}
	return nil
}

// DeletePushersOfOthers deletes the pushers of all users but one with this app
// and key: the app is now that user's.
func (tx *Tx) DeletePushersOfOthers(ctx context.Context, user matrix.UserID, appID, pushkey string) error {
	if err := tx.Exec(ctx, `DELETE FROM pushers WHERE app_id = $2 AND pushkey = $3 AND user_id <> $1`, user, appID, pushkey); err != nil {
		return fmt.Errorf("delete pushers of others: %w", err)
	}
	return nil
}

// DeletePushers deletes all pushers of a user.
func (tx *Tx) DeletePushers(ctx context.Context, user matrix.UserID) error {
	if err := tx.Exec(ctx, `DELETE FROM pushers WHERE user_id = $1`, user); err != nil {
		return fmt.Errorf("delete pushers: %w", err)
	}
	return nil
}

// DeleteEmailPushers deletes a user's pushers that send to an e-mail address.
func (tx *Tx) DeleteEmailPushers(ctx context.Context, user matrix.UserID, address string) error {
	if err := tx.Exec(ctx, `DELETE FROM pushers WHERE user_id = $1 AND kind = 'email' AND pushkey = $2`, user, address); err != nil {
		return fmt.Errorf("delete e-mail pushers: %w", err)
	}
	return nil
}
