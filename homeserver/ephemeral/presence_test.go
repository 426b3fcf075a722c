package ephemeral

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

func TestPresence(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		is := func(observer, user matrix.UserID, want string, wantCode matrix.Code) {
			t.Helper()
			st, err := w.Presence(t.Context(), observer, user)
			if code(t, err) != wantCode {
				t.Fatalf("got %v, want %q", err, wantCode)
			}
			if got := strings.TrimSpace(st.Presence + " " + st.StatusMsg); err == nil && got != want {
				t.Errorf("%s is %q, want %q", user, got, want)
			}
		}
		put := func(user matrix.UserID, device matrix.DeviceID, state string, msg *string, want matrix.Code) {
			t.Helper()
			if err := w.SetPresence(t.Context(), user, device, state, msg); code(t, err) != want {
				t.Errorf("got %v, want %q", err, want)
			}
		}
		is(alice, alice, Offline, "")
		is(bob, alice, Offline, "")
		is(carol, alice, "", matrix.Forbidden)
		w.say(home, "$1", `{}`)
		since := w.Store.Position()
		ring := w.Bell.Listen(string(bob))
		put(alice, "A1", Online, thread("busy"), "")
		if !rung(ring) {
			t.Error("bob was not woken")
		}
		is(bob, alice, "online busy", "")
		put(alice, "A1", Unavailable, nil, "")
		is(bob, alice, "unavailable busy", "")
		if err := w.Syncing(t.Context(), alice, "A2", Online); err != nil { // another device
			t.Fatal(err)
		}
		put(alice, "A1", Offline, nil, "")
		is(bob, alice, "online busy", "")
		put(alice, "A2", Offline, thread(""), "")
		is(bob, alice, "offline", "")
		put(alice, "A1", "away", nil, matrix.InvalidParam)
		put(alice, "A1", Online, thread(strings.Repeat("x", longestMsg+1)), matrix.InvalidParam)
		put(alice, "A1", Online, thread("\x00"), matrix.InvalidParam)

		put(bob, "B1", Online, nil, "")
		changes := func(observer matrix.UserID, since int64, want string) {
			t.Helper()
			found, err := w.Presences(t.Context(), observer, since, w.Store.Position())
			if err != nil {
				t.Fatal(err)
			}
			states := map[matrix.UserID]string{}
			for u, st := range found {
				states[u] = st.Presence
			}
			if got := fmt.Sprint(states); got != want {
				t.Errorf("%s sees %s, want %s", observer, got, want)
			}
		}
		changes(alice, since, "map[@alice:a.test:offline @bob:a.test:online]")
		changes(alice, 0, "map[@bob:a.test:online]")
		changes(carol, 0, "map[]")

		w.NoPresence = true
		is(bob, bob, Offline, "")
		changes(alice, since, "map[]")
	})
}

// TestPresenceKeepsMessage writes what time or a sync changed after somebody has
// set a message meanwhile.
func TestPresenceKeepsMessage(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.say(home, "$1", `{}`)
		put := func(state string, msg *string) {
			t.Helper()
			if err := w.SetPresence(t.Context(), alice, "A1", state, msg); err != nil {
				t.Fatal(err)
			}
		}
		put(Online, nil)
		w.here.device(alice, "A1", Unavailable, 0)
		late := w.here.due(time.Now())
		put(Unavailable, thread("busy"))
		if err := w.tell(t.Context(), late, true); err != nil || len(late) != 1 {
			t.Fatalf("%v, told of %v", err, late)
		}
		changed, err := w.Presences(t.Context(), alice, 1, w.Store.Position())
		if err != nil || changed[alice].StatusMsg != "busy" || changed[alice].Presence != Unavailable {
			t.Errorf("a client is told %+v, %v", changed[alice], err)
		}
		if st, err := w.Presence(t.Context(), alice, alice); err != nil || st.StatusMsg != "busy" {
			t.Errorf("the message is gone: %+v, %v", st, err)
		}
	})
}

// TestSyncingWritesLittle syncs over and over: others are told once.
func TestSyncingWritesLittle(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		if err := w.Syncing(t.Context(), alice, "A1", ""); err != nil {
			t.Fatal(err)
		}
		before := w.Store.Position()
		for range 10 {
			for _, d := range []matrix.DeviceID{"A1", "A2"} {
				if err := w.Syncing(t.Context(), alice, d, Online); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Syncing(t.Context(), alice, "A3", Unavailable); err != nil { // a phone in a pocket
				t.Fatal(err)
			}
		}
		if got := w.Store.Position(); got != before {
			t.Errorf("%d positions for nothing new", got-before)
		}
		if err := w.Syncing(t.Context(), bob, "B1", "asleep"); code(t, err) != matrix.InvalidParam {
			t.Errorf("got %v", err)
		}
		if err := w.Syncing(t.Context(), bob, "B1", Offline); err != nil || w.Store.Position() != before {
			t.Errorf("offline: %v", err)
		}
		if err := w.forgetPresent(t.Context()); err != nil || w.Store.Position() != before {
			t.Errorf("alice is still here: %v", err)
		}
		w.here.users = nil // a restart
		if err := w.forgetPresent(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st, err := w.Presence(t.Context(), bob, alice); err != nil || st.Presence != Offline {
			t.Errorf("after a restart alice is %v, %v", st, err)
		}
	})
}

// TestPresencePasses lets time pass without a database.
func TestPresencePasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h here
		tell := func(want string) {
			t.Helper()
			got := ""
			for _, p := range h.due(time.Now()) {
				got = p.State
				h.told(p)
			}
			if got != want {
				t.Errorf("told %q, want %q", got, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		h.told(h.device(alice, "A1", Online, 1))
		context.AfterFunc(ctx, func() { h.synced(alice, "A1") })
		time.Sleep(idleAfter - time.Second)
		tell("")
		time.Sleep(2 * time.Second)
		tell(Unavailable) // nothing was done for long
		cancel()
		synctest.Wait()
		time.Sleep(goneAfter - time.Second)
		tell("")
		time.Sleep(2 * time.Second)
		tell(Offline)
		tell("")
		if len(h.users) != 0 {
			t.Errorf("%d users are remembered", len(h.users))
		}
	})
}

// TestPresenceWithoutDatabase: while the database does not answer nothing ends, and
// nobody is forgotten.
func TestPresenceWithoutDatabase(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const dave = matrix.UserID("@dave:b.test")
		w.write(func(ctx context.Context, tx *store.Tx) error {
			return errors.Join(tx.PutPresence(ctx, store.Presence{User: alice, State: Online}, false), // before this server began
				tx.PutPresence(ctx, store.Presence{User: dave, State: Online}, false),
				tx.PutMembership(ctx, store.Membership{User: dave, Room: w.rooms[home].Num, Membership: "join", Event: 1}))
		})
		rename := func(from, to string) {
			w.write(func(ctx context.Context, tx *store.Tx) error {
				return tx.Exec(ctx, "ALTER TABLE "+from+" RENAME TO "+to)
			})
		}
		w.here.heard(dave, Online)
		w.here.remote[dave] = time.Now().Add(-2 * heardFor)
		rename("presence", "presence_away")
		if err := w.endSilent(t.Context()); err == nil {
			t.Error("the silent were made offline without a database")
		}
		log := failures{make(chan struct{}, 1)}
		ctx, stop := context.WithCancel(zerolog.New(log).WithContext(t.Context()))
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		defer func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		deadline := time.After(3 * time.Minute)
		goesOn := false
		select {
		case <-log.came:
			goesOn = true
		case err := <-done:
			done <- err
		case <-deadline:
		}
		rename("presence_away", "presence")
		if !goesOn {
			t.Fatal("the server ends, or nothing failed")
		}
		for _, user := range []matrix.UserID{alice, dave} {
			for {
				rung := w.Bell.Listen(store.LogBell)
				p, _, err := w.Store.Presence(t.Context(), user)
				if err != nil {
					t.Fatal(err)
				}
				if p.State == Offline {
					break
				}
				select {
				case <-rung:
				case <-deadline:
					t.Fatalf("%s is %s for ever", user, p.State)
				}
			}
		}
	})
}

// failures is a log in which one thing or more came.
type failures struct{ came chan struct{} }

// Write implements io.Writer.
func (f failures) Write(line []byte) (int, error) {
	select {
	case f.came <- struct{}{}:
	default:
	}
	return len(line), nil
}
