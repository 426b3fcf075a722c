package clientsync

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// RoomSieve picks rooms of a list; nil is for all.
type RoomSieve struct {
	Direct    *bool
	Encrypted *bool
	Invited   *bool
	Spaces    []matrix.RoomID // children of any of these
	Types     []*string       // of the create event; nil is for rooms without one
	NotTypes  []*string
	Tags      []string
	NotTags   []string
}

// seat is a place at which a client may look.
type seat struct {
	*place           // nil for one that belongs in no list
	config *combined // nil where the client does not look
	lists  listSet
	quiet  bool // it has nothing new

	subscribed bool
}

// listSet is a set of lists, by their numbers in the order of their names.
type listSet [2]uint64

// MostLists is how many lists a window may have.
const MostLists = 100

func (l *listSet) add(i int) { l[i/64] |= 1 << (i % 64) }

func (l listSet) has(i int) bool { return l[i/64]&(1<<(i%64)) != 0 }

// ListResult tells of a list.
type ListResult struct {
	Count int `json:"count"`
}

// readLists finds the rooms that the window shows.
func (sl *slide) readLists(a *SlidingAnswer) error {
	if err := sl.findDepth(); err != nil {
		return err
	}
	if err := sl.findEligible(); err != nil {
		return err
	}
	all := sl.depth == len(sl.order.places)
	for i, name := range sl.names {
		l := sl.Lists[name]
		in, err := sl.sifted(l.Filters)
		if err != nil {
			return err
		}
		count := len(in)
		if !all {
			count = sl.known.counts[i]
		}
		a.Lists[name] = ListResult{count}
		sl.next.counts = append(sl.next.counts, count)
		ranges := l.Ranges
		if ranges == nil {
			ranges = [][2]int{{0, len(in) - 1}}
		}
		for _, r := range ranges {
			for _, s := range in[min(r[0], len(in)):min(max(r[1]+1, r[0]), len(in))] {
				s.lists.add(i)
			}
		}
	}
	sl.configure()
	return nil
}

// findDepth finds out how far down the order something may be different from what
// the client knows: what stands below is what it was, at the same place of each
// list. Where that is not sure it is the whole order.
func (sl *slide) findDepth() error {
	now := sl.order.places
	sl.depth = len(now)
	user, since := sl.reading.User, sl.known.at
	if _, sure := sl.Ephemeral.TypingRooms(since.typing); !sure || !sl.same || !sl.settled || len(now) != len(sl.known.order.places) ||
		sl.next.drops != sl.known.drops || sl.Store.SettingsChangedSince(user, since.pos) {
		return nil
	}
	for _, l := range sl.Lists {
		if l.Filters.Spaces != nil {
			return nil // what is in it another room says
		}
	}
	old, n := sl.known.order.places, len(now)
	for n > 0 && now[n-1] == old[n-1] {
		n--
	}
	same, err := sl.alike(old[:n], now[:n])
	if same {
		sl.depth = n
	}
	return err
}

// alike tells whether two parts of orders hold the same rooms, each of which is in
// the same lists wherever it stands.
func (sl *slide) alike(old, now []*place) (bool, error) {
	next, moved := 0, 0
	for _, p := range now {
		if !sl.touched[p.own.Room] {
			for next < len(old) && sl.touched[old[next].own.Room] {
				next++
			}
			if next == len(old) || old[next] != p {
				return false, nil
			}
			next++
			continue
		}
		was := slices.IndexFunc(old, func(o *place) bool { return o.own.Room == p.own.Room })
		if moved++; moved > fewAsked || was < 0 || p.own.Membership != "join" || old[was].own.Membership != "join" {
			return false, nil
		}
		before, err := sl.kindOf(old[was])
		if err != nil {
			return false, err
		}
		is, err := sl.kindOf(p)
		if err != nil || !is.equal(before) {
			return false, err
		}
	}
	return true, nil
}

// findEligible makes a seat for each place down to the depth, and lists those that
// may be in a list.
func (sl *slide) findEligible() error {
	sl.take(sl.depth)
	if err := sl.endsAhead(sl.order.places[:sl.depth]); err != nil {
		return err
	}
	for i, p := range sl.order.places[:sl.depth] {
		in, err := sl.listed(p)
		if err != nil {
			return err
		}
		if in {
			sl.seats[i].place = p
			sl.all = append(sl.all, &sl.seats[i])
		}
	}
	return nil
}

// endsAhead brings into memory what listed asks of the rooms that the user is out of,
// in few statements for all of them.
func (sl *slide) endsAhead(places []*place) error {
	if sl.known.order != nil {
		return nil
	}
	var ends []store.EventNum
	for _, p := range places {
		if m := p.own.Membership; m != "join" && m != "knock" && !p.own.Forgotten {
			ends = append(ends, p.own.Event)
		}
	}
	for part := range slices.Chunk(ends, placesAtOnce) {
		found, err := sl.Store.EventsByNum(sl.ctx, part)
		if err != nil {
			return err
		}
		var before []store.EventNum
		for num, e := range found {
			if _, known := sl.out.Find(num); !known && e.Replaces != 0 {
				before = append(before, e.Replaces)
			}
		}
		if _, err := sl.Store.EventsByNum(sl.ctx, before); err != nil {
			return err
		}
	}
	return nil
}

// configure finds out what the client wants of each room, and at which rooms it
// looks.
func (sl *slide) configure() {
	own := sl.depth == len(sl.order.places) // the list of configs is not shared
	if own {
		sl.next.wanted, sl.next.configs = map[rule]*combined{}, make([]*combined, sl.depth)
	} else {
		sl.next.wanted, sl.next.configs = maps.Clone(sl.known.wanted), sl.known.configs
	}
	before := 0 // place in the order that the client knows
	for i := range sl.seats {
		s := &sl.seats[i]
		was := sl.wantedBefore(sl.order.places[i], &before)
		sl.choose(s)
		if sl.next.configs[i] != s.config {
			if !own {
				sl.next.configs, own = slices.Clone(sl.next.configs), true
			}
			sl.next.configs[i] = s.config
		}
		if s.config != nil {
			s.quiet = was != nil && was == s.config
			sl.scope = append(sl.scope, s)
		}
	}
	for _, r := range sl.news {
		if s := sl.seatOf(r.Room); s != nil && s.quiet {
			s.quiet = false
			sl.scope = append(sl.scope, s)
		}
	}
}

// choose finds out what the client wants of a room.
func (sl *slide) choose(s *seat) {
	if s.place == nil {
		return
	}
	var sub *RoomConfig
	if c, ok := sl.Window.Rooms[s.room.ID]; ok {
		sub = &c
	}
	last := len(sl.scope) - 1
	switch {
	case sub == nil && s.lists == (listSet{}):
	case sub == nil && last >= 0 && sl.scope[last].lists == s.lists && !sl.scope[last].subscribed:
		s.config = sl.scope[last].config
	default:
		s.config, s.subscribed = sl.combine(s.lists, sub), sub != nil
	}
}

// wantedBefore is what the client wanted of a place of which nothing has changed,
// nil for no such place. It is called with one place after the other; next is how
// far it has come in the order that the client knows.
func (sl *slide) wantedBefore(p *place, next *int) *combined {
	if !sl.settled || sl.touched[p.own.Room] {
		return nil
	}
	places := sl.known.order.places
	for *next < len(places) && sl.touched[places[*next].own.Room] {
		*next++
	}
	if *next == len(places) || places[*next] != p {
		sl.settled = false // the order was made anew meanwhile
		return nil
	}
	*next++
	return sl.known.configs[*next-1]
}

// listNames are the names of the lists that show a room.
func (sl *slide) listNames(s *seat) (names []string) {
	for i, name := range sl.names {
		if s.lists.has(i) {
			names = append(names, name)
		}
	}
	return names
}

// fewAsked is up to how many rooms are searched for one by one: with more, an index
// of all is worth its price.
const fewAsked = 16

// seatOf is the seat of a room at which the client looks, else nil.
func (sl *slide) seatOf(room store.RoomNum) *seat {
	i := -1
	if sl.asked++; sl.asked <= fewAsked {
		i = slices.Index(sl.order.nums, room)
	} else {
		if sl.index == nil {
			sl.index = make(map[store.RoomNum]int, len(sl.order.nums))
			for i, num := range sl.order.nums {
				sl.index[num] = i
			}
		}
		if at, ok := sl.index[room]; ok {
			i = at
		}
	}
	switch {
	case i < 0 || sl.next.configs[i] == nil:
		return nil
	case i < sl.depth:
		return &sl.seats[i]
	case sl.deep[i] == nil:
		if sl.deep == nil {
			sl.deep = map[int]*seat{}
		}
		c := sl.next.configs[i]
		sl.deep[i] = &seat{place: sl.order.places[i], config: c, lists: c.lists, quiet: true}
	}
	return sl.deep[i]
}

// listed tells whether a room belongs in lists: where the user is, is invited or
// has knocked, and out of which they were put. What they left themselves only if
// the client has been told of it.
func (sl *slide) listed(p *place) (bool, error) {
	switch p.own.Membership {
	case "join", "knock":
		return true, nil
	case "invite":
		e, err := sl.Store.EventByNum(sl.ctx, p.own.Event)
		if err != nil {
			return false, err
		}
		hidden, err := sl.reading.Rooms.HidesInvite(sl.ctx, sl.reading.User, e.PDU.Sender)
		return !hidden, err
	}
	if p.own.Forgotten || sl.Store.Membership(sl.reading.User, p.own.Room).Forgotten {
		return false, nil
	}
	if sl.known.rooms.of(p.own.Room) != nil {
		return true, nil
	}
	out, known := sl.out.Find(p.own.Event)
	if !known {
		var err error
		if out, err = sl.putOut(p.own); err != nil {
			return false, err
		}
		sl.out.Put(p.own.Event, out)
	}
	return out, nil
}

// sifted gives the rooms that a list wants, until the next call.
func (sl *slide) sifted(f RoomSieve) ([]*seat, error) {
	var within map[matrix.RoomID]bool
	var tagged tagged
	var err error
	if f.Spaces != nil {
		if within, err = sl.children(f.Spaces); err != nil {
			return nil, err
		}
	}
	if f.Tags != nil || f.NotTags != nil {
		if tagged, err = sl.taggedRooms(); err != nil {
			return nil, err
		}
	}
	list := sl.sift[:0]
	for i, s := range sl.all {
		id := s.room.ID
		has := func(t string) bool { return slices.Contains(tagged[id], t) }
		if f.Direct != nil && sl.direct[id] != *f.Direct || f.Invited != nil && (s.own.Membership == "invite") != *f.Invited ||
			f.Spaces != nil && !within[id] || f.Tags != nil && !slices.ContainsFunc(f.Tags, has) || slices.ContainsFunc(f.NotTags, has) {
			continue
		}
		if f.Encrypted != nil || f.Types != nil || f.NotTypes != nil {
			if s.kind.Load() == nil {
				if err := sl.kindsAhead(sl.all[i:]); err != nil {
					return nil, err
				}
			}
			if !f.wants(s.kind.Load()) {
				continue
			}
		}
		list = append(list, s)
	}
	return list, nil
}

// wants tells whether a room's encryption and type are what a list wants.
func (f *RoomSieve) wants(k *kind) bool {
	is := func(t *string) bool {
		return t == nil && k.typ == nil || t != nil && k.typ != nil && *t == *k.typ
	}
	return (f.Encrypted == nil || *f.Encrypted == k.encrypted) && (f.Types == nil || slices.ContainsFunc(f.Types, is)) && !slices.ContainsFunc(f.NotTypes, is)
}

// equal tells whether two rooms are of one kind.
func (k *kind) equal(o *kind) bool {
	return k == o || k.encrypted == o.encrypted && (k.typ == o.typ || k.typ != nil && o.typ != nil && *k.typ == *o.typ)
}

// children are the rooms that spaces name which the user is in.
func (sl *slide) children(spaces []matrix.RoomID) (map[matrix.RoomID]bool, error) {
	within := map[matrix.RoomID]bool{}
	for _, p := range sl.order.places {
		if p.own.Membership != "join" || !slices.Contains(spaces, p.room.ID) {
			continue
		}
		list, known := sl.spaces.Find(p.room.Current)
		if !known {
			state, err := sl.reading.Rooms.StateEvents(sl.ctx, p.room.Current)
			if err != nil {
				return nil, err
			}
			for _, e := range state {
				if e.PDU.Type == "m.space.child" {
					list = append(list, e.Num)
				}
			}
			sl.spaces.Put(p.room.Current, list)
		}
		found, err := sl.Store.EventsByNum(sl.ctx, list) // one that was redacted since has no via
		if err != nil {
			return nil, err
		}
		for _, e := range found {
			if len(e.PDU.ContentValue("via")) > len("[]") {
				within[matrix.RoomID(*e.PDU.StateKey)] = true
			}
		}
	}
	return within, nil
}

// tagged are the tags of a user's rooms.
type tagged map[matrix.RoomID][]string

// tags are a user's tags as of a position of the log.
type tags struct {
	pos   int64
	rooms tagged
}

// taggedRooms are the tags of the user's rooms.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#room-tagging
func (sl *slide) taggedRooms() (tagged, error) {
	user := sl.reading.User
	if t, ok := sl.tags.Find(user); ok && !sl.Store.SettingChangedSince(user, "m.tag", t.pos) {
		return t.rooms, nil
	}
	now := tags{sl.Store.Position(), tagged{}}
	list, err := sl.Store.AccountDataSince(sl.ctx, user, 0, now.pos)
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		var c struct {
			Tags map[string]json.RawMessage `json:"tags"`
		}
		if d.Room != "" && d.Type == "m.tag" && json.Unmarshal(d.Content, &c) == nil {
			now.rooms[d.Room] = slices.Collect(maps.Keys(c.Tags))
		}
	}
	sl.tags.Put(user, now)
	return now.rooms, nil
}

// directs are a user's direct chats as of a position of the log.
type directs struct {
	pos   int64
	rooms map[matrix.RoomID]bool
}

// directRooms are the rooms that the user calls direct chats.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mdirect
func (s *Service) directRooms(ctx context.Context, user matrix.UserID) (map[matrix.RoomID]bool, error) {
	if d, ok := s.directs.Find(user); ok && !s.Store.SettingChangedSince(user, "m.direct", d.pos) {
		return d.rooms, nil
	}
	now := directs{s.Store.Position(), map[matrix.RoomID]bool{}}
	raw, _, err := s.Store.AccountData(ctx, user, "", "m.direct")
	if err != nil {
		return nil, err
	}
	var of map[matrix.UserID][]matrix.RoomID
	if raw != nil && json.Unmarshal(raw, &of) == nil {
		for _, list := range of {
			for _, id := range list {
				now.rooms[id] = true
			}
		}
	}
	s.directs.Put(user, now)
	return now.rooms, nil
}
