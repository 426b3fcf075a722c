package ephemeral

import (
	"context"
	"encoding/json"
	"fmt"
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
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		defer func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		began := time.Now()
		since := w.Store.Position()
		go func() {
			for n := range 300 {
				if err := w.SetPresence(ctx, users[n%100], "D", []string{Unavailable, Offline, Online}[n/100], nil); err != nil {
					t.Error(err)
				}
			}
		}()
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
