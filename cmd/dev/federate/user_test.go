package federate

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"switchboard/cmd/dev/peers"
)

// patience is how long anything may take to arrive.
const patience = 3 * time.Minute

// object is a body of a request.
type object = map[string]any

// user is an account with one login, whose requests belong to one test.
type user struct {
	t                       *testing.T
	server                  *homeserver
	name, id, device, token string

	since  string      // where the last sync ended
	seen   []value     // all syncs so far
	synced func(value) // is called for each sync, unless it is nil
	sent   int         // transactions so far
}

// register makes an account with the shared secret, which all servers allow.
func register(t *testing.T, s *homeserver) *user {
	t.Helper()
	u := &user{t: t, server: s, name: fmt.Sprintf("u%d", s.users.Add(1))}
	const path = "/_synapse/admin/v1/register"
	status, n := u.do("GET", path, nil)
	if status != http.StatusOK {
		t.Fatalf("%s has no registration by shared secret: %d %s", s.program, status, n)
	}
	mac := hmac.New(sha1.New, []byte(peers.Secret))
	fmt.Fprintf(mac, "%s\x00%s\x00%s\x00notadmin", n.at("nonce").text(), u.name, peers.Secret)
	status, login := u.do("POST", path, object{
		"nonce": n.at("nonce").text(), "username": u.name, "password": peers.Secret, "admin": false,
		"mac": hex.EncodeToString(mac.Sum(nil)),
	})
	u.id, u.device, u.token = login.at("user_id").text(), login.at("device_id").text(), login.at("access_token").text()
	if status != http.StatusOK || u.token == "" {
		t.Fatalf("register on %s: %d %s", s.program, status, login)
	}
	return u
}

// login is another device of the account.
func (u *user) login() *user {
	u.t.Helper()
	login := u.must("POST", client("login"), object{
		"type": "m.login.password", "password": peers.Secret, "identifier": object{"type": "m.id.user", "user": u.id},
	})
	return &user{
		t: u.t, server: u.server, name: u.name, id: u.id,
		device: login.at("device_id").text(), token: login.at("access_token").text(),
	}
}

// as is the user within another test.
func (u *user) as(t *testing.T) *user {
	copied := *u
	copied.t = t
	return &copied
}

// client is a path of the client API; the parts are escaped. A last part that
// begins with a question mark is a query.
func client(parts ...string) string {
	path := "/_matrix/client/v3"
	for _, part := range parts {
		if strings.HasPrefix(part, "?") {
			path += part
		} else {
			path += "/" + url.PathEscape(part)
		}
	}
	return path
}

// do makes a request and decodes the answer.
func (u *user) do(method, path string, body any) (int, value) {
	u.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		u.t.Fatal(err)
	}
	if body == nil {
		text = nil
	}
	status, answer := u.raw(method, path, "application/json", text)
	var v value
	if err := json.Unmarshal(answer, &v); err != nil {
		v.v = string(answer)
	}
	return status, v
}

// raw makes a request with bytes for content and answer.
func (u *user) raw(method, path, kind string, body []byte) (int, []byte) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, u.server.URL+path, bytes.NewReader(body))
	if err != nil {
		u.t.Fatal(err)
	}
	if u.token != "" {
		req.Header.Set("Authorization", "Bearer "+u.token)
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		u.t.Fatalf("%s on %s: %v", u.id, u.server.program, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		u.t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// must makes a request that succeeds.
func (u *user) must(method, path string, body any) value {
	u.t.Helper()
	status, answer := u.do(method, path, body)
	if status != http.StatusOK {
		u.t.Fatalf("%s on %s: %s %s %v: %d %s", u.id, u.server.program, method, path, body, status, answer)
	}
	return answer
}

// refused makes a request that is forbidden. Dendrite says 500 when it was
// another server that forbade it.
func (u *user) refused(method, path string, body any) {
	u.t.Helper()
	status, answer := u.do(method, path, body)
	if hidden := status == http.StatusInternalServerError && answer.String() == `{"Err":""}`; status != http.StatusForbidden && !hidden {
		u.t.Fatalf("%s on %s: %s %s %v: %d %s, want 403", u.id, u.server.program, method, path, body, status, answer)
	}
}

// eventually repeats an attempt until it succeeds.
func (u *user) eventually(what string, attempt func() bool) {
	u.t.Helper()
	if !inTime(attempt) {
		u.t.Fatalf("%s on %s waits in vain: %s", u.id, u.server.program, what)
	}
}

// inTime repeats an attempt, ever more slowly, and reports whether it succeeded.
func inTime(attempt func() bool) bool {
	pause, deadline := 50*time.Millisecond, time.Now().Add(patience)
	for !attempt() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(pause)
		pause = min(2*pause, time.Second)
	}
	return true
}

// find returns what pick finds first in the syncs of this login, past and
// coming.
func (u *user) find(what string, pick func(sync value) value) value {
	u.t.Helper()
	found := u.seek(patience, pick)
	if !found.exists() {
		u.t.Fatalf("%s on %s waits in vain: %s", u.id, u.server.program, what)
	}
	return found
}

// seek is find for a limited time, and returns nothing after that.
func (u *user) seek(limit time.Duration, pick func(sync value) value) value {
	u.t.Helper()
	for _, sync := range u.seen {
		if found := pick(sync); found.exists() {
			return found
		}
	}
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		if found := pick(u.sync()); found.exists() {
			return found
		}
	}
	return value{}
}

// sync takes what is new, waiting a little for it.
func (u *user) sync() value {
	u.t.Helper()
	query := url.Values{"timeout": {"1000"}, "filter": {`{"room":{"timeline":{"limit":50}}}`}}
	if u.since != "" {
		query.Set("since", u.since)
	} else {
		query.Set("timeout", "0")
	}
	sync := u.must("GET", client("sync", "?"+query.Encode()), nil)
	u.since = sync.at("next_batch").text()
	u.seen = append(u.seen, sync)
	if u.synced != nil {
		u.synced(sync)
	}
	return sync
}

// createRoom makes a room of a version.
func (u *user) createRoom(version string, options object) string {
	u.t.Helper()
	body := object{"room_version": version}
	for key, option := range options {
		body[key] = option
	}
	return u.must("POST", client("createRoom"), body).at("room_id").text()
}

// public are the options of a room that everybody may join.
var public = object{"preset": "public_chat"}

// joinPath is where to join, by an ID or alias, through a server.
func joinPath(room string, via *homeserver) string {
	return client("join", room, "?"+url.Values{"server_name": {via.Name}, "via": {via.Name}}.Encode())
}

// join joins a room through a server. Where that takes long, Dendrite goes on in
// the background (202), and is asked again until it has (429 until then).
func (u *user) join(room string, via *homeserver) {
	u.t.Helper()
	u.eventually("to be in "+room, func() bool {
		status, answer := u.do("POST", joinPath(room, via), object{})
		if !slices.Contains([]int{http.StatusOK, http.StatusAccepted, http.StatusTooManyRequests}, status) {
			u.t.Fatalf("%s on %s: join %s: %d %s", u.id, u.server.program, room, status, answer)
		}
		return status == http.StatusOK
	})
}

// member does something to a member of a room: invite, kick, ban, unban.
func (u *user) member(room, action, whom string) {
	u.t.Helper()
	u.must("POST", client("rooms", room, action), object{"user_id": whom})
}

func (u *user) leave(room string) {
	u.t.Helper()
	u.must("POST", client("rooms", room, "leave"), object{})
}

// transaction returns a transaction ID that was not used before.
func (u *user) transaction() string {
	u.sent++
	return fmt.Sprintf("t%d", u.sent)
}

// send sends a text and returns the event's ID.
func (u *user) send(room, text string) string {
	u.t.Helper()
	return u.must("PUT", client("rooms", room, "send", "m.room.message", u.transaction()),
		object{"msgtype": "m.text", "body": text}).at("event_id").text()
}

// setState sends a state event with an empty key.
func (u *user) setState(room, kind string, content object) string {
	u.t.Helper()
	return u.must("PUT", client("rooms", room, "state", kind)+"/", content).at("event_id").text()
}

// state returns the content of a state event, as far as the user's server knows.
func (u *user) state(room, kind, key string) value {
	u.t.Helper()
	status, content := u.do("GET", client("rooms", room, "state", kind)+"/"+url.PathEscape(key), nil)
	if status != http.StatusOK {
		return value{}
	}
	return content
}

// awaitState waits for a value in a state event.
func (u *user) awaitState(room, kind, key, field, want string) {
	u.t.Helper()
	u.eventually(fmt.Sprintf("%s %q of %s: %s", kind, key, field, want), func() bool {
		return u.state(room, kind, key).at(field).text() == want
	})
}

// awaitMembership waits for somebody's membership in a room that u is in.
func (u *user) awaitMembership(room, whom, want string) {
	u.t.Helper()
	u.awaitState(room, "m.room.member", whom, "membership", want)
}

// awaitInvite waits for an invitation to u.
func (u *user) awaitInvite(room string) {
	u.t.Helper()
	u.find("an invitation to "+room, func(sync value) value { return sync.at("rooms", "invite", room) })
}

// awaitEvent waits for an event of a timeline.
func (u *user) awaitEvent(room, id string) value {
	u.t.Helper()
	return u.find("the event "+id, timeline(room, id))
}

// timeline picks an event of a timeline from a sync.
func timeline(room, id string) func(sync value) value {
	return func(sync value) value {
		for _, e := range sync.at("rooms", "join", room, "timeline", "events").list() {
			if e.at("event_id").text() == id {
				return e
			}
		}
		return value{}
	}
}

// awaitEphemeral waits for something that is not stored in a room, and is what
// the test says.
func (u *user) awaitEphemeral(room, kind string, is func(content value) bool) {
	u.t.Helper()
	u.find(kind, func(sync value) value {
		for _, e := range sync.at("rooms", "join", room, "ephemeral", "events").list() {
			if e.at("type").text() == kind && is(e.at("content")) {
				return e
			}
		}
		return value{}
	})
}

// history returns the messages of a room, oldest first, as far back as u can
// scroll.
func (u *user) history(room string) []string {
	u.t.Helper()
	var texts []string
	query := url.Values{"dir": {"b"}, "limit": {"100"}}
	for {
		page := u.must("GET", client("rooms", room, "messages", "?"+query.Encode()), nil)
		for _, e := range page.at("chunk").list() {
			if e.at("type").text() == "m.room.message" {
				texts = append(texts, e.at("content", "body").text())
			}
		}
		end := page.at("end").text()
		if end == "" || end == query.Get("from") {
			slices.Reverse(texts)
			return texts
		}
		query.Set("from", end)
	}
}
