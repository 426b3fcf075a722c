package room

import (
	"cmp"
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
	Version     *matrix.RoomVersion
	Event       *event.PDU // the join
	State, Auth []*event.PDU

	// Verified tells which of some events are not signed as they must be. It is
	// asked for all of State and Auth, in the order in which they are stored, and
	// may wait for signatures that are still being verified. Where it is nil, all
	// have been verified.
	Verified func(ctx context.Context, events []*event.PDU) []error
}

// Import makes this server a part of a room: it stores the state and the join of
// a user of this server that another server let in. The state is stored while
// its signatures are verified, aside from the timeline; the server is in the
// room when all of it is stored, or not at all. Events that are forged, or whose
// auth events are not here, are left out: one of them must not keep a user out
// of the room. The caller has verified the hashes.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
func (s *Service) Import(ctx context.Context, j Joined) error {
	defer s.locks.lock(j.Event.Room)()
	r, fresh, err := s.stub(ctx, j.Event.Room, j.Version)
	if err != nil {
		return err
	}
	in := &intake{s: s, room: r, verified: j.Verified, known: map[matrix.EventID]*store.Event{}}
	all := append(slices.Clone(j.Auth), j.State...)
	if !fresh { // else nothing of the room can be here
		if _, err := in.find(ctx, all); err != nil {
			return err
		}
	}
	if err := in.take(ctx, all); err != nil {
		return err
	}
	if in.left > 0 {
		zerolog.Ctx(ctx).Warn().Str("room", string(r.ID)).Int("events", in.left).Msg("events of a room's state were left out: they are forged, or what authorizes them is missing")
	}
	a := &arrival{s: s, ctx: ctx, pdu: j.Event, gap: true, told: true, hand: make(map[store.EventNum]*store.Event, len(j.State))}
	state := make([]*store.Event, 0, len(j.State))
	for _, p := range j.State {
		if e := in.known[p.ID]; e != nil {
			state = append(state, e)
			a.hand[e.Num] = e
		}
	}
	if a.before, a.new, err = s.treeOf(ctx, r.Num, state); err != nil {
		return err
	}
	if a.old, err = s.Store.Event(ctx, j.Event.ID); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	joined := *r
	joined.Heads = nil // what was here before does not lead to the join
	a.room = &joined
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

// keptAtOnce is how many events one transaction keeps aside.
const keptAtOnce = 6000

// intake stores events of a room aside from its timeline.
type intake struct {
	s        *Service
	room     *store.Room
	verified func(context.Context, []*event.PDU) []error // nil: all are
	known    map[matrix.EventID]*store.Event             // what is here, as far as it is needed
	left     int                                         // events that were left out
	auth     []*event.PDU                                // of the event that is being checked
}

// find finds out which of the events, and of those that authorize them, are
// here. The answer are auth events that are neither here nor among the events.
func (in *intake) find(ctx context.Context, events []*event.PDU) (missing []matrix.EventID, err error) {
	inside := make(map[matrix.EventID]bool, len(events))
	for _, p := range events {
		inside[p.ID] = true
	}
	ids := make([]matrix.EventID, 0, len(inside))
	for id := range inside {
		ids = append(ids, id)
	}
	own := len(ids)
	for _, p := range events {
		for _, id := range p.AuthEvents {
			if !inside[id] {
				inside[id] = true
				ids = append(ids, id)
			}
		}
	}
	named := len(ids)
	if in.room.Version.RoomIDFromCreate { // which no auth events name
		ids = append(ids, createID(in.room.ID))
	}
	if in.known, err = in.s.Store.EventsByID(ctx, ids); err != nil {
		return nil, err
	}
	for _, id := range ids[own:named] {
		if in.known[id] == nil {
			missing = append(missing, id)
		}
	}
	return missing, nil
}

// take stores those of the events that are not here.
func (in *intake) take(ctx context.Context, events []*event.PDU) error {
	sorted, err := byAuth(events)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(sorted, keptAtOnce) {
		fresh, err := in.check(ctx, part)
		if err != nil {
			return err
		}
		err = in.s.Store.Update(ctx, func(tx *store.Tx) error {
			for _, e := range fresh {
				pos, err := tx.NextPosition(ctx)
				if err != nil {
					return err
				}
				e.Num = store.EventNum(pos)
			}
			return tx.AppendAside(ctx, fresh)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// check tells what becomes of events whose auth events were checked before. The
// answer has those that are to be stored.
func (in *intake) check(ctx context.Context, part []*event.PDU) ([]*store.Event, error) {
	var errs []error
	if in.verified != nil {
		errs = in.verified(ctx, part)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fresh := make([]*store.Event, 0, len(part))
	for i, p := range part {
		if in.known[p.ID] != nil {
			continue
		}
		if errs != nil && errs[i] != nil || !in.authorized(p) {
			in.left++
			continue
		}
		status, err := in.judge(p)
		if err != nil {
			return nil, err
		}
		e := &store.Event{PDU: p, Room: in.room.Num, Status: status} // its number follows
		in.known[p.ID] = e
		fresh = append(fresh, e)
	}
	return fresh, nil
}

// authorized tells whether the auth events of an event are here.
func (in *intake) authorized(p *event.PDU) bool {
	return !slices.ContainsFunc(p.AuthEvents, func(id matrix.EventID) bool { return in.known[id] == nil })
}

// judge tells what becomes of an event by its auth events, which are here.
func (in *intake) judge(p *event.PDU) (store.Status, error) {
	if p.Room != in.room.ID {
		return 0, matrix.Errorf(matrix.Forbidden, "%s belongs to another room", p.ID)
	}
	in.auth = in.auth[:0]
	for _, id := range p.AuthEvents {
		e := in.known[id]
		if e.Status == store.Rejected {
			return store.Rejected, nil
		}
		in.auth = append(in.auth, e.PDU)
	}
	if eventauth.CheckSelection(p, in.auth) != nil {
		return store.Rejected, nil
	}
	if in.room.Version.RoomIDFromCreate && p.Type != event.TypeCreate {
		create := in.known[createID(in.room.ID)]
		if create == nil || create.Status == store.Rejected {
			return store.Rejected, nil
		}
		in.auth = append(in.auth, create.PDU)
	}
	if eventauth.Check(p, in) != nil {
		return store.Rejected, nil
	}
	return store.Accepted, nil
}

// createID is the ID of the create event of a room whose ID names it.
func createID(room matrix.RoomID) matrix.EventID { return matrix.EventID("$" + room[1:]) }

// Event implements eventauth.State for the event that is being judged.
func (in *intake) Event(typ, stateKey string) *event.PDU {
	for _, a := range in.auth {
		if a.Is(typ, stateKey) {
			return a
		}
	}
	return nil
}

// PowerLevels are those of the event that is being judged; eventauth uses them.
func (in *intake) PowerLevels() (*eventauth.PowerLevels, error) {
	return in.s.powerLevels(in.Event(event.TypeCreate, ""), in.Event(event.TypePowerLevels, ""))
}

// byAuth puts events into an order in which each stands behind its auth events.
// Events that have one ID follow on each other: some may be forged.
func byAuth(events []*event.PDU) ([]*event.PDU, error) {
	place := make(map[matrix.EventID]int32, len(events))
	list := make([]*event.PDU, 0, len(events))
	copies := map[int32][]*event.PDU{}
	for _, p := range events {
		i, known := place[p.ID]
		switch {
		case !known:
			place[p.ID] = int32(len(list))
			list = append(list, p)
		case list[i] != p:
			copies[i] = append(copies[i], p)
		}
	}
	type waiting struct{ who, next int32 } // next: of those who wait for the same one
	var queue []waiting
	last := make([]int32, len(list))  // who waits for it, as a place in queue + 1
	waits := make([]int32, len(list)) // for how many auth events
	ready := make([]int32, 0, len(list))
	for i, p := range list {
		for _, a := range p.AuthEvents {
			if on, ok := place[a]; ok {
				queue = append(queue, waiting{int32(i), last[on]})
				last[on] = int32(len(queue))
				waits[i]++
			}
		}
		if waits[i] == 0 {
			ready = append(ready, int32(i))
		}
	}
	slices.SortStableFunc(ready, func(a, b int32) int { return byDepth(list[a], list[b]) })
	sorted := make([]*event.PDU, 0, len(list))
	for next := 0; next < len(ready); next++ {
		i := ready[next]
		sorted = append(append(sorted, list[i]), copies[i]...)
		from := len(ready)
		for at := last[i]; at != 0; at = queue[at-1].next {
			w := queue[at-1]
			if waits[w.who]--; waits[w.who] == 0 {
				ready = append(ready, w.who)
			}
		}
		slices.Sort(ready[from:]) // in the order in which they came
	}
	if len(ready) < len(list) {
		return nil, matrix.Errorf(matrix.Forbidden, "events authorize each other in a circle")
	}
	return sorted, nil
}

func byDepth(a, b *event.PDU) int { return cmp.Compare(a.Depth, b.Depth) }
