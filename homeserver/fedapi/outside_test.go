package fedapi

import (
	"encoding/json"
	"net/http"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// TestSummary describes rooms of another server.
func TestSummary(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		id := a.public(alice, "12")
		a.state(alice, id, "m.room.name", `{"name":"Tea"}`)
		a.state(alice, id, "m.room.encryption", `{"algorithm":"m.megolm.v1.aes-sha2"}`)
		summary := func(user matrix.UserID, via ...matrix.ServerName) (*room.Summary, error) {
			return b.fed.Summary(b.ctx(), id, user, via)
		}
		sum, err := summary(bob, a.name)
		b.ok(err)
		if sum.Room != id || sum.Name != "Tea" || sum.Joined != 1 || sum.JoinRule != "public" || sum.Version != "12" || sum.Encryption == "" || sum.Membership != "leave" {
			t.Errorf("%+v", sum)
		}
		_, err = summary("", a.name)
		b.refused(err, matrix.NotFound) // nobody makes this server ask without a name
		_, err = summary(bob)
		b.refused(err, matrix.NotFound) // the room's ID tells no server
		a.state(alice, id, "m.room.join_rules", `{"join_rule":"invite"}`)
		_, err = summary(bob, a.name)
		b.refused(err, matrix.NotFound)
		a.ok(a.fed.Invite(a.ctx(), room.Change{Room: id, Actor: alice, Target: bob}))
		sum, err = summary(bob) // by the server of who invited
		b.ok(err)
		if sum.Membership != event.Invite || sum.Name != "Tea" {
			t.Errorf("to who is invited: %+v", sum)
		}
		b.join(bob, id, a)
		sum, err = summary(bob)
		b.ok(err)
		if sum.Membership != event.Join || sum.Joined != 2 {
			t.Errorf("to a member: %+v", sum)
		}
	})
}

// TestJoinBy joins by an alias, by an ID that names a server, and by via.
func TestJoinBy(t *testing.T) {
	together(t, 3, func(t *testing.T, hosts []*host) {
		a, b, c := hosts[0], hosts[1], hosts[2]
		alice, bob := a.user("alice"), b.user("bob")
		c.user("carol")
		for _, version := range []string{"11", "12"} {
			id, err := a.fed.Create(a.ctx(), room.Creation{Creator: alice, Version: version, Preset: "public_chat", AliasName: "tea" + version})
			a.ok(err)
			alias := matrix.RoomAlias("#tea" + version + ":" + string(a.name))
			found, via, err := b.directory.Resolve(b.ctx(), alias)
			b.ok(err)
			if found != id {
				t.Errorf("%s leads to %s, want %s", alias, found, id)
			}
			leave := func() { b.ok(b.fed.Leave(b.ctx(), room.Change{Room: id, Actor: bob})) }
			join := func(via ...matrix.ServerName) error {
				return b.fed.Join(b.ctx(), room.Change{Room: id, Actor: bob}, via)
			}
			err = join()
			if version == "11" { // the ID ends in the server that made the room
				b.ok(err)
				leave()
			} else {
				b.refused(err, matrix.NotFound)
			}
			b.ok(join(via...))
			leave()
			b.ok(join(c.name, "nowhere.invalid", b.name, a.name)) // the first that can
			if got := b.membership(bob, id); got != "join" {
				t.Errorf("version %s: bob is %q", version, got)
			}
		}
		_, _, err := b.directory.Resolve(b.ctx(), matrix.RoomAlias("#none:"+string(a.name)))
		b.refused(err, matrix.NotFound)
	})
}

// TestRefuseInvitation of a server that is away: it is gone here at least, and a
// later one counts again.
func TestRefuseInvitation(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		id, err := a.rooms.Create(a.ctx(), room.Creation{Creator: alice, Preset: "private_chat"})
		a.ok(err)
		invite := room.Change{Room: id, Actor: alice, Target: bob}
		a.ok(a.fed.Invite(a.ctx(), invite))
		is := func() string {
			r, err := b.st.Room(b.ctx(), id)
			b.ok(err)
			return b.st.Membership(bob, r.Num).Membership
		}
		api := a.front
		a.front = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
		b.ok(b.fed.Leave(b.ctx(), room.Change{Room: id, Actor: bob}))
		if got := is(); got != event.Leave {
			t.Errorf("bob is %q", got)
		}
		b.ok(b.rooms.Forget(b.ctx(), id, bob))
		a.front = api
		a.client.Heard(a.ctx(), b.name)
		b.client.Heard(b.ctx(), a.name)
		a.ok(a.rooms.Kick(a.ctx(), room.Change{Room: id, Actor: alice, Target: bob})) // who does not know that bob has refused
		a.ok(a.fed.Invite(a.ctx(), invite))
		if got := is(); got != event.Invite {
			t.Errorf("invited again, bob is %q", got)
		}
		b.ok(b.fed.Join(b.ctx(), room.Change{Room: id, Actor: bob}, nil))
		if got := a.membership(bob, id); got != event.Join {
			t.Errorf("bob is %q", got)
		}
	})
}

// TestPeopleElsewhere finds users of another server by what they are called in a
// common room, and nobody of whom no room tells.
func TestPeopleElsewhere(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob, eve := a.user("alice"), b.user("bob"), a.user("eve")
		b.ok(b.accounts.SetProfile(b.ctx(), bob, "displayname", json.RawMessage(`"Robert 東京"`)))
		id, err := a.rooms.Create(a.ctx(), room.Creation{Creator: alice, Preset: "private_chat"})
		a.ok(err)
		a.ok(a.fed.Invite(a.ctx(), room.Change{Room: id, Actor: alice, Target: bob}))
		b.join(bob, id, a)
		find := func(who matrix.UserID, term string) int {
			people, err := a.directory.SearchUsers(a.ctx(), who, term, 10)
			a.ok(err)
			return len(people.Results)
		}
		for _, term := range []string{"robert", "京", string(bob)} {
			if find(alice, term) != 1 || find(eve, term) != 0 {
				t.Errorf("%q: alice finds %d, eve %d", term, find(alice, term), find(eve, term))
			}
		}
		a.ok(a.rooms.Kick(a.ctx(), room.Change{Room: id, Actor: alice, Target: bob}))
		if find(alice, "robert") != 0 {
			t.Error("found after leaving")
		}
	})
}
