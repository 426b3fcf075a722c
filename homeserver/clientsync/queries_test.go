package clientsync

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store/storetest"
)

// queries are those that ran since the last look.
type queries struct {
	mu   sync.Mutex
	list []string
}

func (q *queries) add(text string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, strings.Join(strings.Fields(text), " "))
}

func (q *queries) take() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.list
	q.list = nil
	return list
}

// TestNoQueries checks that a client that keeps up is answered from memory, by
// /sync and by sliding sync, whatever it is told of.
func TestNoQueries(t *testing.T) {
	databasetest.EachURL(t, func(t *testing.T, url string) {
		var ran queries
		st := storetest.Watched(t, url, ran.add)
		w := newWorld(t, st)
		id, other := w.create(room.Creation{}, bob), w.create(room.Creation{}, bob)
		root := w.say(alice, id, "root")
		old := w.client(bob, `{"room":{"state":{"lazy_load_members":true},"timeline":{"unread_thread_notifications":true}}}`)
		new := w.client(bob, "")
		pos := ""
		slide := func() *SlidingAnswer {
			a, err := w.Slide(w.ctx(), new.window(pos, 99))
			w.ok(err)
			pos = a.Pos
			return a
		}
		catchUp := func() {
			for range 2 {
				old.sync()
				slide()
			}
		}
		catchUp()
		// What each of them has been told once is known from then on.
		w.say(alice, id, "hello")
		catchUp()
		relates := func(typ string) string {
			return `{"msgtype":"m.text","body":"more","m.relates_to":{"rel_type":"` + typ + `","event_id":"` + string(root) + `"}}`
		}
		for _, c := range []struct {
			name   string
			happen func()
			quiet  bool // nothing to tell
		}{
			{"nothing", func() {}, true},
			{"a message", func() { w.say(alice, id, "hi") }, false},
			{"messages in two rooms", func() { w.say(alice, id, "hi"); w.say(alice, other, "hi") }, false},
			{"an own message", func() { w.say(bob, id, "hi") }, false},
			{"a topic", func() { w.topic(id, "new") }, false},
			{"a reaction", func() { w.send(alice, id, relates("m.annotation")) }, false},
			{"a reply in a thread", func() { w.send(alice, id, relates("m.thread")) }, false},
			{"who types", func() { w.ok(w.Ephemeral.SetTyping(w.ctx(), alice, id, true, time.Minute)) }, false},
			{"somebody's receipt", func() { w.mark(alice, id, ephemeral.Read, root) }, false},
			{"an own receipt", func() { w.mark(bob, id, ephemeral.ReadPrivate, root) }, false},
			{"a setting", func() { w.set(bob, "", "org.example", `{"a":1}`) }, false},
			{"a setting of a room", func() { w.set(bob, id, "org.example", `{}`) }, false},
			{"a setting of somebody else", func() { w.set(carol, "", "org.example", `{}`) }, true},
		} {
			catchUp()
			c.happen()
			ran.take()
			a := old.sync()
			if list := ran.take(); len(list) > 0 || a.empty() != c.quiet {
				t.Errorf("/sync after %s: empty %v, %d queries:\n%s", c.name, a.empty(), len(list), strings.Join(slices.Compact(list), "\n"))
			}
			s := slide()
			if list := ran.take(); len(list) > 0 || s.empty() != c.quiet {
				t.Errorf("sliding sync after %s: empty %v, %d queries:\n%s", c.name, s.empty(), len(list), strings.Join(slices.Compact(list), "\n"))
			}
		}
	})
}
