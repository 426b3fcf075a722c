package room

import (
	"context"
	"encoding/json"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// Snapshot is the state of a room at one place as it is told to another server.
// It may be large: events are read while they are told, and not kept.
type Snapshot struct {
	s       *Service
	version *matrix.RoomVersion
	nums    []store.EventNum                  // of the state
	here    map[matrix.EventID]store.EventNum // the state, as far as it was told
	auth    map[matrix.EventID]struct{}       // what authorizes that
}

// Snapshot prepares to tell the state of a room with a root. Also are events that
// are not told, but whose auth events are.
func (s *Service) Snapshot(ctx context.Context, r *store.Room, root statetree.ID, also ...*event.PDU) (*Snapshot, error) {
	x := &Snapshot{s: s, version: r.Version, here: map[matrix.EventID]store.EventNum{}, auth: map[matrix.EventID]struct{}{}}
	err := s.tree(root).Walk(s.Store.Nodes(ctx), func(_ statetree.Key, n statetree.Value) bool {
		x.nums = append(x.nums, store.EventNum(n))
		return true
	})
	if r.Version.RoomIDFromCreate {
		x.need([]matrix.EventID{matrix.EventID("$" + r.ID[1:])})
	}
	for _, p := range also {
		x.need(p.AuthEvents)
	}
	slices.Sort(x.nums)
	return x, err
}

// need adds what authorizes an event that is told, and gives what is new.
func (x *Snapshot) need(ids []matrix.EventID) (fresh []matrix.EventID) {
	for _, id := range ids {
		if _, known := x.auth[id]; !known {
			x.auth[id] = struct{}{}
			fresh = append(fresh, id)
		}
	}
	return fresh
}

// State tells the events of the state, in the order in which they came here.
func (x *Snapshot) State(ctx context.Context, each func(json.RawMessage) error) error {
	return x.s.Store.EachText(ctx, x.nums, func(num store.EventNum, id matrix.EventID, text []byte) error {
		x.here[id] = num
		event.EachAuthEvent(x.version, text, func(id []byte) {
			if _, known := x.auth[matrix.EventID(id)]; !known { // which takes no memory
				x.auth[matrix.EventID(id)] = struct{}{}
			}
		})
		return each(text)
	})
}

// Auth tells the events that authorize the state, and those that authorize these,
// and so on. It is called after State.
func (x *Snapshot) Auth(ctx context.Context, each func(json.RawMessage) error) error {
	var inside []store.EventNum
	var level []matrix.EventID
	sort := func(ids []matrix.EventID) {
		for _, id := range ids {
			if num, ok := x.here[id]; ok { // and what authorizes it is known
				inside = append(inside, num)
			} else {
				level = append(level, id)
			}
		}
	}
	all := make([]matrix.EventID, 0, len(x.auth))
	for id := range x.auth {
		all = append(all, id)
	}
	sort(all)
	for len(level) > 0 {
		found, err := x.s.Store.EventsByID(ctx, level)
		if err != nil {
			return err
		}
		level = nil
		for _, e := range found {
			if err := each(e.PDU.JSON); err != nil {
				return err
			}
			sort(x.need(e.PDU.AuthEvents))
		}
	}
	slices.Sort(inside)
	return x.s.Store.EachText(ctx, inside, func(_ store.EventNum, _ matrix.EventID, text []byte) error { return each(text) })
}
