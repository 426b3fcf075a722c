package clientsync

import (
	"encoding/json"
	"math"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// RoomResult is what is new of a room.
type RoomResult struct {
	Bump       int64             `json:"bump_stamp,omitempty"`
	Membership string            `json:"membership,omitempty"`
	Lists      []string          `json:"lists,omitempty"`
	Name       json.RawMessage   `json:"name,omitempty"` // null where it was removed
	Avatar     json.RawMessage   `json:"avatar,omitempty"`
	Heroes     []hero            `json:"heroes,omitempty"`
	Direct     *bool             `json:"is_dm,omitempty"`
	Initial    bool              `json:"initial,omitempty"`
	Expanded   bool              `json:"expanded_timeline,omitempty"`
	State      []json.RawMessage `json:"required_state,omitempty"`
	Timeline   []json.RawMessage `json:"timeline_events,omitempty"`
	PrevBatch  string            `json:"prev_batch,omitempty"`
	Limited    bool              `json:"limited,omitempty"`
	Live       int               `json:"num_live,omitempty"`
	Joined     *int              `json:"joined_count,omitempty"`
	Invited    *int              `json:"invited_count,omitempty"`
	Notify     *int              `json:"notification_count,omitempty"`
	Highlight  *int              `json:"highlight_count,omitempty"`
	Stripped   []json.RawMessage `json:"stripped_state,omitempty"`

	// What is called differently before version 4.
	OldExpanded bool              `json:"unstable_expanded_timeline,omitempty"`
	OldTimeline []json.RawMessage `json:"timeline,omitempty"`
	OldStripped []json.RawMessage `json:"invite_state,omitempty"`

	timeline []room.Seen
}

// rename gives fields the names that they had before version 4.
func (r *RoomResult) rename() {
	r.OldExpanded, r.OldTimeline, r.OldStripped = r.Expanded, r.Timeline, r.Stripped
	r.Expanded, r.Timeline, r.Stripped = false, nil, nil
}

// hero is a member who names a room.
type hero struct {
	User   matrix.UserID `json:"user_id"`
	Name   string        `json:"displayname,omitempty"`
	Avatar string        `json:"avatar_url,omitempty"`
}

// toldRoom is what a client knows of a room. It is never changed.
type toldRoom struct {
	pos        int64 // up to here
	limit      int   // as many of the newest events as it was ever given
	config     *combined
	membership string
	direct     bool
	joined     int
	invited    int
	notify     int
	highlight  int
	bump       int64
	name       store.EventNum
	avatar     store.EventNum
	members    map[matrix.UserID]store.EventNum // told lazily
}

// readRooms tells of the rooms that the window shows what is new, of some at a time.
func (sl *slide) readRooms(a *SlidingAnswer) error {
	limit := 0
	for _, s := range sl.scope {
		limit = max(limit, s.config.limit)
	}
	for part := range slices.Chunk(sl.scope, partSize(limit)) {
		if err := sl.seatsAhead(part); err != nil {
			return err
		}
		var found []*RoomResult
		for _, s := range part {
			r, err := sl.readSeat(s)
			if err != nil {
				return err
			}
			if r != nil {
				a.Rooms[s.room.ID], sl.results[s.own.Room], found = r, r, append(found, r)
			}
		}
		if err := sl.shape(); err != nil {
			return err
		}
		if !sl.Stable {
			for _, r := range found {
				r.rename()
			}
		}
	}
	return nil
}

// readSeat tells what is new of a room, nil for nothing.
func (sl *slide) readSeat(s *seat) (r *RoomResult, err error) {
	if s.quiet {
		return nil, nil
	}
	told := sl.known.rooms.of(s.own.Room)
	if told != nil && !sl.lookedAt(s.own.Room) {
		sl.back = append(sl.back, s)
	}
	if sl.quiet(s, told) {
		return nil, nil
	}
	var now *toldRoom
	switch s.own.Membership {
	case "invite", "knock":
		r, now, err = sl.outside(s, told)
	default:
		r, now, err = sl.inside(s, told)
	}
	if err == nil {
		sl.told[s.own.Room] = now
	}
	return r, err
}

// quiet tells at little cost that nothing of a room is new.
func (sl *slide) quiet(s *seat, told *toldRoom) bool {
	if told == nil || told.membership != s.own.Membership || s.own.Pos > told.pos || told.config.text != s.config.text ||
		told.limit < s.config.limit || told.direct != sl.direct[s.room.ID] {
		return false
	}
	return s.own.Membership != "join" || s.at <= told.pos && !sl.Store.ReceiptsChangedSince(s.own.Room, told.pos)
}

// lookedAt tells whether the client looked at a room with the request before.
func (sl *slide) lookedAt(room store.RoomNum) bool {
	if sl.known.order == nil {
		return false
	}
	if len(sl.told) < fewAsked {
		i := slices.IndexFunc(sl.known.order.places, func(p *place) bool { return p.own.Room == room })
		return i >= 0 && sl.known.configs[i] != nil
	}
	if sl.looked == nil {
		sl.looked = map[store.RoomNum]bool{}
		for i, c := range sl.known.configs {
			if c != nil {
				sl.looked[sl.known.order.places[i].own.Room] = true
			}
		}
	}
	return sl.looked[room]
}

// outside tells of a room that the user is invited to, or has knocked on.
func (sl *slide) outside(s *seat, told *toldRoom) (*RoomResult, *toldRoom, error) {
	e, err := sl.Store.EventByNum(sl.ctx, s.own.Event)
	if err != nil {
		return nil, nil, err
	}
	now := &toldRoom{pos: s.own.Pos, config: s.config, limit: s.config.limit, membership: s.own.Membership, direct: sl.direct[s.room.ID]}
	if told != nil && told.membership == now.membership && told.pos == now.pos {
		return nil, now, nil
	}
	r := &RoomResult{Bump: s.own.Pos, Membership: s.own.Membership, Lists: sl.listNames(s), Initial: true}
	r.Stripped, err = sl.reading.Rooms.OutsideState(sl.ctx, e, sl.reading.User)
	return r, now, err
}

// inside tells of a room that the user is or was in.
func (sl *slide) inside(s *seat, told *toldRoom) (*RoomResult, *toldRoom, error) {
	p, err := sl.past(s.own, s.room)
	if err != nil {
		return nil, nil, err
	}
	upto := sl.now.pos
	if s.own.Membership != "join" {
		if upto = s.own.Pos; p.until == 0 {
			return sl.refused(s, told)
		}
	}
	in := &inside{slide: sl, seat: s, upto: upto, told: told, r: &RoomResult{Membership: s.own.Membership, Lists: sl.listNames(s)}}
	in.initial = told == nil || told.config == nil || told.membership != "join" && s.own.Membership == "join"
	in.now = &toldRoom{pos: upto, limit: s.config.limit, config: s.config, membership: s.own.Membership, direct: sl.direct[s.room.ID]}
	if in.initial {
		in.told = &toldRoom{pos: math.MinInt64, config: &combined{}}
		in.r.Initial = true
	} else {
		in.now.limit = max(in.now.limit, told.limit)
	}
	if in.root, err = sl.rootAt(s.room, upto); err != nil {
		return nil, nil, err
	}
	for _, step := range []func() error{in.readTimeline, in.readState, in.describe, in.count} {
		if err := step(); err != nil {
			return nil, nil, err
		}
	}
	if !in.news {
		return nil, in.now, nil
	}
	return in.r, in.now, nil
}

// refused tells of a room that the user never was in: an invitation was refused
// or withdrawn.
func (sl *slide) refused(s *seat, told *toldRoom) (*RoomResult, *toldRoom, error) {
	e, err := sl.Store.EventByNum(sl.ctx, s.own.Event)
	if err != nil {
		return nil, nil, err
	}
	now := &toldRoom{pos: s.own.Pos, config: s.config, limit: s.config.limit, membership: s.own.Membership, direct: sl.direct[s.room.ID]}
	if told != nil && told.membership == now.membership {
		return nil, now, nil
	}
	return &RoomResult{Bump: s.own.Pos, Membership: now.membership, Lists: sl.listNames(s), Stripped: []json.RawMessage{e.PDU.StrippedState(nil)}}, now, nil
}

// inside is one look into a room.
type inside struct {
	*slide
	*seat
	told, now *toldRoom
	initial   bool
	news      bool // there is something to tell
	upto      int64
	root      statetree.ID
	found     []room.Seen
	r         *RoomResult
}

// readTimeline reads the newest events that the client has not seen, or more of
// them where it wants more than before.
func (in *inside) readTimeline() error {
	since := in.told.pos
	if !in.initial && in.config.limit > in.told.limit {
		in.r.Expanded, since = true, math.MinInt64
	}
	found, limited, err := in.Rooms().Recent(in.ctx, in.reading.User, in.room, since, in.upto, in.config.limit, &EventFilter{})
	if err != nil {
		return err
	}
	in.found, in.r.timeline, in.r.Limited = found, found, limited
	start := in.upto
	if len(found) > 0 {
		start = found[0].Pos - 1
	}
	in.r.PrevBatch = room.SyncToken(start, in.slide.now.pos)
	for _, e := range found {
		if in.known.at.pos > 0 && e.Pos > in.known.at.pos {
			in.r.Live++
		}
	}
	in.news = in.initial || len(found) > 0 || limited
	in.later(found, limited || in.initial, &in.r.Timeline)
	return nil
}

// Rooms is the service of rooms; a window has a field of that name, too.
func (in *inside) Rooms() *room.Service { return in.reading.Rooms }

// readState reads what of the state the client wants and does not have.
func (in *inside) readState() error {
	var list, gone []*store.Event
	var err error
	if in.initial {
		list, err = in.pick(in.root, in.config)
	} else {
		var base statetree.ID
		if base, err = in.rootAt(in.room, in.told.pos); err == nil {
			list, gone, err = in.changes(base, in.root, in.told.config, in.config, !in.r.Limited)
		}
	}
	if err == nil && in.config.lazy() {
		list, err = in.addMembers(list)
	}
	if err != nil {
		return err
	}
	if in.r.State, err = in.clients(seen(list), false); err != nil {
		return err
	}
	for _, e := range gone {
		if in.Stable {
			b, err := json.Marshal(map[string]string{"type": e.PDU.Type, "state_key": *e.PDU.StateKey})
			if err != nil {
				return err
			}
			in.r.State = append(in.r.State, b)
		}
	}
	in.news = in.news || len(in.r.State) > 0
	return nil
}

// mostLazy bounds how many members are remembered as told for one room; with more
// it begins again.
const mostLazy = 200

// addMembers adds the members who occur in the timeline and were not told of.
func (in *inside) addMembers(list []*store.Event) ([]*store.Event, error) {
	members, err := in.Rooms().Senders(in.ctx, in.found)
	if err != nil {
		return nil, err
	}
	for _, e := range in.found {
		if !isMember(e.Event) {
			continue
		}
		m, err := in.Rooms().StateEvent(in.ctx, in.root, "m.room.member", *e.PDU.StateKey)
		if err != nil {
			return nil, err
		}
		if m != nil {
			members = append(members, m)
		}
	}
	in.now.members = map[matrix.UserID]store.EventNum{}
	if len(in.told.members) < mostLazy {
		for u, num := range in.told.members {
			in.now.members[u] = num
		}
	}
	for _, m := range members {
		u := matrix.UserID(*m.PDU.StateKey)
		if in.now.members[u] != m.Num && !slices.Contains(list, m) {
			list = append(list, m)
		}
	}
	for _, m := range list {
		if isMember(m) {
			in.now.members[matrix.UserID(*m.PDU.StateKey)] = m.Num
		}
	}
	return list, nil
}

// describe tells what the room is called and looks like.
func (in *inside) describe() error {
	for _, d := range []struct {
		typ, field string
		told       store.EventNum
		now        *store.EventNum
		to         *json.RawMessage
	}{
		{"m.room.name", "name", in.told.name, &in.now.name, &in.r.Name},
		{"m.room.avatar", "url", in.told.avatar, &in.now.avatar, &in.r.Avatar},
	} {
		e, err := in.Rooms().StateEvent(in.ctx, in.root, d.typ, "")
		if err != nil {
			return err
		}
		if e == nil {
			continue
		}
		if *d.now = e.Num; e.Num == d.told && e.RedactedBy == 0 {
			continue
		}
		text := e.PDU.ContentString(d.field)
		switch {
		case text != "":
			if *d.to, err = json.Marshal(text); err != nil {
				return err
			}
		case !in.initial:
			*d.to = json.RawMessage("null")
		}
	}
	if in.initial && in.now.direct || !in.initial && in.now.direct != in.told.direct {
		in.r.Direct = &in.now.direct
		in.news = true
	}
	in.now.bump = max(in.told.bump, 0)
	return in.bump()
}

// proper are the types of events that count as activity.
var proper = map[string]bool{
	event.TypeCreate: true, "m.room.message": true, "m.room.encrypted": true, "m.sticker": true,
	"m.call.invite": true, "m.poll.start": true, "m.beacon_info": true,
}

// lastProper is the place of the last event that counts as activity, -1 for none.
func lastProper(list []*store.Event) int {
	for i, e := range slices.Backward(list) {
		if proper[e.PDU.Type] {
			return i
		}
	}
	return -1
}

// mostBumps is how many events are searched for the last activity.
const mostBumps = 100

// bump finds the last activity of the room.
func (in *inside) bump() error {
	if in.own.Membership != "join" {
		in.now.bump = in.own.Pos
	} else {
		for _, most := range []int{in.config.limit + 1, mostBumps} { // the first are in memory
			list, err := in.Store.Newest(in.ctx, in.room.Num, in.told.pos, in.upto, most)
			if err != nil {
				return err
			}
			i := lastProper(list)
			if i >= 0 {
				in.now.bump = max(in.now.bump, list[i].Pos)
			}
			if i >= 0 || len(list) < most {
				break
			}
		}
		if in.now.bump == 0 {
			in.now.bump = in.own.Pos
		}
	}
	if in.now.bump != in.told.bump {
		in.r.Bump = in.now.bump
	}
	return nil
}

// count tells how many members there are, who names the room, and what is unread.
func (in *inside) count() error {
	in.now.joined, in.now.invited = in.room.Joined, in.room.Invited
	if in.own.Membership == "join" {
		notes, err := in.Unread.Notes(in.ctx, in.room, in.reading.User, in.upto)
		if err != nil {
			return err
		}
		for _, n := range notes {
			if n.Thread != "" {
				continue
			}
			if in.now.notify++; n.Highlight {
				in.now.highlight++
			}
		}
	} else {
		in.now.joined, in.now.invited = in.told.joined, in.told.invited
	}
	for _, c := range []struct {
		told, now int
		to        **int
	}{
		{in.told.joined, in.now.joined, &in.r.Joined}, {in.told.invited, in.now.invited, &in.r.Invited},
		{in.told.notify, in.now.notify, &in.r.Notify}, {in.told.highlight, in.now.highlight, &in.r.Highlight},
	} {
		if c.now != c.told || in.initial {
			value := c.now
			*c.to, in.news = &value, true
		}
	}
	named := in.r.Name != nil && string(in.r.Name) != "null" || in.now.name != 0 && in.r.Name == nil && !in.initial
	if named || !in.initial && in.r.Joined == nil && in.r.Invited == nil && in.r.Name == nil {
		return nil
	}
	return in.readHeroes()
}

// readHeroes tells who names a room without a name.
func (in *inside) readHeroes() error {
	users, err := in.heroesOf(in.room)
	if err != nil {
		return err
	}
	for _, u := range users {
		h := hero{User: u}
		m, err := in.Rooms().StateEvent(in.ctx, in.root, "m.room.member", string(u))
		if err != nil {
			return err
		}
		if m != nil {
			h.Name, h.Avatar = m.PDU.ContentString("displayname"), m.PDU.ContentString("avatar_url")
		}
		in.r.Heroes = append(in.r.Heroes, h)
	}
	return nil
}
