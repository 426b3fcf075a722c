package clientsync

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// place is one of a user's rooms and when something was last done in it. It is
// never changed.
type place struct {
	own  store.Membership
	room *store.Room
	at   int64                // of the log: the last activity that the user may know of
	kind atomic.Pointer[kind] // nil until somebody asks
}

// kind is what of a room's state lists ask for.
type kind struct {
	encrypted bool
	typ       *string
}

// order is what all rooms of a user are at a position of the log, those with the
// newest activity first. It is never changed.
type order struct {
	pos    int64
	places []*place
	nums   []store.RoomNum // of places: to find one there is quicker
}

// orderOf gives the order of the user's rooms as of now. What is known of it is
// brought up to date, so that a message costs little in a list of thousands.
func (sl *slide) orderOf(user matrix.UserID) (*order, error) {
	orders := sl.memories().orders
	old, _ := orders.Find(user)
	pos := sl.Store.Position()
	if old != nil && old.pos >= pos {
		sl.now.pos = old.pos
		return old, nil
	}
	sl.now.pos = pos
	var list []store.Membership
	sure := false
	if old != nil {
		var rooms map[store.RoomNum]bool
		if rooms, sure = sl.Store.RoomsChanged(old.pos, pos); sure {
			list = sl.Store.MembershipNews(user, rooms, old.pos)
		}
	}
	if !sure {
		old, list = &order{}, sl.Store.Memberships(user)
	}
	var anew []int // places of old that are read anew, or given up
	for _, m := range list {
		if i := slices.Index(old.nums, m.Room); i >= 0 {
			anew = append(anew, i)
		}
	}
	list, err := sl.asOf(list)
	if err != nil {
		return nil, err
	}
	fresh := make([]*place, 0, len(old.places)+len(list))
	for part := range slices.Chunk(list, placesAtOnce) {
		if fresh, err = sl.addPlaces(fresh, part); err != nil {
			return nil, err
		}
	}
	byActivity := func(a, b *place) int { return cmp.Or(cmp.Compare(b.at, a.at), cmp.Compare(b.own.Room, a.own.Room)) }
	slices.SortFunc(fresh, byActivity)
	next := &order{pos, old.places, old.nums}
	if len(fresh)+len(anew) > 0 {
		next.places, next.nums = old.renew(anew, fresh)
	}
	if len(fresh) > 0 && len(fresh) < len(next.places) && byActivity(fresh[len(fresh)-1], next.places[len(fresh)]) > 0 {
		slices.SortFunc(next.places, byActivity)
		for i, p := range next.places {
			next.nums[i] = p.own.Room
		}
	}
	orders.Put(user, next, 200+310*len(next.places))
	return next, nil
}

// placesAtOnce is how many places are read together, where many are not in memory.
const placesAtOnce = 500

// renew gives the places of the order with fresh ones at the head and without those
// that are named, and their rooms. Where the state is the same, what is known of a
// room still is.
func (o *order) renew(without []int, fresh []*place) (places []*place, nums []store.RoomNum) {
	places, nums = make([]*place, 0, len(o.places)+len(fresh)), make([]store.RoomNum, 0, len(o.places)+len(fresh))
	for _, p := range fresh {
		places, nums = append(places, p), append(nums, p.own.Room)
	}
	slices.Sort(without)
	from := 0
	for _, i := range without {
		places, nums = append(places, o.places[from:i]...), append(nums, o.nums[from:i]...)
		from = i + 1
		was := o.places[i]
		if j := slices.Index(nums[:len(fresh)], was.own.Room); j >= 0 && fresh[j].own.Event == was.own.Event && fresh[j].room.Current == was.room.Current {
			fresh[j].kind.Store(was.kind.Load())
		}
	}
	return append(places, o.places[from:]...), append(nums, o.nums[from:]...)
}

// addPlaces adds rooms of the user with what is new in them.
func (sl *slide) addPlaces(places []*place, list []store.Membership) ([]*place, error) {
	nums := make([]store.RoomNum, len(list))
	for i, m := range list {
		nums[i] = m.Room
	}
	rooms, err := sl.Store.RoomsByNum(sl.ctx, nums)
	if err != nil {
		return nil, err
	}
	if len(rooms) < len(list) {
		return nil, fmt.Errorf("%d rooms that %s is a member of are missing", len(list)-len(rooms), sl.reading.User)
	}
	for i, m := range list {
		p := &place{own: m, room: rooms[i], at: m.Pos}
		if m.Membership == "join" {
			p.at = min(p.room.Last, sl.now.pos)
		}
		places = append(places, p)
	}
	return places, nil
}

// encryption and creation are the types of the events that make a kind.
const encryption, creation = "m.room.encryption", event.TypeCreate

// kindsAhead finds out the kinds of the first of some places of which nobody has
// asked yet, in few statements for all of them.
func (sl *slide) kindsAhead(seats []*seat) error {
	var places []*place
	var roots []statetree.ID
	for _, s := range seats {
		if len(places) == placesAtOnce {
			break
		}
		if s.kind.Load() != nil {
			continue
		}
		if places = append(places, s.place); s.own.Membership == "join" {
			roots = append(roots, s.room.Current)
		}
	}
	if err := sl.reading.Rooms.StateAhead(sl.ctx, roots, encryption, creation); err != nil {
		return err
	}
	for _, p := range places {
		if _, err := sl.kindOf(p); err != nil {
			return err
		}
	}
	return nil
}

// kindOf is a room's encryption and type, as far as the user may know them.
func (sl *slide) kindOf(p *place) (*kind, error) {
	if k := p.kind.Load(); k != nil {
		return k, nil
	}
	k := &kind{}
	set := func(typ string, content json.RawMessage) {
		switch typ {
		case encryption:
			k.encrypted = true
		case creation:
			var c struct {
				Type *string `json:"type"`
			}
			if json.Unmarshal(content, &c) == nil {
				k.typ = c.Type
			}
		}
	}
	if p.own.Membership == "join" {
		for _, typ := range []string{encryption, creation} {
			e, err := sl.reading.Rooms.StateEvent(sl.ctx, p.room.Current, typ, "")
			if err != nil {
				return nil, err
			}
			if e != nil {
				set(typ, e.PDU.Content)
			}
		}
	} else {
		list, err := sl.outsideState(p)
		if err != nil {
			return nil, err
		}
		for _, raw := range list {
			var e struct {
				Type    string          `json:"type"`
				Content json.RawMessage `json:"content"`
			}
			if json.Unmarshal(raw, &e) == nil {
				set(e.Type, e.Content)
			}
		}
	}
	p.kind.Store(k)
	return k, nil
}

// outsideState is what is known of a room by somebody who is not in it.
func (sl *slide) outsideState(p *place) ([]json.RawMessage, error) {
	e, err := sl.Store.EventByNum(sl.ctx, p.own.Event)
	if err != nil {
		return nil, err
	}
	return sl.reading.Rooms.OutsideState(sl.ctx, e, sl.reading.User)
}
