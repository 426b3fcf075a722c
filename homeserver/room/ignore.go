package room

import (
	"context"
	"encoding/json"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// ignoring is whom a user ignores, as of a position of the log.
type ignoring struct {
	pos   int64
	users map[matrix.UserID]bool
}

// Ignored lists the users whose events, but for state, a user does not want to
// get. A list that has another shape than that of the specification ignores
// nobody; nobody ignores themselves. The map is not to be changed.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#ignoring-users
func (s *Service) Ignored(ctx context.Context, user matrix.UserID) (map[matrix.UserID]bool, error) {
	if known, ok := s.ignored.Find(user); ok && !s.Store.ChangedSince(store.AccountDataChanged, string(user), known.pos) {
		return known.users, nil
	}
	now := ignoring{pos: s.Store.Position()}
	raw, ok, err := s.Store.AccountData(ctx, user, "", "m.ignored_user_list")
	if err != nil {
		return nil, err
	}
	var c struct {
		Users map[matrix.UserID]json.RawMessage `json:"ignored_users"`
	}
	if ok && json.Unmarshal(raw, &c) == nil && len(c.Users) > 0 {
		now.users = make(map[matrix.UserID]bool, len(c.Users))
		for u := range c.Users {
			now.users[u] = u != user
		}
	}
	s.ignored.Put(user, now)
	return now.users, nil
}
