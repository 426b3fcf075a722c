package room

import (
	"testing"

	"switchboard/homeserver/matrix"
)

// TestStanding asks who is what in a room, while users come and go.
func TestStanding(t *testing.T) {
	each(t, func(w world) {
		for _, v := range matrix.Versions() {
			id := w.create(Creation{Version: v.ID, Preset: "public_chat"})
			stands := func(user matrix.UserID, want bool) {
				w.Helper()
				levels, err := w.Standing(w.ctx(), id, user)
				w.ok(err)
				if (levels != nil) != want {
					w.Errorf("%s is in the room: %v, want %v", user, levels != nil, want)
				}
			}
			able := func(typ string, want matrix.UserID) {
				w.Helper()
				got, err := w.Ablest(w.ctx(), id, typ)
				w.ok(err)
				if got != want {
					w.Errorf("%s may send %s, want %s", got, typ, want)
				}
			}
			stands(alice, true)
			stands(bob, false)
			stands("@eve:elsewhere.test", false)
			w.ok(w.Join(w.ctx(), Change{Room: id, Actor: bob}))
			stands(bob, true)
			able("m.room.topic", alice)
			w.ok(w.Leave(w.ctx(), Change{Room: id, Actor: alice}))
			stands(alice, false)
			able("m.room.topic", "")
			w.ok(w.Leave(w.ctx(), Change{Room: id, Actor: bob}))
			stands(bob, false)
			if in, err := w.Attends(w.ctx(), id, w.ServerName); err != nil || in {
				w.Errorf("the server attends a room that all have left: %v, %v", in, err)
			}
		}
		if in, err := w.Attends(w.ctx(), "!nowhere:a.test", w.ServerName); err != nil || in {
			w.Errorf("the server attends a room that does not exist: %v, %v", in, err)
		}
		_, err := w.Ablest(w.ctx(), "!nowhere:a.test", "m.room.topic")
		w.refused(err, matrix.NotFound)
	})
}

// TestStateOfType picks the events of one type from the state.
func TestStateOfType(t *testing.T) {
	each(t, func(w world) {
		id := w.create(Creation{Preset: "private_chat"})
		for _, key := range []string{"b", "a", "b"} {
			w.ok(w.state(alice, id, "im.vector.modular.widgets", key, `{"name":"`+key+string(w.say(alice, id, key))+`"}`))
		}
		list, err := w.StateOfType(w.ctx(), alice, id, "im.vector.modular.widgets")
		w.ok(err)
		var keys string
		for _, e := range list {
			keys += *e.PDU.StateKey
		}
		if keys != "ab" {
			w.Errorf("the state has %q, want ab", keys)
		}
		_, err = w.StateOfType(w.ctx(), bob, id, "im.vector.modular.widgets")
		w.refused(err, matrix.Forbidden)
	})
}
