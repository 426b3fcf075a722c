package search

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
	"switchboard/homeserver/words"
)

// Query is what a client searches for.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3search
type Query struct {
	Term string
	Keys []string // of contents: "body", "name", "topic"; nil for all
	Next string   // the token of an answer; "" for the beginning

	Filter              room.Filter
	Rooms, NotRooms     []matrix.RoomID // Rooms nil for all
	Senders, NotSenders []matrix.UserID // Senders nil for all

	Recent bool // the newest first, not the closest
	Limit  int
	Around *Surroundings // nil for none
	State  bool          // with the state of the rooms
	Groups []string      // keys of groups: "room_id", "sender"
}

// Surroundings says what is wanted of what surrounds a result.
type Surroundings struct {
	Before, After int  // how many events
	Profiles      bool // of their senders
}

// The keys by which results can be grouped.
const (
	byRoom   = "room_id"
	bySender = "sender"
)

// hit is an event that was found.
type hit struct {
	room.Version
	rank float64
}

// of is the group of a hit by a key.
func (h hit) of(key string) string {
	if key == byRoom {
		return string(h.PDU.Room)
	}
	return string(h.PDU.Sender)
}

// standing is where a hit stands among the others.
func (h hit) standing() standing { return standing{h.rank, h.Text.Pos} }

// standing orders hits: the same text never stands twice.
type standing struct {
	Rank float64 `json:"r,omitempty"`
	At   int64   `json:"a,omitempty"` // the place where the text was written that was found
}

// compare says which of two hits comes first.
func (q Query) compare(a, b standing) int {
	if q.Recent {
		return cmp.Compare(b.At, a.At)
	}
	return cmp.Or(cmp.Compare(b.Rank, a.Rank), cmp.Compare(b.At, a.At))
}

const (
	// window is how many events that may fit are looked at for one page. The closest
	// ones of them come first, then those of the next window.
	window = 1000

	// mostRead bounds how many events of the index are read for a window.
	mostRead = 20_000

	// mostRooms is how many rooms the index is asked for; who is in more of them
	// makes it give all, and what is of other rooms is left out.
	mostRooms = 1000
)

// cursor is where a page begins: behind a hit of a window of places. That hit itself
// may be gone by then.
type cursor struct {
	Upto  int64  `json:"u"`           // the window ends here
	Since int64  `json:"s,omitempty"` // and begins behind; 0: it is as large as a window is
	Given int    `json:"g,omitempty"` // hits of the windows before
	Key   string `json:"b,omitempty"` // of the group; "" for all
	Group string `json:"o,omitempty"`

	Last *standing `json:"l,omitempty"` // nil for the beginning of the window
}

func (c cursor) token() string {
	raw, err := json.Marshal(c)
	if err != nil {
		panic(err) // numbers and texts are always JSON
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

func parseCursor(token string) (c cursor, err error) {
	if token == "" {
		return cursor{}, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || json.Unmarshal(raw, &c) != nil || c.Given < 0 || c.Key != "" && c.Key != byRoom && c.Key != bySender {
		return c, matrix.Errorf(matrix.InvalidParam, "next_batch is not a token of a search")
	}
	return c, nil
}

// Search finds events that user may see.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3search
func (s *Service) Search(ctx context.Context, rd room.Reader, q Query) (*Answer, error) {
	c, err := parseCursor(q.Next)
	if err != nil {
		return nil, err
	}
	f := &finder{Service: s, ctx: ctx, rd: rd, q: q, term: words.Parse(q.Term), rooms: map[store.RoomNum]*store.Room{}}
	if len(f.term.Keys()) == 0 {
		return newAnswer(), nil
	}
	if err := s.catchUp(ctx); err != nil {
		return nil, err
	}
	if q.Next == "" {
		c.Upto = s.Store.Position()
	}
	switch c.Key {
	case byRoom:
		f.q.Rooms = only(f.q.Rooms, matrix.RoomID(c.Group))
	case bySender:
		f.q.Senders = only(f.q.Senders, matrix.UserID(c.Group))
	}
	if err := f.prepare(); err != nil {
		return nil, err
	}
	hits, err := f.find(&c)
	if err != nil {
		return nil, err
	}
	return f.answer(hits, c)
}

// only is a list of what is wanted, nil for all, without all but one.
func only[T comparable](list []T, one T) []T {
	if list == nil || slices.Contains(list, one) {
		return []T{one}
	}
	return []T{}
}

// finder answers one query.
type finder struct {
	*Service
	ctx     context.Context
	rd      room.Reader
	q       Query
	term    words.Term
	rooms   map[store.RoomNum]*store.Room // those to search; nil for what is not to be
	ask     store.Searching
	ignored map[matrix.UserID]bool
}

// prepare finds out where to search: in rooms that the user has been in, but for
// those that are forgotten.
func (f *finder) prepare() error {
	var err error
	if f.ignored, err = f.Rooms.Ignored(f.ctx, f.rd.User); err != nil {
		return err
	}
	f.ask = store.Searching{Words: f.term.Keys(), Keys: f.q.Keys, Rooms: []store.RoomNum{}, Senders: f.q.Senders, NotSenders: f.q.NotSenders}
	for _, m := range f.Store.Memberships(f.rd.User) {
		if m.Forgotten {
			continue
		}
		r, err := f.Store.RoomByNum(f.ctx, m.Room)
		if err != nil {
			return err
		}
		if (f.q.Rooms == nil || slices.Contains(f.q.Rooms, r.ID)) && !slices.Contains(f.q.NotRooms, r.ID) {
			f.rooms[m.Room] = r
			f.ask.Rooms = append(f.ask.Rooms, m.Room)
		}
	}
	if len(f.ask.Rooms) > mostRooms {
		f.ask.Rooms = nil
	}
	return nil
}

// find gathers the hits of a window in the order that is wanted, and completes the
// cursor with where the window begins.
func (f *finder) find(c *cursor) ([]hit, error) {
	var hits []hit
	f.ask.Since, f.ask.Upto = math.MinInt64, c.Upto
	fixed := c.Since != 0
	if fixed {
		f.ask.Since = c.Since
	}
	for read, seen := 0, 0; f.ask.Rooms == nil || len(f.ask.Rooms) > 0; {
		const some = 200
		list, err := f.Store.WithWords(f.ctx, f.ask, some)
		if err != nil {
			return nil, err
		}
		found, looked, err := f.look(list)
		if err != nil {
			return nil, err
		}
		hits, read, seen = append(hits, found...), read+len(list), seen+looked
		if len(list) < some {
			break
		}
		f.ask.Upto = list[some-1].Pos - 1
		if !fixed && (seen >= window || read >= mostRead) {
			if c.Since = f.ask.Upto; c.Since == 0 {
				c.Since = -1 // no event stands at 0
			}
			break
		}
	}
	slices.SortFunc(hits, func(a, b hit) int { return f.q.compare(a.standing(), b.standing()) })
	return hits, nil
}

// look finds hits among events that have the words, and tells how many of them
// were of rooms that are searched.
func (f *finder) look(list []*store.Event) (hits []hit, looked int, err error) {
	byRoom := map[store.RoomNum][]*store.Event{}
	for _, e := range list {
		byRoom[e.Room] = append(byRoom[e.Room], e)
	}
	for num, events := range byRoom {
		r := f.rooms[num]
		if r == nil {
			continue
		}
		secret, err := f.Rooms.StateEvent(f.ctx, r.Current, "m.room.encryption", "")
		if err != nil {
			return nil, 0, err
		}
		if secret != nil { // no part of the search
			f.rooms[num] = nil
			continue
		}
		looked += len(events)
		versions, err := f.Rooms.Versions(f.ctx, r, f.rd.User, events)
		if err != nil {
			return nil, 0, err
		}
		for _, v := range versions {
			key, text := textOf(v.Text.PDU)
			rank := f.term.Rank(text)
			if rank > 0 && f.wants(v, key) {
				hits = append(hits, hit{v, rank})
			}
		}
	}
	return hits, looked, nil
}

// wants tells whether an event with a text under a key is asked for.
func (f *finder) wants(v room.Version, key string) bool {
	return v.RedactedBy == 0 && v.Text.RedactedBy == 0 && (f.q.Keys == nil || slices.Contains(f.q.Keys, key)) &&
		(v.PDU.IsState() || !f.ignored[v.PDU.Sender]) && f.q.Filter.Wants(v.Event)
}
