package account

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

func known(user matrix.UserID, device matrix.DeviceID) *remembered {
	return remember(store.User{ID: user}, device)
}

func TestSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c sessions
		put := func(key string, user matrix.UserID, device matrix.DeviceID) {
			c.put(key, known(user, device), time.Now(), c.age())
		}
		has := func(key string) bool { _, ok := c.find(key); return ok }
		put("a1", "@a:t", "1")
		put("a2", "@a:t", "2")
		put("b1", "@b:t", "1")
		if !has("a1") || !has("b1") || has("none") {
			t.Error("wrong keys")
		}
		c.dropUser("@a:t", "1")
		if has("a1") || !has("a2") || !has("b1") {
			t.Error("the wrong device was dropped")
		}
		c.drop("b1")
		c.dropUser("@a:t", "")
		if has("a2") || has("b1") {
			t.Error("not dropped")
		}
		if len(c.young.keys) != 0 {
			t.Errorf("keys are left: %v", c.young.keys)
		}

		// What was read before a logout must not come back after it.
		age := c.age()
		c.dropUser("@a:t", "1")
		c.put("a1", known("@a:t", "1"), time.Now(), age)
		if has("a1") {
			t.Error("a session that ended is remembered")
		}

		put("a1", "@a:t", "1")
		time.Sleep(sessionKeeps + time.Millisecond)
		if has("a1") {
			t.Error("remembered for too long")
		}
	})
}

func TestSessionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where none of them becomes old meanwhile
		var c sessions
		put := func(i int) {
			user := matrix.UserID(fmt.Sprintf("@u%d:t", i/4))
			c.put(fmt.Sprint(i), known(user, "1"), time.Now(), c.age())
		}
		for i := range 3 * mostSessions {
			put(i)
			if i%1000 == 0 {
				if _, ok := c.find("0"); !ok { // in use all the time
					t.Fatalf("forgotten after %d others", i)
				}
			}
		}
		if n := len(c.young.kept) + len(c.old.kept); n > 2*mostSessions {
			t.Errorf("%d sessions", n)
		}
		if _, ok := c.find("1"); ok {
			t.Error("an old one is still there")
		}
	})
}

// A device is seen at most once in a while, and its sightings are bounded.
func TestSaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Service
		e := known("@a:t", "1")
		at := func() int64 { return s.seen.waiting[deviceKey{"@a:t", "1"}].TS }
		s.saw(e, Client{Address: "192.0.2.1", UserAgent: "a\nb\x00\xffc"}, time.Now())
		first := at()
		if got := s.seen.waiting[deviceKey{"@a:t", "1"}]; got.UserAgent != "abc" || first == 0 {
			t.Errorf("got %+v", got)
		}
		time.Sleep(seenEvery / 2)
		s.saw(e, Client{}, time.Now())
		if at() != first {
			t.Error("seen too often")
		}
		time.Sleep(seenEvery)
		s.saw(e, Client{}, time.Now())
		if at() == first {
			t.Error("not seen again")
		}
		s.saw(known("@a:t", ""), Client{}, time.Now())
		for i := range mostSightings + 5 {
			s.saw(known("@a:t", matrix.DeviceID(fmt.Sprint("d", i))), Client{}, time.Now())
		}
		if n := len(s.seen.waiting); n != mostSightings {
			t.Errorf("%d sightings", n)
		}
	})
}
