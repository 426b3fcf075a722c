package fedapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// TestBlockedInvitation comes from another server to a user who wants none.
func TestBlockedInvitation(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		b.ok(b.accounts.SetData(b.ctx(), bob, "", "m.invite_permission_config", json.RawMessage(`{"default_action":"block"}`)))
		invite := room.Change{Room: a.public(alice, "12"), Actor: alice, Target: bob}
		a.refused(a.fed.Invite(a.ctx(), invite), matrix.InviteBlocked)
		b.ok(b.accounts.SetData(b.ctx(), bob, "", "m.invite_permission_config", json.RawMessage(`{}`)))
		a.ok(a.fed.Invite(a.ctx(), invite))
	})
}

// TestPolicyLists follows a list on one server and comes from another.
func TestPolicyLists(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, carol, mallory := a.user("alice"), a.user("carol"), b.user("mallory")
		list := a.public(alice, "12")
		a.rooms.Follow([]matrix.RoomID{list, "!nobody:knows", list})
		ours, theirs := a.public(alice, "12"), b.public(mallory, "12")
		rule := func(kind, entity string) {
			t.Helper()
			content := `{}`
			if entity != "" {
				content = fmt.Sprintf(`{"entity":%q,"recommendation":"m.ban","reason":"spam"}`, entity)
			}
			a.send(alice, list, "m.policy.rule."+kind, new("rule"), content)
		}
		invite := func() error {
			return b.fed.Invite(b.ctx(), room.Change{Room: theirs, Actor: mallory, Target: alice})
		}
		leave := func() { a.ok(a.fed.Leave(a.ctx(), room.Change{Room: theirs, Actor: alice})) }
		join := func() error {
			return b.fed.Join(b.ctx(), room.Change{Room: ours, Actor: mallory}, []matrix.ServerName{a.name})
		}
		visit := func() error {
			return a.fed.Join(a.ctx(), room.Change{Room: theirs, Actor: alice}, []matrix.ServerName{b.name})
		}
		for _, ban := range []struct{ kind, entity string }{{"user", string(mallory)}, {"user", "@mall*:*"}, {"server", "127.0.0.?"}, {"server", string(b.name)}} {
			a.ok(invite())
			leave()
			rule(ban.kind, ban.entity)
			b.refused(invite(), matrix.Forbidden)
			b.refused(join(), matrix.Forbidden)
			b.refused(b.fed.Knock(b.ctx(), room.Change{Room: ours, Actor: mallory}, []matrix.ServerName{a.name}), matrix.Forbidden)
			a.refused(a.fed.Invite(a.ctx(), room.Change{Room: ours, Actor: alice, Target: mallory}), matrix.Forbidden)
			rule(ban.kind, "")
		}
		b.ok(join())
		rule("server", string(b.name))
		b.ok(b.fed.Leave(b.ctx(), room.Change{Room: ours, Actor: mallory})) // who is in may go
		rule("server", "")

		rule("room", string(theirs))
		b.refused(invite(), matrix.Forbidden)
		a.refused(visit(), matrix.Forbidden)
		last := a.send(alice, list, "m.policy.rule.room", new("another"), fmt.Sprintf(`{"entity":%q,"recommendation":"m.ban","reason":""}`, theirs))
		rule("room", "")
		a.refused(visit(), matrix.Forbidden)
		_, err := a.rooms.Redact(a.ctx(), room.Sending{User: alice, Room: list, Redacts: last.ID}, nil)
		a.ok(err)
		a.ok(visit())
		rule("room", string(theirs))
		a.ok(a.rooms.UpdateProfile(a.ctx(), alice)) // who is in the room already is not touched
		leave()
		a.refused(visit(), matrix.Forbidden)

		rule("user", "*") // users of this server are not looked for
		rule("server", "*")
		rule("room", "#evil:*")
		a.ok(a.rooms.Join(a.ctx(), room.Change{Room: ours, Actor: carol}))
		a.state(alice, ours, "m.room.canonical_alias", `{}`)
		if got := a.membership(carol, ours); got != event.Join {
			t.Errorf("carol is %q", got)
		}
	})
}

// TestInvitationLimits are those of a server and of a user in an hour.
func TestInvitationLimits(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		b, a := hosts[0], hosts[1]
		alice, bob, carol := a.user("alice"), b.user("bob"), b.user("carol")
		invite := func(user matrix.UserID) error {
			return a.fed.Invite(a.ctx(), room.Change{Room: a.public(alice, "12"), Actor: alice, Target: user})
		}
		limited := func(user matrix.UserID) {
			t.Helper()
			var e *matrix.Error
			if err := invite(user); !errors.As(err, &e) || e.Code != matrix.LimitExceeded || e.HTTPStatus() != 429 || e.RetryAfter <= 0 {
				t.Errorf("got %v", err)
			}
		}
		b.fed.Config.InvitesPerUser, b.fed.Config.InvitesPerServer = 1, 3
		a.ok(invite(bob))
		limited(bob)
		a.ok(invite(carol))
		limited(carol) // by the server's limit now
		b.fed.Config.InvitesPerUser = 10
		limited(bob)
		b.fed.Config.InvitesPerServer = 10
		a.ok(invite(bob))
	})
}
