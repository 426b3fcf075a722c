package clientsync

import (
	"cmp"
	"encoding/json"
	"slices"
	"sync/atomic"

	"switchboard/homeserver/matrix"
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
	for _, m := range list {
		p, err := sl.placeOf(m)
		if err != nil {
			return nil, err
		}
		fresh = append(fresh, p)
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

// placeOf is a room of the user with what is new in it.
func (sl *slide) placeOf(m store.Membership) (*place, error) {
	r, err := sl.Store.RoomByNum(sl.ctx, m.Room)
	if err != nil {
		return nil, err
	}
	p := &place{own: m, room: r, at: m.Pos}
	if m.Membership == "join" {
		p.at = min(r.Last, sl.now.pos)
	}
	return p, nil
}

// kindOf is a room's encryption and type, as far as the user may know them.
func (sl *slide) kindOf(p *place) (*kind, error) {
	if k := p.kind.Load(); k != nil {
		return k, nil
	}
	k := &kind{}
	set := func(typ string, content json.RawMessage) {
		switch typ {
		case "m.room.encryption":
			k.encrypted = true
		case "m.room.create":
			var c struct {
				Type *string `json:"type"`
			}
			if json.Unmarshal(content, &c) == nil {
				k.typ = c.Type
			}
		}
	}
	if p.own.Membership == "join" {
		for _, typ := range []string{"m.room.encryption", "m.room.create"} {
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
