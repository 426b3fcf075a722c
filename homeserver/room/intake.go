package room

import (
	"cmp"
	"context"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// keptAtOnce is how many events one transaction keeps aside.
const keptAtOnce = 6000

// Intake stores events of a room aside from its timeline while they come, such
// as the state of a room that is joined. Each is checked against its own auth
// events, and stored when these are here; what they do not allow is stored as
// rejected. It is for one goroutine.
type Intake struct {
	s       *Service
	room    *store.Room
	alone   bool                            // else some of the events may be here before they come
	create  matrix.EventID                  // which authorizes all others, named or not; "" in rooms where it is named
	known   map[matrix.EventID]*store.Event // what is here or in fresh, as far as it is needed
	waiting map[matrix.EventID][]*event.PDU // by an auth event that is not
	fresh   []*store.Event                  // known and not yet stored
	auth    []*event.PDU                    // of the event that is being checked
}

// Intake begins to take events of a room, whose row it makes if this server never
// heard of it.
func (s *Service) Intake(ctx context.Context, id matrix.RoomID, v *matrix.RoomVersion) (*Intake, error) {
	defer s.locks.lock(id)()
	r, fresh, err := s.stub(ctx, id, v)
	if err != nil {
		return nil, err
	}
	in := s.intake(r)
	in.alone = fresh
	return in, nil
}

func (s *Service) intake(r *store.Room) *Intake {
	in := &Intake{s: s, room: r, known: map[matrix.EventID]*store.Event{}, waiting: map[matrix.EventID][]*event.PDU{}}
	if r.Version.RoomIDFromCreate {
		in.create = createID(r.ID)
	}
	return in
}

// Take takes events in any order. The caller has verified their signatures and
// hashes.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
func (in *Intake) Take(ctx context.Context, events []*event.PDU) error {
	if !in.alone {
		if _, err := in.find(ctx, events); err != nil {
			return err
		}
	}
	return in.all(ctx, events)
}

// all is Take when it is known which of the events are here.
func (in *Intake) all(ctx context.Context, events []*event.PDU) error {
	for _, p := range events {
		if err := in.take(p); err != nil {
			return err
		}
		if len(in.fresh) >= keptAtOnce {
			if err := in.store(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish stores what has not been yet. It tells how many events are left out,
// since their auth events never came.
func (in *Intake) finish(ctx context.Context) (left int, err error) {
	for _, list := range in.waiting {
		left += len(list)
	}
	return left, in.store(ctx)
}

// here are those of the events that are stored.
func (in *Intake) here(events []*event.PDU) []*store.Event {
	list := make([]*store.Event, 0, len(events))
	for _, p := range events {
		if e := in.known[p.ID]; e != nil {
			list = append(list, e)
		}
	}
	return list
}

// find finds out which of the events, and of those that authorize them, are
// here. The answer are auth events that are neither here nor among the events.
func (in *Intake) find(ctx context.Context, events []*event.PDU) (missing []matrix.EventID, err error) {
	named := make(map[matrix.EventID]bool, len(events)) // true: as an auth event alone
	for _, p := range events {
		for _, id := range p.AuthEvents {
			named[id] = true
		}
	}
	if in.create != "" {
		named[in.create] = true
	}
	for _, p := range events {
		named[p.ID] = false
	}
	ids := make([]matrix.EventID, 0, len(named))
	for id := range named {
		if in.known[id] == nil {
			ids = append(ids, id)
		}
	}
	found, err := in.s.Store.EventsByID(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		switch e := found[id]; {
		case e != nil:
			in.known[id] = e
		case named[id]:
			missing = append(missing, id)
		}
	}
	return missing, nil
}

// take takes an event and those that waited for it, or lets it wait.
func (in *Intake) take(p *event.PDU) error {
	for list := []*event.PDU{p}; len(list) > 0; list = list[1:] {
		p := list[0]
		if in.known[p.ID] != nil {
			continue
		}
		if id := in.lacks(p); id != "" {
			in.waiting[id] = append(in.waiting[id], p)
			continue
		}
		status, err := in.judge(p)
		if err != nil {
			return err
		}
		e := &store.Event{PDU: p, Room: in.room.Num, Status: status} // its number follows
		in.known[p.ID] = e
		in.fresh = append(in.fresh, e)
		list = append(list, in.waiting[p.ID]...)
		delete(in.waiting, p.ID)
	}
	return nil
}

// lacks is an auth event of an event that is not here; "" for none.
func (in *Intake) lacks(p *event.PDU) matrix.EventID {
	if in.create != "" && p.ID != in.create && in.known[in.create] == nil {
		return in.create
	}
	for _, id := range p.AuthEvents {
		if in.known[id] == nil {
			return id
		}
	}
	return ""
}

// store writes what is known and not stored.
func (in *Intake) store(ctx context.Context) error {
	for len(in.fresh) > 0 {
		err := in.s.Store.Update(ctx, func(tx *store.Tx) error {
			for _, e := range in.fresh {
				pos, err := tx.NextPosition(ctx)
				if err != nil {
					return err
				}
				e.Num = store.EventNum(pos)
			}
			return tx.AppendAside(ctx, in.fresh)
		})
		if err == nil {
			in.fresh = in.fresh[:0]
			break
		}
		if again, findErr := in.yield(ctx); !again {
			return cmp.Or(findErr, err)
		}
	}
	return nil
}

// yield leaves out of fresh what others, such as another user's join, have stored
// meanwhile, and tells whether that was something.
func (in *Intake) yield(ctx context.Context) (bool, error) {
	ids := make([]matrix.EventID, len(in.fresh))
	for i, e := range in.fresh {
		ids[i] = e.PDU.ID
	}
	found, err := in.s.Store.EventsByID(ctx, ids)
	if err != nil || len(found) == 0 {
		return false, err
	}
	in.alone = false
	for id, e := range found {
		in.known[id] = e
	}
	in.fresh = slices.DeleteFunc(in.fresh, func(e *store.Event) bool { return found[e.PDU.ID] != nil })
	return true, nil
}

// judge tells what becomes of an event by its auth events, which are here.
func (in *Intake) judge(p *event.PDU) (store.Status, error) {
	if p.Room != in.room.ID {
		return 0, matrix.Errorf(matrix.Forbidden, "%s belongs to another room", p.ID)
	}
	in.auth = in.auth[:0]
	for _, id := range p.AuthEvents {
		e := in.known[id]
		if e.Status == store.Rejected || e.Room != in.room.Num {
			return store.Rejected, nil
		}
		in.auth = append(in.auth, e.PDU)
	}
	if eventauth.CheckSelection(p, in.auth) != nil {
		return store.Rejected, nil
	}
	if in.room.Version.RoomIDFromCreate && p.Type != event.TypeCreate {
		create := in.known[in.create]
		if create.Status == store.Rejected {
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
func (in *Intake) Event(typ, stateKey string) *event.PDU {
	for _, a := range in.auth {
		if a.Is(typ, stateKey) {
			return a
		}
	}
	return nil
}

// PowerLevels are those of the event that is being judged; eventauth uses them.
func (in *Intake) PowerLevels() (*eventauth.PowerLevels, error) {
	return in.s.powerLevels(in.Event(event.TypeCreate, ""), in.Event(event.TypePowerLevels, ""))
}
