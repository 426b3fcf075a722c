package jitsi

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// TestJoin lets people of three servers try to join the call of a room: its
// members are let in, wherever they are from, and nobody else.
func TestJoin(t *testing.T) {
	together(t, 3, func(t *testing.T, hosts []*host) {
		for _, stand := range []struct {
			name string
			set  func(*testing.T, *meet)
		}{
			{"stand-in", func(*testing.T, *meet) {}},
			{"Prosody", withProsody},
		} {
			t.Run(stand.name, func(t *testing.T) {
				m := newMeet(t, hosts[0])
				stand.set(t, m)
				testJoin(t, m, strings.ToLower(stand.name), hosts)
			})
		}
	})
}

func testJoin(t *testing.T, m *meet, tag string, hosts []*host) {
	ours, theirs, liar := hosts[0], hosts[1], hosts[2]
	alice, stranger, mallory := ours.user("alice-"+tag), ours.user("stranger-"+tag), liar.user("mallory-"+tag)
	bob, remote := theirs.user("bob-"+tag), theirs.user("remote-"+tag)
	id, other := ours.room(alice, "11"), ours.room(stranger, "12")
	theirs.join(bob, id, ours)
	liar.join(mallory, id, ours)

	try := func(who string, want bool, conference matrix.RoomID, c Credential) {
		t.Helper()
		if got := m.joins(conference, c.JWT(m.domain)); got != want {
			t.Errorf("%s was let in: %v, want %v", who, got, want)
		}
	}
	with := func(c Credential, change func(*Credential)) Credential {
		change(&c)
		return c
	}
	try("a member", true, id, ours.credential(alice, id))
	try("a member who says not of which server", true, id, with(ours.credential(alice, id), func(c *Credential) { c.Server = "" }))
	try("a member from another server", true, id, theirs.credential(bob, id))
	try("a stranger", false, id, ours.credential(stranger, id))
	try("a stranger from a server that is in the room", false, id, theirs.credential(remote, id))
	try("a stranger from a server that is not in the room", false, other, theirs.credential(bob, other))
	try("a forged token", false, id, Credential{Token: "forged", Room: id, Server: ours.name})
	try("a forged token of another server", false, id, Credential{Token: "forged", Room: id, Server: theirs.name})
	try("the token of a member at another server", false, id, with(theirs.credential(bob, id), func(c *Credential) { c.Server = ours.name }))
	try("a token of another room", false, id, ours.credential(stranger, other))
	try("a member of a room that does not exist", false, "!nowhere:a.test", ours.credential(alice, "!nowhere:a.test"))
	try("a room without a name", false, "", ours.credential(alice, ""))
	try("somebody whose server is none", false, id, with(theirs.credential(bob, id), func(c *Credential) { c.Server = "no server" }))
	if m.joins(id, "") {
		t.Error("somebody without a token was let in")
	}

	try("a member whose server tells the truth", true, id, liar.credential(mallory, id))
	for _, lie := range []matrix.UserID{alice, bob, "@mallory"} {
		liar.lie.Store(new(string(lie)))
		try("a server that says it is "+string(lie), false, id, Credential{Token: "any", Room: id, Server: liar.name})
	}
	liar.lie.Store(nil)

	ours.ok(ours.Rooms.Kick(ours.ctx(), room.Change{Room: id, Actor: alice, Target: bob}))
	try("a former member", false, id, theirs.credential(bob, id))
	m.secret = "another secret"
	if tag != "prosody" { // whose secret is written into its configuration
		try("a member, by a Jitsi that may not ask", false, id, ours.credential(alice, id))
	}
}

// ask asks as Jitsi does and gives the status and the answer.
func (h *host) ask(path, secret, body string) (int, string) {
	h.Helper()
	r, err := http.NewRequest(http.MethodPost, h.url+Path+path, strings.NewReader(body))
	h.ok(err)
	r.Header.Set("Authorization", "Bearer "+secret)
	resp, err := h.http.Do(r)
	h.ok(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	h.ok(err)
	return resp.StatusCode, string(b)
}

// TestAnswers compares what Jitsi reads with what the verification service for
// Synapse says.
func TestAnswers(t *testing.T) {
	together(t, 1, func(t *testing.T, hosts []*host) {
		h := hosts[0]
		alice, bob := h.user("alice"), h.user("bob")
		id, v12 := h.room(alice, "11"), h.room(alice, "12")
		h.ok(h.Rooms.Join(h.ctx(), room.Change{Room: id, Actor: bob}))
		_, err := h.Rooms.Send(h.ctx(), room.Sending{User: alice, Room: id, Type: "m.room.power_levels", StateKey: new(string),
			Content: json.RawMessage(`{"users":{"` + string(alice) + `":100},"events":{"m.room.name":60},"kick":70}`)})
		h.ok(err)
		token := func(user matrix.UserID) string { return `"token":"` + h.openID(user) + `"` }
		const levels = `"room":{"ban":50,"events":{"m.room.name":60},"events_default":0,"invite":0,"kick":70,"redact":50,"state_default":50,"users_default":0}`
		for _, c := range []struct {
			name, path, secret, body string
			status                   int
			want                     string
		}{
			{"a user", "/verify/user", h.verifier.Token, `{` + token(alice) + `}`, 200, `{"results":{"user":true},"user_id":"` + string(alice) + `"}`},
			{"nobody", "/verify/user", h.verifier.Token, `{"token":"forged"}`, 200, `{"results":{"user":false},"user_id":null}`},
			{"a moderator", "/verify/user_in_room", h.verifier.Token, `{` + token(alice) + `,"room_id":"` + string(id) + `"}`, 200,
				`{"results":{"user":true,"room_membership":true},"user_id":"` + string(alice) + `","power_levels":{"user":100,` + levels + `}}`},
			{"a member", "/verify/user_in_room", h.verifier.Token, `{` + token(bob) + `,"room_id":"` + string(id) + `","matrix_server_name":"` + string(h.name) + `"}`, 200,
				`{"results":{"user":true,"room_membership":true},"user_id":"` + string(bob) + `","power_levels":{"user":0,` + levels + `}}`},
			{"a stranger", "/verify/user_in_room", h.verifier.Token, `{` + token(bob) + `,"room_id":"` + string(v12) + `"}`, 200,
				`{"results":{"user":true,"room_membership":false},"user_id":"` + string(bob) + `","power_levels":null}`},
			{"a forged token", "/verify/user_in_room", h.verifier.Token, `{"token":"forged","room_id":"` + string(id) + `"}`, 200,
				`{"results":{"user":false,"room_membership":false},"user_id":null,"power_levels":null}`},
			{"no secret", "/verify/user", "", `{` + token(alice) + `}`, 401, `M_UNKNOWN_TOKEN`},
			{"a wrong secret", "/verify/user_in_room", "x", `{` + token(alice) + `,"room_id":"` + string(id) + `"}`, 401, `M_UNKNOWN_TOKEN`},
			{"no token", "/verify/user", h.verifier.Token, `{}`, 400, `M_MISSING_PARAM`},
			{"no room", "/verify/user_in_room", h.verifier.Token, `{` + token(alice) + `}`, 400, `M_INVALID_PARAM`},
			{"no JSON", "/verify/user", h.verifier.Token, `x`, 400, `M_NOT_JSON`},
			{"no such path", "/verify", h.verifier.Token, `{}`, 404, `M_UNRECOGNIZED`},
		} {
			if status, got := h.ask(c.path, c.secret, c.body); status != c.status || status == 200 && got != c.want || !strings.Contains(got, c.want) {
				t.Errorf("%s: got %d %s, want %d %s", c.name, status, got, c.status, c.want)
			}
		}
		// The creators of a room of version 12 have more power than any number.
		_, got := h.ask("/verify/user_in_room", h.verifier.Token, `{`+token(alice)+`,"room_id":"`+string(v12)+`"}`)
		if !strings.Contains(got, `"power_levels":{"user":9007199254740991,`) {
			t.Errorf("the creator of a room: %s", got)
		}
	})
}
