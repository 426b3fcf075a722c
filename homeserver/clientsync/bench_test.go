package clientsync

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// benchWorld is a world on SQLite, whose rooms need not survive a power cut, with
// a budget for its caches in bytes.
func benchWorld(b *testing.B, budget int) *world {
	b.Helper()
	return newWorld(b, benchStore(b, databasetest.SQLite(b), budget))
}

// benchStore opens the store of a benchWorld once more, as after a start.
func benchStore(b *testing.B, url string, budget int) *store.Store {
	b.Helper()
	db, err := database.Open(b.Context(), url, database.Options{Volatile: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	st, err := store.New(b.Context(), db, budget)
	if err != nil {
		b.Fatal(err)
	}
	return st
}

// inhabit makes rooms of three members each, in which messages were sent.
func (w *world) inhabit(rooms, messages int) []matrix.RoomID {
	w.Helper()
	ids := make([]matrix.RoomID, rooms)
	var group sync.WaitGroup
	for part := range 16 {
		group.Go(func() {
			for i := part; i < rooms; i += 16 {
				ids[i] = w.create(room.Creation{}, bob, carol)
				for n := range messages {
					w.say([]matrix.UserID{alice, bob, carol}[n%3], ids[i], fmt.Sprintf("message %d of room %d", n, i))
				}
			}
		})
	}
	group.Wait()
	return ids
}

// measure syncs again and again, as the API does.
func (c *client) measure(b *testing.B) {
	r := c.request()
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		a, err := c.Sync(c.ctx(), r)
		if err != nil {
			b.Fatal(err)
		}
		out, err := a.JSON()
		if err != nil {
			b.Fatal(err)
		}
		size = len(out)
	}
	b.ReportMetric(float64(size), "bytes/answer")
}

// BenchmarkWake is what one message costs for one client that waits: in 50
// rooms, and in 2,000.
func BenchmarkWake(b *testing.B) {
	for _, rooms := range []int{50, 2000} {
		b.Run(fmt.Sprint(rooms, " rooms"), func(b *testing.B) {
			w := benchWorld(b, 256<<20)
			ids := w.inhabit(rooms, 3)
			c := w.client(bob, `{"room":{"state":{"lazy_load_members":true},"timeline":{"unread_thread_notifications":true,"limit":20}}}`)
			c.sync()
			w.say(alice, ids[7], "hello")
			c.measure(b)
		})
	}
}

// BenchmarkIdle is what a wake-up costs that brings the client nothing.
func BenchmarkIdle(b *testing.B) {
	w := benchWorld(b, 256<<20)
	w.inhabit(50, 3)
	c := w.client(bob, `{"room":{"state":{"lazy_load_members":true}}}`)
	c.sync()
	c.measure(b)
}

// BenchmarkInitial is a first sync of an account in 2,000 rooms: with everything
// in memory, and with a memory that holds only a part.
func BenchmarkInitial(b *testing.B) {
	for _, budget := range []int{256 << 20, 16 << 20} {
		b.Run(fmt.Sprintf("%d MiB", budget>>20), func(b *testing.B) {
			w := benchWorld(b, budget)
			w.inhabit(2000, 12)
			w.client(bob, `{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":10}}}`).measure(b)
		})
	}
}

// BenchmarkInitialCold is a first sync after a start, of an account in 500 rooms in
// each of which more is unread than the timeline shows.
func BenchmarkInitialCold(b *testing.B) {
	url := databasetest.SQLite(b)
	w := newWorld(b, benchStore(b, url, 256<<20))
	w.inhabit(500, 60)
	b.ResetTimer()
	var took time.Duration
	for range b.N {
		b.StopTimer()
		w.Store = benchStore(b, url, 256<<20)
		w.restart()
		before := processor(b)
		b.StartTimer()
		w.client(bob, `{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":20}}}`).sync()
		took += processor(b) - before
	}
	b.ReportMetric(float64(took.Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

// BenchmarkSlide is what one message in a busy room costs for one client of sliding
// sync that waits: it looks at 20 rooms, or at all of 2,000.
func BenchmarkSlide(b *testing.B) {
	w := benchWorld(b, 256<<20)
	ids := w.inhabit(2000, 3)
	for _, last := range []int{19, 1999} {
		b.Run(fmt.Sprint(last+1, " rooms"), func(b *testing.B) {
			c := w.client(bob, "")
			at := func(pos string) *SlidingAnswer {
				a, err := w.Slide(w.ctx(), c.window(pos, last))
				if err != nil {
					b.Fatal(err)
				}
				return a
			}
			w.say(alice, ids[7], "the newest activity is here")
			first := at("")
			w.say(alice, ids[7], "hello")
			b.ReportAllocs()
			for b.Loop() {
				if a := at(first.Pos); len(a.Rooms) != 1 {
					b.Fatal(len(a.Rooms), " rooms")
				}
			}
		})
	}
}

// BenchmarkSlideFirst is the first answer of sliding sync: 20 rooms of 2,000.
func BenchmarkSlideFirst(b *testing.B) {
	w := benchWorld(b, 256<<20)
	w.inhabit(2000, 3)
	c := w.client(bob, "")
	for b.Loop() {
		if a, err := w.Slide(w.ctx(), c.window("", 19)); err != nil || len(a.Rooms) != 20 {
			b.Fatal(err, a)
		}
	}
}
