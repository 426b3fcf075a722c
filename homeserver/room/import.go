package room

import (
	"context"
	"errors"
	"slices"

	"github.com/rs/zerolog"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// Joined is the answer of another server to a join of a user of this one.
type Joined struct {
	Event *event.PDU   // the join
	State []*event.PDU // before it
	Auth  []*event.PDU // what authorizes the state; nothing where Intake took it

	// Intake has taken the state and what authorizes it. Where it is nil, both
	// have been verified and are taken now.
	Intake *Intake
}

// Import makes this server a part of a room: it stores the join of a user of
// this server that another server let in. The server is in the room when that
// and all of the state is stored, or not at all. Events of the state that the
// intake did not get, since they are forged, and those whose auth events are not
// here are left out: one of them must not keep a user out of the room.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
func (s *Service) Import(ctx context.Context, j Joined) error {
	in := j.Intake
	if in == nil {
		var err error
		if in, err = s.Intake(ctx, j.Event.Room, j.Event.Version); err != nil {
			return err
		}
		if err := in.Take(ctx, slices.Concat(j.Auth, j.State)); err != nil {
			return err
		}
	}
	left, err := in.finish(ctx)
	if err == nil && !in.alone { // what could not be verified now may have been before
		_, err = in.find(ctx, j.State)
	}
	if err != nil {
		return err
	}
	if left > 0 {
		zerolog.Ctx(ctx).Warn().Str("room", string(in.room.ID)).Int("events", left).Msg("events of a room's state were left out: what authorizes them is missing")
	}
	state := in.here(j.State)
	entered, err := s.enter(ctx, j.Event, state)
	if err == nil && !entered {
		err = s.follow(ctx, j.Event, state)
	}
	return err
}

// enter makes a join the end of a room. It tells whether it did, since another
// user of this server may have joined meanwhile.
func (s *Service) enter(ctx context.Context, join *event.PDU, state []*store.Event) (bool, error) {
	defer s.locks.lock(join.Room)()
	r, err := s.Store.Room(ctx, join.Room)
	if err != nil || r.Current != 0 && len(s.Store.LocalMembers(r.Num)) > 0 {
		return false, err
	}
	a := &arrival{s: s, ctx: ctx, pdu: join, gap: true, told: true, hand: make(map[store.EventNum]*store.Event, len(state))}
	for _, e := range state {
		a.hand[e.Num] = e
	}
	if a.before, a.new, err = s.treeOf(ctx, r.Num, state); err != nil {
		return false, err
	}
	if a.old, err = s.Store.Event(ctx, join.ID); err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, err
	}
	joined := *r
	joined.Heads = nil // what was here before does not lead to the join
	a.room = &joined
	auth, err := s.Store.EventsByID(ctx, join.AuthEvents)
	if err != nil {
		return false, err
	}
	return true, a.enter(auth)
}

// follow takes a join into a room that this server has come into meanwhile: it
// is one event of many there, and the state before it is known.
func (s *Service) follow(ctx context.Context, join *event.PDU, state []*store.Event) error {
	before := make([]matrix.EventID, len(state))
	for i, e := range state {
		before[i] = e.PDU.ID
	}
	status, err := s.receive(ctx, join, arrivalOptions{before: before, told: true})
	if err == nil && status != store.Accepted {
		err = matrix.Errorf(matrix.Forbidden, "the room does not allow the join any more")
	}
	return err
}

// enter judges a join against the state that came with it, and commits it.
func (a *arrival) enter(auth map[matrix.EventID]*store.Event) error {
	before := &view{ctx: a.ctx, s: a.s, tree: a.before, pending: map[eventauth.Key]*event.PDU{}}
	for _, id := range a.pdu.AuthEvents {
		if auth[id] == nil {
			return &MissingError{Room: a.room.ID, Auth: []matrix.EventID{id}}
		}
	}
	// The nodes of the tree are in memory only, and the view reads them there.
	if err := eventauth.Check(a.pdu, before); before.err != nil {
		return before.err
	} else if err != nil {
		return matrix.Errorf(matrix.Forbidden, "the state that came with the join does not allow it: %v", err)
	}
	return a.commit()
}
