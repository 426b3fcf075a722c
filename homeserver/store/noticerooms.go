package store

import (
	"context"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// NoticeRoom is the room in which the server itself speaks with a user, "" for
// none.
func (s *Store) NoticeRoom(ctx context.Context, user matrix.UserID) (room matrix.RoomID, err error) {
	err = s.db.QueryRow(ctx, `SELECT room_id FROM notice_rooms WHERE user_id = $1`, user).Scan(&room)
	if err != nil && !errors.Is(err, database.ErrNoRows) {
		return "", fmt.Errorf("notice room: %w", err)
	}
	return room, nil
}

// PutNoticeRoom makes a room the one in which the server speaks with a user.
func (tx *Tx) PutNoticeRoom(ctx context.Context, user matrix.UserID, room matrix.RoomID) error {
	const q = `INSERT INTO notice_rooms (user_id, room_id) VALUES ($1, $2) ON CONFLICT (user_id) DO UPDATE SET room_id = excluded.room_id`
	if err := tx.Exec(ctx, q, user, room); err != nil {
		return fmt.Errorf("put notice room: %w", err)
	}
	return nil
}
