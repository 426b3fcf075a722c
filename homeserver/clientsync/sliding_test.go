package clientsync

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"testing"
	"time"

	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// slider is a client of sliding sync that keeps what it is told.
type slider struct {
	*client
	conn  string
	pos   string
	last  int // place in the list up to which it looks
	limit int
	types []string // of the state that it wants
	rooms map[matrix.RoomID]*slidRoom
}

// slidRoom is a room as a client knows it.
type slidRoom struct {
	membership, name string
	state            map[string]matrix.EventID // by type and key
	timeline         []matrix.EventID          // without a gap
	counts           [4]int                    // joined, invited, notifications, highlights
	direct           bool
	receipts         map[string]string // events by user and type
}

// ask makes a request, and forgets its answer with lose. A position that is not
// known begins again.
func (s *slider) ask(lose bool) *SlidingAnswer {
	s.Helper()
	w := s.window(s.pos, s.last)
	w.Conn, w.Stable = s.conn, true
	list := w.Lists["all_rooms"]
	list.Limit, list.State, list.Text = s.limit, RequiredState{}, fmt.Sprint(s.types)
	for _, typ := range s.types {
		list.State.Include = append(list.State.Include, StateMatch{Type: &typ})
	}
	w.Lists["all_rooms"] = list
	a, err := s.Slide(s.ctx(), w)
	if e := (*matrix.Error)(nil); errors.As(err, &e) && e.Code == matrix.UnknownPos {
		s.pos, s.rooms = "", nil
		return s.ask(lose)
	}
	s.ok(err)
	s.whole(w, a)
	if lose {
		return a
	}
	if s.pos = a.Pos; s.rooms == nil {
		s.rooms = map[matrix.RoomID]*slidRoom{}
	}
	for id, r := range a.Rooms {
		s.apply(id, r)
	}
	if a.Extensions.Receipts != nil {
		for id, raw := range a.Extensions.Receipts.Rooms {
			s.read(id, raw)
		}
	}
	return a
}

// whole makes a request once more, of a server that looks at every room: it must
// find what a was told.
func (s *slider) whole(w Window, a *SlidingAnswer) {
	s.Helper()
	if w.Pos == "" {
		return
	}
	conn, _ := s.memories().connections.Find(connectionKey{w.User, w.Device, w.Conn})
	known := conn.states[w.Pos]
	blind := *known
	blind.drops = -1
	conn.states[w.Pos] = &blind
	all, err := s.Slide(s.ctx(), w)
	s.ok(err)
	conn.states[w.Pos] = known
	got, want := *a, *all
	got.Pos, want.Pos = "", ""
	if got, want := asText(s, got), asText(s, want); got != want {
		s.Errorf("what is told\n%s\nis not what a look at all rooms finds\n%s", got, want)
	}
}

// asText is an answer without what depends on the time of the day.
func asText(s *slider, a SlidingAnswer) string {
	s.Helper()
	b, err := json.Marshal(a)
	s.ok(err)
	return ages.ReplaceAllString(string(b), `"age":0`)
}

var ages = regexp.MustCompile(`"age":\d+`)

// apply takes what an answer tells of a room.
func (s *slider) apply(id matrix.RoomID, r *RoomResult) {
	s.Helper()
	m := s.rooms[id]
	if m == nil && !r.Initial && r.Stripped == nil {
		s.Errorf("%s comes for the first time and is not initial: %+v", id, r)
	}
	if m == nil || r.Initial {
		m = &slidRoom{state: map[string]matrix.EventID{}, receipts: map[string]string{}}
		s.rooms[id] = m
	}
	if r.Membership != "" {
		m.membership = r.Membership
	}
	if r.Name != nil {
		m.name = ""
		_ = json.Unmarshal(r.Name, &m.name) // null is for none
	}
	for _, raw := range r.State {
		e := read(s, []json.RawMessage{raw})[0]
		key := e.Type + "/" + *e.StateKey
		if m.state[key] = e.ID; e.ID == "" {
			delete(m.state, key)
		}
	}
	if r.Initial || r.Limited || r.Expanded {
		m.timeline = nil
	}
	for _, e := range read(s, r.Timeline) {
		m.timeline = append(m.timeline, e.ID)
	}
	for i, n := range []*int{r.Joined, r.Invited, r.Notify, r.Highlight} {
		if n != nil {
			m.counts[i] = *n
		}
	}
	if r.Direct != nil {
		m.direct = *r.Direct
	}
}

// read takes the receipts of a room.
func (s *slider) read(id matrix.RoomID, raw json.RawMessage) {
	s.Helper()
	var e struct {
		Content map[matrix.EventID]map[string]map[matrix.UserID]json.RawMessage `json:"content"`
	}
	s.ok(json.Unmarshal(raw, &e))
	for event, types := range e.Content {
		for typ, users := range types {
			for u := range users {
				s.rooms[id].receipts[string(u)+" "+typ] = string(event)
			}
		}
	}
}

// same compares what two clients know of the rooms that bob is in. The one that
// began later may know less of the past.
func (s *slider) same(fresh *slider) {
	s.Helper()
	for id, want := range fresh.rooms {
		got := s.rooms[id]
		if want.membership != "join" {
			continue
		}
		if got == nil {
			s.Errorf("%s is not known", id)
			continue
		}
		if got.membership != want.membership || got.name != want.name || got.counts != want.counts || got.direct != want.direct || !maps.Equal(got.state, want.state) {
			s.Errorf("%s:\n got %+v\nwant %+v", id, got, want)
		}
		for who, event := range want.receipts {
			if got.receipts[who] != event {
				s.Errorf("%s: receipt of %s at %q, want %q", id, who, got.receipts[who], event)
			}
		}
		page, err := s.Rooms.Messages(s.ctx(), room.Reader{User: bob}, room.Page{Room: id, Limit: len(got.timeline), Filter: &EventFilter{}})
		s.ok(err)
		slices.Reverse(page.Chunk)
		var ids []matrix.EventID
		for _, e := range read(s, page.Chunk) {
			ids = append(ids, e.ID)
		}
		if !slices.Equal(got.timeline, ids) {
			s.Errorf("%s: timeline %v, want %v", id, got.timeline, ids)
		}
	}
}

// village are rooms in which things happen by chance.
type village struct {
	*world
	random *rand.Rand
	rooms  []matrix.RoomID
	said   map[matrix.RoomID]matrix.EventID // the newest message
}

// happen lets something happen.
func (v *village) happen() {
	v.Helper()
	id := v.rooms[v.random.IntN(len(v.rooms))]
	is := v.Store.Membership(bob, v.num(id)).Membership
	switch n := v.random.IntN(20); {
	case n < 6:
		v.said[id] = v.say(alice, id, fmt.Sprint("message ", v.random.IntN(100)))
	case n < 8:
		v.topic(id, fmt.Sprint(v.random.IntN(100)))
	case n < 9:
		v.state(alice, id, "m.room.name", "", fmt.Sprintf(`{"name":"%s"}`, []string{"", "A", "B"}[v.random.IntN(3)]))
	case n < 10 && v.Store.Membership(carol, v.num(id)).Membership == "join":
		v.leave(carol, id)
	case n < 10:
		v.join(carol, id)
	case n < 13 && v.said[id] != "":
		v.mark(alice, id, ephemeral.Read, v.said[id])
	case n < 15 && v.said[id] != "" && is == "join":
		v.mark(bob, id, ephemeral.ReadPrivate, v.said[id])
	case n < 16 && is == "join":
		v.leave(bob, id)
	case n < 16 && is != "invite":
		v.invite(bob, id)
	case n < 17 && is != "join":
		v.join(bob, id)
	case n < 17:
		v.ok(v.Ephemeral.SetTyping(v.ctx(), alice, id, v.random.IntN(2) == 0, time.Minute))
	case n < 18:
		v.set(bob, "", "m.direct", fmt.Sprintf(`{"@alice:a.test":[%q]}`, id))
	}
}

func (w *world) num(id matrix.RoomID) store.RoomNum {
	w.Helper()
	r, err := w.Store.Room(w.ctx(), id)
	w.ok(err)
	return r.Num
}

// TestSlidingByChance lets two connections of one device look at parts of the list,
// want more or less, lose answers and survive restarts. In the end both know what
// a new one is told, and have no gap or doubling in their timelines.
func TestSlidingByChance(t *testing.T) {
	each(t, func(w *world) {
		for seed := range uint64(3) {
			v := &village{world: w, random: rand.New(rand.NewPCG(seed, 7)), said: map[matrix.RoomID]matrix.EventID{}}
			for range 6 {
				v.rooms = append(v.rooms, v.create(room.Creation{}, bob))
			}
			c := v.client(bob, "")
			types := []string{"m.room.create", "m.room.name", "m.room.member"}
			sliders := []*slider{{client: c, conn: "a", limit: 1, types: types}, {client: c, conn: "b", limit: 3, last: 999, types: types}}
			for i := range 150 {
				v.happen()
				for _, s := range sliders {
					switch v.random.IntN(8) {
					case 0:
						s.last = v.random.IntN(8)
					case 1:
						s.limit = 1 + v.random.IntN(6)
					case 2:
						s.types = types[:1+v.random.IntN(len(types))]
					case 3:
						s.ask(true)
					case 4, 5:
						s.ask(false)
					}
				}
				if i == 100 && seed%2 == 1 {
					v.restart()
				}
			}
			fresh := &slider{client: c, conn: "c"}
			for _, s := range append(sliders, fresh) {
				s.last, s.limit, s.types = 999, 3, types
				s.ask(false)
				if a := s.ask(false); len(a.Rooms) > 0 && s != fresh {
					w.Errorf("connection %s: the same rooms are told twice: %v", s.conn, slices.Collect(maps.Keys(a.Rooms)))
				}
			}
			for _, s := range sliders {
				s.same(fresh)
			}
			if w.Failed() {
				w.Fatal("with seed ", seed)
			}
		}
	})
}
