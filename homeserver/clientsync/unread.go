package clientsync

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/pushrule"
	"switchboard/homeserver/store"
)

const (
	// mostCounted bounds how many events behind the read receipt are looked at.
	mostCounted = 2000

	// mostNotes bounds how many unread notifications of a room are remembered;
	// whoever has more is told of the newest.
	mostNotes = 500
)

type countKey struct {
	user matrix.UserID
	room store.RoomNum
}

// counted is what a user has to be notified of in a room. It is kept so that
// each event is looked at once for each user; it can be found again from the
// log. It is never changed.
type counted struct {
	event store.EventNum // the user's membership
	stay  int64          // where it began
	marks marks
	upto  int64 // up to here; 0 for nothing
	notes []note
}

// note is an event that notifies.
type note struct {
	pos       int64
	thread    matrix.EventID // "" for the main timeline
	highlight bool
}

// marks are the places up to which a user has read: of the whole room under "",
// of the main timeline under "main", and of threads.
type marks map[string]int64

// covers tells whether the user has read what stands at a place of a thread.
func (m marks) covers(pos int64, thread matrix.EventID) bool {
	if thread == "" {
		thread = "main"
	}
	return pos <= m[""] || pos <= m[string(thread)]
}

// addUnread counts what the user has not read in a room they are in: events
// behind the read receipts for which the push rules say "notify".
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
func (rd *reading) addUnread(j *joined, r *store.Room) error {
	c, err := rd.count(r, rd.User, rd.now.pos)
	if err != nil {
		return err
	}
	j.Unread = &unread{}
	for _, n := range c.notes {
		u := j.Unread
		if rd.Filter.Room.Timeline.Threads && n.thread != "" {
			if j.Threads == nil {
				j.Threads = map[matrix.EventID]*unread{}
			}
			if u = j.Threads[n.thread]; u == nil {
				u = &unread{}
				j.Threads[n.thread] = u
			}
		}
		u.Notify++
		if n.highlight {
			u.Highlight++
		}
	}
	return nil
}

// count brings what is known of a user's notifications in a room up to a place.
func (rd *reading) count(r *store.Room, user matrix.UserID, upto int64) (counted, error) {
	key := countKey{user, r.Num}
	c, _ := rd.counts.Find(key)
	if m := rd.Store.Membership(user, r.Num); m.Event != c.event {
		stay, err := rd.arrival(m)
		if err != nil {
			return c, err
		}
		if stay != c.stay {
			c = counted{stay: stay}
		}
		c.event = m.Event
	}
	if c.upto == 0 || rd.Store.ReceiptsChangedSince(r.Num, c.upto) {
		read, err := rd.readUpTo(r, user)
		if err != nil {
			return c, err
		}
		if !maps.Equal(c.marks, read) {
			c.marks = read
			c.drop(func(n note) bool { return read.covers(n.pos, n.thread) })
		}
	}
	if since := max(c.upto, c.stay, c.marks[""]); since < upto && r.Last > since {
		list, err := rd.Store.Newest(rd.ctx, r.Num, since, upto, mostCounted)
		if err != nil {
			return c, err
		}
		if err := rd.look(&c, r, user, list); err != nil {
			return c, err
		}
	}
	c.upto = max(c.upto, upto)
	rd.counts.Put(key, c)
	return c, nil
}

// arrival is the place where a user came into a room: names and pictures may
// have changed since.
func (rd *reading) arrival(m store.Membership) (int64, error) {
	e, err := rd.Store.EventByNum(rd.ctx, m.Event)
	for err == nil && e.Replaces != 0 {
		var before *store.Event
		if before, err = rd.Store.EventByNum(rd.ctx, e.Replaces); err == nil && before.PDU.Membership() != "join" {
			break
		}
		e = before
	}
	if err != nil {
		return 0, err
	}
	return e.Pos, nil
}

// drop forgets notes, in a copy.
func (c *counted) drop(gone func(note) bool) {
	c.notes = slices.DeleteFunc(slices.Clone(c.notes), gone)
}

// readUpTo gives the user's read receipts in a room.
func (rd *reading) readUpTo(r *store.Room, user matrix.UserID) (marks, error) {
	receipts, err := rd.Store.UserReceipts(rd.ctx, user, r.Num)
	if err != nil {
		return nil, err
	}
	m := marks{}
	for _, rc := range receipts {
		m[rc.Thread] = max(m[rc.Thread], rc.Place)
	}
	return m, nil
}

// look evaluates the user's push rules for events.
func (rd *reading) look(c *counted, r *store.Room, user matrix.UserID, list []*store.Event) error {
	if len(list) == 0 {
		return nil
	}
	rules, err := rd.pushRules(user)
	if err != nil {
		return err
	}
	levels, err := rd.Rooms.Levels(rd.ctx, r)
	if err != nil {
		return err
	}
	member, err := rd.Rooms.StateEvent(rd.ctx, r.Current, "m.room.member", string(user))
	if err != nil {
		return err
	}
	info := pushrule.RoomInfo{Members: r.Joined}
	if member != nil {
		info.DisplayName = member.PDU.ContentString("displayname")
	}
	c.notes = slices.Clone(c.notes)
	for _, e := range list {
		switch {
		case e.PDU.Sender == user:
			err = rd.written(c, e)
		case e.PDU.Type == "m.room.redaction" && e.PDU.Redacts != "":
			err = rd.redacted(c, e.PDU.Redacts)
		}
		if err != nil {
			return err
		}
		if e.PDU.Sender == user || rd.ignored[e.PDU.Sender] || e.RedactedBy != 0 {
			continue
		}
		info.SenderMayNotify = func(key string) bool { return levels.User(e.PDU.Sender) >= levels.Notification(key) }
		act := rules.Match(pushrule.NewEvent(pushrule.Fields{
			ID: e.PDU.ID, Room: e.PDU.Room, Type: e.PDU.Type, Sender: e.PDU.Sender, StateKey: e.PDU.StateKey,
			Redacts: e.PDU.Redacts, OriginServerTS: e.PDU.OriginServerTS, Content: e.PDU.Content,
		}), info)
		if !act.Notify {
			continue
		}
		thread, err := rd.Rooms.Thread(rd.ctx, e)
		if err != nil {
			return err
		}
		if !c.marks.covers(e.Pos, thread) {
			c.notes = append(c.notes, note{e.Pos, thread, act.Highlight})
		}
	}
	c.notes = c.notes[max(0, len(c.notes)-mostNotes):]
	return nil
}

// written notices an event of the user's own: who writes in a thread has read it.
func (rd *reading) written(c *counted, e *store.Event) error {
	if e.PDU.IsState() || len(c.notes) == 0 {
		return nil
	}
	thread, err := rd.Rooms.Thread(rd.ctx, e)
	if err == nil {
		c.drop(func(n note) bool { return n.thread == thread })
	}
	return err
}

// redacted notices that there is nothing left to read of an event.
func (rd *reading) redacted(c *counted, id matrix.EventID) error {
	if len(c.notes) == 0 {
		return nil
	}
	e, err := rd.Store.Event(rd.ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err == nil && e.RedactedBy != 0 {
		c.drop(func(n note) bool { return n.pos == e.Pos })
	}
	return err
}

// rules are a user's push rules as of a position of the log.
type rules struct {
	pos      int64
	compiled *pushrule.Compiled
}

// pushRules are the user's compiled push rules.
func (rd *reading) pushRules(user matrix.UserID) (*pushrule.Compiled, error) {
	if known, ok := rd.rules.Find(user); ok && !rd.Store.ChangedSince(store.AccountDataChanged, string(user), known.pos) {
		return known.compiled, nil
	}
	now := rules{pos: rd.Store.Position()}
	raw, ok, err := rd.Store.AccountData(rd.ctx, user, "", "m.push_rules")
	if err != nil {
		return nil, err
	}
	if ok {
		rs, err := pushrule.Parse(user, raw)
		if err != nil {
			return nil, err
		}
		now.compiled = rs.Compile()
	} else {
		now.compiled = pushrule.DefaultCompiled(user)
	}
	rd.rules.Put(user, now)
	return now.compiled, nil
}

// defaults are the settings that a client gets with its first sync although the
// user never wrote them.
func (rd *reading) defaults(list []store.AccountData) ([]json.RawMessage, error) {
	if !rd.initial() || !rd.Filter.AccountData.wants("m.push_rules", "", "") {
		return nil, nil
	}
	for _, d := range list {
		if d.Room == "" && d.Type == "m.push_rules" {
			return nil, nil
		}
	}
	raw, err := json.Marshal(pushrule.Default(rd.User))
	if err != nil {
		return nil, err
	}
	e, err := accountDataEvent(store.AccountData{Type: "m.push_rules", Content: raw})
	return []json.RawMessage{e}, err
}
