package federate

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// rooms are what happens to a room as a whole.
var rooms = []scenario{
	{"state", state},
	{"forks", forks},
	{"redaction", redaction},
	{"upgrade", upgrade},
	{"acl", acl},
}

// state lets the guest change what they have been given the power for.
func state(p pair) {
	alice, bob := p.users()
	room := alice.createRoom(p.version, public)
	bob.join(room, p.host)
	alice.awaitMembership(room, bob.id, "join")
	bob.refused("PUT", client("rooms", room, "state", "m.room.topic")+"/", object{"topic": "mine"})
	alice.empower(room, bob)
	bob.setState(room, "m.room.topic", object{"topic": "ours"})
	alice.awaitState(room, "m.room.topic", "", "topic", "ours")
	alice.setState(room, "m.room.name", object{"name": "Room"})
	bob.awaitState(room, "m.room.name", "", "name", "Room")
	equal(room, alice, bob)
}

// empower makes somebody a moderator, and waits until they know it.
func (u *user) empower(room string, whom *user) {
	u.t.Helper()
	users, _ := u.state(room, "m.room.power_levels", "").at("users").v.(object)
	if users == nil {
		users = object{}
	}
	users[whom.id] = 50
	u.setState(room, "m.room.power_levels", levels(u, room, object{"users": users}))
	whom.eventually("power", func() bool {
		return whom.state(room, "m.room.power_levels", "").at("users", whom.id).v == 50.0
	})
}

// forks lets both sides change the same state at once; they must come to the
// same result.
func forks(p pair) {
	alice, bob := p.users()
	room := alice.createRoom(p.version, public)
	bob.join(room, p.host)
	alice.awaitMembership(room, bob.id, "join")
	alice.empower(room, bob)
	var group sync.WaitGroup
	for _, u := range []*user{alice, bob} {
		group.Go(func() {
			for i := range 20 {
				if status, answer := u.do("PUT", client("rooms", room, "state", "test", fmt.Sprint(i%5)), object{"by": u.id, "i": i}); status != 200 {
					p.Errorf("%s on %s: %d %s", u.id, u.server.program, status, answer)
				}
			}
		})
	}
	group.Wait()
	// What follows joins the ends of the fork.
	bob.awaitEvent(room, alice.send(room, "done"))
	alice.awaitEvent(room, bob.send(room, "done as well"))
	equal(room, alice, bob)
}

// redaction takes back a message of one's own and one of the other server.
func redaction(p pair) {
	alice, bob := p.users()
	room := alice.createRoom(p.version, public)
	bob.join(room, p.host)
	alice.awaitMembership(room, bob.id, "join")
	mine, theirs := alice.send(room, "mine"), bob.send(room, "theirs")
	bob.awaitEvent(room, mine)
	alice.awaitEvent(room, theirs)
	for _, id := range []string{mine, theirs} {
		alice.must("PUT", client("rooms", room, "redact", id, alice.transaction()), object{"reason": "taken back"})
		for _, u := range []*user{alice, bob} {
			if u.server.program == "dendrite" && p.version != "10" {
				continue // it looks for "redacts" only where version 10 has it, and knows no power of creators
			}
			u.eventually("the redaction of "+id, func() bool {
				e := u.must("GET", client("rooms", room, "event", id), nil)
				return !e.at("content", "body").exists() && e.at("unsigned", "redacted_because").exists()
			})
		}
	}
	kept := alice.send(room, "kept")
	bob.awaitEvent(room, kept)
	bob.refused("PUT", client("rooms", room, "redact", kept, bob.transaction()), object{})
	equal(room, alice, bob)
}

// upgrade replaces a room, and the guest follows.
func upgrade(p pair) {
	alice, bob := p.users()
	room := alice.createRoom(p.version, object{"preset": "public_chat", "name": "Old", "topic": "kept"})
	bob.join(room, p.host)
	alice.awaitMembership(room, bob.id, "join")
	next := versions[min(slices.Index(versions, p.version)+1, len(versions)-1)]
	status, answer := alice.do("POST", client("rooms", room, "upgrade"), object{"new_version": next})
	if status == 404 && answer.at("errcode").text() == "M_UNRECOGNIZED" {
		p.Skipf("%s upgrades no rooms: %d %s", p.host.program, status, answer)
	}
	successor := answer.at("replacement_room").text()
	if status != 200 || successor == "" {
		p.Fatalf("upgrade: %d %s", status, answer)
	}
	bob.awaitState(room, "m.room.tombstone", "", "replacement_room", successor)
	bob.join(successor, p.host)
	alice.awaitMembership(successor, bob.id, "join")
	create := bob.state(successor, "m.room.create", "")
	if create.at("room_version").text() != next || create.at("predecessor", "room_id").text() != room {
		p.Errorf("the new room says %s, want version %s after %s", create, next, room)
	}
	bob.awaitState(successor, "m.room.topic", "", "topic", "kept")
	alice.awaitEvent(successor, bob.send(successor, "moved"))
	if p.host.program != "dendrite" { // it tells nobody how it closes the old room
		equal(room, alice, bob)
	}
	equal(successor, alice, bob)
}

// acl keeps a server out, and lets it in again.
func acl(p pair) {
	alice, bob := p.users()
	free, room := alice.createRoom(p.version, public), alice.createRoom(p.version, public)
	for _, r := range []string{free, room} {
		bob.join(r, p.host)
		alice.awaitMembership(r, bob.id, "join")
	}
	address, _, _ := strings.Cut(p.guest.Name, ":")
	without := object{"allow": []string{"*"}, "deny": []string{address}, "allow_ip_literals": true}
	alice.setState(room, "m.room.server_acl", without)
	status, answer := bob.do("PUT", client("rooms", room, "send", "m.room.message", bob.transaction()), object{"msgtype": "m.text", "body": "not for you"})
	refused := answer.at("event_id").text()
	if status != 200 && status != 403 {
		p.Fatalf("a message from a server that is kept out: %d %s", status, answer)
	}
	typing := object{"typing": true, "timeout": 120000}
	for _, r := range []string{room, free} {
		bob.do("PUT", client("rooms", r, "typing", bob.id), typing)
	}
	// What comes in the other room was sent later.
	alice.awaitEvent(free, bob.send(free, "for you"))
	alice.awaitTyping(free, bob)
	for _, sync := range alice.seen {
		for _, e := range slices.Concat(sync.at("rooms", "join", room, "timeline", "events").list(), sync.at("rooms", "join", room, "ephemeral", "events").list()) {
			if refused != "" && e.at("event_id").text() == refused || slices.Contains(e.at("content", "user_ids").texts(), bob.id) {
				p.Errorf("came in from a server that is kept out: %s", e)
			}
		}
	}
	// A room where the guest's server is not yet, so that it must ask.
	closed := alice.createRoom(p.version, public)
	alice.setState(closed, "m.room.server_acl", without)
	stranger := register(p.T, p.guest)
	stranger.refused("POST", joinPath(closed, p.host), object{})
	alice.setState(room, "m.room.server_acl", object{"allow": []string{"*"}, "allow_ip_literals": true})
	stranger.join(room, p.host)
	alice.awaitMembership(room, stranger.id, "join")
	alice.awaitEvent(room, stranger.send(room, "forgiven"))
}

// besides are the scenarios for which the room version does not matter.
var besides = []scenario{
	{"directory", directory},
	{"profile", profile},
	{"media", media},
}

// directory shows the rooms of one server to users of the other.
func directory(p pair) {
	alice, bob := p.users()
	name := "Listed by " + alice.id
	room := alice.createRoom(p.version, object{"preset": "public_chat", "visibility": "public", "name": name})
	path := client("publicRooms", "?"+url.Values{"server": {p.host.Name}}.Encode())
	for _, list := range []func() value{
		func() value { return bob.must("GET", path, nil) },
		func() value {
			return bob.must("POST", path, object{"filter": object{"generic_search_term": name}, "limit": 10})
		},
	} {
		bob.eventually("the room in the directory", func() bool {
			return slices.ContainsFunc(list().at("chunk").list(), func(r value) bool {
				return r.at("room_id").text() == room && r.at("name").text() == name
			})
		})
	}
	if status, answer := bob.do("GET", client("directory", "room", "#nothing:"+p.host.Name), nil); status == 200 {
		p.Errorf("an alias that is none: %d %s", status, answer)
	}
}

// profile shows a user's name and picture to the other server.
func profile(p pair) {
	alice, bob := p.users()
	room := alice.createRoom(p.version, public)
	bob.join(room, p.host)
	for field, text := range map[string]string{"displayname": "Alice", "avatar_url": "mxc://" + p.host.Name + "/picture"} {
		alice.must("PUT", client("profile", alice.id, field), object{field: text})
		bob.eventually("the profile", func() bool {
			return bob.must("GET", client("profile", alice.id), nil).at(field).text() == text
		})
		if got := bob.must("GET", client("profile", alice.id, field), nil).at(field).text(); got != text {
			p.Errorf("%s is %q, want %q", field, got, text)
		}
		bob.awaitState(room, "m.room.member", alice.id, field, text)
	}
	if status, answer := bob.do("GET", client("profile", "@nobody:"+p.host.Name), nil); status != 404 {
		p.Errorf("the profile of nobody: %d %s", status, answer)
	}
	equal(room, alice, bob)
}

// media fetches a file of the other server, in both sizes.
func media(p pair) {
	alice, bob := p.users()
	picture := png(p.T)
	status, answer := alice.raw("POST", "/_matrix/media/v3/upload?filename=dot.png", "image/png", picture)
	_, address, found := strings.Cut(string(answer), "mxc://")
	address, _, _ = strings.Cut(address, `"`)
	server, name, _ := strings.Cut(address, "/")
	if status != 200 || !found {
		p.Fatalf("upload: %d %s", status, answer)
	}
	const download = "/_matrix/client/v1/media/"
	status, got := bob.raw("GET", download+"download/"+server+"/"+name, "", nil)
	if status != 200 || string(got) != string(picture) {
		p.Errorf("download: %d, %d bytes, want %d", status, len(got), len(picture))
	}
	status, got = bob.raw("GET", download+"thumbnail/"+server+"/"+name+"?width=32&height=32&method=scale", "", nil)
	if status != 200 || len(got) == 0 {
		p.Errorf("thumbnail: %d, %d bytes", status, len(got))
	}
	if status, _ := bob.raw("GET", download+"download/"+server+"/nothing", "", nil); status != 404 {
		p.Errorf("media that are none: %d", status)
	}
}
