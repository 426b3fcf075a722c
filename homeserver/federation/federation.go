// Package federation is how this server takes part in rooms together with
// others. Coming in: transactions of events and ephemeral messages, the filling
// of gaps, joins, leaves, knocks and invitations of other servers' users, and
// what other servers may read of a room. Going out: the joins, leaves, knocks
// and invitations of our users, and history that is not here yet.
//
// It decides what is fetched from whom, and how much of it; what an event
// means, room decides. It serves no HTTP (fedapi does) and has no queues
// (fedsender has).
package federation

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"switchboard/homeserver/account"
	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/identity"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// Service is the federation of one server. Its exported fields are set before
// the first call and not changed afterwards; its methods may be called from
// several goroutines. Their origin is the server that asks, which has proved
// that it is that server.
type Service struct {
	Store      *store.Store
	Bell       *notify.Bell
	Rooms      *room.Service
	Client     *fedclient.Client
	Keys       *fedclient.KeyRing
	Accounts   *account.Service
	Encryption *e2ee.Service
	Ephemeral  *ephemeral.Service
	Identity   *identity.Client // nil: nobody is invited by an address of another network
	ServerName matrix.ServerName
	Config     Config

	// VetTime is for how long a policy server may think about an event; 0 means
	// 10 seconds.
	VetTime time.Duration

	transactions  transactions
	origins       origins
	invitations   rates
	inbox         inbox
	policyServers policyServers
	walks         walks
}

// Run does what is done beside requests, until ctx is done: it asks again for
// what could not be had before.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.runDeviceLists(ctx) })
	group.Go(func() error { return s.runInbox(ctx) })
	return group.Wait()
}

// local tells whether a user is one of this server.
func (s *Service) local(user matrix.UserID) bool { return user.Server() == s.ServerName }

// room gives a room that this server is in and that a server may ask about, as
// far as the room's access control list goes. The errors are M_NOT_FOUND and
// M_FORBIDDEN.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#server-access-control-lists-acls
func (s *Service) room(ctx context.Context, origin matrix.ServerName, id matrix.RoomID) (*store.Room, error) {
	r, err := s.Store.Room(ctx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && (r.Current == 0 || len(s.Store.LocalMembers(r.Num)) == 0) {
		return nil, matrix.Errorf(matrix.NotFound, "this server is not in the room")
	}
	if err != nil {
		return nil, err
	}
	ok, err := s.Rooms.ACL(ctx, r, origin)
	if err == nil && !ok {
		err = matrix.Errorf(matrix.Forbidden, "%s is banned from the room", origin)
	}
	return r, err
}

// shared is room for what only servers with members in the room may ask, or with
// members before the events that they ask about.
func (s *Service) shared(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, about ...matrix.EventID) (*store.Room, error) {
	r, err := s.room(ctx, origin, id)
	if err != nil {
		return nil, err
	}
	in, err := s.Store.ServerInRoom(ctx, origin, r.Num)
	if err == nil && !in {
		if in, err = s.wasIn(ctx, origin, r, about); err == nil && !in {
			err = matrix.Errorf(matrix.Forbidden, "%s is not in the room", origin)
		}
	}
	return r, err
}

// wasIn tells whether a server had members in a room before each of some events.
func (s *Service) wasIn(ctx context.Context, server matrix.ServerName, r *store.Room, ids []matrix.EventID) (bool, error) {
	if len(ids) == 0 || len(ids) > mostNamed {
		return false, nil
	}
	found, err := s.Store.EventsByID(ctx, ids)
	if err != nil {
		return false, err
	}
	for _, id := range ids {
		e := found[id]
		if e == nil || e.Room != r.Num || e.State == 0 {
			return false, nil
		}
		root, err := s.Rooms.StateBefore(ctx, e)
		if err != nil {
			return false, err
		}
		state, err := s.Rooms.StateEvents(ctx, root)
		if err != nil || !slices.ContainsFunc(state, func(e *store.Event) bool { return joinedFrom(server, e.PDU) }) {
			return false, err
		}
	}
	return true, nil
}

// joinedFrom tells whether an event makes a user of a server a member.
func joinedFrom(server matrix.ServerName, p *event.PDU) bool {
	return p.Type == event.TypeMember && p.Membership() == event.Join && matrix.UserID(*p.StateKey).Server() == server
}
