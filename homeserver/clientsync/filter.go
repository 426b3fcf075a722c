package clientsync

import (
	"encoding/json"
	"slices"
	"strings"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// Filter is what a client wants from /sync.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#filtering
type Filter struct {
	EventFields fields      `json:"event_fields"`
	EventFormat string      `json:"event_format"`
	Presence    EventFilter `json:"presence"`
	AccountData EventFilter `json:"account_data"`
	Room        RoomFilter  `json:"room"`
}

// RoomFilter is the part of a Filter about rooms.
type RoomFilter struct {
	Rooms        []matrix.RoomID `json:"rooms"`
	NotRooms     []matrix.RoomID `json:"not_rooms"`
	IncludeLeave bool            `json:"include_leave"`
	Timeline     EventFilter     `json:"timeline"`
	State        EventFilter     `json:"state"`
	Ephemeral    EventFilter     `json:"ephemeral"`
	AccountData  EventFilter     `json:"account_data"`
}

// EventFilter says which events are wanted. The zero value wants all. Types may
// hold "*" for any number of characters.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#filtering
type EventFilter struct {
	Limit       *int            `json:"limit"`
	Types       []string        `json:"types"`
	NotTypes    []string        `json:"not_types"`
	Senders     []matrix.UserID `json:"senders"`
	NotSenders  []matrix.UserID `json:"not_senders"`
	Rooms       []matrix.RoomID `json:"rooms"`
	NotRooms    []matrix.RoomID `json:"not_rooms"`
	ContainsURL *bool           `json:"contains_url"`
	LazyMembers bool            `json:"lazy_load_members"`
	Redundant   bool            `json:"include_redundant_members"`
	Threads     bool            `json:"unread_thread_notifications"`
}

// federationFormat is the EventFormat of events as servers exchange them.
const federationFormat = "federation"

// ParseFilter reads a filter and says what is wrong with it.
func ParseFilter(raw []byte) (*Filter, error) {
	var f Filter
	if err := parse(raw, &f); err != nil {
		return nil, err
	}
	switch f.EventFormat {
	case "", "client", federationFormat:
	default:
		return nil, matrix.Errorf(matrix.InvalidParam, "event_format must be client or federation")
	}
	parts := []*EventFilter{&f.Presence, &f.AccountData, &f.Room.Timeline, &f.Room.State, &f.Room.Ephemeral, &f.Room.AccountData}
	for _, p := range parts {
		if err := p.check(); err != nil {
			return nil, err
		}
	}
	return &f, checkIDs(f.Room.Rooms, f.Room.NotRooms, nil)
}

// filterKey names a filter that is stored. Stored filters do not change.
type filterKey struct {
	user matrix.UserID
	id   string
}

// StoredFilter gives a filter by the ID under which a user has stored it; read
// reads it where it is not in memory.
func (s *Service) StoredFilter(user matrix.UserID, id string, read func() (json.RawMessage, error)) (*Filter, error) {
	filters := s.memories().filters
	if f, ok := filters.Find(filterKey{user, id}); ok {
		return f, nil
	}
	raw, err := read()
	if err != nil {
		return nil, err
	}
	f, err := ParseFilter(raw)
	if err == nil {
		filters.Put(filterKey{user, id}, f, 1000+4*len(raw))
	}
	return f, err
}

// ParseEventFilter reads the filter of /messages and /context.
func ParseEventFilter(raw []byte) (*EventFilter, error) {
	var f EventFilter
	if err := parse(raw, &f); err != nil {
		return nil, err
	}
	return &f, f.check()
}

func parse(raw []byte, v any) error {
	if len(raw) == 0 {
		return nil
	}
	if !json.Valid(raw) {
		return matrix.Errorf(matrix.NotJSON, "the filter is not JSON")
	}
	if json.Unmarshal(raw, v) != nil {
		return matrix.Errorf(matrix.BadJSON, "the filter does not have the shape of a filter")
	}
	return nil
}

func (f *EventFilter) check() error {
	if f.Limit != nil && *f.Limit < 0 {
		return matrix.Errorf(matrix.InvalidParam, "the limit of a filter must not be negative")
	}
	return checkIDs(f.Rooms, f.NotRooms, append(slices.Clone(f.Senders), f.NotSenders...))
}

func checkIDs(rooms, notRooms []matrix.RoomID, users []matrix.UserID) error {
	for _, r := range append(slices.Clone(rooms), notRooms...) {
		if _, err := matrix.ParseRoomID(string(r)); err != nil {
			return err
		}
	}
	for _, u := range users {
		if _, err := matrix.ParseUserID(string(u)); err != nil {
			return err
		}
	}
	return nil
}

// limit is how many events are wanted: def if the client does not say.
func (f *EventFilter) limit(def, most int) int {
	if f.Limit == nil {
		return def
	}
	return min(*f.Limit, most)
}

// Lazy implements room.Filter.
func (f *EventFilter) Lazy() bool { return f.LazyMembers }

// Wants implements room.Filter.
func (f *EventFilter) Wants(e *store.Event) bool {
	if !f.wants(e.PDU.Type, e.PDU.Sender, e.PDU.Room) {
		return false
	}
	return f.ContainsURL == nil || (e.PDU.ContentValue("url") != nil) == *f.ContainsURL
}

// wants tells whether anything with a type, sender and room is wanted.
func (f *EventFilter) wants(typ string, sender matrix.UserID, room matrix.RoomID) bool {
	return (f.Types == nil || matches(f.Types, typ)) && !matches(f.NotTypes, typ) &&
		(f.Senders == nil || slices.Contains(f.Senders, sender)) && !slices.Contains(f.NotSenders, sender) &&
		f.wantsRoom(room)
}

func (f *EventFilter) wantsRoom(room matrix.RoomID) bool {
	return (f.Rooms == nil || slices.Contains(f.Rooms, room)) && !slices.Contains(f.NotRooms, room)
}

// wants tells whether a room is wanted at all.
func (f *RoomFilter) wants(room matrix.RoomID) bool {
	return (f.Rooms == nil || slices.Contains(f.Rooms, room)) && !slices.Contains(f.NotRooms, room)
}

func matches(patterns []string, typ string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return glob(p, typ) })
}

// glob matches a pattern in which "*" stands for any characters.
func glob(pattern, s string) bool {
	head, rest, found := strings.Cut(pattern, "*")
	if !found {
		return pattern == s
	}
	if !strings.HasPrefix(s, head) {
		return false
	}
	s = s[len(head):]
	for {
		part, more, found := strings.Cut(rest, "*")
		if !found {
			return strings.HasSuffix(s, part)
		}
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(part):], more
	}
}
