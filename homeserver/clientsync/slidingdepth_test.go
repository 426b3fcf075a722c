package clientsync

import (
	"testing"

	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// TestSlidingDepth checks how far down the list a client's next answer looks, and
// that it tells of the room in which something happened.
func TestSlidingDepth(t *testing.T) {
	each(t, func(w *world) {
		const rooms = 8
		var ids [rooms]matrix.RoomID // the newest activity first
		said := map[matrix.RoomID]matrix.EventID{}
		for i := rooms - 1; i >= 0; i-- {
			ids[i] = w.create(room.Creation{}, bob)
			said[ids[i]] = w.say(alice, ids[i], "hello")
		}
		left := w.create(room.Creation{}, bob)
		w.leave(bob, left)
		all := rooms + 1
		c := w.client(bob, "")
		for _, test := range []struct {
			name   string
			last   int // place up to which the client looks
			happen func()
			depth  int
			told   string // "room", "extensions", or nothing
			in     matrix.RoomID
		}{
			{"a message in the first room", 99, func() { w.say(alice, ids[0], "a") }, 1, "room", ids[0]},
			{"a message in the fifth room", 99, func() { w.say(alice, ids[4], "a") }, 5, "room", ids[4]},
			{"a message in a room that comes into view", 2, func() { w.say(alice, ids[7], "a") }, 8, "room", ids[7]},
			{"messages in two rooms", 99, func() { w.say(alice, ids[3], "a"); w.say(alice, ids[1], "a") }, 4, "room", ids[3]},
			{"a topic", 99, func() { w.topic(ids[2], "new") }, 3, "room", ids[2]},
			{"an own receipt below", 99, func() { w.mark(bob, ids[5], ephemeral.ReadPrivate, said[ids[5]]) }, 0, "room", ids[5]},
			{"a receipt of somebody else below", 99, func() { w.mark(alice, ids[6], ephemeral.Read, said[ids[6]]) }, 0, "extensions", ids[6]},
			{"the same out of view", 2, func() { w.mark(alice, ids[7], ephemeral.Read, said[ids[7]]) }, 0, "", ids[7]},
			{"who types below", 99, func() { w.ok(w.Ephemeral.SetTyping(w.ctx(), alice, ids[6], true, 60_000_000_000)) }, 0, "extensions", ids[6]},
			{"a setting of a room", 99, func() { w.set(bob, ids[6], "org.example", `{}`) }, all, "extensions", ids[6]},
			{"a room that becomes encrypted", 99, func() { w.state(alice, ids[3], "m.room.encryption", "", `{"algorithm":"x"}`) }, all, "room", ids[3]},
			{"a departure", 99, func() { w.leave(bob, ids[5]) }, all, "room", ids[5]},
			{"a return", 99, func() { w.ok(w.Rooms.Join(w.ctx(), room.Change{Room: ids[5], Actor: bob})) }, all, "room", ids[5]},
			{"a room that is forgotten", 99, func() { w.ok(w.Rooms.Forget(w.ctx(), left, bob)); w.say(alice, ids[0], "a") }, all, "room", ids[0]},
		} {
			// The order of before.
			for i := rooms - 1; i >= 0; i-- {
				w.say(alice, ids[i], "again")
			}
			ask := func(pos string) (*SlidingAnswer, *slide) {
				win := c.window(pos, test.last)
				conn, _ := w.memories().connections.Find(connectionKey{bob, c.device, ""})
				known := &sliding{}
				if pos != "" {
					known = conn.states[pos]
				}
				sl := &slide{Window: win, known: known, same: pos != "", reading: &reading{Service: w.Service, ctx: w.ctx(), since: known.at, Request: Request{User: bob, Device: c.device, Filter: &Filter{}}}}
				a, _, err := sl.read()
				w.ok(err)
				return a, sl
			}
			first, err := w.Slide(w.ctx(), c.window("", test.last))
			w.ok(err)
			test.happen()
			a, sl := ask(first.Pos)
			if sl.depth != test.depth {
				w.Errorf("%s: looked at %d places, want %d", test.name, sl.depth, test.depth)
			}
			told := ""
			x := a.Extensions
			switch {
			case a.Rooms[test.in] != nil:
				told = "room"
			case x.Receipts != nil && x.Receipts.Rooms[test.in] != nil, x.Typing != nil && x.Typing.Rooms[test.in] != nil, x.AccountData.Rooms[test.in] != nil:
				told = "extensions"
			}
			if told != test.told {
				w.Errorf("%s: told by %q, want %q: %s", test.name, told, test.told, asText(&slider{client: c}, *a))
			}
		}
	})
}
