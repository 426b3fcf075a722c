package room

import (
	"context"
	"encoding/json"

	"switchboard/homeserver/matrix"
)

// Ignored lists the users whose events, but for state, a user does not want to
// get. A list that has another shape than that of the specification ignores
// nobody; nobody ignores themselves. The map holds nobody else, and is not to be
// changed.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#ignoring-users
func (s *Service) Ignored(ctx context.Context, user matrix.UserID) (map[matrix.UserID]bool, error) {
	return s.ignored.of(ctx, s.Store, user, "m.ignored_user_list", func(raw json.RawMessage) map[matrix.UserID]bool {
		var c struct {
			Users map[matrix.UserID]json.RawMessage `json:"ignored_users"`
		}
		if json.Unmarshal(raw, &c) != nil || len(c.Users) == 0 {
			return nil
		}
		users := make(map[matrix.UserID]bool, len(c.Users))
		for u := range c.Users {
			users[u] = true
		}
		delete(users, user)
		return users
	})
}

// BlocksInvites tells whether a user of this server wants no invitations at all.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#invite-permission
func (s *Service) BlocksInvites(ctx context.Context, user matrix.UserID) (bool, error) {
	blocks := func(raw json.RawMessage) bool {
		var c struct {
			Default any `json:"default_action"`
		}
		return json.Unmarshal(raw, &c) == nil && c.Default == "block"
	}
	all, err := s.blocking.of(ctx, s.Store, user, "m.invite_permission_config", blocks)
	if err != nil || all {
		return all, err
	}
	return s.blockingOnce.of(ctx, s.Store, user, "org.matrix.msc4380.invite_permission_config", blocks)
}

// HidesInvite tells whether a user of this server does not get to see an
// invitation that is there already: they ignore who invites them, or want no
// invitations but those of the server itself.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#invite-permission
func (s *Service) HidesInvite(ctx context.Context, user, inviter matrix.UserID) (bool, error) {
	if inviter != s.NoticesUser {
		if blocks, err := s.BlocksInvites(ctx, user); err != nil || blocks {
			return blocks, err
		}
	}
	ignored, err := s.Ignored(ctx, user)
	return ignored[inviter], err
}
