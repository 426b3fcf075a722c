package clientsync

import (
	"encoding/json"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

func (w *world) ban(u matrix.UserID, id matrix.RoomID) {
	w.Helper()
	w.ok(w.Rooms.Ban(w.ctx(), room.Change{Room: id, Actor: alice, Target: u}))
}

func (w *world) kick(u matrix.UserID, id matrix.RoomID) {
	w.Helper()
	w.ok(w.Rooms.Kick(w.ctx(), room.Change{Room: id, Actor: alice, Target: u}))
}

// history makes a room of alice with a history visibility.
func (w *world) history(visibility string) matrix.RoomID {
	w.Helper()
	return w.create(room.Creation{InitialState: []room.InitialState{{Type: "m.room.history_visibility",
		Content: json.RawMessage(`{"history_visibility":"` + visibility + `"}`)}}})
}

// both syncs without and with state_after.
func (w *world) both(u matrix.UserID, f func(c *client)) {
	c, after := w.client(u, ""), w.client(u, "")
	after.after = true
	for _, c := range []*client{c, after} {
		c.sync()
		f(c)
	}
}

func TestLeft(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		c, b := w.client(bob, ""), w.client(bob, `{"room":{"timeline":{"limit":1}}}`)
		for _, c := range []*client{c, b} {
			c.sync()
		}
		w.topic(id, "before")
		w.leave(bob, id)
		w.topic(id, "after")
		w.say(alice, id, "secret")
		a := c.sync()
		w.want("timeline", w.timeline(a.out(id)), "topic:before @bob:leave")
		w.want("state", w.stated(a.out(id).State), "")
		if a.out(id).Summary != nil || a.Rooms.Join[id] != nil {
			t.Error("a room that was left has a summary or is joined")
		}
		w.want("again", text(t, c.sync().Rooms), "null")
		a = b.sync()
		w.want("limited", w.timeline(a.out(id)), "… @bob:leave")
		w.want("limited state", w.stated(a.out(id).State), "topic:before")

		// Only who asks for it gets what was left long ago.
		w.want("initial", text(t, w.client(bob, "").sync().Rooms), "null")
		l := w.client(bob, `{"room":{"include_leave":true}}`)
		a = l.sync()
		w.want("included", w.timeline(a.out(id)), "create @alice:join power_levels join_rules history_visibility @bob:join topic:before @bob:leave")
		w.want("once", text(t, l.sync().Rooms), "null")
		w.ok(w.Rooms.Forget(w.ctx(), id, bob))
		w.want("forgotten", text(t, w.client(bob, l.filter).sync().Rooms), "null")
	})
}

func TestLeftAndForgottenAtOnce(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		c := w.client(bob, "")
		c.sync()
		w.leave(bob, id)
		w.ok(w.Rooms.Forget(w.ctx(), id, bob))
		w.want("timeline", w.timeline(c.sync().out(id)), "@bob:leave")
		w.join(bob, id)
		a := c.sync()
		w.want("back", w.timeline(a.in(id)), "… create @alice:join power_levels join_rules history_visibility @bob:join @bob:leave @bob:join")
	})
}

// TestPutOut checks that a first sync tells of rooms that the user was kicked or
// banned from, and not of those that they left or never were in.
func TestPutOut(t *testing.T) {
	each(t, func(w *world) {
		for own, end := range map[string]func(matrix.UserID, matrix.RoomID){"@bob:leave": w.kick, "@bob:ban": w.ban} {
			id := w.create(room.Creation{}, bob)
			end(bob, id)
			w.topic(id, "secret")
			w.want(own, w.timeline(w.client(bob, `{"room":{"timeline":{"limit":1}}}`).sync().out(id)), "… "+own)
			w.ok(w.Rooms.Forget(w.ctx(), id, bob))
		}
		left, never := w.create(room.Creation{}, bob), w.create(room.Creation{})
		w.leave(bob, left)
		w.ban(bob, left)
		w.ban(bob, never)
		w.want("initial", text(t, w.client(bob, "").sync().Rooms), "null")
	})
}

// TestDeclined checks that who was never in a room learns nothing of it by
// declining an invitation, being uninvited or banned.
func TestDeclined(t *testing.T) {
	each(t, func(w *world) {
		ends := map[string]func(u matrix.UserID, id matrix.RoomID){"leave": w.leave, "kick": w.kick, "ban": w.ban}
		for name, end := range ends {
			for _, invited := range []string{"before", "between", "never"} {
				if invited == "never" && name != "ban" {
					continue
				}
				id := w.create(room.Creation{Preset: "private_chat"})
				w.topic(id, "secret")
				if invited == "before" {
					w.invite(bob, id)
				}
				done := false
				w.both(bob, func(c *client) {
					if !done {
						done = true
						if invited == "between" {
							w.invite(bob, id)
						}
						w.say(alice, id, "secret")
						end(bob, id)
					} else {
						c.since = ""
						c.filter = `{"room":{"include_leave":true}}`
					}
					a := c.sync()
					for _, raw := range append(list(a.out(id).State), append(list(a.out(id).StateAfter), a.out(id).Timeline.Events...)...) {
						if e := read(t, []json.RawMessage{raw})[0]; e.StateKey == nil || *e.StateKey != string(bob) {
							t.Errorf("%s, invited %s: told of %s", name, invited, raw)
						}
					}
					if j := a.out(id); len(j.Timeline.Events) == 0 || c.after && len(list(j.StateAfter)) != 1 {
						t.Errorf("%s, invited %s: not told of the own membership: %s", name, invited, text(t, j))
					}
					if a.Rooms.Invite[id] != nil || a.Rooms.Join[id] != nil {
						t.Errorf("%s: the room is in two places", name)
					}
				})
			}
		}
	})
}

func list(e *events) []json.RawMessage {
	if e == nil {
		return nil
	}
	return e.Events
}

// TestBannedAfterLeaving checks that a ban long after leaving does not tell what
// the room became meanwhile.
func TestBannedAfterLeaving(t *testing.T) {
	each(t, func(w *world) {
		for _, between := range []bool{false, true} {
			id := w.create(room.Creation{}, bob)
			w.topic(id, "known")
			clients := []*client{w.client(bob, ""), w.client(bob, `{"room":{"timeline":{"limit":1}}}`), w.client(bob, "")}
			clients[2].after = true
			sync := func() {
				for _, c := range clients {
					c.sync()
				}
			}
			sync()
			w.topic(id, "farewell")
			w.leave(bob, id)
			if between {
				sync()
			}
			w.topic(id, "secret")
			w.say(alice, id, "secret")
			w.ban(bob, id)
			// What is hidden lies before the ban, so that the timeline begins there.
			states := []string{"@bob:leave topic:farewell", "@bob:leave topic:farewell", "@bob:ban topic:farewell"}
			if between {
				states = []string{"", "", "@bob:ban"}
			}
			for i, c := range clients {
				j := c.sync().out(id)
				state := j.State
				if c.after {
					state = j.StateAfter
				}
				w.want("state", w.stated(state), states[i])
				w.want("timeline", w.timeline(j), "… @bob:ban")
			}
		}
	})
}

// TestRejoined checks that a client learns what it missed where it left a room
// and came back between two syncs and may not see what happened meanwhile.
func TestRejoined(t *testing.T) {
	each(t, func(w *world) {
		for _, visibility := range []string{"shared", "joined"} {
			id := w.history(visibility)
			w.join(bob, id)
			w.say(alice, id, "known")
			w.both(bob, func(c *client) {
				w.leave(bob, id)
				w.topic(id, "meanwhile")
				w.say(alice, id, "missed")
				w.join(bob, id)
				w.say(alice, id, "back")
				j := c.sync().in(id)
				want, wantState := "@bob:leave topic:meanwhile missed @bob:join back", ""
				if visibility == "joined" {
					want, wantState = "… @bob:join back", "@bob:leave topic:meanwhile"
				}
				w.want(visibility+" timeline", w.timeline(j), want)
				state := j.State
				if c.after {
					state, wantState = j.StateAfter, "@bob:join topic:meanwhile"
				}
				w.want(visibility+" state", w.stated(state), wantState)
				w.topic(id, "over")
				c.sync()
			})
		}
	})
}

// TestVisitBetweenSyncs checks a room that was joined and left between two syncs.
func TestVisitBetweenSyncs(t *testing.T) {
	each(t, func(w *world) {
		w.both(bob, func(c *client) {
			id := w.create(room.Creation{})
			w.topic(id, "a")
			w.join(bob, id)
			w.leave(bob, id)
			w.topic(id, "secret")
			j := c.sync().out(id)
			w.want("timeline", w.timeline(j), "… create @alice:join power_levels join_rules history_visibility topic:a @bob:join @bob:leave")
			if contains(text(t, j), "secret") {
				t.Error("told of what came later")
			}
		})
	})
}

func TestInvites(t *testing.T) {
	each(t, func(w *world) {
		name := "Tea"
		id := w.create(room.Creation{Preset: "private_chat", Name: &name})
		w.topic(id, "Leaves")
		w.say(alice, id, "secret")
		b := w.client(bob, "")
		b.sync()
		w.invite(bob, id)
		for _, c := range []*client{b, w.client(bob, "")} {
			a := c.sync()
			in := a.Rooms.Invite[id]
			if in == nil || a.Rooms.Join[id] != nil || a.Rooms.Leave[id] != nil {
				t.Fatalf("no invitation: %s", text(t, a))
			}
			w.want("stripped", w.stated(in.Invite), "@alice:join @bob:invite create join_rules name topic:Leaves")
			for _, raw := range in.Invite.Events {
				var e map[string]any
				w.ok(json.Unmarshal(raw, &e))
				if len(e) != 4 || e["content"] == nil || e["sender"] == nil || e["state_key"] == nil || e["type"] == nil {
					t.Errorf("stripped event %s", raw)
				}
			}
			w.want("once", text(t, c.sync().Rooms), "null")
		}
		w.join(bob, id)
		a := b.sync()
		if a.Rooms.Invite[id] != nil || !contains(w.timeline(a.in(id)), "secret") {
			t.Errorf("joined: %s", text(t, a))
		}
	})
}

func TestKnock(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{InitialState: []room.InitialState{{Type: "m.room.join_rules", Content: json.RawMessage(`{"join_rule":"knock"}`)}}})
		w.say(alice, id, "secret")
		b := w.client(bob, "")
		b.sync()
		w.ok(w.Rooms.Knock(w.ctx(), room.Change{Room: id, Actor: bob}))
		a := b.sync()
		if a.Rooms == nil || a.Rooms.Knock[id] == nil {
			t.Fatalf("no knock: %s", text(t, a))
		}
		w.want("stripped", w.stated(a.Rooms.Knock[id].Knock), "@bob:knock create join_rules")
		w.want("the member's", w.timeline(w.client(alice, `{"room":{"timeline":{"limit":1}}}`).sync().in(id)), "… @bob:knock")
		w.leave(bob, id)
		a = b.sync()
		w.want("taken back", w.timeline(a.out(id)), "@bob:leave")
		w.ok(w.Rooms.Knock(w.ctx(), room.Change{Room: id, Actor: bob}))
		w.invite(bob, id)
		if a = b.sync(); a.Rooms.Invite[id] == nil || a.Rooms.Knock[id] != nil {
			t.Errorf("let in: %s", text(t, a))
		}
	})
}

// TestHiddenState checks that a client which joins learns of the state that was
// changed where it may not see.
func TestHiddenState(t *testing.T) {
	each(t, func(w *world) {
		for _, visibility := range []string{"joined", "invited", "shared", "world_readable"} {
			id := w.history(visibility)
			w.topic(id, "first")
			b := w.client(bob, "")
			b.sync()
			w.invite(bob, id)
			w.topic(id, "second")
			w.join(bob, id)
			w.say(alice, id, "hello")
			for _, c := range []*client{b, w.client(bob, "")} {
				j := c.sync().in(id)
				known := ""
				for _, e := range read(t, append(list(j.State), j.Timeline.Events...)) {
					if e.Type == "m.room.topic" {
						known = e.String()
					}
				}
				w.want(visibility, known, "topic:second")
			}
		}
	})
}
