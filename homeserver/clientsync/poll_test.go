package clientsync

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// TestLongPoll checks what wakes a waiting sync, and that it tells of it.
func TestLongPoll(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		c := w.client(bob, "")
		c.sync()
		tests := []struct {
			name string
			do   func()
			told func(a *Answer) bool
		}{
			{"message", func() { w.say(alice, id, "hi") }, func(a *Answer) bool { return w.timeline(a.in(id)) == "hi" }},
			{"own message", func() { w.say(bob, id, "me") }, func(a *Answer) bool { return w.timeline(a.in(id)) == "me" }},
			{"state", func() { w.topic(id, "x") }, func(a *Answer) bool { return w.timeline(a.in(id)) == "topic:x" }},
			{"typing", func() { w.ok(w.Ephemeral.SetTyping(w.ctx(), alice, id, true, 0)) }, func(a *Answer) bool { return a.in(id).Ephemeral != nil }},
			{"receipt", func() { w.mark(alice, id, ephemeral.Read, w.say(bob, id, "r")) }, func(a *Answer) bool { return a.Rooms != nil }},
			{"account data", func() { w.set(bob, "", "t", `{}`) }, func(a *Answer) bool { return a.AccountData != nil }},
			{"room account data", func() { w.set(bob, id, "t", `{}`) }, func(a *Answer) bool { return a.in(id).AccountData != nil }},
			{"to-device", func() {
				w.ok(w.Keys.SendToDevice(w.ctx(), alice, "A", "t", "1", e2ee.Messages{bob: {"*": []byte(`{}`)}}))
			}, func(a *Answer) bool { return a.ToDevice != nil }},
			{"invitation", func() { w.invite(bob, w.create(room.Creation{Preset: "private_chat"})) }, func(a *Answer) bool { return a.Rooms != nil && len(a.Rooms.Invite) == 1 }},
			{"kick", func() { w.kick(bob, id) }, func(a *Answer) bool { return w.timeline(a.out(id)) == "@bob:leave" }},
			{"ban", func() { w.ban(bob, id) }, func(a *Answer) bool { return w.timeline(a.out(id)) == "@bob:ban" }},
		}
		for _, tt := range tests {
			answer := c.poll(time.Minute)
			tt.do()
			a := <-answer
			c.since = a.NextBatch
			if !tt.told(a) {
				// It may have been woken by a part of what was done.
				if a = c.sync(); !tt.told(a) {
					t.Errorf("%s: told %s", tt.name, text(t, a))
				}
			}
			for !c.sync().empty() { // the rest
			}
		}
	})
}

// TestAtOnce checks the syncs that must not wait. It would take hours if they did.
func TestAtOnce(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{})
		c := w.client(alice, "")
		<-c.poll(time.Hour) // initial
		c.sync()
		c.full = true
		<-c.poll(time.Hour)
		c.full = false
		w.say(alice, id, "x")
		<-c.poll(time.Hour)
		<-c.poll(0)
		c.sync()
		answer := c.poll(time.Hour)
		close(w.stop)
		if a := <-answer; !a.empty() || a.NextBatch == "" {
			t.Errorf("at the end: %s", text(t, a))
		}
	})
}

// TestCancelled checks that a sync ends with its request.
func TestCancelled(t *testing.T) {
	each(t, func(w *world) {
		c := w.client(alice, "")
		c.sync()
		ctx, cancel := context.WithCancel(w.ctx())
		cancel()
		r := c.request()
		r.Timeout = time.Hour
		if _, err := c.Sync(ctx, r); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// TestTimeout checks that a sync waits as long as it was told, in spite of what
// does not concern it.
func TestTimeout(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, st)
			id := w.create(room.Creation{}, bob)
			// Noise is not wanted: it wakes the sync, which goes on waiting.
			c := w.client(alice, `{"room":{"timeline":{"not_types":["m.noise"]}}}`)
			c.sync()
			began := time.Now()
			answer := c.poll(30 * time.Second)
			for range 3 {
				time.Sleep(5 * time.Second)
				_, err := w.Rooms.Send(w.ctx(), room.Sending{User: bob, Room: id, Type: "m.noise", Content: []byte(`{}`)})
				w.ok(err)
			}
			a := <-answer
			if waited := time.Since(began); waited != 30*time.Second {
				t.Errorf("waited %v", waited)
			}
			if !a.empty() {
				t.Errorf("told %s", text(t, a))
			}
			if a.NextBatch == c.since {
				t.Error("the token does not move")
			}
		})
	})
}
