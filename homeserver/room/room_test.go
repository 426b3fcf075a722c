package room

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

const (
	alice = matrix.UserID("@alice:a.test")
	bob   = matrix.UserID("@bob:a.test")
	carol = matrix.UserID("@carol:a.test")
)

// world is a room service on a real store.
type world struct {
	*testing.T
	*Service
}

// each runs f on both databases.
func each(t *testing.T, f func(w world)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		key, err := signing.Generate()
		if err != nil {
			t.Fatal(err)
		}
		f(world{t, &Service{Store: st, Bell: &notify.Bell{}, ServerName: "a.test", Key: key}})
	})
}

func (w world) ctx() context.Context { return w.T.Context() }

// create makes a room of alice.
func (w world) create(c Creation) matrix.RoomID {
	w.Helper()
	c.Creator = alice
	id, err := w.Create(w.ctx(), c)
	w.ok(err)
	return id
}

func (w world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// refused checks that err has a code.
func (w world) refused(err error, code matrix.Code) {
	w.Helper()
	var e *matrix.Error
	if !errors.As(err, &e) || e.Code != code {
		w.Fatalf("got %v, want %s", err, code)
	}
}

// say sends a text and gives its ID.
func (w world) say(user matrix.UserID, room matrix.RoomID, text string) matrix.EventID {
	w.Helper()
	id, err := w.Send(w.ctx(), Sending{User: user, Room: room, Type: "m.room.message", Content: object{"msgtype": "m.text", "body": text}.raw()})
	w.ok(err)
	return id
}

// state sends a state event.
func (w world) state(user matrix.UserID, room matrix.RoomID, typ, key, content string) error {
	_, err := w.Send(w.ctx(), Sending{User: user, Room: room, Type: typ, StateKey: &key, Content: json.RawMessage(content)})
	return err
}

// texts are the bodies that user reads in a room, oldest first.
func (w world) texts(user matrix.UserID, room matrix.RoomID) string {
	w.Helper()
	p, err := w.Messages(w.ctx(), Reader{User: user}, Page{Room: room, Forward: true, Limit: 1000, Filter: all{}})
	w.ok(err)
	var list []string
	for _, raw := range p.Chunk {
		var e struct {
			Type    string
			Content struct{ Body string }
		}
		w.ok(json.Unmarshal(raw, &e))
		if e.Type == "m.room.message" {
			list = append(list, e.Content.Body)
		}
	}
	return strings.Join(list, " ")
}

type all struct{}

func (all) Wants(*store.Event) bool { return true }
func (all) Lazy() bool              { return false }

func TestCreateInEveryVersion(t *testing.T) {
	each(t, func(w world) {
		for _, v := range matrix.Versions() {
			name, topic := "Tea", "Leaves"
			id := w.create(Creation{Version: v.ID, Preset: "trusted_private_chat", Name: &name, Topic: &topic, Invite: []matrix.UserID{bob}})
			w.ok(w.Join(w.ctx(), Change{Room: id, Actor: bob}))
			w.say(bob, id, "hello")
			if err := w.state(bob, id, "m.room.name", "", `{"name":"Coffee"}`); err != nil {
				t.Errorf("version %s: a trusted member may not name the room: %v", v.ID, err)
			}
			sum, err := w.Preview(w.ctx(), id, bob)
			w.ok(err)
			if sum.Name != "Coffee" || sum.Topic != "Leaves" || sum.Joined != 2 || sum.Version != v.ID {
				t.Errorf("version %s: %+v", v.ID, sum)
			}
		}
	})
}

func TestRoomsOfOneMoment(t *testing.T) {
	each(t, func(w world) {
		seen := map[matrix.RoomID]bool{}
		for range 50 {
			seen[w.create(Creation{})] = true
		}
		if len(seen) != 50 {
			t.Errorf("50 rooms have %d IDs", len(seen))
		}
	})
}

func TestMemberships(t *testing.T) {
	each(t, func(w world) {
		ctx := w.ctx()
		id := w.create(Creation{Preset: "private_chat"})
		w.refused(w.Join(ctx, Change{Room: id, Actor: bob}), matrix.Forbidden)
		w.ok(w.Invite(ctx, Change{Room: id, Actor: alice, Target: bob}))
		w.refused(w.Invite(ctx, Change{Room: id, Actor: carol, Target: bob}), matrix.Forbidden)
		w.ok(w.Join(ctx, Change{Room: id, Actor: bob}))
		w.ok(w.Join(ctx, Change{Room: id, Actor: bob})) // again: nothing happens
		w.refused(w.Invite(ctx, Change{Room: id, Actor: alice, Target: bob}), matrix.Forbidden)
		w.refused(w.Kick(ctx, Change{Room: id, Actor: bob, Target: alice}), matrix.Forbidden)
		w.ok(w.Kick(ctx, Change{Room: id, Actor: alice, Target: bob}))
		w.refused(w.Kick(ctx, Change{Room: id, Actor: alice, Target: bob}), matrix.Forbidden)
		w.ok(w.Ban(ctx, Change{Room: id, Actor: alice, Target: bob}))
		w.refused(w.Invite(ctx, Change{Room: id, Actor: alice, Target: bob}), matrix.Forbidden)
		w.ok(w.Unban(ctx, Change{Room: id, Actor: alice, Target: bob}))
		w.refused(w.Unban(ctx, Change{Room: id, Actor: alice, Target: bob}), matrix.Forbidden)
		w.refused(w.Invite(ctx, Change{Room: id, Actor: alice, Target: "@dave:b.test"}), matrix.Unknown)
		w.ok(w.Forget(ctx, id, bob))
		w.refused(w.Forget(ctx, id, alice), matrix.Unknown)
		r, err := w.Store.Room(ctx, id)
		w.ok(err)
		if r.Joined != 1 || r.Invited != 0 {
			t.Errorf("%d joined and %d invited, want 1 and 0", r.Joined, r.Invited)
		}
	})
}

func TestHistoryVisibility(t *testing.T) {
	tests := []struct{ visibility, member, invited, left string }{
		{"world_readable", "before invited joined after", "before invited joined after", "before invited joined after"},
		{"shared", "before invited joined after", "", "before invited joined"},
		{"invited", "invited joined after", "", "invited joined"},
		{"joined", "joined after", "", "joined"},
	}
	each(t, func(w world) {
		ctx := w.ctx()
		for _, tt := range tests {
			id := w.create(Creation{Preset: "private_chat", InitialState: []InitialState{{
				Type: "m.room.history_visibility", Content: object{"history_visibility": tt.visibility}.raw()}}})
			w.say(alice, id, "before")
			for _, u := range []matrix.UserID{bob, carol} {
				w.ok(w.Invite(ctx, Change{Room: id, Actor: alice, Target: u}))
			}
			w.say(alice, id, "invited")
			for _, u := range []matrix.UserID{bob, carol} {
				w.ok(w.Join(ctx, Change{Room: id, Actor: u}))
			}
			w.say(alice, id, "joined")
			w.ok(w.Leave(ctx, Change{Room: id, Actor: carol}))
			w.say(alice, id, "after")
			if got := w.texts(bob, id); got != tt.member {
				t.Errorf("%s: a member reads %q, want %q", tt.visibility, got, tt.member)
			}
			if got := w.texts(carol, id); got != tt.left {
				t.Errorf("%s: who has left reads %q, want %q", tt.visibility, got, tt.left)
			}
			_, err := w.Messages(ctx, Reader{User: "@eve:a.test"}, Page{Room: id, Forward: true, Limit: 10, Filter: all{}})
			if (err == nil) != (tt.visibility == "world_readable") {
				t.Errorf("%s: a stranger gets %v", tt.visibility, err)
			}
		}
	})
}

func TestRedact(t *testing.T) {
	each(t, func(w world) {
		for _, version := range []string{"10", "11", "12"} {
			id := w.create(Creation{Version: version, Preset: "public_chat"})
			w.ok(w.Join(w.ctx(), Change{Room: id, Actor: bob}))
			mine, hers := w.say(bob, id, "mine"), w.say(alice, id, "hers")
			_, err := w.Redact(w.ctx(), Sending{User: bob, Room: id, Redacts: hers}, nil)
			w.refused(err, matrix.Forbidden)
			reason := "oops"
			_, err = w.Redact(w.ctx(), Sending{User: bob, Room: id, Redacts: mine}, &reason)
			w.ok(err)
			if got := strings.TrimSpace(w.texts(alice, id)); got != "hers" {
				t.Errorf("version %s: reads %q, want only what is not redacted", version, got)
			}
			raw, err := w.Event(w.ctx(), Reader{User: alice}, id, mine)
			w.ok(err)
			if !strings.Contains(string(raw), `"redacted_because"`) || !strings.Contains(string(raw), `"reason":"oops"`) {
				t.Errorf("version %s: %s", version, raw)
			}
		}
	})
}

func TestTransactionIDs(t *testing.T) {
	each(t, func(w world) {
		id := w.create(Creation{})
		d := Sending{User: alice, Device: "A", Room: id, Type: "m.room.message", Content: json.RawMessage(`{"body":"once"}`), Txn: "1"}
		first, err := w.Send(w.ctx(), d)
		w.ok(err)
		again, err := w.Send(w.ctx(), d)
		w.ok(err)
		d.Device = "B"
		other, err := w.Send(w.ctx(), d)
		w.ok(err)
		if first != again || first == other {
			t.Errorf("sent %s, again %s, from another device %s", first, again, other)
		}
		d.Content = json.RawMessage(`{"body":1.5}`)
		d.Txn = "2"
		_, err = w.Send(w.ctx(), d)
		w.refused(err, matrix.BadJSON)
	})
}

func TestPages(t *testing.T) {
	each(t, func(w world) {
		id := w.create(Creation{})
		var want []string
		for i := range 57 {
			text := string(rune('a'+i%26)) + string(rune('a'+i/26))
			w.say(alice, id, text)
			want = append(want, text)
		}
		for _, forward := range []bool{true, false} {
			var got []string
			from := ""
			for {
				p, err := w.Messages(w.ctx(), Reader{User: alice}, Page{Room: id, From: from, Forward: forward, Limit: 10, Filter: all{}})
				w.ok(err)
				for _, raw := range p.Chunk {
					var e struct{ Content struct{ Body string } }
					w.ok(json.Unmarshal(raw, &e))
					if e.Content.Body != "" {
						got = append(got, e.Content.Body)
					}
				}
				if p.End == "" {
					break
				}
				from = p.End
			}
			if !forward {
				for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
					got[i], got[j] = got[j], got[i]
				}
			}
			if strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("forward %v: got %v", forward, got)
			}
		}
	})
}

func TestRestrictedJoin(t *testing.T) {
	each(t, func(w world) {
		ctx := w.ctx()
		for _, version := range []string{"8", "10", "12"} {
			club := w.create(Creation{Preset: "public_chat"})
			id := w.create(Creation{Version: version, InitialState: []InitialState{{Type: "m.room.join_rules",
				Content: object{"join_rule": "restricted", "allow": []object{{"type": "m.room_membership", "room_id": club}}}.raw()}}})
			w.refused(w.Join(ctx, Change{Room: id, Actor: bob}), matrix.Forbidden)
			w.ok(w.Join(ctx, Change{Room: club, Actor: bob}))
			w.ok(w.Join(ctx, Change{Room: id, Actor: bob}))
			w.say(bob, id, "in")
		}
	})
}
