package room

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// Token is a place in a room's timeline as clients get it: behind the event at
// the position. A sync's tokens ("s…") count as places, too.
func Token(pos int64) string { return "t" + strconv.FormatInt(pos, 10) }

// SyncToken is a Token that also says when it was given, a position of the log:
// that is the time which a client means who asks for the members at a sync's
// prev_batch.
func SyncToken(pos, at int64) string { return Token(pos) + "_" + strconv.FormatInt(at, 10) }

// parseTime reads the time of a token.
func parseTime(s string) (int64, error) {
	pos, err := ParseToken(s)
	if _, at, ok := strings.Cut(s, "_"); ok && err == nil && s[0] == 't' {
		return ParseToken("t" + at)
	}
	return pos, err
}

// ParseToken reads a place in a timeline.
func ParseToken(s string) (int64, error) {
	if s != "" && (s[0] == 't' || s[0] == 's') {
		place, _, _ := strings.Cut(s[1:], "_")
		if n, err := strconv.ParseInt(place, 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, matrix.Errorf(matrix.InvalidParam, "%q is not a token of this server", s)
}

// access is what somebody who reads a room gets to see.
type access struct {
	room *store.Room
	root statetree.ID // the state to show
	upto int64        // the end of the timeline to show
	left bool         // who reads is in the room no more
}

// access finds out how much of a room user may read: all of it as a member,
// what was there on leaving as a former one, all of it if it is world readable.
func (s *Service) access(ctx context.Context, id matrix.RoomID, user matrix.UserID) (access, error) {
	r, err := s.Store.Room(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return access{}, notInRoom
	}
	if err != nil {
		return access{}, err
	}
	a := access{room: r, root: r.Current, upto: r.Last}
	m := s.Store.Membership(user, r.Num)
	if m.Membership == "join" && !m.Forgotten {
		return a, nil
	}
	if st, err := s.sight(ctx, r.Current, user); err != nil || st.history == "world_readable" {
		return a, err
	}
	if m.Forgotten {
		return access{}, notInRoom
	}
	st, err := s.stay(ctx, r, user)
	if err != nil {
		return access{}, err
	}
	if st.until == 0 {
		return access{}, notInRoom
	}
	left, err := s.Store.Newest(ctx, r.Num, st.until-1, st.until, 1)
	if err != nil {
		return access{}, err
	}
	if len(left) == 0 {
		return access{}, notInRoom
	}
	return access{room: r, root: left[0].State, upto: st.until, left: true}, nil
}

// StateEvents gives all events of the state with a root, ordered by their place.
func (s *Service) StateEvents(ctx context.Context, root statetree.ID) ([]*store.Event, error) {
	return s.StateChanges(ctx, 0, root)
}

// LazyState is StateEvents without the members other than user.
func (s *Service) LazyState(ctx context.Context, root statetree.ID, user matrix.UserID) ([]*store.Event, error) {
	nums, err := s.stateNums(ctx, root, true, user)
	if err != nil {
		return nil, err
	}
	return s.ordered(ctx, nums)
}

// stateNums gives the numbers of the events of a state, with lazy without the
// members other than user.
func (s *Service) stateNums(ctx context.Context, root statetree.ID, lazy bool, user matrix.UserID) ([]store.EventNum, error) {
	var keys []statetree.Key
	var nums []store.EventNum
	err := s.tree(root).Walk(s.Store.Nodes(ctx), func(k statetree.Key, v statetree.Value) bool {
		keys, nums = append(keys, k), append(nums, store.EventNum(v))
		return true
	})
	if err != nil || !lazy {
		return nums, err
	}
	own, _, err := s.Store.StateKey(ctx, event.TypeMember, string(user))
	if err != nil {
		return nil, err
	}
	members, err := s.Store.AreMembers(ctx, keys)
	kept := nums[:0]
	for i, k := range keys {
		if k == own || !members[k] {
			kept = append(kept, nums[i])
		}
	}
	return kept, err
}

// StateChanges gives the events of the state after that are not in the state
// before, ordered by their place.
func (s *Service) StateChanges(ctx context.Context, before, after statetree.ID) ([]*store.Event, error) {
	if before == after {
		return nil, nil
	}
	var nums []store.EventNum
	err := statetree.Diff(s.Store.Nodes(ctx), s.tree(before), s.tree(after), func(_ statetree.Key, _, v statetree.Value) bool {
		if v != 0 {
			nums = append(nums, store.EventNum(v))
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	return s.ordered(ctx, nums)
}

// ordered reads events and puts them into the order of their numbers.
func (s *Service) ordered(ctx context.Context, nums []store.EventNum) ([]*store.Event, error) {
	slices.Sort(nums)
	found, err := s.Store.EventsByNum(ctx, nums)
	if err != nil {
		return nil, err
	}
	list := make([]*store.Event, 0, len(nums))
	for _, n := range nums {
		if e := found[n]; e != nil {
			list = append(list, e)
		}
	}
	return list, nil
}

// StateEvent finds one event of the state with a root; nil if there is none.
func (s *Service) StateEvent(ctx context.Context, root statetree.ID, typ, key string) (*store.Event, error) {
	v := s.view(ctx, root)
	return v.stored(typ, key), v.err
}

// StateSize is how many events the state of a room has.
func (s *Service) StateSize(ctx context.Context, r *store.Room) (n int, err error) {
	err = s.tree(r.Current).Walk(s.Store.Nodes(ctx), func(statetree.Key, statetree.Value) bool {
		n++
		return true
	})
	return n, err
}

// isOpen tells whether a state lets everybody join or read a room. New are
// events of the transaction, which the store cannot find yet.
func (s *Service) isOpen(ctx context.Context, tx *store.Tx, state statetree.Tree, new ...*store.Event) (bool, error) {
	content := func(typ, key string) (string, error) {
		k, err := tx.StateKey(ctx, typ, "")
		if err != nil {
			return "", err
		}
		num, _, err := state.Value(s.Store.Nodes(ctx), k)
		if err != nil || num == 0 {
			return "", err
		}
		for _, e := range new {
			if e.Num == store.EventNum(num) {
				return e.PDU.ContentString(key), nil
			}
		}
		e, err := s.Store.EventByNum(ctx, store.EventNum(num))
		if err != nil {
			return "", err
		}
		return e.PDU.ContentString(key), nil
	}
	rule, err := content("m.room.join_rules", "join_rule")
	if err != nil || rule == "public" {
		return err == nil, err
	}
	history, err := content("m.room.history_visibility", "history_visibility")
	return history == "world_readable", err
}

// seen marks events as visible; the state of a room one has access to is.
func seen(events []*store.Event) []Seen {
	list := make([]Seen, len(events))
	for i, e := range events {
		list[i] = Seen{Event: e}
	}
	return list
}

// State gives the state of a room that user may read.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate
func (s *Service) State(ctx context.Context, rd Reader, id matrix.RoomID) ([]json.RawMessage, error) {
	return s.SomeState(ctx, rd, id, func(*store.Event) bool { return true })
}

// SomeState is State for the events that are wanted.
func (s *Service) SomeState(ctx context.Context, rd Reader, id matrix.RoomID, wants func(*store.Event) bool) ([]json.RawMessage, error) {
	a, err := s.access(ctx, id, rd.User)
	if err != nil {
		return nil, err
	}
	events, err := s.StateEvents(ctx, a.root)
	if err != nil {
		return nil, err
	}
	events = slices.DeleteFunc(events, func(e *store.Event) bool { return !wants(e) })
	return s.Clients(ctx, rd, seen(events))
}

// StateContent gives one event of the state of a room that user may read.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstateeventtypestatekey
func (s *Service) StateContent(ctx context.Context, user matrix.UserID, id matrix.RoomID, typ, key string) (*event.PDU, error) {
	a, err := s.access(ctx, id, user)
	if err != nil {
		return nil, err
	}
	e, err := s.StateEvent(ctx, a.root, typ, key)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, matrix.Errorf(matrix.NotFound, "the room has no such state")
	}
	return e.PDU, nil
}

// MembersAsked says which members are wanted: those who are something, and those
// who are not something else.
type MembersAsked struct {
	Is, Not string // memberships; both "" for all members
	At      string // a token; "" for now
}

// wants tells whether members of a membership are wanted.
func (q MembersAsked) wants(membership string) bool {
	return q.Is == "" && q.Not == "" || q.Is != "" && membership == q.Is || q.Not != "" && membership != q.Not
}

// Members gives the m.room.member events of a room that user may read.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers
func (s *Service) Members(ctx context.Context, rd Reader, id matrix.RoomID, q MembersAsked) ([]json.RawMessage, error) {
	a, err := s.access(ctx, id, rd.User)
	if err != nil {
		return nil, err
	}
	if q.At != "" {
		pos, err := parseTime(q.At)
		if err != nil {
			return nil, err
		}
		at, err := s.Store.Newest(ctx, a.room.Num, 0, min(pos, a.upto), 1)
		if err != nil {
			return nil, err
		}
		if len(at) > 0 {
			a.root = at[0].Current
		}
	}
	events, err := s.StateEvents(ctx, a.root)
	if err != nil {
		return nil, err
	}
	events = slices.DeleteFunc(events, func(e *store.Event) bool {
		return e.PDU.Type != "m.room.member" || !q.wants(e.PDU.Membership())
	})
	return s.Clients(ctx, rd, seen(events))
}

// Profile is the name and picture that a member has in a room.
type Profile struct {
	DisplayName *string `json:"display_name"`
	AvatarURL   *string `json:"avatar_url"`
}

// JoinedMembers lists who is in a room in which user is, too; or, for an
// appservice, another user of this server of whom owns says that they are its own.
// Owns may be nil.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidjoined_members
func (s *Service) JoinedMembers(ctx context.Context, user matrix.UserID, owns func(matrix.UserID) bool, id matrix.RoomID) (map[matrix.UserID]Profile, error) {
	r, err := s.Store.Room(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, notInRoom
	}
	if err != nil {
		return nil, err
	}
	if s.Store.Membership(user, r.Num).Membership != "join" && (owns == nil || !slices.ContainsFunc(s.Store.LocalMembers(r.Num), owns)) {
		return nil, notInRoom
	}
	list, err := s.Store.Members(ctx, r.Num, "join", 1<<30)
	if err != nil {
		return nil, err
	}
	nums := make([]store.EventNum, len(list))
	for i, m := range list {
		nums[i] = m.Event
	}
	events, err := s.Store.EventsByNum(ctx, nums)
	if err != nil {
		return nil, err
	}
	members := make(map[matrix.UserID]Profile, len(list))
	for _, m := range list {
		var p Profile
		if e := events[m.Event]; e != nil {
			p = Profile{optional(e.PDU.ContentString("displayname")), optional(e.PDU.ContentString("avatar_url"))}
		}
		members[m.User] = p
	}
	return members, nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// JoinedRooms lists the rooms that a user of this server is in.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms
func (s *Service) JoinedRooms(ctx context.Context, user matrix.UserID) ([]matrix.RoomID, error) {
	rooms := []matrix.RoomID{}
	for _, m := range s.Store.Memberships(user) {
		if m.Membership != "join" {
			continue
		}
		r, err := s.Store.RoomByNum(ctx, m.Room)
		if err != nil {
			return nil, err
		}
		rooms = append(rooms, r.ID)
	}
	slices.Sort(rooms)
	return rooms, nil
}

// SharedRooms is a part of the rooms that two users share.
type SharedRooms struct {
	Joined []matrix.RoomID `json:"joined"`
	Count  int             `json:"count"` // of all parts
	Next   string          `json:"next_batch,omitempty"`
}

// mostShared is how many rooms a part of them has.
const mostShared = 100

// SharedRooms lists the rooms that two users are joined to, as far as this server
// knows. From is the Next of the part before; "" begins.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mutual_rooms
func (s *Service) SharedRooms(ctx context.Context, a, b matrix.UserID, from string) (*SharedRooms, error) {
	last := 0 // number of the last room of the part before: leaving and joining rooms moves no other
	if from != "" {
		var err error
		if last, err = strconv.Atoi(from); err != nil || last <= 0 {
			return nil, matrix.Errorf(matrix.InvalidParam, "%q is no next_batch of this server", from)
		}
	}
	nums, ids, err := s.Store.SharedRooms(ctx, a, b)
	if err != nil {
		return nil, err
	}
	begin, there := slices.BinarySearch(nums, store.RoomNum(last))
	if there {
		begin++
	}
	end := min(begin+mostShared, len(ids))
	part := &SharedRooms{Joined: append([]matrix.RoomID{}, ids[begin:end]...), Count: len(ids)}
	if end < len(ids) {
		part.Next = strconv.Itoa(int(nums[end-1]))
	}
	return part, nil
}

// Event gives one event that user may see.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid
func (s *Service) Event(ctx context.Context, rd Reader, room matrix.RoomID, id matrix.EventID) (json.RawMessage, error) {
	_, e, err := s.MaySee(ctx, room, rd.User, id)
	if err != nil {
		return nil, err
	}
	list, err := s.Clients(ctx, rd, []Seen{e})
	if err != nil {
		return nil, err
	}
	return list[0], nil
}
