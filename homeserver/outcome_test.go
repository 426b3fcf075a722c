package homeserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"switchboard/homeserver/database/databasetest"
)

// fates are the ways in which a COMMIT can get no answer.
var fates = []databasetest.Fate{databasetest.Cut, databasetest.Unheard, databasetest.Stuck}

// TestLostCommits loses the connection to PostgreSQL at the COMMIT of everything
// that a sync tells of: who asked gets an answer, who waits for it is told at once,
// and nobody is told twice.
func TestLostCommits(t *testing.T) {
	p := databasetest.StartProxy(t, databasetest.PostgreSQL(t))
	w := newWalk(t, p.URL)
	const v3 = "/_matrix/client/v3/"
	room := v3 + "rooms/" + url.PathEscape(w.places["roomId"])
	bob := w.login("stranger")
	w.must("POST", room+"/invite", w.alice, `{"user_id":"@stranger:a.test"}`)
	w.must("POST", room+"/join", bob, `{}`)
	device := w.must("GET", v3+"account/whoami", bob, "")["device_id"]
	// A deed of bob, or with alice's token of hers, and what a sync of alice tells of
	// it. Each has {n} in the place of the number of the try.
	deeds := []struct {
		token, method, path, body, told string
		repeats                         bool // the same request again is no other one
	}{
		{bob, "PUT", room + "/send/m.room.message/try{n}", `{"msgtype":"m.text","body":"said {n}"}`, `"said {n}"`, true},
		{bob, "PUT", room + "/state/m.room.member/@stranger:a.test", `{"membership":"join","displayname":"called {n}"}`, `"called {n}"`, false},
		{bob, "PUT", v3 + "profile/@stranger:a.test/displayname", `{"displayname":"named {n}"}`, `"named {n}"`, false},
		{bob, "POST", room + "/receipt/m.read/" + url.PathEscape(w.places["eventId"]), `{"thread_id":"main"}`, `"type":"m.receipt"`, false},
		{bob, "PUT", v3 + "sendToDevice/m.try/try{n}", `{"messages":{"@alice:a.test":{"*":{"x":"to device {n}"}}}}`, `"to device {n}"`, true},
		{bob, "PUT", v3 + "presence/@stranger:a.test/status", `{"presence":"online","status_msg":"feels {n}"}`, `"feels {n}"`, false},
		{bob, "POST", v3 + "keys/upload", fmt.Sprintf(`{"device_keys":{"user_id":"@stranger:a.test","device_id":%q,"algorithms":["try {n}"],"keys":{}}}`, device), `"device_lists":{"changed":["@stranger:a.test"]}`, false},
		{w.alice, "POST", v3 + "keys/upload", `{"one_time_keys":{"signed_curve25519:{n}":{"key":"{n}","signatures":{}}}}`, `"device_one_time_keys_count":{"signed_curve25519":{n}}`, false},
		{w.alice, "PUT", v3 + "user/@alice:a.test/account_data/m.try", `{"x":"set {n}"}`, `"set {n}"`, false},
		{w.alice, "PUT", v3 + "user/@alice:a.test/rooms/" + url.PathEscape(w.places["roomId"]) + "/tags/u.try", `{"name":"tag {n}"}`, `"tag {n}"`, false},
		{w.alice, "PUT", v3 + "pushrules/global/override/try", `{"actions":["notify"],"conditions":[{"kind":"rule {n}"}]}`, `"rule {n}"`, false},
	}
	token := w.must("GET", v3+"sync", w.alice, "")["next_batch"].(string)
	for i, fate := range fates {
		for _, d := range deeds {
			in := func(s string) string { return strings.ReplaceAll(s, "{n}", fmt.Sprint(i+1)) }
			if d.told == `"type":"m.receipt"` { // it must move
				e := w.must("PUT", room+fmt.Sprintf("/send/m.room.message/read%d", i), w.alice, `{"msgtype":"m.text","body":"read this"}`)["event_id"].(string)
				d.path = room + "/receipt/m.read/" + url.PathEscape(e)
			}
			p.Next(fate)
			waiting := w.follow(token, in(d.told))
			first := w.must(d.method, in(d.path), d.token, in(d.body))
			if p.Left() != 0 {
				t.Errorf("%s %s: nothing was committed", d.method, in(d.path))
			}
			if d.repeats {
				if again := w.must(d.method, in(d.path), d.token, in(d.body)); again["event_id"] != first["event_id"] {
					t.Errorf("%s: %v, and again %v", in(d.path), first, again)
				}
			}
			token = <-waiting
			if token == "" {
				t.Fatalf("fate %d: no sync told of %s %s", fate, d.method, in(d.path))
			}
			if a := w.ask("GET", v3+"sync?since="+token, w.alice, ""); strings.Contains(a.Body.String(), in(d.told)) && !strings.Contains(d.told, "count") {
				t.Errorf("a sync told again of %s %s: %s", d.method, in(d.path), a.Body)
			}
		}
	}
}

// follow syncs as alice until told is told, and gives the next token, or "" if it
// was told more than once or never.
func (w *walk) follow(token, told string) <-chan string {
	next := make(chan string, 1)
	go func() {
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
			a := w.ask("GET", "/_matrix/client/v3/sync?timeout=1000&since="+token, w.alice, "")
			var s struct {
				Next string `json:"next_batch"`
			}
			if a.Code != http.StatusOK || json.Unmarshal(a.Body.Bytes(), &s) != nil {
				break
			}
			switch strings.Count(a.Body.String(), told) {
			case 0:
				token = s.Next
				continue
			case 1:
				next <- s.Next
			}
			break
		}
		close(next)
	}()
	return next
}
