package room

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

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
	in := s.intake(r)
	missing, err := in.find(ctx, events)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return &MissingError{Room: r.ID, Auth: missing}
	}
	if err := in.all(ctx, events); err != nil {
		return err
	}
	left, err := in.finish(ctx)
	if err == nil && left > 0 { // as nothing else is missing
		err = matrix.Errorf(matrix.Forbidden, "events authorize each other in a circle")
	}
	return err
}

// stub gives the row of a room, making it if this server never heard of it:
// fresh tells that.
func (s *Service) stub(ctx context.Context, id matrix.RoomID, v *matrix.RoomVersion) (r *store.Room, fresh bool, err error) {
	r, err = s.Store.Room(ctx, id)
	if !errors.Is(err, store.ErrNotFound) {
		if err == nil && r.Version != v {
			return nil, false, matrix.Errorf(matrix.Forbidden, "the room has version %s, not %s", r.Version.ID, v.ID)
		}
		return r, false, err
	}
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		n, err := tx.NextNumber(ctx, "rooms")
		if err != nil {
			return err
		}
		r = &store.Room{Num: store.RoomNum(n), ID: id, Version: v}
		return tx.PutRoom(ctx, r)
	})
	return r, true, err
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
	r, _, err := s.stub(ctx, p.Room, o.Version)
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
