package clientsync

import (
	"encoding/json"
	"slices"

	"switchboard/homeserver/room"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// roomsAtOnce is how many of a user's rooms are read together, and eventsAtOnce about
// how many events these may have: they and the next ones stay in memory meanwhile.
const (
	roomsAtOnce  = 40
	eventsAtOnce = 1200
)

// partSize is how many rooms are read together, with so many events of each timeline.
func partSize(limit int) int { return min(max(eventsAtOnce/(limit+10), 1), roomsAtOnce) }

// readAhead brings into memory what is going to be told of rooms, for who was
// away for long or never here: in few statements for all of them.
func (rd *reading) readAhead(part []store.Membership) error {
	nums := make([]store.RoomNum, len(part))
	for i, m := range part {
		nums[i] = m.Room
	}
	rooms, err := rd.Store.RoomsByNum(rd.ctx, nums)
	if err != nil {
		return err
	}
	whole := rd.initial() || rd.FullState
	a := room.Ahead{
		User: rd.User, Limit: rd.timelineLimit(), Lazy: rd.Filter.Room.State.LazyMembers, Start: whole && !rd.StateAfter, End: whole && rd.StateAfter,
	}
	in := make(map[store.RoomNum]store.Membership, len(part))
	for _, m := range part {
		in[m.Room] = m
	}
	nums = nums[:0]
	var receipts []store.Receipt
	for _, r := range rooms {
		m := in[r.Num]
		if !rd.Filter.Room.wants(r.ID) || !whole && max(r.Last, m.Pos) <= rd.since.pos {
			continue
		}
		a.Also = append(a.Also, m.Event)
		if m.Membership == "join" {
			a.Rooms = append(a.Rooms, r)
			nums, receipts = append(nums, r.Num), append(receipts, rd.read[r.Num]...)
		}
	}
	if rd.initial() {
		rd.Unread.Receipts(rd.User, nums, receipts, rd.now.pos)
	}
	if err := rd.Rooms.ReadAhead(rd.ctx, a); err != nil {
		return err
	}
	if err := rd.Unread.Ahead(rd.ctx, rd.User, a.Rooms, rd.now.pos); err != nil || !whole {
		return err
	}
	return rd.heroesAhead(a.Rooms, a.Lazy)
}

// seatsAhead is readAhead for rooms at which a client of sliding sync looks, and of
// which it knows nothing yet.
func (sl *slide) seatsAhead(part []*seat) error {
	a := room.Ahead{User: sl.reading.User, Lazy: true}
	var nums []store.RoomNum
	var roots []statetree.ID
	types := []string{"m.room.avatar"}
	for _, s := range part {
		if s.quiet || sl.known.rooms.of(s.own.Room) != nil {
			continue
		}
		if a.Also = append(a.Also, s.own.Event); s.own.Membership != "join" {
			continue
		}
		named, all := s.config.single()
		a.Rooms, a.Limit, a.End = append(a.Rooms, s.room), max(a.Limit, s.config.limit), a.End || !all
		nums, roots = append(nums, s.own.Room), append(roots, s.room.Current)
		for _, m := range named {
			if *m.Key == "" && !slices.Contains(types, *m.Type) {
				types = append(types, *m.Type)
			}
		}
	}
	if len(a.Also) < 2 {
		return nil
	}
	receipts, err := sl.Store.ReceiptsOf(sl.ctx, a.User, nums)
	if err != nil {
		return err
	}
	sl.Unread.Receipts(a.User, nums, receipts, sl.now.pos)
	for _, step := range []func() error{
		func() error { return sl.reading.Rooms.ReadAhead(sl.ctx, a) },
		func() error { return sl.reading.Rooms.StateAhead(sl.ctx, roots, types...) },
		func() error { return sl.Unread.Ahead(sl.ctx, a.User, a.Rooms, sl.now.pos) },
		func() error { return sl.heroesAhead(a.Rooms, true) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// unshaped are events for which the answer has a place, but not yet in the shape
// that the client wants.
type unshaped struct {
	list []room.Seen
	to   *[]json.RawMessage
}

// later puts events into the answer when shape is called. Related tells whether the
// client is also told what refers to them.
func (rd *reading) later(list []room.Seen, related bool, to *[]json.RawMessage) {
	w := &rd.plain
	if related {
		w = &rd.related
	}
	*w = append(*w, unshaped{list, to})
}

// shape gives the events that wait for it their shape, those of all rooms together.
func (rd *reading) shape() error {
	for _, w := range []*[]unshaped{&rd.plain, &rd.related} {
		var all []room.Seen
		for _, u := range *w {
			all = append(all, u.list...)
		}
		raw, err := rd.clients(all, w == &rd.related)
		if err != nil {
			return err
		}
		for _, u := range *w {
			*u.to, raw = raw[:len(u.list):len(u.list)], raw[len(u.list):]
		}
		*w = (*w)[:0]
	}
	return nil
}
