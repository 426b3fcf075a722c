package room

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// keptAtOnce is how many events one transaction keeps aside.
const keptAtOnce = 2000

// Keep stores events aside from the timeline: those that authorize others, or
// make up a state. Each is checked against its own auth events, which must be
// among the events or here already; what they do not allow is kept as rejected.
// The caller has verified signatures and hashes. The order does not matter.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
func (s *Service) Keep(ctx context.Context, room matrix.RoomID, events []*event.PDU) error {
	r, err := s.find(ctx, room)
	if err != nil {
		return err
	}
	_, err = s.keep(ctx, r, events)
	return err
}

// keep is Keep for a room that is at hand. It answers all the events, those that
// were here before among them.
func (s *Service) keep(ctx context.Context, r *store.Room, events []*event.PDU) (map[matrix.EventID]*store.Event, error) {
	ids := make([]matrix.EventID, len(events))
	for i, p := range events {
		ids[i] = p.ID
	}
	known, err := s.Store.EventsByID(ctx, ids)
	if err != nil {
		return nil, err
	}
	sorted, err := byAuth(events)
	if err != nil {
		return nil, err
	}
	sorted = slices.DeleteFunc(sorted, func(p *event.PDU) bool { return known[p.ID] != nil })
	if err := s.findAuth(ctx, r, sorted, known); err != nil {
		return nil, err
	}
	for part := range slices.Chunk(sorted, keptAtOnce) {
		statuses := make([]store.Status, len(part))
		for i, p := range part {
			if statuses[i], err = s.checkAside(r, p, known); err != nil {
				return nil, err
			}
			known[p.ID] = &store.Event{PDU: p, Room: r.Num, Status: statuses[i]} // its number follows
		}
		var kept []*store.Event
		err := s.Store.Update(ctx, func(tx *store.Tx) error {
			kept = kept[:0]
			for i, p := range part {
				pos, err := tx.NextPosition(ctx)
				if err != nil {
					return err
				}
				e := &store.Event{PDU: p, Num: store.EventNum(pos), Room: r.Num, Status: statuses[i]}
				kept = append(kept, e)
				if err := tx.AppendEvent(ctx, e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		for _, e := range kept {
			known[e.PDU.ID] = e
		}
	}
	return known, nil
}

// authorized leaves out the events whose auth events are neither among them nor
// here: one that could not be verified must not keep a user out of the room.
func (s *Service) authorized(ctx context.Context, events []*event.PDU) ([]*event.PDU, error) {
	for {
		inside := make(map[matrix.EventID]bool, len(events))
		for _, p := range events {
			inside[p.ID] = true
		}
		var outside []matrix.EventID
		for _, p := range events {
			for _, id := range p.AuthEvents {
				if !inside[id] {
					outside = append(outside, id)
				}
			}
		}
		here, err := s.Store.EventsByID(ctx, outside)
		if err != nil {
			return nil, err
		}
		whole := slices.DeleteFunc(slices.Clone(events), func(p *event.PDU) bool {
			return slices.ContainsFunc(p.AuthEvents, func(id matrix.EventID) bool { return !inside[id] && here[id] == nil })
		})
		if len(whole) == len(events) {
			return whole, nil
		}
		events = whole
	}
}

// findAuth adds to known the auth events that are not among the events.
func (s *Service) findAuth(ctx context.Context, r *store.Room, events []*event.PDU, known map[matrix.EventID]*store.Event) error {
	inside := make(map[matrix.EventID]bool, len(events))
	for _, p := range events {
		inside[p.ID] = true
	}
	var outside []matrix.EventID
	for _, p := range events {
		for _, id := range p.AuthEvents {
			if !inside[id] && known[id] == nil {
				inside[id] = true
				outside = append(outside, id)
			}
		}
	}
	found, err := s.Store.EventsByID(ctx, outside)
	if err != nil {
		return err
	}
	missing := &MissingError{Room: r.ID}
	for _, id := range outside {
		if e := found[id]; e != nil {
			known[id] = e
		} else {
			missing.Auth = append(missing.Auth, id)
		}
	}
	if len(missing.Auth) > 0 {
		return missing
	}
	return nil
}

// checkAside tells what becomes of an event whose auth events are known.
func (s *Service) checkAside(r *store.Room, p *event.PDU, known map[matrix.EventID]*store.Event) (store.Status, error) {
	if p.Room != r.ID {
		return 0, matrix.Errorf(matrix.Forbidden, "%s belongs to another room", p.ID)
	}
	set := eventauth.Set{}
	auth := make([]*event.PDU, 0, len(p.AuthEvents)+1)
	for _, id := range p.AuthEvents {
		e := known[id]
		if e.Status == store.Rejected {
			return store.Rejected, nil
		}
		auth = append(auth, e.PDU)
	}
	if eventauth.CheckSelection(p, auth) != nil {
		return store.Rejected, nil
	}
	for _, a := range auth {
		set[eventauth.Key{Type: a.Type, StateKey: *a.StateKey}] = a
	}
	if r.Version.RoomIDFromCreate && p.Type != event.TypeCreate {
		create := known[matrix.EventID("$"+string(r.ID[1:]))]
		if create == nil || create.Status == store.Rejected {
			return store.Rejected, nil
		}
		set[eventauth.Key{Type: event.TypeCreate}] = create.PDU
	}
	if eventauth.Check(p, set) != nil {
		return store.Rejected, nil
	}
	return store.Accepted, nil
}

// byAuth puts events into an order in which each stands behind its auth events.
func byAuth(events []*event.PDU) ([]*event.PDU, error) {
	byID := make(map[matrix.EventID]*event.PDU, len(events))
	for _, p := range events {
		byID[p.ID] = p
	}
	waits := make(map[matrix.EventID]int, len(byID)) // for how many auth events
	holds := map[matrix.EventID][]*event.PDU{}       // who waits
	var ready []*event.PDU
	for id, p := range byID {
		for _, a := range p.AuthEvents {
			if byID[a] != nil {
				waits[id]++
				holds[a] = append(holds[a], p)
			}
		}
		if waits[id] == 0 {
			ready = append(ready, p)
		}
	}
	slices.SortFunc(ready, byDepth)
	sorted := make([]*event.PDU, 0, len(byID))
	for len(ready) > 0 {
		p := ready[0]
		ready = ready[1:]
		sorted = append(sorted, p)
		for _, next := range holds[p.ID] {
			if waits[next.ID]--; waits[next.ID] == 0 {
				ready = append(ready, next)
			}
		}
	}
	if len(sorted) < len(byID) {
		return nil, matrix.Errorf(matrix.Forbidden, "events authorize each other in a circle")
	}
	return sorted, nil
}

func byDepth(a, b *event.PDU) int {
	switch {
	case a.Depth < b.Depth:
		return -1
	case a.Depth > b.Depth:
		return 1
	}
	return 0
}

// stub gives the row of a room, making it if this server never heard of it.
func (s *Service) stub(ctx context.Context, id matrix.RoomID, v *matrix.RoomVersion) (*store.Room, error) {
	r, err := s.Store.Room(ctx, id)
	if !errors.Is(err, store.ErrNotFound) {
		if err == nil && r.Version != v {
			return nil, matrix.Errorf(matrix.Forbidden, "the room has version %s, not %s", r.Version.ID, v.ID)
		}
		return r, err
	}
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		n, err := tx.NextNumber(ctx, "rooms")
		if err != nil {
			return err
		}
		r = &store.Room{Num: store.RoomNum(n), ID: id, Version: v}
		return tx.PutRoom(ctx, r)
	})
	return r, err
}

// Joined is the answer of another server to a join of a user of this one.
type Joined struct {
	Version     *matrix.RoomVersion
	Event       *event.PDU // the join
	State, Auth []*event.PDU
}

// Import makes this server a part of a room: it stores the state and the join of
// a user of this server that another server let in. The caller has verified
// signatures and hashes.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
func (s *Service) Import(ctx context.Context, j Joined) error {
	defer s.locks.lock(j.Event.Room)()
	r, err := s.stub(ctx, j.Event.Room, j.Version)
	if err != nil {
		return err
	}
	whole, err := s.authorized(ctx, append(slices.Clone(j.Auth), j.State...))
	if err != nil {
		return err
	}
	known, err := s.keep(ctx, r, whole)
	if err != nil {
		return err
	}
	state := make([]*store.Event, 0, len(j.State))
	for _, p := range j.State {
		if e := known[p.ID]; e != nil {
			state = append(state, e)
		}
	}
	a := &arrival{s: s, ctx: ctx, pdu: j.Event, gap: true, told: true}
	if a.before, a.new, err = s.treeOf(ctx, r.Num, state); err != nil {
		return err
	}
	if a.old, err = s.Store.Event(ctx, j.Event.ID); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	fresh := *r
	fresh.Heads = nil // what was here before does not lead to the join
	a.room = &fresh
	auth, err := s.Store.EventsByID(ctx, j.Event.AuthEvents)
	if err != nil {
		return err
	}
	return a.enter(auth)
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
	if err := eventauth.Check(a.pdu, before); err != nil {
		if before.err != nil {
			return before.err
		}
		return matrix.Errorf(matrix.Forbidden, "the state that came with the join does not allow it: %v", err)
	}
	return a.commit()
}

// Outside is a membership of a user of this server in a room that this server
// is not in: an invitation, a knock, or the end of one.
type Outside struct {
	Version  *matrix.RoomVersion
	Event    *event.PDU
	Stripped []json.RawMessage // what was told of the room; nil leaves what is known
}

// PutOutside stores a membership in a room that this server is not in, and wakes
// the user. Where the server is in the room nothing is done: the event comes
// with the others.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
func (s *Service) PutOutside(ctx context.Context, o Outside) error {
	p := o.Event
	if p.Type != event.TypeMember || p.StateKey == nil {
		return fmt.Errorf("%s is no membership", p.ID)
	}
	defer s.locks.lock(p.Room)()
	r, err := s.stub(ctx, p.Room, o.Version)
	if err != nil {
		return err
	}
	if r.Current != 0 && len(s.Store.LocalMembers(r.Num)) > 0 {
		return nil
	}
	user := matrix.UserID(*p.StateKey)
	old, err := s.Store.Event(ctx, p.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		pos, err := tx.NextPosition(ctx)
		if err != nil {
			return err
		}
		e := &store.Event{PDU: p, Num: store.EventNum(pos), Room: r.Num}
		if old != nil {
			e = old
		} else if err := tx.AppendEvent(ctx, e); err != nil {
			return err
		}
		if o.Stripped != nil {
			if err := tx.PutStripped(ctx, r.Num, user, o.Stripped); err != nil {
				return err
			}
		}
		return tx.PutMembership(ctx, store.Membership{User: user, Room: r.Num, Membership: p.Membership(), Event: e.Num, Pos: pos, Local: true})
	})
	if err != nil {
		return err
	}
	s.Bell.Ring(store.LogBell, string(user))
	return nil
}

// rootless is the root of the state at an event that was kept aside.
const rootless statetree.ID = 0

// OutsideState is what a user who is invited or has knocked gets to know of the
// room: what is true, or where this server is not in the room, what it was told.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#stripped-state
func (s *Service) OutsideState(ctx context.Context, e *store.Event, user matrix.UserID) ([]json.RawMessage, error) {
	if e.State != rootless {
		return s.Stripped(ctx, e.State, user)
	}
	list, err := s.Store.Stripped(ctx, e.Room, user)
	if err != nil {
		return nil, err
	}
	return append(list, e.PDU.StrippedState(nil)), nil
}
