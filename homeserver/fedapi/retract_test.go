package fedapi

import (
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/room"
)

// TestRetractedInvitation takes an invitation back before it is answered.
func TestRetractedInvitation(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, dora, bob := a.user("alice"), a.user("dora"), b.user("bob")
		for _, version := range []string{"3", "10", "12"} {
			id := a.public(alice, version)
			kick := func() *event.PDU {
				t.Helper()
				a.ok(a.rooms.Kick(a.ctx(), room.Change{Room: id, Actor: alice, Target: bob}))
				r, err := a.st.Room(a.ctx(), id)
				a.ok(err)
				e, err := a.rooms.StateEvent(a.ctx(), r.Current, event.TypeMember, string(bob))
				a.ok(err)
				return e.PDU
			}
			invite := func() {
				t.Helper()
				a.ok(a.fed.Invite(a.ctx(), room.Change{Room: id, Actor: alice, Target: bob}))
			}
			check := func(want string) {
				t.Helper()
				r, err := b.st.Room(b.ctx(), id)
				b.ok(err)
				if got := b.st.Membership(bob, r.Num).Membership; got != want {
					t.Errorf("version %s: bob's membership is %q, want %q", version, got, want)
				}
			}

			// Who did not invite is not believed.
			invite()
			first := kick()
			other := a.forge(first, func(d *event.Draft) { d.Sender = dora })
			if why := a.push(b, []*event.PDU{other})[other.ID]; why == "" {
				t.Errorf("version %s: another one took the invitation back", version)
			}
			check("invite")
			a.tell(b, first)
			check("leave")
			invite()
			if why := a.push(b, []*event.PDU{first})[first.ID]; why == "" { // late
				t.Errorf("version %s: an old invitation's end ended the new one", version)
			}
			check("invite")
		}
	})
}
