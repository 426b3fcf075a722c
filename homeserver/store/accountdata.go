package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// AccountData is a setting that a user's clients share.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#client-config
type AccountData struct {
	User    matrix.UserID
	Room    matrix.RoomID // "" for a global setting
	Type    string
	Content json.RawMessage // an object
	Pos     int64           // when it was written
	Deleted bool            // it was deleted then; Content is {}
}

// AccountData reads one setting. Room is "" for a global one. ok is false if
// there is none.
func (s *Store) AccountData(ctx context.Context, user matrix.UserID, room matrix.RoomID, typ string) (content json.RawMessage, ok bool, err error) {
	return accountData(ctx, s.db, user, room, typ)
}

// AccountData reads one setting as the transaction sees it.
func (tx *Tx) AccountData(ctx context.Context, user matrix.UserID, room matrix.RoomID, typ string) (content json.RawMessage, ok bool, err error) {
	return accountData(ctx, tx, user, room, typ)
}

func accountData(ctx context.Context, q querier, user matrix.UserID, room matrix.RoomID, typ string) (json.RawMessage, bool, error) {
	var content json.RawMessage
	err := q.QueryRow(ctx, `SELECT content FROM account_data WHERE user_id = $1 AND room_id = $2 AND type = $3`, user, room, typ).Scan(&content)
	if errors.Is(err, database.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("account data: %w", err)
	}
	if len(content) == 0 {
		return nil, false, nil // deleted
	}
	return content, true, nil
}

// dropDeleted leaves out what was deleted, for who has never heard of it.
func dropDeleted(list []AccountData) []AccountData {
	return slices.DeleteFunc(list, func(d AccountData) bool { return d.Deleted })
}

// AccountDataSince lists the user's settings, global ones and those of rooms,
// that were written behind since and not behind upto, in order of position. From the
// beginning on, those that were deleted are left out.
func (s *Store) AccountDataSince(ctx context.Context, user matrix.UserID, since, upto int64) ([]AccountData, error) {
	if !s.SettingsChangedSince(user, since) {
		return nil, nil
	}
	type key struct {
		room matrix.RoomID
		typ  string
	}
	list, sure := rows(s.accountData, since, upto, func(d *AccountData) bool { return d.User == user }, func(d *AccountData) key { return key{d.Room, d.Type} })
	if sure && since > 0 {
		return list, nil
	}
	if sure {
		return dropDeleted(list), nil
	}
	const q = `
		SELECT user_id, room_id, type, content, pos FROM account_data
		WHERE user_id = $1 AND pos > $2 AND pos <= $3 ORDER BY pos`
	list, err := s.queryAccountData(ctx, q, user, since, upto)
	if since == 0 {
		list = dropDeleted(list)
	}
	return list, err
}

// AccountDataIn gives a user's account data for rooms, up to a position.
func (s *Store) AccountDataIn(ctx context.Context, user matrix.UserID, rooms []matrix.RoomID, upto int64) (map[matrix.RoomID][]AccountData, error) {
	list, err := s.queryAccountData(ctx, `
		SELECT user_id, room_id, type, content, pos FROM account_data
		WHERE user_id = $1 AND room_id IN LIST($2) AND pos <= $3 ORDER BY pos`, user, rooms, upto)
	found := map[matrix.RoomID][]AccountData{}
	for _, d := range dropDeleted(list) {
		found[d.Room] = append(found[d.Room], d)
	}
	return found, err
}

func (s *Store) queryAccountData(ctx context.Context, q string, args ...any) ([]AccountData, error) {
	rows, err := s.db.Query(ctx, q, args...)
	if err != nil {
		return nil, fmt.Errorf("account data: %w", err)
	}
	defer rows.Close()
	var list []AccountData
	for rows.Next() {
		var d AccountData
		if err := rows.Scan(&d.User, &d.Room, &d.Type, &d.Content, &d.Pos); err != nil {
			return nil, fmt.Errorf("account data: %w", err)
		}
		list = append(list, d.orDeleted())
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("account data: %w", err)
	}
	return list, nil
}

// orDeleted is d as it is told: in the database a setting that was deleted has no
// content at all.
func (d AccountData) orDeleted() AccountData {
	if len(d.Content) == 0 {
		d.Content, d.Deleted = json.RawMessage("{}"), true
	}
	return d
}

// PutAccountData writes d at the next position of the log, replacing an older
// value, and returns that position. d.Pos is not looked at. Without a content it
// deletes the setting.
func (tx *Tx) PutAccountData(ctx context.Context, d AccountData) (int64, error) {
	pos, err := tx.NextPosition(ctx)
	if err != nil {
		return 0, fmt.Errorf("put account data: %w", err)
	}
	return pos, tx.putAccountData(ctx, d, pos)
}

func (tx *Tx) putAccountData(ctx context.Context, d AccountData, pos int64) error {
	const q = `
		INSERT INTO account_data (user_id, room_id, type, content, pos)
		VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (user_id, room_id, type)
		DO UPDATE SET content = excluded.content, pos = excluded.pos`
	if err := tx.Exec(ctx, q, d.User, d.Room, d.Type, string(d.Content), pos); err != nil {
		return fmt.Errorf("put account data: %w", err)
	}
	d.Pos, d.Content = pos, slices.Clone(d.Content)
	tx.OnCommit(func() { tx.s.accountData.add(d.orDeleted()) })
	tx.Note(AccountDataChanged, string(d.User), pos)
	tx.Note(AccountDataChanged, settingKey(d.User, d.Type), pos)
	return nil
}

// settingKey is the key of a setting for Note and ChangedSince.
func settingKey(user matrix.UserID, typ string) string { return string(user) + " " + typ }

// SettingChangedSince tells whether a setting of a user, global or for any room,
// may have been written behind since.
func (s *Store) SettingChangedSince(user matrix.UserID, typ string, since int64) bool {
	return s.ChangedSince(AccountDataChanged, settingKey(user, typ), since)
}

// SettingsChangedSince tells whether any setting of a user may have been written
// behind since.
func (s *Store) SettingsChangedSince(user matrix.UserID, since int64) bool {
	return s.ChangedSince(AccountDataChanged, string(user), since)
}

// ChangeAccountData replaces a setting with what change makes of it; nil is
// given where there is none. Nobody else changes it in between, because the
// position of the log is taken first.
func (tx *Tx) ChangeAccountData(ctx context.Context, user matrix.UserID, room matrix.RoomID, typ string, change func(json.RawMessage) (json.RawMessage, error)) error {
	pos, err := tx.NextPosition(ctx)
	if err != nil {
		return fmt.Errorf("change account data: %w", err)
	}
	old, _, err := tx.AccountData(ctx, user, room, typ)
	if err != nil {
		return err
	}
	content, err := change(old)
	if err != nil {
		return err
	}
	return tx.putAccountData(ctx, AccountData{User: user, Room: room, Type: typ, Content: content}, pos)
}

// AccountDataSize is about how many bytes all settings of a user take, those that
// were deleted included: of these the names are kept.
func (tx *Tx) AccountDataSize(ctx context.Context, user matrix.UserID) (bytes int64, err error) {
	err = tx.QueryRow(ctx, `SELECT COALESCE(SUM(OCTET_LENGTH(content) + 512), 0) FROM account_data WHERE user_id = $1`, user).Scan(&bytes)
	if err != nil {
		return 0, fmt.Errorf("account data size: %w", err)
	}
	return bytes, nil
}

// DeleteAllAccountData deletes all settings of a user. No sync tells of it: it
// is for users who cannot log in any more.
func (tx *Tx) DeleteAllAccountData(ctx context.Context, user matrix.UserID) error {
	if err := tx.Exec(ctx, `DELETE FROM account_data WHERE user_id = $1`, user); err != nil {
		return fmt.Errorf("delete account data: %w", err)
	}
	tx.OnCommit(tx.s.accountData.forget)
	return nil
}
