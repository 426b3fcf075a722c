package fedapi

import (
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// since are the accepted events of a room from one on, in order.
func (h *host) since(id matrix.RoomID, first int) []*store.Event {
	h.Helper()
	r, err := h.st.Room(h.ctx(), id)
	h.ok(err)
	list, err := h.st.Newest(h.ctx(), r.Num, -1<<60, r.Last, 1000)
	h.ok(err)
	return list[first:]
}

// TestUpgrade follows a tombstone to the replacement, on the server that made it
// and from another one.
func TestUpgrade(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		for _, versions := range [][2]string{{"10", "11"}, {"11", "12"}, {"12", "12"}} {
			id := a.public(alice, versions[0])
			b.join(bob, id, a)
			b.ok(b.accounts.SetTag(b.ctx(), bob, id, "m.favourite", []byte(`{"order":0.5}`)))
			before := len(a.since(id, 0))
			next, err := a.rooms.Upgrade(a.ctx(), room.Upgrade{Room: id, User: alice, Version: versions[1]})
			a.ok(err)
			for _, e := range a.since(id, before) {
				a.tell(b, e.PDU)
			}
			if a.stateOf(id) != b.stateOf(id) {
				t.Errorf("the servers disagree about the old room\n%s\n\n%s", a.stateOf(id), b.stateOf(id))
			}
			r, err := b.st.Room(b.ctx(), id)
			b.ok(err)
			tombstone, err := b.rooms.StateEvent(b.ctx(), r.Current, "m.room.tombstone", "")
			b.ok(err)
			if got := tombstone.PDU.ContentString("replacement_room"); got != string(next) {
				t.Fatalf("b is told to go to %q, not to %s", got, next)
			}
			// as the specification says: by the server of who sent the tombstone
			b.ok(b.fed.Join(b.ctx(), room.Change{Room: next, Actor: bob}, []matrix.ServerName{tombstone.PDU.Sender.Server()}))
			if a.membership(bob, next) != "join" || a.stateOf(next) != b.stateOf(next) {
				t.Errorf("version %s: the servers disagree about the new room\n%s\n\n%s", versions[1], a.stateOf(next), b.stateOf(next))
			}
			tags, err := b.accounts.Tags(b.ctx(), bob, next)
			b.ok(err)
			if string(tags["m.favourite"]) != `{"order":0.5}` {
				t.Errorf("bob's tags in the new room: %s", tags)
			}
			b.tell(a, b.say(bob, next, "here"))
			if got := a.texts(next); got != "here" {
				t.Errorf("the new room has %q", got)
			}
		}
	})
}

// TestUpgradeWithPolicyServer asks about what the old room gets.
func TestUpgradeWithPolicyServer(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, p := hosts[0], newPolicyHost(hosts[1])
		alice, police := a.user("alice"), p.user("police")
		id := a.public(alice, "12")
		p.guard(a, alice, id, p.publicKey())
		p.join(police, id, a)
		p.questions()
		upgrade := room.Upgrade{Room: id, User: alice, Version: "12"}

		p.answers(400, `{"errcode":"M_FORBIDDEN","error":"not yet"}`)
		_, err := a.rooms.Upgrade(a.ctx(), upgrade)
		a.refused(err, matrix.Forbidden)
		rooms, err := a.rooms.JoinedRooms(a.ctx(), alice)
		a.ok(err)
		if len(rooms) != 1 {
			t.Errorf("the refused upgrade left %v", rooms)
		}
		p.answers(0, "")
		p.questions()
		_, err = a.rooms.Upgrade(a.ctx(), upgrade)
		a.ok(err)
		if got := p.questions(); got != "m.room.tombstone m.room.power_levels" {
			t.Errorf("asked about %q", got)
		}
	})
}
