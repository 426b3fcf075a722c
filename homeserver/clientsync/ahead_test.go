package clientsync

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// village makes rooms of all kinds for bob, and answers a position in the middle
// of what happened in them.
func (w *world) village(rooms int, device matrix.DeviceID) (middle int64) {
	w.Helper()
	for i := range rooms {
		c := room.Creation{}
		if i%3 == 0 {
			c.Name = new(fmt.Sprint("Room ", i))
		}
		members := []matrix.UserID{bob, carol}[:1+i%2]
		id := w.create(c, members...)
		first := w.say(alice, id, "first")
		if i == rooms/2 {
			middle = w.Store.Position()
		}
		_, err := w.Rooms.Send(w.ctx(), room.Sending{User: bob, Device: device, Txn: fmt.Sprint(i), Room: id, Type: "m.room.message", Content: json.RawMessage(`{"body":"own"}`)})
		w.ok(err)
		for n := range i % 7 {
			w.say(alice, id, fmt.Sprint("message ", n))
		}
		relates := func(typ string) string {
			return `{"body":"more","m.new_content":{"body":"more"},"m.relates_to":{"rel_type":"` + typ + `","event_id":"` + string(first) + `"}}`
		}
		switch i % 10 {
		case 0:
			w.topic(id, "one")
			w.topic(id, "two")
		case 1:
			w.send(alice, id, relates("m.thread"))
		case 2:
			w.send(alice, id, relates("m.replace"))
		case 3:
			_, err := w.Rooms.Redact(w.ctx(), room.Sending{User: alice, Room: id, Redacts: first}, nil)
			w.ok(err)
		case 4:
			w.mark(bob, id, ephemeral.ReadPrivate, first)
			w.mark(alice, id, ephemeral.Read, first)
			w.set(bob, id, "org.example", `{}`)
		case 5:
			w.state(alice, id, "m.room.history_visibility", "", `{"history_visibility":"joined"}`)
			w.leave(bob, id)
			w.say(alice, id, "unseen")
			w.join(bob, id)
			w.say(alice, id, "seen")
		case 6:
			w.kick(bob, id)
		case 7:
			w.leave(bob, id)
		case 8:
			w.kick(bob, id)
			w.invite(bob, id)
		}
	}
	return middle
}

// opener opens a store with a budget over a database that has others already.
type opener func(budget int) *store.Store

// eachOpener runs f on both databases, of which all queries are noted.
func eachOpener(t *testing.T, f func(t *testing.T, open opener, ran *queries)) {
	databasetest.EachURL(t, func(t *testing.T, url string) {
		var ran queries
		f(t, func(budget int) *store.Store {
			db, err := database.Open(t.Context(), url, database.Options{Volatile: true, Watch: ran.add})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			st, err := store.New(t.Context(), db, budget)
			if err != nil {
				t.Fatal(err)
			}
			return st
		}, &ran)
	})
}

// histogram counts equal lines.
func histogram(list []string) string {
	count := map[string]int{}
	for _, s := range list {
		count[s]++
	}
	var b strings.Builder
	for _, s := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(&b, "%5d %s\n", count[s], s)
	}
	return b.String()
}

// TestAhead checks that syncs tell the same of many rooms whether memory has
// everything, nothing at first, or no place for it.
func TestAhead(t *testing.T) {
	requests := []struct {
		name, filter       string
		after, full, since bool
	}{
		{"plain", ``, false, false, false},
		{"lazy", `{"room":{"timeline":{"limit":20},"state":{"lazy_load_members":true}}}`, false, false, false},
		{"short", `{"room":{"timeline":{"limit":2},"state":{"lazy_load_members":true}}}`, false, false, false},
		{"state after", `{"room":{"timeline":{"limit":3},"state":{"lazy_load_members":true}}}`, true, false, false},
		{"left", `{"room":{"include_leave":true,"timeline":{"limit":0,"unread_thread_notifications":true}}}`, false, false, false},
		{"messages", `{"room":{"timeline":{"limit":4,"types":["m.room.message"]},"state":{"types":["m.room.name"]}}}`, false, false, false},
		{"as servers do", `{"event_format":"federation","event_fields":["type","content.body"],"room":{"timeline":{"limit":500}}}`, false, false, false},
		{"after a while", `{"room":{"timeline":{"limit":3},"state":{"lazy_load_members":true}}}`, false, false, true},
		{"after a while, everything", `{"room":{"timeline":{"limit":3}}}`, false, true, true},
	}
	eachOpener(t, func(t *testing.T, open opener, _ *queries) {
		w := newWorld(t, open(storetest.Budget))
		c := w.client(bob, "")
		middle := token{pos: w.village(50, c.device)}
		age := regexp.MustCompile(`"age":\d+`)
		answers := func() (list []string) {
			for _, r := range requests {
				w.restart()
				c := &client{world: w, user: bob, device: c.device, filter: r.filter, after: r.after, full: r.full}
				if r.since {
					c.since = middle.String()
				}
				a := c.sync()
				a.NextBatch = ""
				raw, err := a.JSON()
				w.ok(err)
				var v any
				w.ok(json.Unmarshal(raw, &v)) // the order of rooms is no matter
				list = append(list, age.ReplaceAllString(text(t, v), `"age":0`))
			}
			for _, last := range []int{9, 99} {
				w.restart()
				c := &client{world: w, user: bob, device: c.device}
				a, err := w.Slide(w.ctx(), c.window("", last))
				w.ok(err)
				a.Pos = ""
				list = append(list, asText(&slider{client: c}, *a))
			}
			return list
		}
		want := answers()
		for _, budget := range []int{storetest.Budget, 4096} {
			w.Store = open(budget)
			for i, got := range answers() {
				if got != want[i] {
					t.Errorf("request %d, with a budget of %d, is answered\n%s\nwant\n%s", i, budget, got, want[i])
				}
			}
		}
	})
}

// TestAheadQueries checks that a first sync of many rooms takes few queries, whether
// all that is unread is told or only the newest of it.
func TestAheadQueries(t *testing.T) {
	eachOpener(t, func(t *testing.T, open opener, ran *queries) {
		w := newWorld(t, open(storetest.Budget))
		w.inhabit(2*roomsAtOnce, 6)
		for _, limit := range []int{8, 2} {
			w.Store = open(storetest.Budget)
			for _, most := range []int{45, 25} { // when memory is empty, and then
				w.restart()
				c := w.client(bob, fmt.Sprintf(`{"room":{"timeline":{"limit":%d},"state":{"lazy_load_members":true}}}`, limit))
				ran.take()
				if a := c.sync(); len(a.Rooms.Join) != 2*roomsAtOnce {
					t.Fatal(len(a.Rooms.Join), "rooms")
				}
				if list := ran.take(); len(list) > most {
					t.Errorf("with %d events of each timeline %d queries:\n%s", limit, len(list), histogram(list))
				}
			}
		}
	})
}

// TestSlideAheadQueries checks that the first answer of sliding sync after a start takes
// few queries for the rooms that it shows, and no more for others, left ones too,
// however many they are.
func TestSlideAheadQueries(t *testing.T) {
	eachOpener(t, func(t *testing.T, open opener, ran *queries) {
		w := newWorld(t, open(storetest.Budget))
		joined := 0
		for _, more := range []int{40, 120} {
			ids := w.inhabit(more, 3)
			for _, id := range ids[:more/4] {
				w.leave(bob, id)
			}
			joined += more - more/4
			w.Store = open(storetest.Budget)
			w.restart()
			c := w.client(bob, "")
			ran.take()
			a, err := w.Slide(w.ctx(), c.window("", 9))
			w.ok(err)
			if len(a.Rooms) != 10 || a.Lists["all_rooms"].Count != joined {
				t.Fatal(len(a.Rooms), "rooms of", a.Lists["all_rooms"].Count)
			}
			if list := ran.take(); len(list) > 45 {
				t.Errorf("%d queries for %d rooms:\n%s", len(list), joined, histogram(list))
			}
		}
	})
}
