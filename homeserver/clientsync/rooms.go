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

// rootAt is the root of a room's state at a position of the log; 0 if the room
// was not there yet.
func (rd *reading) rootAt(r *store.Room, pos int64) (statetree.ID, error) {
	list, err := rd.Store.Newest(rd.ctx, r.Num, math.MinInt64, pos, 1)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return list[0].Current, nil
}

// readJoined reads a room that the user is in; nil if nothing changed. With
// whole the client knows nothing of it yet.
func (rd *reading) readJoined(r *store.Room, whole bool) (*joined, error) {
	j := &joined{AccountData: some(rd.accountData[r.ID])}
	ephemeral, err := rd.readEphemeral(r, whole)
	if err != nil {
		return nil, err
	}
	j.Ephemeral = some(ephemeral)
	changed := r.Last > rd.since.pos
	if changed || whole || rd.FullState {
		if err := rd.readEvents(j, r, whole, rd.now.pos); err != nil {
			return nil, err
		}
	}
	if j.Ephemeral == nil && j.AccountData == nil && j.Timeline == nil {
		return nil, nil
	}
	if whole && rd.accountData[r.ID] == nil && !rd.initial() {
		if j.AccountData, err = rd.allAccountData(r.ID); err != nil {
			return nil, err
		}
	}
	j.Unread, err = rd.unread(r, rd.User, rd.now.pos)
	return j, err
}

// readLeft reads the end of a room that the user has left.
func (rd *reading) readLeft(m store.Membership, r *store.Room, whole bool) (*joined, error) {
	j := &joined{AccountData: some(rd.accountData[r.ID])}
	return j, rd.readEvents(j, r, whole, int64(m.Event))
}

// readEvents fills in timeline, state and summary up to a position.
func (rd *reading) readEvents(j *joined, r *store.Room, whole bool, upto int64) error {
	since := rd.since.pos
	if whole {
		since = math.MinInt64
	}
	f := &rd.Filter.Room.Timeline
	found, limited, err := rd.Rooms.Recent(rd.ctx, rd.User, r, since, upto, f.limit(timelineDefault, timelineMost), rd.timelineFilter())
	if err != nil {
		return err
	}
	start := upto // the timeline begins behind this place
	switch {
	case len(found) > 0 && limited:
		start = found[0].Pos - 1
	case !limited && !whole:
		start = rd.since.pos
	case len(found) > 0:
		start = found[0].Pos - 1
	}
	// Who comes into a room may have an old timeline of it, which a limited one replaces.
	j.Timeline = &timeline{Limited: limited || whole && !rd.initial(), PrevBatch: room.SyncToken(start, rd.now.pos)}
	if j.Timeline.Events, err = rd.clients(found); err != nil {
		return err
	}
	state, err := rd.readState(j, r, whole, start, upto, found)
	if err != nil {
		return err
	}
	rd.noticeNewcomers(r, found, whole)
	if whole || hasMembers(state) || hasMembers(plain(found)) {
		if j.Summary, err = rd.summary(r); err != nil {
			return err
		}
	}
	if len(found) == 0 && len(state) == 0 && !whole && !rd.FullState && !limited {
		j.Timeline = nil
	}
	return nil
}

// timelineFilter is the client's filter, and leaves out whom the user ignores.
func (rd *reading) timelineFilter() room.Filter {
	f := &rd.Filter.Room.Timeline
	if len(rd.ignored) == 0 {
		return f
	}
	return ignoring{f, rd.ignored}
}

type ignoring struct {
	room.Filter
	users map[matrix.UserID]bool
}

// Wants implements room.Filter.
func (f ignoring) Wants(e *store.Event) bool {
	return (e.PDU.IsState() || !f.users[e.PDU.Sender]) && f.Filter.Wants(e)
}

// readState fills in the state: the difference between what the client knows
// and the start of the timeline, or its end where the client asked for that.
func (rd *reading) readState(j *joined, r *store.Room, whole bool, start, upto int64, found []room.Seen) ([]*store.Event, error) {
	var base statetree.ID
	var err error
	if !whole && !rd.FullState {
		if start == rd.since.pos && !rd.StateAfter {
			return rd.lazySenders(j, found)
		}
		if base, err = rd.rootAt(r, rd.since.pos); err != nil {
			return nil, err
		}
	}
	at := start
	if rd.StateAfter {
		at = upto
	}
	target, err := rd.rootAt(r, at)
	if err != nil {
		return nil, err
	}
	state, err := rd.Rooms.StateChanges(rd.ctx, base, target)
	if err != nil {
		return nil, err
	}
	all := state
	state = rd.wanted(state, found, base == 0)
	if base != 0 && rd.Filter.Room.State.LazyMembers {
		if state, err = rd.addSenders(state, target, found); err != nil {
			return nil, err
		}
	}
	return all, rd.setState(j, state)
}

// setState puts the state where the client looks for it.
func (rd *reading) setState(j *joined, state []*store.Event) error {
	list, err := rd.Rooms.Clients(rd.ctx, rd.reader(), seen(state))
	if err != nil {
		return err
	}
	if rd.StateAfter {
		j.StateAfter = &events{list}
	} else {
		j.State = some(list)
	}
	return nil
}

// lazySenders adds the senders of a timeline that follows on what the client knows.
func (rd *reading) lazySenders(j *joined, found []room.Seen) ([]*store.Event, error) {
	if !rd.Filter.Room.State.LazyMembers || len(found) == 0 {
		return nil, nil
	}
	state, err := rd.addSenders(nil, found[0].State, found)
	if err != nil {
		return nil, err
	}
	return nil, rd.setState(j, state)
}

// addSenders adds the member events of those who sent found, unless they are there.
func (rd *reading) addSenders(state []*store.Event, root statetree.ID, found []room.Seen) ([]*store.Event, error) {
	members, err := rd.Rooms.Senders(rd.ctx, root, found)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		inTimeline := slices.ContainsFunc(found, func(e room.Seen) bool { return e.Num == m.Num })
		if !inTimeline && !slices.Contains(state, m) {
			state = append(state, m)
		}
	}
	return state, nil
}

// wanted applies the client's filter to state events. With lazy loading, the
// first answer holds only the members who sent something, and the user.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members
func (rd *reading) wanted(state []*store.Event, found []room.Seen, first bool) []*store.Event {
	f := &rd.Filter.Room.State
	senders := map[string]bool{string(rd.User): true}
	for _, e := range found {
		senders[string(e.PDU.Sender)] = true
	}
	list := make([]*store.Event, 0, len(state))
	for _, e := range state {
		lazy := first && f.LazyMembers && e.PDU.Type == "m.room.member" && !senders[*e.PDU.StateKey]
		if !lazy && f.Wants(e) {
			list = append(list, e)
		}
	}
	return list
}

func (rd *reading) reader() room.Reader {
	return room.Reader{User: rd.User, Device: rd.Device, Sync: true}
}

func (rd *reading) clients(list []room.Seen) ([]json.RawMessage, error) {
	return rd.Rooms.Clients(rd.ctx, rd.reader(), list)
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

func hasMembers(list []*store.Event) bool {
	return slices.ContainsFunc(list, func(e *store.Event) bool { return e.PDU.IsState() && e.PDU.Type == "m.room.member" })
}

// mostHeroes is how many members name a room that has no name.
const mostHeroes = 5

// summary counts the members and names some where the room has no name.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary
func (rd *reading) summary(r *store.Room) (*summary, error) {
	candidates, known := rd.heroes.Find(r.Current)
	if !known {
		var err error
		if candidates, err = rd.candidates(r); err != nil {
			return nil, err
		}
		rd.heroes.Put(r.Current, candidates)
	}
	sum := &summary{Joined: r.Joined, Invited: r.Invited}
	for _, u := range candidates {
		if u != rd.User && len(sum.Heroes) < mostHeroes {
			sum.Heroes = append(sum.Heroes, u)
		}
	}
	return sum, nil
}

// candidates are the members of whom the heroes are chosen: one more than
// needed, as the reader is not among the own heroes. A room with a name has none.
func (rd *reading) candidates(r *store.Room) ([]matrix.UserID, error) {
	for typ, key := range map[string]string{"m.room.name": "name", "m.room.canonical_alias": "alias"} {
		e, err := rd.Rooms.StateEvent(rd.ctx, r.Current, typ, "")
		if err != nil {
			return nil, err
		}
		if e != nil && e.PDU.ContentString(key) != "" {
			return nil, nil
		}
	}
	var list []matrix.UserID
	for _, membership := range []string{"join", "invite", "leave", "ban"} {
		if membership == "leave" && len(list) > 1 {
			break // who has left counts only where nobody else is there
		}
		members, err := rd.Store.Members(rd.ctx, r.Num, membership, mostHeroes+1-len(list))
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			list = append(list, m.User)
		}
	}
	return list, nil
}

// noticeNewcomers remembers who came into view, because their presence is news.
func (rd *reading) noticeNewcomers(r *store.Room, found []room.Seen, whole bool) {
	if rd.initial() {
		return
	}
	if whole {
		rd.newcomers = append(rd.newcomers, rd.Store.LocalMembers(r.Num)...)
		return
	}
	for _, e := range found {
		if e.PDU.Type == "m.room.member" && e.PDU.Membership() == "join" {
			rd.newcomers = append(rd.newcomers, matrix.UserID(*e.PDU.StateKey))
		}
	}
}
