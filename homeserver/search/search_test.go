package search

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
	"switchboard/homeserver/words"
)

const alice = matrix.UserID("@alice:a.test")

// world is the service on a real store, with a room of alice.
type world struct {
	*testing.T
	*Service
	room matrix.RoomID
}

// each runs f on both databases.
func each(t *testing.T, f func(w *world)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		key, err := signing.Generate()
		if err != nil {
			t.Fatal(err)
		}
		bell := &notify.Bell{}
		w := &world{T: t, Service: &Service{Store: st, Bell: bell, Rooms: &room.Service{Store: st, Bell: bell, ServerName: "a.test", Key: key}}}
		w.room, err = w.Rooms.Create(t.Context(), room.Creation{Creator: alice})
		w.ok(err)
		f(w)
	})
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// say sends a message.
func (w *world) say(text string) *store.Event {
	w.Helper()
	content, err := json.Marshal(map[string]string{"msgtype": "m.text", "body": text})
	w.ok(err)
	id, err := w.Rooms.Send(w.Context(), room.Sending{User: alice, Room: w.room, Type: "m.room.message", Content: content})
	w.ok(err)
	e, err := w.Store.Event(w.Context(), id)
	w.ok(err)
	return e
}

// count is how many results there are of a search.
func (w *world) count(term string) int {
	w.Helper()
	a, err := w.Search(w.Context(), room.Reader{User: alice}, Query{Term: term, Filter: everything{}, Limit: 10})
	w.ok(err)
	return a.Count
}

// rows is how many events the index itself has for a word.
func (w *world) rows(word string) int {
	w.Helper()
	list, err := w.Store.WithWords(w.Context(), store.Searching{Words: []words.Key{{Text: word}}, Since: -1 << 62, Upto: 1 << 62}, 10_000)
	w.ok(err)
	return len(list)
}

// TestPast: what was stored before there was an index is found, once, also when
// the work on it is interrupted, and meanwhile what is new.
func TestPast(t *testing.T) {
	each(t, func(w *world) {
		const old = 2*together + 50
		for i := range old {
			w.say(fmt.Sprint("old ", i))
		}
		end := store.EventNum(w.Store.Position())
		w.ok(w.Store.Update(w.Context(), func(tx *store.Tx) error { return tx.PutSpan(w.Context(), store.Span{Below: end, Above: end}) }))
		w.say("new word")
		if n := w.count("new"); n != 1 || w.rows("old") != 0 {
			t.Fatalf("%d new and %d old ones", n, w.rows("old"))
		}
		more, err := w.lookBack(w.Context())
		if n := w.rows("old"); err != nil || !more || n < together/2 || n > together {
			t.Fatalf("the first step back finds %d, more %v, %v", n, more, err)
		}
		w.Service = &Service{Store: w.Store, Bell: w.Bell, Rooms: w.Rooms} // a restart
		ctx, stop := context.WithCancel(w.Context())
		ended := make(chan error)
		go func() { ended <- w.Service.Run(ctx) }()
		for deadline := time.Now().Add(2 * time.Minute); w.rows("old") < old && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		stop()
		w.ok(<-ended)
		if n := w.count("old"); n != old || w.rows("old") != old {
			t.Errorf("%d of %d found, %d rows", n, old, w.rows("old"))
		}
		if more, err := w.lookBack(w.Context()); more || err != nil {
			t.Errorf("there is more, %v", err)
		}
	})
}

// TestWhatIsIndexed: what counts no more leaves the index, and what comes into the
// timeline late enters it.
func TestWhatIsIndexed(t *testing.T) {
	each(t, func(w *world) {
		gone := w.say("apple")
		if w.count("apple") != 1 {
			t.Fatal("not found")
		}
		_, err := w.Rooms.Redact(w.Context(), room.Sending{User: alice, Room: w.room, Redacts: gone.PDU.ID}, nil)
		w.ok(err)
		if n := w.count("apple"); n != 0 || w.rows("apple") != 0 {
			t.Errorf("redacted, and %d found, %d rows", n, w.rows("apple"))
		}

		e := w.say("pear")
		aside := func(id matrix.EventID, status store.Status) *store.Event {
			c, p := *e, *e.PDU
			p.ID = id
			c.PDU, c.Pos, c.Status = &p, 0, status
			w.ok(w.Store.Update(w.Context(), func(tx *store.Tx) error {
				pos, err := tx.NextPosition(w.Context())
				if c.Num = store.EventNum(pos); err != nil {
					return err
				}
				return tx.AppendEvent(w.Context(), &c)
			}))
			return &c
		}
		failed, late := aside("$failed", store.SoftFailed), aside("$late", store.Accepted)
		if n := w.count("pear"); n != 1 {
			t.Errorf("%d found with what is not in the timeline", n)
		}
		for pos, a := range map[int64]*store.Event{-5: late, -6: failed} { // a place in the past
			placed := *a
			placed.Pos = pos
			w.ok(w.Store.Update(w.Context(), func(tx *store.Tx) error { return tx.PlaceEvent(w.Context(), &placed) }))
		}
		if n := w.count("pear"); n != 2 {
			t.Errorf("%d found of two", n)
		}
	})
}

// TestWindows: who pages through more than one looks at for a page finds all, once.
func TestWindows(t *testing.T) {
	each(t, func(w *world) {
		const n = window + 150
		for i := range n {
			w.say(fmt.Sprint("word ", i))
		}
		for _, recent := range []bool{true, false} {
			var found []string
			q := Query{Term: "word", Filter: everything{}, Limit: 100, Recent: recent, Groups: []string{bySender}}
			for range n/q.Limit + 5 {
				a, err := w.Search(w.Context(), room.Reader{User: alice}, q)
				w.ok(err)
				for _, r := range a.Results {
					found = append(found, string(r.Event))
				}
				if q.Next = a.Next; q.Next == "" {
					break
				}
			}
			slices.Sort(found)
			if all := len(found); all != n || len(slices.Compact(found)) != n || q.Next != "" {
				t.Errorf("recent %v: %d of %d, more %q", recent, all, n, q.Next)
			}
		}
	})
}

// TestPagesOfWhatChanges: who goes through the pages misses nothing because what
// they were given is redacted meanwhile, and is given nothing twice.
func TestPagesOfWhatChanges(t *testing.T) {
	each(t, func(w *world) {
		for _, recent := range []bool{true, false} {
			term := fmt.Sprint("word", recent)
			for i := range 9 {
				w.say(fmt.Sprint(term, " ", i))
			}
			seen, next := map[string]bool{}, ""
			for pages := 0; pages == 0 || next != ""; pages++ {
				q := Query{Term: term, Filter: everything{}, Limit: 3, Recent: recent, Next: next, Groups: []string{bySender}}
				a, err := w.Search(w.Context(), room.Reader{User: alice}, q)
				w.ok(err)
				if next = a.Next; pages == 1 {
					next = a.Groups[bySender][string(alice)].Next
				}
				for i, r := range a.Results {
					var e struct {
						ID matrix.EventID `json:"event_id"`
					}
					w.ok(json.Unmarshal(r.Event, &e))
					if seen[string(e.ID)] {
						t.Errorf("page %d has again what was given", pages)
					}
					if seen[string(e.ID)] = true; i != 1 {
						_, err := w.Rooms.Redact(w.Context(), room.Sending{User: alice, Room: w.room, Redacts: e.ID}, nil)
						w.ok(err)
					}
				}
				w.say(fmt.Sprint(term, " new"))
			}
			if len(seen) != 9 {
				t.Errorf("recent %v: %d of 9 found", recent, len(seen))
			}
		}
	})
}

func TestTextOf(t *testing.T) {
	each(t, func(w *world) {
		for content, want := range map[string]string{
			`{"msgtype":"m.text","body":"a"}`: "a",
			`{"body":7}`:                      "",
			`{"body":"* b","m.new_content":{"body":"b"},"m.relates_to":{"rel_type":"m.replace","event_id":"$x"}}`: "b",
			`{"body":"* b","m.new_content":7,"m.relates_to":{"rel_type":"m.replace","event_id":"$x"}}`:            "",
			`{"body":"c","m.new_content":{"body":"b"}}`:                                                           "c",
		} {
			id, err := w.Rooms.Send(w.Context(), room.Sending{User: alice, Room: w.room, Type: "m.room.message", Content: []byte(content)})
			w.ok(err)
			e, err := w.Store.Event(w.Context(), id)
			w.ok(err)
			if _, got := textOf(e.PDU); got != want {
				t.Errorf("%s: %q", content, got)
			}
		}
	})
}
