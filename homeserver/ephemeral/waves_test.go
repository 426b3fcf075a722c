package ephemeral

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"switchboard/homeserver/matrix"
)

// TestWaves: among many users each is woken seldom, however often presence
// changes, and in the end knows all of it.
func TestWaves(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		var users []matrix.UserID
		for i := range 100 {
			users = append(users, matrix.NewUserID(fmt.Sprint("u", i), "a.test"))
		}
		w.room("!big:a.test", users...)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer stop()
		running.Go(func() {
			if err := w.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		began := time.Now()
		since := w.Store.Position()
		running.Go(func() {
			for n := range 300 {
				var err error
				switch user := users[n%100]; n / 100 {
				case 0:
					err = w.SetPresence(ctx, user, "D", Unavailable, nil)
				case 1:
					err = w.SetPresence(ctx, user, "D", Offline, nil)
				default: // is there for minutes, however slow this is
					err = w.Syncing(ctx, user, "D", Online)
				}
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
		known := map[matrix.UserID]bool{}
		rings := 0
		for deadline := time.After(2 * time.Minute); len(known) < 99; {
			ring := w.Bell.Listen(string(users[7]))
			upto := w.Store.Position()
			found, err := w.Presences(t.Context(), users[7], since, upto)
			if err != nil {
				t.Fatal(err)
			}
			for u, st := range found {
				if u != users[7] && st.Presence == Online {
					known[u] = true
				}
			}
			since = upto
			if len(known) == 99 {
				break
			}
			select {
			case <-ring:
				rings++
			case <-deadline:
				t.Fatalf("after %d rings only %d are known", rings, len(known))
			}
		}
		if most := int(time.Since(began)/(100*perWake)) + 2; rings > most {
			t.Errorf("woken %d times in %v, at most %d are right", rings, time.Since(began), most)
		}
	})
}

// TestWaveAlone: while one wave is on its way there is no other, and what comes
// meanwhile is not lost.
func TestWaveAlone(t *testing.T) {
	for name, tt := range map[string]struct{ woken, waiting int }{"few": {few, 1}, "many": {few + 1, 0}} {
		var w waves
		one, two := []matrix.UserID{alice}, []matrix.UserID{bob}
		if !w.add(one, nil) {
			t.Errorf("%s: the first one may not begin", name)
		}
		if users, _ := w.take(); len(users) != 1 {
			t.Errorf("%s: %v are to be told of", name, users)
		}
		if w.add(two, nil) || w.time() != nil {
			t.Errorf("%s: two at a time", name)
		}
		if users, _ := w.take(); len(users) != 0 {
			t.Errorf("%s: two at a time, of %v", name, users)
		}
		w.rest(tt.woken)
		if w.time() == nil {
			t.Errorf("%s: no time for what came meanwhile", name)
		}
		w.next = w.next.Add(time.Duration(1-tt.waiting) * time.Hour) // however slow this is
		if users, _ := w.take(); len(users) != tt.waiting {
			t.Errorf("%s: %v are to be told of at once, want %d", name, users, tt.waiting)
		}
	}
}

// TestEvent: the event is what encoding/json would make of it.
func TestEvent(t *testing.T) {
	for _, st := range []Status{
		{Presence: Offline},
		{Presence: Online, LastActiveAgo: 1, CurrentlyActive: true},
		{Presence: Unavailable, LastActiveAgo: 1 << 40, StatusMsg: "a\"\\\n<\u2028ü"},
	} {
		var got struct {
			Type    string        `json:"type"`
			Sender  matrix.UserID `json:"sender"`
			Content Status        `json:"content"`
		}
		if err := json.Unmarshal(st.Event(alice), &got); err != nil || got.Type != "m.presence" || got.Sender != alice || got.Content != st {
			t.Errorf("%+v became %s (%v)", st, st.Event(alice), err)
		}
	}
}
