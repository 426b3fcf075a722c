// Package ephemeral knows what happens beside the events of rooms: who is
// typing, who has read how far, and who is there. Typing lives in memory only;
// receipts and presence are stored. It carries nothing to other servers: their
// senders read the store.
package ephemeral

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/store"
)

// Service is what is ephemeral on one server. Its exported fields are set
// before the first call and not changed afterwards; its methods may be called
// from several goroutines. Run ends what takes too long.
type Service struct {
	Store *store.Store
	Bell  *notify.Bell

	// NoPresence turns presence off: it is neither taken nor told.
	NoPresence bool

	typing typing
	here   here
	waves  waves
}

// Run ends typing and presence when their time is up, until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.runTyping(ctx) })
	if !s.NoPresence {
		group.Go(func() error { return s.runPresence(ctx) })
	}
	return group.Wait()
}

// now is the time in milliseconds.
func now() int64 { return time.Now().UnixMilli() }

// joined gives a room in which user is, or else M_FORBIDDEN, also where the
// room does not exist.
func (s *Service) joined(ctx context.Context, user matrix.UserID, id matrix.RoomID) (*store.Room, error) {
	r, err := s.Store.Room(ctx, id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err != nil || s.Store.Membership(user, r.Num).Membership != "join" {
		return nil, matrix.Errorf(matrix.Forbidden, "you are not in this room")
	}
	return r, nil
}

// ringRoom wakes the syncs of the members of a room.
func (s *Service) ringRoom(room store.RoomNum) {
	members := s.Store.LocalMembers(room)
	keys := make([]string, 0, len(members)+1)
	keys = append(keys, store.LogBell)
	for _, u := range members {
		keys = append(keys, string(u))
	}
	s.Bell.Ring(keys...)
}
