package ephemeral

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

func TestTyping(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		var without map[matrix.UserID]bool
		is := func(room matrix.RoomID, since int64, want string) {
			t.Helper()
			users, changed := w.Typing(room, since, without)
			if got := fmt.Sprint(users, changed); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		set := func(user matrix.UserID, on bool, want matrix.Code) {
			t.Helper()
			if err := w.SetTyping(t.Context(), user, home, on, time.Minute); code(t, err) != want {
				t.Errorf("got %v, want %q", err, want)
			}
		}
		start := w.Serial()
		is(home, start, "[] false")
		is(home, start-1, "[] true") // from before a restart: the client may show somebody
		is(home, 0, "[] false")

		ring := w.Bell.Listen(string(bob))
		set(alice, true, "")
		if !rung(ring) {
			t.Error("bob was not woken")
		}
		set(bob, true, "")
		is(home, start, "[@alice:a.test @bob:a.test] true")
		is(home, 0, "[@alice:a.test @bob:a.test] true")
		is(other, start, "[] false")
		last := w.Serial()
		ring = w.Bell.Listen(string(bob))
		set(alice, true, "") // still
		is(home, last, "[@alice:a.test @bob:a.test] false")
		if rung(ring) {
			t.Error("bob was woken for nothing")
		}
		without = map[matrix.UserID]bool{alice: true}
		is(home, start, "[@bob:a.test] true")
		without[bob] = true
		is(home, start, "[] false") // only those changed who do not matter
		is(home, 0, "[] false")
		is(home, start-1, "[] true")
		without = nil
		set(alice, false, "")
		set(alice, false, "")
		set(bob, false, "")
		is(home, last, "[] true")
		is(home, w.Serial(), "[] false")
		for since, want := range map[int64]string{start - 1: "0 false", start: "4 true", last: "2 true", w.Serial(): "0 true"} {
			rooms, sure := w.TypingRooms(since)
			if got := fmt.Sprint(len(rooms), sure); got != want {
				t.Errorf("rooms behind %d: %s, want %s", since-start, got, want)
			}
		}
		set(carol, true, matrix.Forbidden)
		if err := w.SetTyping(t.Context(), alice, "!none:a.test", true, 0); code(t, err) != matrix.Forbidden {
			t.Errorf("got %v", err)
		}
	})
}

// TestTypingEnds lets time pass.
func TestTypingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ty typing
		room := &store.Room{ID: home, Num: 1}
		ty.set(room, alice, time.Now().Add(10*time.Second))
		ty.set(room, bob, time.Now().Add(20*time.Second))
		for _, want := range []struct {
			after time.Duration
			left  int
			rooms int
		}{{9 * time.Second, 2, 0}, {time.Second, 1, 1}, {9 * time.Second, 1, 0}, {time.Second, 0, 1}, {time.Second, 0, 0}} {
			time.Sleep(want.after)
			rooms, next, _ := ty.expire(time.Now())
			if len(rooms) != want.rooms || len(ty.rooms[home].until) != want.left || next.IsZero() != (want.left == 0) {
				t.Errorf("after %v: %v, %d left, next %v", want.after, rooms, len(ty.rooms[home].until), next)
			}
		}
	})
}

// TestTypingIsBounded types in very many rooms.
func TestTypingIsBounded(t *testing.T) {
	var s Service
	begin := s.Serial()
	for i := range mostQuiet + 10 {
		room := &store.Room{ID: matrix.RoomID(fmt.Sprint("!", i))}
		s.typing.set(room, alice, time.Now().Add(time.Minute))
		s.typing.set(room, alice, time.Time{})
	}
	if n := len(s.typing.rooms); n > mostQuiet {
		t.Errorf("%d rooms are remembered", n)
	}
	// Whoever was last here before the forgotten changes learns of them.
	s.typing.mu.Lock()
	floor := s.typing.floor
	s.typing.mu.Unlock()
	if floor <= begin {
		t.Errorf("floor %d is not behind %d", floor, begin)
	}
}

// TestRun runs the whole service: typing ends, and it stops when told.
func TestRun(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		if err := w.SetTyping(t.Context(), alice, home, true, 50*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		for {
			ring := w.Bell.Listen(string(bob))
			if users, _ := w.Typing(home, 0, nil); len(users) == 0 {
				break
			}
			<-ring
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
