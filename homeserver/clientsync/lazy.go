package clientsync

import (
	"slices"
	"sync"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// wanted applies the client's filter to state events. With lazy loading it
// leaves out the members of a room that is new to the client, but for the user,
// and adds those who sent something or who name the room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members
func (rd *reading) wanted(p part, state []*store.Event, found []room.Seen, sum *summary) ([]*store.Event, error) {
	f := &rd.Filter.Room.State
	list := make([]*store.Event, 0, len(state))
	for _, e := range state {
		lazy := p.whole && f.LazyMembers && isMember(e) && *e.PDU.StateKey != string(rd.User)
		if !lazy && f.Wants(e) {
			list = append(list, e)
		}
	}
	if !f.LazyMembers {
		return list, nil
	}
	members, err := rd.lazyMembers(p, found, sum)
	if err != nil {
		return nil, err
	}
	known := rd.told(p)
	for _, m := range members {
		inTimeline := slices.ContainsFunc(found, func(e room.Seen) bool { return e.Num == m.Num })
		inState := slices.ContainsFunc(list, func(e *store.Event) bool { return e.Num == m.Num })
		if f.Wants(m) && !inState && (!inTimeline || rd.StateAfter) && (f.Redundant || p.whole || !known.has(m)) {
			list = append(list, m)
		}
	}
	known.tell(rd.now.pos, list)
	known.tell(rd.now.pos, plain(found))
	return list, nil
}

func isMember(e *store.Event) bool { return e.PDU.IsState() && e.PDU.Type == "m.room.member" }

// lazyMembers are the member events that a client needs to show found, and the
// heroes if it is told of them.
func (rd *reading) lazyMembers(p part, found []room.Seen, sum *summary) ([]*store.Event, error) {
	list, err := rd.Rooms.Senders(rd.ctx, found)
	if err != nil || sum == nil || len(sum.Heroes) == 0 {
		return list, err
	}
	root, err := rd.rootAt(p.room, min(p.upto, p.stay))
	if err != nil {
		return nil, err
	}
	for _, u := range sum.Heroes {
		m, err := rd.Rooms.StateEvent(rd.ctx, root, "m.room.member", string(u))
		if err != nil {
			return nil, err
		}
		if m != nil && !slices.ContainsFunc(list, func(e *store.Event) bool { return e.PDU.Is("m.room.member", string(u)) }) {
			list = append(list, m)
		}
	}
	return list, nil
}

// toldKey names a room as a device knows it.
type toldKey struct {
	user   matrix.UserID
	device matrix.DeviceID
	room   store.RoomNum
}

// told is which member events of a room a device has been sent.
type told struct {
	mu      sync.Mutex // tier 1; guards members
	members map[matrix.UserID]telling
}

// telling is a member event and the answer in which it was sent.
type telling struct {
	event store.EventNum
	pos   int64
}

// mostTold bounds the members that are remembered of a room for one device.
const mostTold = 100

// told gives what the device has been sent. What was sent in answers behind
// since is forgotten: the client may not have got them.
func (rd *reading) told(p part) *told {
	key := toldKey{rd.User, rd.Device, p.room.Num}
	t, ok := rd.tellings.Find(key)
	if !ok {
		t = &told{members: map[matrix.UserID]telling{}}
		rd.tellings.Put(key, t)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for u, m := range t.members {
		if m.pos > rd.since.pos {
			delete(t.members, u)
		}
	}
	return t
}

// has tells whether the client knows a member event.
func (t *told) has(m *store.Event) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.members[matrix.UserID(*m.PDU.StateKey)].event == m.Num
}

// tell remembers the member events among list as sent in the answer with a
// position.
func (t *told) tell(pos int64, list []*store.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range list {
		if !isMember(e) {
			continue
		}
		if len(t.members) >= mostTold {
			clear(t.members)
		}
		t.members[matrix.UserID(*e.PDU.StateKey)] = telling{e.Num, pos}
	}
}
