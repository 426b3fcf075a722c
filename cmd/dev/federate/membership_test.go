package federate

import (
	"net/http"
	"strings"
)

// membership are the ways into a room and out of it.
var membership = []scenario{
	{"join", join},
	{"invite", invite},
	{"reject", reject},
	{"kick", kick},
	{"ban", ban},
	{"knock", knock},
	{"restricted", restricted},
	{"knock_restricted", knockRestricted},
}

// join comes in by an alias, and each hears the other.
func join(p pair) {
	alice, bob := p.users()
	room := alice.createRoom(p.version, object{"preset": "public_chat", "room_alias_name": "of-" + alice.name})
	alias := alice.state(room, "m.room.canonical_alias", "").at("alias").text()
	if found := bob.must("GET", client("directory", "room", alias), nil).at("room_id").text(); found != room {
		p.Fatalf("%s leads to %s, want %s", alias, found, room)
	}
	bob.join(alias, p.host)
	alice.awaitMembership(room, bob.id, "join")
	bob.awaitEvent(room, alice.send(room, "hello"))
	alice.awaitEvent(room, bob.send(room, "hello yourself"))
	bob.leave(room)
	alice.awaitMembership(room, bob.id, "leave")
	bob.join(room, p.host)
	alice.awaitMembership(room, bob.id, "join")
	bob.awaitEvent(room, alice.send(room, "welcome back"))
	equal(room, alice, bob)
}

// invite brings somebody into a private room.
func invite(p pair) {
	alice, bob := p.users()
	room := alice.createRoom(p.version, object{"preset": "private_chat", "name": "Lair"})
	bob.refused("POST", joinPath(room, p.host), object{})
	alice.member(room, "invite", bob.id)
	bob.awaitInvite(room)
	bob.join(room, p.host)
	alice.awaitMembership(room, bob.id, "join")
	alice.awaitEvent(room, bob.send(room, "here I am"))

	// Who came in may bring others, of either server.
	carol, dave := register(p.T, p.host), register(p.T, p.guest)
	alice.setState(room, "m.room.power_levels", levels(alice, room, object{"invite": 0}))
	bob.awaitPower(room, "invite", 0)
	for _, u := range []*user{carol, dave} {
		bob.member(room, "invite", u.id)
		u.awaitInvite(room)
		alice.awaitMembership(room, u.id, "invite")
		u.join(room, p.guest)
		alice.awaitMembership(room, u.id, "join")
		bob.awaitMembership(room, u.id, "join")
	}
	equal(room, alice, bob)
}

// levels are the power levels of a room with some changed.
func levels(u *user, room string, changes object) object {
	all, _ := u.state(room, "m.room.power_levels", "").v.(object)
	for key, change := range changes {
		all[key] = change
	}
	return all
}

// awaitPower waits for a power level.
func (u *user) awaitPower(room, key string, want float64) {
	u.t.Helper()
	u.eventually("the power level of "+key, func() bool {
		return u.state(room, "m.room.power_levels", "").at(key).v == want
	})
}

// reject refuses an invitation, and one is taken back.
func reject(p pair) {
	alice, bob := p.users()
	room := alice.createRoom(p.version, object{"preset": "private_chat"})
	alice.member(room, "invite", bob.id)
	bob.awaitInvite(room)
	bob.leave(room)
	alice.awaitMembership(room, bob.id, "leave")
	bob.refused("POST", joinPath(room, p.host), object{})

	if p.host.program == "dendrite" || p.guest.program == "dendrite" {
		return // it tells those who are not in a room of nothing, and hears of nothing from there
	}
	other := alice.createRoom(p.version, object{"preset": "private_chat"})
	alice.member(other, "invite", bob.id)
	bob.awaitInvite(other)
	alice.member(other, "kick", bob.id)
	bob.find("the end of the invitation", func(sync value) value { return sync.at("rooms", "leave", other) })
	bob.refused("POST", joinPath(other, p.host), object{})
}

// kick puts somebody out, who may come back. They have seen the room in a sync
// before: a first sync says nothing of rooms that one is not in any more.
func kick(p pair) {
	alice, bob, room := p.meet()
	alice.member(room, "kick", bob.id)
	bob.find("being kicked", func(sync value) value { return sync.at("rooms", "leave", room) })
	bob.refused("PUT", client("rooms", room, "send", "m.room.message", bob.transaction()), object{"msgtype": "m.text", "body": "no"})
	bob.join(room, p.host)
	alice.awaitMembership(room, bob.id, "join")
	alice.awaitEvent(room, bob.send(room, "again"))
	equal(room, alice, bob)
}

// ban keeps somebody out until they are forgiven.
func ban(p pair) {
	alice, bob := p.users()
	room := alice.createRoom(p.version, public)
	witness := register(p.T, p.guest)
	for _, u := range []*user{bob, witness} {
		u.join(room, p.host)
		alice.awaitMembership(room, u.id, "join")
	}
	alice.member(room, "ban", bob.id)
	witness.awaitMembership(room, bob.id, "ban")
	bob.refused("POST", joinPath(room, p.host), object{})
	equal(room, alice, witness)
	alice.member(room, "unban", bob.id)
	witness.awaitMembership(room, bob.id, "leave")
	bob.join(room, p.host)
	alice.awaitMembership(room, bob.id, "join")

	// Somebody whose server is not in the room is banned as well.
	stranger := register(p.T, p.guest)
	closed := alice.createRoom(p.version, public)
	alice.member(closed, "ban", stranger.id)
	stranger.refused("POST", joinPath(closed, p.host), object{})
	equal(room, alice, bob)
}

// knocks skips a test where a server has no knocking, by its own word.
func (p pair) knocks(bob *user) {
	p.Helper()
	for _, s := range []*homeserver{p.host, p.guest} {
		path := "/_matrix/client/v3/knock/" + "%21nowhere%3A" + s.Name
		status, answer := (&user{t: p.T, server: s}).do("POST", path, object{})
		if status == http.StatusNotFound && answer.at("errcode").text() == "M_UNRECOGNIZED" {
			p.Skipf("%s does not know how to knock: POST %s: %d %s", s.program, path, status, answer)
		}
	}
}

func knockPath(room string, via *homeserver) string {
	return strings.Replace(joinPath(room, via), "/join/", "/knock/", 1)
}

// knock asks to come in.
func knock(p pair) {
	alice, bob := p.users()
	p.knocks(bob)
	room := alice.createRoom(p.version, object{"preset": "private_chat", "name": "Club", "initial_state": []object{
		{"type": "m.room.join_rules", "state_key": "", "content": object{"join_rule": "knock"}},
	}})
	bob.refused("POST", joinPath(room, p.host), object{})
	bob.must("POST", knockPath(room, p.host), object{"reason": "please"})
	alice.awaitMembership(room, bob.id, "knock")
	if reason := alice.state(room, "m.room.member", bob.id).at("reason").text(); reason != "please" {
		p.Errorf("the reason is %q", reason)
	}
	bob.find("the room that was knocked at", func(sync value) value { return sync.at("rooms", "knock", room) })
	alice.member(room, "invite", bob.id)
	bob.awaitInvite(room)
	bob.join(room, p.host)
	alice.awaitMembership(room, bob.id, "join")
	alice.awaitEvent(room, bob.send(room, "thanks"))

	// One is sent away, one goes by themselves.
	carol, dave := register(p.T, p.guest), register(p.T, p.guest)
	for _, u := range []*user{carol, dave} {
		u.must("POST", knockPath(room, p.host), object{})
		alice.awaitMembership(room, u.id, "knock")
	}
	alice.member(room, "kick", carol.id)
	bob.awaitMembership(room, carol.id, "leave")
	dave.leave(room)
	alice.awaitMembership(room, dave.id, "leave")
	equal(room, alice, bob)
}

// restrictedTo are options of a room for the members of another one.
func restrictedTo(rule, club string) object {
	return object{"preset": "private_chat", "power_level_content_override": object{"invite": 50}, "initial_state": []object{{
		"type": "m.room.join_rules", "state_key": "", "content": object{
			"join_rule": rule, "allow": []object{{"type": "m.room_membership", "room_id": club}},
		},
	}}}
}

// restricted admits the members of another room, first when the guest's server
// is not in it, then when it is but has nobody who could let them in.
func restricted(p pair) {
	alice, bob := p.users()
	club := alice.createRoom(p.version, public)
	room := alice.createRoom(p.version, restrictedTo("restricted", club))
	bob.refused("POST", joinPath(room, p.host), object{})
	guests := []*user{bob, register(p.T, p.guest)}
	if p.guest.program == "dendrite" {
		guests = guests[:1] // once it is in the room, it asks nobody else to let its users in
	}
	for _, u := range guests {
		u.join(club, p.host)
		alice.awaitMembership(club, u.id, "join")
		u.join(room, p.host)
		alice.awaitMembership(room, u.id, "join")
		if by := alice.state(room, "m.room.member", u.id).at("join_authorised_via_users_server").text(); by != alice.id {
			p.Errorf("%s was let in by %q, want %s", u.id, by, alice.id)
		}
	}
	stranger := register(p.T, p.guest)
	stranger.refused("POST", joinPath(room, p.host), object{})

	// With power on the guest's side, that server lets its own people in.
	alice.empower(room, bob)
	dave := register(p.T, p.guest)
	dave.join(club, p.host)
	dave.join(room, p.guest)
	alice.awaitMembership(room, dave.id, "join")
	equal(room, alice, bob)
}

// knockRestricted lets members in and others knock.
func knockRestricted(p pair) {
	alice, bob := p.users()
	p.knocks(bob)
	club := alice.createRoom(p.version, public)
	room := alice.createRoom(p.version, restrictedTo("knock_restricted", club))
	bob.join(club, p.host)
	bob.join(room, p.host)
	alice.awaitMembership(room, bob.id, "join")
	carol := register(p.T, p.guest)
	carol.refused("POST", joinPath(room, p.host), object{})
	carol.must("POST", knockPath(room, p.host), object{})
	alice.awaitMembership(room, carol.id, "knock")
	bob.awaitMembership(room, carol.id, "knock")
	equal(room, alice, bob)
}
