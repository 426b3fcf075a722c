// Package unread finds what a user has to be notified of: the events behind their
// read receipts for which their push rules say so. It stores nothing, since all
// of it follows from the log; what was found is kept in memory. It tells nobody:
// that is for the readers of the log above it.
package unread

import (
	"context"
	"errors"
	"maps"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/pushrule"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// Service finds unread notifications. Its methods may be called from several
// goroutines.
type Service struct {
	Store *store.Store
	Rooms *room.Service

	counts store.Recent[countKey, counted]
	rules  store.Recent[matrix.UserID, rules]
}

const (
	// mostCounted bounds how many events behind the read receipt are looked at.
	mostCounted = 2000

	// mostAhead bounds how many events are read ahead, about.
	mostAhead = 2000

	// Most bounds how many unread notifications of a room are remembered;
	// whoever has more is told of the newest.
	Most = 500
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
	read  int64 // marks are as of this position of the log; 0 for not known
	upto  int64 // up to here; 0 for nothing
	notes []Note
}

// Note is an event that notifies.
type Note struct {
	Pos       int64          // of the event
	Thread    matrix.EventID // "" for the main timeline
	Highlight bool
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

// Notes lists what a user has not read in a room that they are in, in order of
// the timeline, up to a place. The list is not to be changed.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
func (s *Service) Notes(ctx context.Context, r *store.Room, user matrix.UserID, upto int64) ([]Note, error) {
	c, err := s.count(ctx, r, user, upto)
	return c.notes, err
}

// count brings what is known of a user's notifications in a room up to a place.
func (s *Service) count(ctx context.Context, r *store.Room, user matrix.UserID, upto int64) (counted, error) {
	key := countKey{user, r.Num}
	c, _ := s.counts.Find(key)
	if m := s.Store.Membership(user, r.Num); m.Event != c.event {
		stay, err := s.arrival(ctx, m)
		if err != nil {
			return c, err
		}
		if stay != c.stay {
			c = counted{stay: stay, marks: c.marks, read: c.read}
		}
		c.event = m.Event
	}
	if c.read == 0 || s.Store.ReceiptsChangedSince(r.Num, c.read) {
		read, err := s.readUpTo(ctx, r, user, c)
		if err != nil {
			return c, err
		}
		if !maps.Equal(c.marks, read) {
			c.marks = read
			c.drop(func(n Note) bool { return read.covers(n.Pos, n.Thread) })
		}
	}
	if c.upto > 0 && s.Store.SettingChangedSince(user, "m.ignored_user_list", c.upto) {
		c.upto, c.notes = 0, nil // of whom they ignore now, nothing is unread
	}
	if since := max(c.upto, c.stay, c.marks[""]); since < upto && r.Last > since {
		list, err := s.Store.Newest(ctx, r.Num, since, upto, mostCounted)
		if err != nil {
			return c, err
		}
		if err := s.look(ctx, &c, r, user, list); err != nil {
			return c, err
		}
	}
	c.read, c.upto = max(c.read, upto), max(c.upto, upto)
	s.counts.Put(key, c)
	return c, nil
}

// Receipts tells of all receipts that a user has in some rooms, as of a position
// of the log, so that Notes need not look for them in each room.
func (s *Service) Receipts(user matrix.UserID, rooms []store.RoomNum, list []store.Receipt, at int64) {
	read := make(map[store.RoomNum]marks, len(rooms))
	for _, room := range rooms {
		if _, known := s.counts.Find(countKey{user, room}); !known {
			read[room] = marks{}
		}
	}
	for _, r := range list {
		if m := read[r.Room]; m != nil {
			m[r.Thread] = max(m[r.Thread], r.Place)
		}
	}
	for room, m := range read {
		s.counts.Put(countKey{user, room}, counted{marks: m, read: at})
	}
}

// Ahead brings into memory what Notes reads of rooms that a user is in, in few
// statements for all of them. Where their timelines end is in memory.
func (s *Service) Ahead(ctx context.Context, user matrix.UserID, rooms []*store.Room, upto int64) error {
	own := make([]store.EventNum, len(rooms))
	for i, r := range rooms {
		own[i] = s.Store.Membership(user, r.Num).Event
	}
	found, err := s.Store.EventsByNum(ctx, own)
	if err != nil {
		return err
	}
	var before []store.EventNum
	for _, e := range found {
		if e.Replaces != 0 {
			before = append(before, e.Replaces)
		}
	}
	if _, err := s.Store.EventsByNum(ctx, before); err != nil {
		return err
	}
	behind := map[store.RoomNum]int64{}
	for _, r := range rooms {
		c, _ := s.counts.Find(countKey{user, r.Num})
		if m := s.Store.Membership(user, r.Num); m.Event != c.event {
			if c.stay, err = s.arrival(ctx, m); err != nil {
				return err
			}
		}
		if since := max(c.upto, c.stay, c.marks[""]); since < min(upto, r.Last) {
			behind[r.Num] = since
		}
	}
	return s.Store.NewestAhead(ctx, behind, upto, mostAhead)
}

// arrival is the place where a user came into a room: names and pictures may
// have changed since.
func (s *Service) arrival(ctx context.Context, m store.Membership) (int64, error) {
	e, err := s.Store.EventByNum(ctx, m.Event)
	for err == nil && e.Replaces != 0 {
		var before *store.Event
		if before, err = s.Store.EventByNum(ctx, e.Replaces); err == nil && before.PDU.Membership() != "join" {
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
func (c *counted) drop(gone func(Note) bool) {
	c.notes = slices.DeleteFunc(slices.Clone(c.notes), gone)
}

// readUpTo gives the user's read receipts in a room; was is what was known of them.
func (s *Service) readUpTo(ctx context.Context, r *store.Room, user matrix.UserID, was counted) (marks, error) {
	var err error
	receipts, sure := s.Store.UserReceiptNews(user, r.Num, was.read)
	m := marks{}
	if sure && was.read > 0 {
		maps.Copy(m, was.marks)
	} else if receipts, err = s.Store.UserReceipts(ctx, user, r.Num); err != nil {
		return nil, err
	}
	for _, rc := range receipts {
		m[rc.Thread] = max(m[rc.Thread], rc.Place)
	}
	return m, nil
}

// Judge makes a function that evaluates a user's push rules, as they are now, for
// events of a room.
func (s *Service) Judge(ctx context.Context, r *store.Room, user matrix.UserID) (func(*store.Event) pushrule.Actions, error) {
	rules, err := s.pushRules(ctx, user)
	if err != nil {
		return nil, err
	}
	levels, err := s.Rooms.Levels(ctx, r)
	if err != nil {
		return nil, err
	}
	member, err := s.Rooms.StateEvent(ctx, r.Current, "m.room.member", string(user))
	if err != nil {
		return nil, err
	}
	info := pushrule.RoomInfo{Members: r.Joined}
	if member != nil {
		info.DisplayName = member.PDU.ContentString("displayname")
	}
	return func(e *store.Event) pushrule.Actions {
		info.SenderMayNotify = func(key string) bool { return levels.User(e.PDU.Sender) >= levels.Notification(key) }
		return rules.Match(fields(e), info)
	}, nil
}

// look evaluates the user's push rules for events.
func (s *Service) look(ctx context.Context, c *counted, r *store.Room, user matrix.UserID, list []*store.Event) error {
	if len(list) == 0 {
		return nil
	}
	judge, err := s.Judge(ctx, r, user)
	if err != nil {
		return err
	}
	ignored, err := s.Rooms.Ignored(ctx, user)
	if err != nil {
		return err
	}
	c.notes = slices.Clone(c.notes)
	for _, e := range list {
		switch {
		case e.PDU.Sender == user:
			err = s.written(ctx, c, e)
		case e.PDU.Type == "m.room.redaction" && e.PDU.Redacts != "":
			err = s.redacted(ctx, c, e.PDU.Redacts)
		}
		if err != nil {
			return err
		}
		if e.PDU.Sender == user || ignored[e.PDU.Sender] || e.RedactedBy != 0 || e.PDU.Silent {
			continue
		}
		act := judge(e)
		if !act.Notify {
			continue
		}
		thread, err := s.Rooms.Thread(ctx, e)
		if err != nil {
			return err
		}
		if !c.marks.covers(e.Pos, thread) {
			c.notes = append(c.notes, Note{e.Pos, thread, act.Highlight})
		}
	}
	c.notes = c.notes[max(0, len(c.notes)-Most):]
	return nil
}

// written notices an event of the user's own: who writes in a thread has read it.
func (s *Service) written(ctx context.Context, c *counted, e *store.Event) error {
	if e.PDU.IsState() || len(c.notes) == 0 {
		return nil
	}
	thread, err := s.Rooms.Thread(ctx, e)
	if err == nil {
		c.drop(func(n Note) bool { return n.Thread == thread })
	}
	return err
}

// redacted notices that there is nothing left to read of an event.
func (s *Service) redacted(ctx context.Context, c *counted, id matrix.EventID) error {
	if len(c.notes) == 0 {
		return nil
	}
	e, err := s.Store.Event(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err == nil && e.RedactedBy != 0 {
		c.drop(func(n Note) bool { return n.Pos == e.Pos })
	}
	return err
}

// rules are a user's push rules as of a position of the log.
type rules struct {
	pos      int64
	compiled *pushrule.Compiled
}

// pushRules are the user's compiled push rules.
func (s *Service) pushRules(ctx context.Context, user matrix.UserID) (*pushrule.Compiled, error) {
	if known, ok := s.rules.Find(user); ok && !s.Store.SettingChangedSince(user, "m.push_rules", known.pos) {
		return known.compiled, nil
	}
	now := rules{pos: s.Store.Position()}
	raw, ok, err := s.Store.AccountData(ctx, user, "", "m.push_rules")
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
	s.rules.Put(user, now)
	return now.compiled, nil
}

// JudgeInvite evaluates a user's push rules for an invitation of theirs into a
// room, of which little may be known.
func (s *Service) JudgeInvite(ctx context.Context, r *store.Room, user matrix.UserID, e *store.Event) (pushrule.Actions, error) {
	rules, err := s.pushRules(ctx, user)
	if err != nil {
		return pushrule.Actions{}, err
	}
	return rules.Match(fields(e), pushrule.RoomInfo{Members: r.Joined}), nil
}

// fields are what push rules look at.
func fields(e *store.Event) *pushrule.Event {
	return pushrule.NewEvent(pushrule.Fields{
		ID: e.PDU.ID, Room: e.PDU.Room, Type: e.PDU.Type, Sender: e.PDU.Sender, StateKey: e.PDU.StateKey,
		Redacts: e.PDU.Redacts, OriginServerTS: e.PDU.OriginServerTS, Content: e.PDU.Content,
	})
}
