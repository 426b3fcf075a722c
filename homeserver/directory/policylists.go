package directory

import (
	"context"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/matrix"
)

const (
	listsAgain = time.Hour   // after that aliases are looked up again
	listsRetry = time.Minute // after that, where one was not found
)

// Run finds the rooms of the policy lists that the operator follows, until ctx
// is done, and warns of those whose rules do not come here.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#subscribing-to-policy-lists
func (s *Service) Run(ctx context.Context) error {
	for {
		pause := listsAgain
		if !s.followLists(ctx) {
			pause = listsRetry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// followLists tells whether all lists were found. One that is not found now is
// followed still if it was before.
func (s *Service) followLists(ctx context.Context) (all bool) {
	all = true
	if s.lists == nil {
		s.lists = make([]matrix.RoomID, len(s.PolicyLists))
	}
	rooms := make([]matrix.RoomID, 0, len(s.lists))
	for i, name := range s.PolicyLists {
		log := zerolog.Ctx(ctx).With().Str("room", name).Logger()
		if strings.HasPrefix(name, "!") {
			s.lists[i] = matrix.RoomID(name)
		} else if id, _, err := s.Resolve(ctx, matrix.RoomAlias(name)); err == nil {
			s.lists[i] = id
		} else {
			all = false
			log.Warn().Err(err).Msg("a policy list was not found")
		}
		if s.lists[i] == "" {
			continue
		}
		rooms = append(rooms, s.lists[i])
		if r, err := s.Store.Room(ctx, s.lists[i]); err != nil || len(s.Store.LocalMembers(r.Num)) == 0 {
			log.Warn().Msg("nobody of this server is in the room of a policy list, so its rules do not come here: let a user join it")
		}
	}
	s.Rooms.Follow(rooms)
	return all
}
