package fedapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// transaction pushes raw JSON and gives the answer.
func (h *host) transaction(to *host, id string, pdus ...string) (int, map[matrix.EventID]map[string]string) {
	h.Helper()
	body := fmt.Sprintf(`{"origin":%q,"origin_server_ts":1,"pdus":[%s]}`, h.name, strings.Join(pdus, ","))
	status, answer := h.ask(to, "PUT", "/_matrix/federation/v1/send/"+id, body)
	var results map[matrix.EventID]map[string]string
	json.Unmarshal(answer["pdus"], &results)
	return status, results
}

// forge makes an event as a server would that keeps no rules.
func (h *host) forge(like *event.PDU, change func(d *event.Draft)) *event.PDU {
	h.Helper()
	d := event.Draft{
		Room: like.Room, Type: like.Type, Sender: like.Sender, StateKey: like.StateKey, Content: like.Content,
		PrevEvents: like.PrevEvents, AuthEvents: like.AuthEvents, Depth: like.Depth, OriginServerTS: like.OriginServerTS,
	}
	change(&d)
	p, err := event.Build(like.Version, d, h.name, h.key)
	h.ok(err)
	return p
}

// TestHostileTransaction sends what is wrong in every way beside what is right.
func TestHostileTransaction(t *testing.T) {
	together(t, 3, func(t *testing.T, hosts []*host) {
		a, mallory, b := hosts[0], hosts[1], hosts[2]
		alice, eve, bob := a.user("alice"), mallory.user("eve"), b.user("bob")
		id, other := a.public(alice, "10"), a.public(alice, "10")
		mallory.join(eve, id, a)
		b.join(bob, id, a)
		before := a.stateOf(id)

		good := mallory.say(eve, id, "good")
		stranger, err := signing.Generate()
		a.ok(err)
		unsigned := strings.Replace(string(good.JSON), `"signatures":`+string(good.Signatures()), `"signatures":{}`, 1)
		wrongKey := *mallory
		wrongKey.key = signing.Key{ID: mallory.key.ID, Private: stranger.Private}
		forged := wrongKey.forge(good, func(d *event.Draft) { d.Content = json.RawMessage(`{"body":"forged"}`) })
		asBob := mallory.forge(good, func(d *event.Draft) { d.Sender = bob; d.Content = json.RawMessage(`{"body":"bob"}`) })
		elsewhere := mallory.forge(good, func(d *event.Draft) { d.Room = other })
		nowhere := mallory.forge(good, func(d *event.Draft) { d.Room = "!nowhere:" + matrix.RoomID(mallory.name) })
		power := mallory.forge(good, func(d *event.Draft) {
			d.Type, d.StateKey, d.Content = "m.room.power_levels", new(string), json.RawMessage(fmt.Sprintf(`{"users":{%q:100}}`, eve))
		})
		tampered := strings.Replace(string(good.JSON), `"good"`, `"evil"`, 1)
		orphan := mallory.forge(good, func(d *event.Draft) {
			d.PrevEvents = []matrix.EventID{"$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
			d.Content = json.RawMessage(`{"body":"orphan"}`)
		})
		pdus := []string{
			`null`, `17`, `"text"`, `[]`, `{}`, `{"room_id":17}`, `{"room_id":"nonsense"}`,
			fmt.Sprintf(`{"room_id":%q}`, id), fmt.Sprintf(`{"room_id":%q,"type":"m.room.message","content":%s}`, id, "{}"),
			fmt.Sprintf(`{"room_id":%q,"content":{"body":%q}}`, id, strings.Repeat("x", event.MaxSize)),
			unsigned, string(forged.JSON), string(asBob.JSON), string(elsewhere.JSON), string(nowhere.JSON), string(power.JSON), tampered, string(orphan.JSON),
			string(good.JSON), string(good.JSON),
		}
		status, results := mallory.transaction(a, "1", pdus...)
		if status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
		for name, p := range map[string]*event.PDU{"forged": forged, "as bob": asBob} {
			if results[p.ID]["error"] == "" {
				t.Errorf("%s: %v", name, results[p.ID])
			}
		}
		if got := a.stateOf(id); got != before {
			t.Errorf("the state became\n%s", got)
		}
		if got := a.texts(id); strings.Contains(got, "evil") || strings.Contains(got, "forged") || strings.Contains(got, "bob") || strings.Contains(got, "orphan") {
			t.Errorf("a reads %q", got)
		}
		if got := a.texts(other); got != "" {
			t.Errorf("the other room reads %q", got)
		}
		again, repeated := mallory.transaction(a, "1", pdus...)
		if again != status || fmt.Sprint(repeated) != fmt.Sprint(results) {
			t.Errorf("the repeated transaction: %d %v, first %v", again, repeated, results)
		}
		b.tell(a, b.say(bob, id, "honest"))
		if got := a.texts(id); !strings.HasSuffix(got, "honest") {
			t.Errorf("a reads %q", got)
		}
	})
}

// TestHostileRequests are transactions that are refused as a whole.
func TestHostileRequests(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		const path = "/_matrix/federation/v1/send/1"
		many := func(n int, what string) string { return strings.TrimSuffix(strings.Repeat(what+",", n), ",") }
		for _, tt := range []struct {
			status int
			code   matrix.Code
			method string
			path   string
			body   string
		}{
			{400, matrix.InvalidParam, "PUT", path, fmt.Sprintf(`{"pdus":[%s]}`, many(51, "{}"))},
			{400, matrix.InvalidParam, "PUT", path, fmt.Sprintf(`{"pdus":[],"edus":[%s]}`, many(101, `{"edu_type":"x","content":{}}`))},
			{403, matrix.Forbidden, "PUT", path, `{"origin":"other.test","pdus":[]}`},
			{400, matrix.BadJSON, "PUT", path, `{"pdus":17}`},
			{413, matrix.TooLarge, "PUT", path, `{"x":"` + strings.Repeat("x", int(large)) + `"}`},
			{413, matrix.TooLarge, "POST", "/_matrix/federation/v1/publicRooms", `{"x":"` + strings.Repeat("x", int(small)) + `"}`},
			{401, matrix.Unauthorized, "PUT", path, `no JSON`},
			{404, matrix.Unrecognized, "GET", "/_matrix/federation/v1/nothing", ""},
			{404, matrix.Unrecognized, "GET", "/_matrix/federation/v1//version", ""},
			{405, matrix.Unrecognized, "POST", path, "{}"},
			{404, matrix.Unrecognized, "GET", "/_matrix/federation/v1/query/weather", ""},
		} {
			b.want(a, tt.status, tt.code, tt.method, tt.path, tt.body)
		}
		for _, header := range []string{
			"", "X-Matrix", `X-Matrix origin="a.test"`, `X-Matrix origin="a b",key="ed25519:1",sig="x"`,
			fmt.Sprintf(`X-Matrix origin="%s",destination="else.test",key="%s",sig="x"`, b.name, b.key.ID),
			fmt.Sprintf(`X-Matrix origin="%s",key="ed25519:%s",sig="x"`, b.name, strings.Repeat("k", 4000)),
		} {
			if status, answer := b.request(a, "PUT", path, `{"pdus":[]}`, header); status != 401 {
				t.Errorf("%q: %d %s", header, status, answer["error"])
			}
		}
	})
}

// TestFlood has a server push many events with gaps that it never fills, while
// another one is served.
func TestFlood(t *testing.T) {
	together(t, 3, func(t *testing.T, hosts []*host) {
		a, mallory, b := hosts[0], hosts[1], hosts[2]
		alice, eve, bob := a.user("alice"), mallory.user("eve"), b.user("bob")
		id := a.public(alice, "10")
		mallory.join(eve, id, a)
		b.join(bob, id, a)
		honest := make(chan struct{}) // closed when the honest server was served
		var asked sync.Once
		waiting := make(chan struct{})
		whole := mallory.front
		mallory.front = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/get_missing_events/") || strings.Contains(r.URL.Path, "/state_ids/") {
				asked.Do(func() { close(waiting) })
				select {
				case <-honest:
				case <-r.Context().Done():
				}
				http.Error(w, "{}", http.StatusInternalServerError)
				return
			}
			whole.ServeHTTP(w, r)
		})
		good := mallory.say(eve, id, "good")
		var group sync.WaitGroup
		const pushed = 60
		statuses := make(chan int, pushed)
		for i := range pushed {
			group.Go(func() {
				orphan := mallory.forge(good, func(d *event.Draft) {
					d.PrevEvents = []matrix.EventID{matrix.EventID(fmt.Sprintf("$%043d", i))}
					d.Content = json.RawMessage(fmt.Sprintf(`{"body":"orphan%d"}`, i))
				})
				status, _ := mallory.transaction(a, fmt.Sprint("flood", i), string(orphan.JSON))
				statuses <- status
			})
		}
		<-waiting
		held := a.fed.Config.MaxTransactions + a.fed.Config.MaxWaiting
		for range pushed - held { // the others are told to come again
			if status := <-statuses; status != http.StatusTooManyRequests {
				t.Errorf("status %d", status)
			}
		}
		b.tell(a, b.say(bob, id, "honest")) // would wait for ever if it waited for the others
		close(honest)
		group.Wait()
		for range held {
			if status := <-statuses; status != http.StatusOK {
				t.Errorf("status %d", status)
			}
		}
		if got := a.texts(id); got != "honest" {
			t.Errorf("a reads %q", got)
		}
		mallory.front = whole
		mallory.tell(a, good) // is served again
		if got := a.texts(id); !strings.Contains(got, "good") {
			t.Errorf("a reads %q", got)
		}
	})
}

// TestHostileMemberships sends memberships that are not what the path says.
func TestHostileMemberships(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		id := a.public(alice, "10")
		b.join(bob, id, a)
		join := b.event(b.memberEvent(bob, id))
		message := b.say(bob, id, "text")
		banned := b.forge(join, func(d *event.Draft) { d.Content = json.RawMessage(`{"membership":"ban"}`) })
		ofAlice := b.forge(join, func(d *event.Draft) { d.Sender = alice; key := string(alice); d.StateKey = &key })
		for _, tt := range []struct {
			status int
			code   matrix.Code
			path   string
			p      *event.PDU
			id     matrix.EventID
		}{
			{400, matrix.InvalidParam, "v2/send_join", message, message.ID},
			{400, matrix.InvalidParam, "v1/send_join", message, message.ID},
			{400, matrix.InvalidParam, "v2/send_leave", join, join.ID},
			{400, matrix.InvalidParam, "v1/send_leave", join, join.ID},
			{400, matrix.InvalidParam, "v1/send_knock", join, join.ID},
			{400, matrix.InvalidParam, "v2/send_join", banned, banned.ID},
			{403, matrix.Forbidden, "v2/send_join", ofAlice, ofAlice.ID},
			{400, matrix.InvalidParam, "v2/send_join", join, message.ID},
		} {
			path := "/_matrix/federation/" + tt.path + "/" + url.PathEscape(string(id)) + "/" + url.PathEscape(string(tt.id))
			b.want(a, tt.status, tt.code, "PUT", path, string(tt.p.JSON))
		}
		invite := b.forge(join, func(d *event.Draft) {
			key := string(alice)
			d.StateKey, d.Content = &key, json.RawMessage(`{"membership":"invite"}`)
		})
		path := "/_matrix/federation/v2/invite/" + url.PathEscape(string(id)) + "/" + url.PathEscape(string(invite.ID))
		b.want(a, 400, matrix.IncompatibleRoomVersion, "PUT", path, fmt.Sprintf(`{"room_version":"99","event":%s}`, invite.JSON))
		b.want(a, 400, matrix.MissingParam, "PUT", path, `{"room_version":"10"}`)
		b.want(a, 400, matrix.InvalidParam, "PUT", path, fmt.Sprintf(`{"room_version":"10","event":%s}`, join.JSON))
	})
}
