package room

import (
	"cmp"
	"context"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// History puts events into the timeline of a room before one that is behind a
// gap: they came out of another server's past. They stand in order, the oldest
// first, and the state before the first of them is known by the IDs of its
// events, which are here. The caller has verified signatures and hashes. What is
// here already is left as it is; what the rules do not allow is kept as rejected.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
func (s *Service) History(ctx context.Context, id matrix.RoomID, behind *store.Event, events []*event.PDU, before []matrix.EventID) error {
	defer s.locks.lock(id)()
	r, err := s.resident(ctx, id)
	if err != nil {
		return err
	}
	places, err := s.places(ctx, behind, len(events))
	if err != nil {
		return err
	}
	for i, p := range events {
		state := before
		if i > 0 {
			state = nil
		}
		if err := s.past(ctx, r, p, state, places[i]); err != nil {
			return err
		}
	}
	return s.closeGaps(ctx, r)
}

// places are places right before an event, in order; where there is no room for
// them, before everything else.
func (s *Service) places(ctx context.Context, behind *store.Event, n int) ([]int64, error) {
	last, err := s.Store.Before(ctx, behind.Pos)
	if err != nil {
		return nil, err
	}
	if behind.Pos-last <= int64(n) {
		return s.pastPlaces(ctx, n)
	}
	places := make([]int64, n)
	for i := range places {
		places[i] = behind.Pos - int64(n-i)
	}
	return places, nil
}

// pastPlaces are places before everything else, in order.
func (s *Service) pastPlaces(ctx context.Context, n int) ([]int64, error) {
	places := make([]int64, n)
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		for i := range places {
			past, err := tx.NextNumber(ctx, "past")
			if err != nil {
				return err
			}
			places[n-1-i] = -past
		}
		return nil
	})
	return places, err
}

// past puts one event at a place. Before is the state before it, nil where its
// previous events are here.
func (s *Service) past(ctx context.Context, r *store.Room, p *event.PDU, before []matrix.EventID, place int64) error {
	a := &arrival{s: s, ctx: ctx, room: r, pdu: p, place: place}
	known, err := a.known()
	if err != nil || known {
		return err
	}
	auth, prev, err := a.references(before != nil)
	if err != nil {
		return err
	}
	if before != nil {
		err = a.stateOf(before)
	} else {
		err = a.stateAfter(prev)
	}
	if err != nil {
		return err
	}
	if err := a.judge(auth); err != nil {
		return err
	}
	if a.status == store.SoftFailed {
		a.status = store.Accepted // the state of today says nothing about the past
	}
	return a.commit()
}

// closeGaps forgets the gaps before events whose previous events are all here now.
func (s *Service) closeGaps(ctx context.Context, r *store.Room) error {
	nums, err := s.Store.Gaps(ctx, r.Num)
	if err != nil {
		return err
	}
	found, err := s.Store.EventsByNum(ctx, nums)
	if err != nil {
		return err
	}
	var closed []store.EventNum
	for _, n := range nums {
		e := found[n]
		if e == nil {
			continue
		}
		prev, err := s.Store.EventsByID(ctx, e.PDU.PrevEvents)
		if err != nil {
			return err
		}
		here := 0
		for _, p := range prev {
			if p.Pos != 0 || p.Status != store.Accepted {
				here++
			}
		}
		if here == len(e.PDU.PrevEvents) {
			closed = append(closed, n)
		}
	}
	if len(closed) == 0 {
		return nil
	}
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		for _, n := range closed {
			if err := tx.PutGap(ctx, r.Num, n, false); err != nil {
				return err
			}
		}
		return nil
	})
}

// Gaps are the events of a room before which others are missing, the last of the
// timeline first.
func (s *Service) Gaps(ctx context.Context, id matrix.RoomID) ([]*store.Event, error) {
	r, err := s.resident(ctx, id)
	if err != nil {
		return nil, err
	}
	nums, err := s.Store.Gaps(ctx, r.Num)
	if err != nil {
		return nil, err
	}
	list, err := s.ordered(ctx, nums)
	slices.SortFunc(list, func(a, b *store.Event) int { return cmp.Compare(b.Pos, a.Pos) })
	return list, err
}
