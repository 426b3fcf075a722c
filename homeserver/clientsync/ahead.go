package clientsync

import (
	"encoding/json"

	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// roomsAtOnce is how many of a user's rooms are read together, and eventsAtOnce about
// how many events these may have: they and the next ones stay in memory meanwhile.
const (
	roomsAtOnce  = 40
	eventsAtOnce = 1200
)

// partSize is how many rooms are read together.
func (rd *reading) partSize() int {
	return min(max(eventsAtOnce/(rd.timelineLimit()+10), 1), roomsAtOnce)
}

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
	return rd.heroesAhead(a.Rooms)
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
