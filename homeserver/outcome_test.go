package homeserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"switchboard/homeserver"
	"switchboard/homeserver/account"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/fedclient/fedclienttest"
	"switchboard/registrations"
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

// TestLostCommitsElsewhere loses COMMITs of a server with everything that it does
// beside requests: another server, and a push gateway, learn of each message once.
func TestLostCommitsElsewhere(t *testing.T) {
	p := databasetest.StartProxy(t, databasetest.PostgreSQL(t))
	var mu sync.Mutex // guards pushed
	pushed := map[string]int{}
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var told struct {
			Notification struct {
				Content struct{ Body string }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&told); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if body := told.Notification.Content.Body; body != "" {
			pushed[body]++
		}
		fmt.Fprint(w, `{"rejected":[]}`)
	}))
	t.Cleanup(gateway.Close)
	a, b := running(t, p.URL), running(t, databasetest.SQLite(t))
	alice, bob, carol := a.person("alice"), a.person("bob"), b.person("carol")
	const v3 = "/_matrix/client/v3/"
	id := a.must("POST", v3+"createRoom", alice, `{"preset":"public_chat"}`)["room_id"].(string)
	room := v3 + "rooms/" + url.PathEscape(id)
	a.must("POST", room+"/join", bob, "{}")
	b.must("POST", v3+"join/"+url.PathEscape(id)+"?server_name="+url.QueryEscape(string(a.Config.ServerName)), carol, "{}")
	a.must("POST", v3+"pushers/set", bob, `{"pushkey":"x","kind":"http","app_id":"x","app_display_name":"x","device_display_name":"x","lang":"en","data":{"url":"`+gateway.URL+`/_matrix/push/v1/notify"}}`)
	syncing := v3 + "sync?timeout=1000&filter=" + url.QueryEscape(`{"room":{"timeline":{"limit":100}}}`)
	token := b.must("GET", syncing, carol, "")["next_batch"].(string)
	var want []string
	for i := 0; i < 3*len(fates) || p.Left() > 0; i++ {
		if i%len(fates) == 0 && p.Left() == 0 {
			p.Next(fates...)
		}
		want = append(want, fmt.Sprint("said ", i))
		a.must("PUT", room+fmt.Sprint("/send/m.room.message/", i), alice, `{"msgtype":"m.text","body":"`+want[i]+`"}`)
	}
	var got []string
	for end := time.Now().Add(2 * time.Minute); len(got) < len(want) && time.Now().Before(end); {
		var s struct {
			Next  string `json:"next_batch"`
			Rooms struct {
				Join map[string]struct {
					Timeline struct {
						Events []struct{ Content struct{ Body string } }
					}
				}
			}
		}
		if err := json.Unmarshal(b.ask("GET", syncing+"&since="+token, carol, "").Body.Bytes(), &s); err != nil {
			t.Fatal(err)
		}
		token = s.Next
		for _, e := range s.Rooms.Join[id].Timeline.Events {
			got = append(got, e.Content.Body)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the other server shows %q, want %q", got, want)
	}
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		mu.Lock()
		n := len(pushed)
		mu.Unlock()
		if n == len(want) {
			break
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, body := range want {
		if pushed[body] != 1 {
			t.Errorf("%q was pushed %d times", body, pushed[body])
		}
	}
}

// running is a server that runs, and is reached by others at its name.
func running(t *testing.T, database string) *walk {
	t.Helper()
	w := &walk{T: t}
	name := fedclienttest.Server(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.federation.ServeHTTP(rw, r) }))
	c := homeserver.DefaultConfig()
	c.ServerName, c.DataDir, c.Database.URL = name, t.TempDir(), database
	c.RateLimits.Enabled = false
	c.Registration.Hash = account.Argon2{Memory: 64, Time: 1, Threads: 1} // cheap
	w.neighbours(&c)
	var err error
	w.Server, err = homeserver.New(t.Context(), c, registrations.NewSet(string(name)))
	w.ok(err)
	w.client, w.federation = w.Handlers().Client, w.Handlers().Federation
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Server.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, w.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

// person makes an account and gives its token.
func (w *walk) person(name string) string {
	w.Helper()
	_, err := w.Accounts.CreateUser(w.Context(), account.NewUser{Localpart: name, Password: "correct horse"})
	w.ok(err)
	return w.login(name)
}
