package clientsync

import (
	"encoding/json"
	"math"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

const (
	timelineDefault = 10  // events of a timeline where the client names no number
	timelineMost    = 500 // whatever the client names
)

// part is what of a room the client gets: the events behind since and not
// behind upto, and the state that it lacks.
type part struct {
	room  *store.Room
	since int64
	upto  int64

	// whole is for a room of which the client knows nothing, or not enough: all
	// of its state. anew replaces the timeline that the client may have.
	whole, anew bool

	// stay is the end of the user's membership, behind which they see nothing of
	// the state; upto for a member, 0 for who never was one.
	member bool
	own    store.EventNum // what the user became; 0 for a member
	stay   int64
}

// rootAt is the root of a room's state at a position of the log; 0 if the room
// was not there yet.
func (rd *reading) rootAt(r *store.Room, pos int64) (statetree.ID, error) {
	list, err := rd.Store.Newest(rd.ctx, r.Num, math.MinInt64, pos, 1)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return list[0].Current, nil
}

// readJoined reads a room that the user is in; nil if nothing changed.
func (rd *reading) readJoined(r *store.Room, p past) (*joined, error) {
	whole := rd.initial() || p.was != "join"
	j := &joined{AccountData: some(rd.accountData[r.ID])}
	ephemeral, err := rd.readEphemeral(r, whole)
	if err != nil {
		return nil, err
	}
	j.Ephemeral = some(ephemeral)
	if r.Last > rd.since.pos || whole || rd.FullState {
		pt := part{room: r, since: rd.since.pos, upto: rd.now.pos, whole: whole || rd.FullState, anew: whole && !rd.initial(),
			member: true, stay: rd.now.pos}
		if whole {
			pt.since = math.MinInt64
		}
		if err := rd.readEvents(j, pt); err != nil {
			return nil, err
		}
	}
	if j.Ephemeral == nil && j.AccountData == nil && j.Timeline == nil && rd.read[r.Num] == nil {
		return nil, nil
	}
	if whole && !rd.initial() {
		if j.AccountData, err = rd.allAccountData(r.ID); err != nil {
			return nil, err
		}
	}
	return rd.complete(j), rd.addUnread(j, r)
}

// readLeft reads the end of a room that the user has left, or out of which they
// were kept. Of what came behind the end of the membership they see nothing but
// what became of their own.
func (rd *reading) readLeft(m store.Membership, r *store.Room, p past) (*joined, error) {
	j := &joined{AccountData: some(rd.accountData[r.ID])}
	pt := part{room: r, since: rd.since.pos, upto: m.Pos, own: m.Event, stay: p.until}
	switch {
	case rd.initial():
		pt.since, pt.whole = math.MinInt64, true
	case p.until <= rd.since.pos:
		pt.stay = 0 // of what they were in, the client has been told
	case p.was != "join":
		pt.since, pt.whole, pt.anew = math.MinInt64, true, true
	}
	if err := rd.readEvents(j, pt); err != nil {
		return nil, err
	}
	return rd.complete(j), nil
}

// putOut tells whether somebody else ended a user's membership, and nothing came
// after that. Who did not leave a room learns of it even by a first sync: there
// may have been none before.
func (rd *reading) putOut(m store.Membership) (bool, error) {
	e, err := rd.Store.EventByNum(rd.ctx, m.Event)
	if err != nil || e.PDU.Sender == rd.User || e.Replaces == 0 {
		return false, err
	}
	before, err := rd.Store.EventByNum(rd.ctx, e.Replaces)
	return err == nil && before.PDU.Membership() == "join", err
}

// complete adds what the client expects although it is empty.
func (rd *reading) complete(j *joined) *joined {
	if rd.StateAfter && j.StateAfter == nil {
		j.StateAfter = &events{[]json.RawMessage{}}
	}
	if rd.MSC4222 {
		j.StateAfter, j.MSC4222 = nil, j.StateAfter
	}
	return j
}

// readEvents fills in timeline, state and summary.
func (rd *reading) readEvents(j *joined, p part) error {
	f := &rd.Filter.Room.Timeline
	found, limited, err := rd.Rooms.Recent(rd.ctx, rd.User, p.room, p.since, p.upto, rd.timelineLimit(), f)
	if err != nil {
		return err
	}
	start := p.upto // the timeline begins behind this place
	switch {
	case !limited && !p.anew && p.since != math.MinInt64:
		start = p.since
	case len(found) > 0:
		start = found[0].Pos - 1
	}
	at := start
	if len(found) > 0 && rd.Store.BehindGap(found[0].Num) {
		at = found[0].Pos // the state that came with it, which no event of the timeline tells
	}
	state, err := rd.readState(p, at)
	if err != nil {
		return err
	}
	if at > start && !rd.StateAfter {
		state = slices.DeleteFunc(state, func(e *store.Event) bool { return e.Num == found[0].Num })
	}
	rd.noticeNewcomers(p, found)
	if p.member && (p.whole || naming(state) || naming(plain(found))) {
		if j.Summary, err = rd.summary(p.room); err != nil {
			return err
		}
	}
	sent, err := rd.wanted(p, state, found, j.Summary)
	if err != nil {
		return err
	}
	rd.setState(j, sent)
	if len(found) == 0 && len(sent) == 0 && j.Summary == nil && !p.whole && !limited && p.member {
		return nil // nothing to tell
	}
	j.Timeline = &timeline{Limited: limited || p.anew, PrevBatch: room.SyncToken(start, rd.now.pos)}
	rd.later(found, j.Timeline.Limited || p.whole, &j.Timeline.Events)
	return nil
}

// timelineLimit is how many events a timeline has at most.
func (rd *reading) timelineLimit() int {
	return rd.Filter.Room.Timeline.limit(timelineDefault, timelineMost)
}

// readState gives the state that the client lacks: the difference between what
// it knows and the start of the timeline, or its end where the client asked for
// that.
func (rd *reading) readState(p part, start int64) ([]*store.Event, error) {
	at := start
	if rd.StateAfter {
		at = p.upto
	}
	at = min(at, p.stay)
	var base statetree.ID
	var err error
	if !p.whole {
		if at <= p.since {
			return rd.ownState(p, nil)
		}
		if base, err = rd.rootAt(p.room, p.since); err != nil {
			return nil, err
		}
	}
	target := base
	if p.stay > 0 {
		if target, err = rd.rootAt(p.room, at); err != nil {
			return nil, err
		}
	}
	var state []*store.Event
	if p.whole && rd.Filter.Room.State.LazyMembers {
		state, err = rd.Rooms.LazyState(rd.ctx, target, rd.User)
	} else {
		state, err = rd.Rooms.StateChanges(rd.ctx, base, target)
	}
	if err != nil {
		return nil, err
	}
	return rd.ownState(p, state)
}

// ownState adds what became of the user behind the end of the membership, where
// the client looks for that in the state.
func (rd *reading) ownState(p part, state []*store.Event) ([]*store.Event, error) {
	if !rd.StateAfter || p.stay >= p.upto {
		return state, nil
	}
	own, err := rd.Store.EventByNum(rd.ctx, p.own)
	if err != nil {
		return nil, err
	}
	if own.PDU.Membership() == "join" { // a fork took it out of the state
		return state, nil
	}
	state = slices.DeleteFunc(state, func(e *store.Event) bool { return e.PDU.Is("m.room.member", string(rd.User)) })
	return append(state, own), nil
}

// setState puts the state where the client looks for it.
func (rd *reading) setState(j *joined, state []*store.Event) {
	if len(state) == 0 && !rd.StateAfter {
		return
	}
	e := &events{}
	rd.later(seen(state), false, &e.Events)
	if rd.StateAfter {
		j.StateAfter = e
	} else {
		j.State = e
	}
}

// clients gives events the shape that the client wants.
func (rd *reading) clients(list []room.Seen, related bool) ([]json.RawMessage, error) {
	if rd.Filter.EventFormat == federationFormat {
		return rd.pdus(list), nil
	}
	raw, err := rd.Rooms.Clients(rd.ctx, room.Reader{User: rd.User, Device: rd.Device, Sync: true, New: rd.unheard, Related: related}, list)
	if err != nil || rd.Filter.EventFields.all() {
		return raw, err
	}
	for i, e := range raw {
		raw[i] = rd.Filter.EventFields.pick(nil, e)
	}
	return raw, nil
}

// pdus gives events as servers exchange them.
func (rd *reading) pdus(list []room.Seen) []json.RawMessage {
	raw := make([]json.RawMessage, len(list))
	for i, e := range list {
		raw[i] = rd.Filter.EventFields.pick(nil, e.PDU.JSON)
	}
	return raw
}

func seen(list []*store.Event) []room.Seen {
	s := make([]room.Seen, len(list))
	for i, e := range list {
		s[i] = room.Seen{Event: e}
	}
	return s
}

func plain(list []room.Seen) []*store.Event {
	s := make([]*store.Event, len(list))
	for i, e := range list {
		s[i] = e.Event
	}
	return s
}

// naming tells whether there is an event among list that may change the summary
// of its room.
func naming(list []*store.Event) bool {
	return slices.ContainsFunc(list, func(e *store.Event) bool {
		switch e.PDU.Type {
		case "m.room.member", "m.room.name", "m.room.canonical_alias":
			return e.PDU.IsState()
		case "m.room.redaction":
			return true // of the name, perhaps
		}
		return false
	})
}

// mostHeroes is how many members name a room that has no name.
const mostHeroes = 5

// heroes are the members of whom those are chosen who name a room: one more
// than needed, as nobody is among the own heroes.
type heroes struct {
	present []matrix.UserID // joined or invited
	past    []matrix.UserID // who left or was banned
}

// summary counts the members and names some where the room has no name.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary
func (rd *reading) summary(r *store.Room) (*summary, error) {
	sum := &summary{Joined: r.Joined, Invited: r.Invited}
	if named, err := rd.named(r); err != nil || named {
		return sum, err
	}
	var err error
	sum.Heroes, err = rd.heroesOf(r)
	return sum, err
}

// heroesOf gives the members by whom the user calls a room.
func (rd *reading) heroesOf(r *store.Room) ([]matrix.UserID, error) {
	h, known := rd.heroes.Find(r.Current)
	if !known {
		found, err := rd.candidates(r.Num)
		if err != nil {
			return nil, err
		}
		h = found[r.Num]
		rd.heroes.Put(r.Current, h)
	}
	return h.others(rd.User), nil
}

// others are the heroes that a user is told of.
func (h heroes) others(than matrix.UserID) (users []matrix.UserID) {
	for _, list := range [][]matrix.UserID{h.present, h.past} {
		for _, u := range list {
			if u != than && len(users) < mostHeroes {
				users = append(users, u)
			}
		}
		if len(users) > 0 {
			break
		}
	}
	return users
}

// named tells whether a room has a name, so that it needs no heroes.
func (rd *reading) named(r *store.Room) (bool, error) {
	for typ, key := range map[string]string{"m.room.name": "name", "m.room.canonical_alias": "alias"} {
		e, err := rd.Rooms.StateEvent(rd.ctx, r.Current, typ, "")
		if err != nil || e != nil && e.PDU.ContentString(key) != "" {
			return err == nil, err
		}
	}
	return false, nil
}

// candidates are the heroes of some rooms.
func (rd *reading) candidates(rooms ...store.RoomNum) (map[store.RoomNum]heroes, error) {
	found := make(map[store.RoomNum]heroes, len(rooms))
	present, err := rd.someMembers(rooms, "join", "invite")
	if err != nil {
		return nil, err
	}
	var empty []store.RoomNum
	for _, room := range rooms {
		if found[room] = (heroes{present: present[room]}); len(present[room]) < 2 {
			empty = append(empty, room)
		}
	}
	past, err := rd.someMembers(empty, "leave", "ban")
	for _, room := range empty {
		found[room] = heroes{present[room], past[room]}
	}
	return found, err
}

// someMembers lists, for each of some rooms, a few of those who are one of the given.
func (rd *reading) someMembers(rooms []store.RoomNum, memberships ...string) (map[store.RoomNum][]matrix.UserID, error) {
	found := make(map[store.RoomNum][]matrix.UserID, len(rooms))
	for _, membership := range memberships {
		var few []store.RoomNum
		for _, room := range rooms {
			if len(found[room]) <= mostHeroes {
				few = append(few, room)
			}
		}
		members, err := rd.Store.FirstMembers(rd.ctx, few, membership, mostHeroes+1)
		if err != nil {
			return nil, err
		}
		for room, list := range members {
			found[room] = append(found[room], list[:min(len(list), mostHeroes+1-len(found[room]))]...)
		}
	}
	return found, nil
}

// heroesAhead finds the heroes of those rooms that have no name, and their member
// events if lazy is set: these are wanted although members load lazily.
func (rd *reading) heroesAhead(rooms []*store.Room, lazy bool) error {
	var nums []store.RoomNum
	for _, r := range rooms {
		if _, known := rd.heroes.Find(r.Current); known {
			continue
		}
		if named, err := rd.named(r); err != nil {
			return err
		} else if !named {
			nums = append(nums, r.Num)
		}
	}
	found, err := rd.candidates(nums...)
	if err != nil {
		return err
	}
	members := map[*store.Room][]matrix.UserID{}
	for _, r := range rooms {
		if h, ok := found[r.Num]; ok {
			rd.heroes.Put(r.Current, h)
			members[r] = h.others(rd.User)
		}
	}
	if !lazy {
		return nil
	}
	return rd.Rooms.MembersAhead(rd.ctx, members)
}

// noticeNewcomers remembers who came into view, because their presence is news.
func (rd *reading) noticeNewcomers(p part, found []room.Seen) {
	if rd.initial() || !p.member {
		return
	}
	if p.anew {
		rd.newcomers = append(rd.newcomers, rd.Store.LocalMembers(p.room.Num)...)
		return
	}
	for _, e := range found {
		if e.PDU.IsState() && e.PDU.Membership() == "join" {
			rd.newcomers = append(rd.newcomers, matrix.UserID(*e.PDU.StateKey))
		}
	}
}
