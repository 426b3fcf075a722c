package clientsync

import (
	"cmp"
	"context"
	"encoding/json"
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

// seat is one of the user's rooms, with its place in the order of activity.
type seat struct {
	membership store.Membership
	room       *store.Room
	at         int64 // of the log: the last activity that the user may know of
	config     *combined
	lists      []string
}

// ListResult tells of a list.
type ListResult struct {
	Count int      `json:"count"`
	Ops   []listOp `json:"ops,omitempty"` // before version 4
}

// listOp tells which rooms stand in a range.
type listOp struct {
	Op    string          `json:"op"`
	Range [2]int          `json:"range"`
	Rooms []matrix.RoomID `json:"room_ids"`
}

// readLists finds the rooms that the window shows.
func (sl *slide) readLists(a *SlidingAnswer) error {
	all, err := sl.seats()
	if err != nil {
		return err
	}
	configs := map[string]*combined{}
	for name, l := range sl.Lists {
		in, err := sl.sift(all, l.Filters)
		if err != nil {
			return err
		}
		result := ListResult{Count: len(in)}
		ranges := l.Ranges
		if ranges == nil {
			ranges = [][2]int{{0, len(in) - 1}}
		}
		for _, r := range ranges {
			op := listOp{Op: "SYNC", Range: r, Rooms: []matrix.RoomID{}}
			for _, s := range in[min(r[0], len(in)):min(max(r[1]+1, r[0]), len(in))] {
				s.look(l.RoomConfig, configs)
				s.lists = append(s.lists, name)
				op.Rooms = append(op.Rooms, s.room.ID)
			}
			if !sl.Stable {
				result.Ops = append(result.Ops, op)
			}
		}
		a.Lists[name] = result
	}
	for _, s := range all {
		if c, ok := sl.Window.Rooms[s.room.ID]; ok {
			s.look(c, configs)
		}
		if s.config != nil {
			slices.Sort(s.lists)
			sl.scope = append(sl.scope, s)
		}
	}
	return nil
}

// seats are the rooms that may be in a list, those with the newest activity
// first.
func (sl *slide) seats() ([]*seat, error) {
	all := make([]*seat, 0, len(sl.memberships))
	for _, m := range sl.memberships {
		if m.Forgotten {
			continue
		}
		in, err := sl.listed(m)
		if err != nil {
			return nil, err
		}
		if !in {
			continue
		}
		r, err := sl.Store.RoomByNum(sl.ctx, m.Room)
		if err != nil {
			return nil, err
		}
		s := &seat{membership: m, room: r, at: m.Pos}
		if m.Membership == "join" {
			s.at = min(r.Last, sl.now.pos)
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *seat) int { return cmp.Or(cmp.Compare(b.at, a.at), cmp.Compare(b.room.Num, a.room.Num)) })
	return all, nil
}

// listed tells whether a room belongs in lists: where the user is, is invited or
// has knocked, and out of which they were put. What they left themselves only if
// the client has been told of it.
func (sl *slide) listed(m store.Membership) (bool, error) {
	switch m.Membership {
	case "join", "knock":
		return true, nil
	case "invite":
		e, err := sl.Store.EventByNum(sl.ctx, m.Event)
		if err != nil {
			return false, err
		}
		hidden, err := sl.reading.Rooms.HidesInvite(sl.ctx, sl.reading.User, e.PDU.Sender)
		return !hidden, err
	}
	if sl.known.rooms[m.Room] != nil {
		return true, nil
	}
	out, known := sl.out.Find(m.Event)
	if !known {
		var err error
		if out, err = sl.putOut(m); err != nil {
			return false, err
		}
		sl.out.Put(m.Event, out)
	}
	return out, nil
}

// sift leaves out the rooms that a list does not want.
func (sl *slide) sift(all []*seat, f RoomSieve) ([]*seat, error) {
	var within map[matrix.RoomID]bool
	var tags map[matrix.RoomID]map[string]bool
	var err error
	if f.Spaces != nil {
		if within, err = sl.children(f.Spaces); err != nil {
			return nil, err
		}
	}
	if f.Tags != nil || f.NotTags != nil {
		if tags, err = sl.tags(); err != nil {
			return nil, err
		}
	}
	list := make([]*seat, 0, len(all))
	for _, s := range all {
		id := s.room.ID
		tagged := func(t string) bool { return tags[id][t] }
		if f.Direct != nil && sl.direct[id] != *f.Direct || f.Invited != nil && (s.membership.Membership == "invite") != *f.Invited ||
			f.Spaces != nil && !within[id] || f.Tags != nil && !slices.ContainsFunc(f.Tags, tagged) || slices.ContainsFunc(f.NotTags, tagged) {
			continue
		}
		if f.Encrypted != nil || f.Types != nil || f.NotTypes != nil {
			ok, err := sl.isKind(s, f)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
		}
		list = append(list, s)
	}
	return list, nil
}

// isKind tells whether a room's encryption and type are what a list wants, as far
// as the user may know them.
func (sl *slide) isKind(s *seat, f RoomSieve) (bool, error) {
	k, err := sl.kind(s)
	if err != nil {
		return false, err
	}
	is := func(t *string) bool {
		return t == nil && k.typ == nil || t != nil && k.typ != nil && *t == *k.typ
	}
	return (f.Encrypted == nil || *f.Encrypted == k.encrypted) && (f.Types == nil || slices.ContainsFunc(f.Types, is)) && !slices.ContainsFunc(f.NotTypes, is), nil
}

// kind is what of a room's state lists ask for.
type kind struct {
	encrypted bool
	typ       *string
}

func (sl *slide) kind(s *seat) (k kind, err error) {
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
	if s.membership.Membership == "join" {
		for _, typ := range []string{"m.room.encryption", "m.room.create"} {
			e, err := sl.reading.Rooms.StateEvent(sl.ctx, s.room.Current, typ, "")
			if err != nil {
				return k, err
			}
			if e != nil {
				set(typ, e.PDU.Content)
			}
		}
		return k, nil
	}
	e, err := sl.Store.EventByNum(sl.ctx, s.membership.Event)
	if err != nil {
		return k, err
	}
	list, err := sl.reading.Rooms.OutsideState(sl.ctx, e, sl.reading.User)
	for _, raw := range list {
		var e struct {
			Type    string          `json:"type"`
			Content json.RawMessage `json:"content"`
		}
		if json.Unmarshal(raw, &e) == nil {
			set(e.Type, e.Content)
		}
	}
	return k, err
}

// children are the rooms that spaces name which the user is in.
func (sl *slide) children(spaces []matrix.RoomID) (map[matrix.RoomID]bool, error) {
	within := map[matrix.RoomID]bool{}
	for _, m := range sl.memberships {
		if m.Membership != "join" {
			continue
		}
		r, err := sl.Store.RoomByNum(sl.ctx, m.Room)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(spaces, r.ID) {
			continue
		}
		state, err := sl.reading.Rooms.StateEvents(sl.ctx, r.Current)
		if err != nil {
			return nil, err
		}
		for _, e := range state {
			if e.PDU.Type == "m.space.child" && len(e.PDU.ContentValue("via")) > len("[]") {
				within[matrix.RoomID(*e.PDU.StateKey)] = true
			}
		}
	}
	return within, nil
}

// tags are the tags of the user's rooms.
func (sl *slide) tags() (map[matrix.RoomID]map[string]bool, error) {
	list, err := sl.Store.AccountDataSince(sl.ctx, sl.reading.User, 0, sl.now.pos)
	if err != nil {
		return nil, err
	}
	tags := map[matrix.RoomID]map[string]bool{}
	for _, d := range list {
		var c struct {
			Tags map[string]json.RawMessage `json:"tags"`
		}
		if d.Room == "" || d.Type != "m.tag" || json.Unmarshal(d.Content, &c) != nil {
			continue
		}
		tags[d.Room] = map[string]bool{}
		for t := range c.Tags {
			tags[d.Room][t] = true
		}
	}
	return tags, nil
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
