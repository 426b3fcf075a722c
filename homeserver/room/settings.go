package room

import (
	"context"
	"encoding/json"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// settings keeps what users' account data of one type says.
type settings[T any] struct {
	known store.Recent[matrix.UserID, setting[T]]
}

// setting is what a user's account data says, as of a position of the log.
type setting[T any] struct {
	pos   int64
	value T
}

// of gives what read makes of a user's account data; nil for none.
func (c *settings[T]) of(ctx context.Context, s *store.Store, user matrix.UserID, typ string, read func(json.RawMessage) T) (T, error) {
	if known, ok := c.known.Find(user); ok && !s.SettingChangedSince(user, typ, known.pos) {
		return known.value, nil
	}
	pos := s.Position()
	raw, _, err := s.AccountData(ctx, user, "", typ)
	if err != nil {
		return *new(T), err
	}
	now := setting[T]{pos, read(raw)}
	c.known.Put(user, now)
	return now.value, nil
}
