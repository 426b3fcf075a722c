package appservices

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
	"switchboard/registrations"
)

func TestPing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		var asked string
		good := register(t, func(r *registrations.Registration) { r.ID, r.SenderLocalpart, r.Users = "good", "goodbot", nil })
		b := newBridge(t, good)
		b.answers = func(_ http.ResponseWriter, r *http.Request) bool {
			body, _ := io.ReadAll(r.Body)
			asked = r.Method + " " + r.URL.Path + " " + string(body)
			return false
		}
		bad := register(t, func(r *registrations.Registration) {
			r.ID, r.SenderLocalpart, r.Users = "bad", "badbot", nil
			r.URL = listenURL(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusForbidden)
				io.WriteString(w, `{"errcode":"M_FORBIDDEN"}`)
			}))
		})
		gone := register(t, func(r *registrations.Registration) {
			r.ID, r.SenderLocalpart, r.Users, r.URL = "gone", "gonebot", nil, "http://127.0.0.1:1" // nobody listens there
		})
		none := register(t, func(r *registrations.Registration) { r.ID, r.SenderLocalpart, r.Users = "none", "nonebot", nil })
		slow := register(t, func(r *registrations.Registration) { r.ID, r.SenderLocalpart, r.Users = "slow", "slowbot", nil })
		timesOut := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		for _, reg := range []*registrations.Registration{bad, gone, none} {
			if err := w.s.Attach(reg, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.s.Attach(good, b); err != nil {
			t.Fatal(err)
		}
		if err := w.s.Attach(slow, timesOut); err != nil {
			t.Fatal(err)
		}
		ping := func(reg *registrations.Registration, id string) (int, map[string]any) {
			return w.ask(reg.ASToken, "POST", "/v1/appservice/"+id+"/ping", map[string]any{"transaction_id": "meow"})
		}
		status, v := ping(good, "good")
		if _, ok := v["duration_ms"].(float64); status != 200 || !ok || asked != `POST /_matrix/app/v1/ping {"transaction_id":"meow"}` {
			t.Errorf("%d %v after %s", status, v, asked)
		}
		status, v = ping(bad, "bad")
		if status != 502 || v["errcode"] != "M_BAD_STATUS" || v["status"] != 403.0 || v["body"] != `{"errcode":"M_FORBIDDEN"}` {
			t.Errorf("%d %v", status, v)
		}
		for _, tt := range []struct {
			reg    *registrations.Registration
			id     string
			status int
			code   string
		}{
			{gone, "gone", 502, "M_CONNECTION_FAILED"}, {slow, "slow", 502, "M_CONNECTION_FAILED"},
			{none, "none", 400, "M_URL_NOT_SET"}, {good, "bad", 403, "M_FORBIDDEN"},
		} {
			if status, v := ping(tt.reg, tt.id); status != tt.status || v["errcode"] != tt.code {
				t.Errorf("%s: got %d %v, want %d %s", tt.id, status, v, tt.status, tt.code)
			}
		}
		if status, v := w.ask(w.user("alice"), "POST", "/v1/appservice/good/ping", map[string]any{}); status != 403 {
			t.Errorf("a user may ping: %d %v", status, v)
		}
	})
}

// late is a transport that never answers in time.
type late struct{}

func (late) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, &url.Error{Op: "Post", URL: "http://secret", Err: os.ErrDeadlineExceeded}
}

func TestPingTimeout(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		w.s.Transport = late{}
		reg := register(t, func(r *registrations.Registration) { r.URL = "http://127.0.0.1:1" })
		w.load(map[string]*registrations.Registration{"irc.yaml": reg})
		if status, v := w.ask(reg.ASToken, "POST", "/v1/appservice/irc/ping", map[string]any{}); status != 504 || v["errcode"] != "M_CONNECTION_TIMEOUT" {
			t.Errorf("%d %v", status, v)
		}
	})
}

// load puts registrations in force by files.
func (w *world) load(regs map[string]*registrations.Registration) {
	w.t.Helper()
	if w.s.Folder == "" {
		w.s.Folder = w.t.TempDir()
	}
	for name, reg := range regs {
		b, err := reg.YAML()
		if err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.s.Folder, name), b, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := w.s.Load(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func TestAskAlias(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		reg := register(t, func(r *registrations.Registration) {
			r.Aliases = []registrations.Namespace{{Regex: "#irc_.*", Exclusive: true}}
		})
		b := newBridge(t, reg)
		var asked []string
		b.answers = func(rw http.ResponseWriter, r *http.Request) bool {
			asked = append(asked, r.Method+" "+r.RequestURI)
			if !strings.Contains(r.URL.Path, "#irc_known") {
				rw.WriteHeader(http.StatusNotFound)
				io.WriteString(rw, `{"errcode":"M_NOT_FOUND"}`)
				return true
			}
			w.must(reg.ASToken, "POST", "/v3/createRoom", map[string]any{"room_alias_name": "irc_known"})
			io.WriteString(rw, "{}")
			return true
		}
		if err := w.s.Attach(reg, b); err != nil {
			t.Fatal(err)
		}
		alice := w.user("alice")
		if status, v := w.ask(alice, "GET", "/v3/directory/room/%23irc_known:a.test", nil); v["room_id"] == nil {
			t.Errorf("%d %v after %q", status, v, asked)
		}
		for _, alias := range []string{"%23irc_unknown:a.test", "%23other:a.test"} {
			if status, v := w.ask(alice, "GET", "/v3/directory/room/"+alias, nil); status != 404 {
				t.Errorf("%s: %d %v", alias, status, v)
			}
		}
		want := []string{"GET /_matrix/app/v1/rooms/%23irc_known:a.test", "GET /_matrix/app/v1/rooms/%23irc_unknown:a.test", "GET /rooms/%23irc_unknown:a.test?access_token=" + reg.HSToken}
		if !slices.Equal(asked, want) {
			t.Errorf("asked %q", asked)
		}
		if yes, err := w.s.AskUser(t.Context(), "@irc_x:a.test"); yes || err != nil {
			t.Errorf("got %v, %v", yes, err)
		}
	})
}

// An appservice is asked for a user of its own whose profile somebody wants, or
// who is invited.
func TestAskUser(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		w.api.Accounts.AskUser = w.s.AskUser
		reg := register(t, nil)
		b := newBridge(t, reg)
		b.answers = func(rw http.ResponseWriter, r *http.Request) bool {
			id, ok := strings.CutPrefix(r.URL.Path, "/_matrix/app/v1/users/@")
			if !ok {
				return strings.HasPrefix(r.URL.Path, "/users/") && notFound(rw)
			}
			local, _, _ := strings.Cut(id, ":")
			if local == "irc_nobody" {
				return notFound(rw)
			}
			w.ghost(reg, local)
			io.WriteString(rw, "{}")
			return true
		}
		if err := w.s.Attach(reg, b); err != nil {
			t.Fatal(err)
		}
		w.start()
		alice := w.user("alice")
		w.must(alice, "GET", "/v3/profile/@irc_bob:a.test", nil)
		for _, user := range []string{"@irc_nobody:a.test", "@bob:a.test"} {
			if status, v := w.ask(alice, "GET", "/v3/profile/"+user, nil); status != 404 {
				t.Errorf("%s: %d %v", user, status, v)
			}
		}
		w.must(alice, "POST", "/v3/rooms/"+w.room(alice)+"/invite", map[string]any{"user_id": "@irc_carol:a.test"})
		b.until("the invitation", func(txns []txn) bool { return len(txns) > 0 && len(txns[0].Events) > 0 })
		if _, ok, err := st.User(t.Context(), "@irc_carol:a.test"); !ok || err != nil {
			t.Errorf("the invited user does not exist: %v", err)
		}
	})
}

// Who asks for something of an appservice that is away learns that, and not that
// there is nothing.
func TestAskNobody(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		w.api.Accounts.AskUser = w.s.AskUser
		reg := register(t, func(r *registrations.Registration) {
			r.Aliases = []registrations.Namespace{{Regex: "#irc_.*", Exclusive: true}}
		})
		var asked atomic.Int64
		away := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			asked.Add(1)
			panic(http.ErrAbortHandler)
		})
		if err := w.s.Attach(reg, away); err != nil {
			t.Fatal(err)
		}
		alice := w.user("alice")
		for _, path := range []string{"/v3/profile/@irc_bob:a.test", "/v3/directory/room/%23irc_x:a.test"} {
			asked.Store(0)
			if status, v := w.ask(alice, "GET", path, nil); status != 408 || asked.Load() != asks {
				t.Errorf("%s: %d %v after %d questions", path, status, v, asked.Load())
			}
		}
	})
}

func notFound(w http.ResponseWriter) bool {
	w.WriteHeader(http.StatusNotFound)
	io.WriteString(w, `{"errcode":"M_NOT_FOUND"}`)
	return true
}

// An appservice of earlier drafts knows only the old paths.
func TestOldPaths(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		var mu sync.Mutex
		var asked []string
		done := make(chan struct{})
		taken := sync.OnceFunc(func() { close(done) })
		old := http.NewServeMux()
		old.HandleFunc("PUT /transactions/{txn}", func(rw http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if strings.Contains(string(b), "second") {
				defer taken()
			}
			io.WriteString(rw, "{}")
		})
		h := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			mu.Lock()
			asked = append(asked, r.URL.Path)
			mu.Unlock()
			old.ServeHTTP(rw, r)
		})
		reg := register(t, func(r *registrations.Registration) { r.URL = listenURL(t, h) })
		w.load(map[string]*registrations.Registration{"irc.yaml": reg})
		w.start()
		room := w.room(reg.ASToken)
		w.say(reg.ASToken, room, "first")
		w.say(reg.ASToken, room, "second")
		<-done
		mu.Lock()
		defer mu.Unlock()
		for i, path := range asked {
			if newPath := strings.HasPrefix(path, "/_matrix/app/v1/"); newPath != (i == 0) {
				t.Errorf("asked %q", asked)
			}
		}
	})
}

func TestThirdParty(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		alice := w.user("alice")
		if status, v := w.ask(alice, "GET", "/v3/thirdparty/protocols", nil); status != 200 || len(v) != 0 {
			t.Errorf("%d %v", status, v)
		}
		for i, network := range []string{"oftc", "libera"} {
			reg := register(t, func(r *registrations.Registration) {
				r.ID, r.SenderLocalpart, r.Protocols = network, network+"bot", []string{"irc"}
				r.Users = []registrations.Namespace{{Regex: "@" + network + "_.*"}}
				r.Aliases = []registrations.Namespace{{Regex: "#" + network + "_.*"}}
			})
			b := newBridge(t, reg)
			b.answers = func(rw http.ResponseWriter, r *http.Request) bool {
				switch r.URL.Path {
				case "/_matrix/app/v1/thirdparty/protocol/irc":
					fmt.Fprintf(rw, `{"user_fields":["nick"],"icon":"mxc://x/%d","instances":[{"desc":"x","network_id":%q,"fields":{}}]}`, i, network)
				case "/_matrix/app/v1/thirdparty/location/irc":
					fmt.Fprintf(rw, `[{"alias":"#%s_x:a.test","protocol":"irc","fields":{"q":%q}}]`, network, r.URL.RawQuery)
				case "/_matrix/app/v1/thirdparty/user", "/_matrix/app/v1/thirdparty/location":
					fmt.Fprintf(rw, `[{"network":%q}]`, network)
				default:
					rw.WriteHeader(http.StatusNotFound)
				}
				return true
			}
			if err := w.s.Attach(reg, b); err != nil {
				t.Fatal(err)
			}
		}
		v := w.must(alice, "GET", "/v3/thirdparty/protocols", nil)
		irc := v["irc"].(map[string]any)
		list := irc["instances"].([]any)
		if len(list) != 2 || list[1].(map[string]any)["instance_id"] != "libera|libera" || irc["icon"] != "mxc://x/0" {
			t.Errorf("got %v", v)
		}
		if v := w.must(alice, "GET", "/v3/thirdparty/protocol/irc", nil); v["user_fields"] == nil {
			t.Errorf("got %v", v)
		}
		for path, want := range map[string]string{
			"/v3/thirdparty/location/irc?channel=%23x":           `[{"alias":"#oftc_x:a.test","protocol":"irc","fields":{"q":"channel=%23x"}},{"alias":"#libera_x:a.test","protocol":"irc","fields":{"q":"channel=%23x"}}]`,
			"/v3/thirdparty/user/irc?nick=x":                     `[]`,
			"/v3/thirdparty/user?userid=@libera_x:a.test":        `[{"network":"libera"}]`,
			"/v3/thirdparty/location?alias=%23oftc_x:a.test":     `[{"network":"oftc"}]`,
			"/v3/thirdparty/location?alias=%23elsewhere:a.test":  `[]`,
			"/v3/thirdparty/user?userid=@libera_x:elsewhere.org": `[]`,
		} {
			if got := w.text(alice, path); got != want {
				t.Errorf("%s: got %s, want %s", path, got, want)
			}
		}
		for _, path := range []string{"/v3/thirdparty/protocol/xmpp", "/v3/thirdparty/location/xmpp", "/v3/thirdparty/user/xmpp"} {
			if status, v := w.ask(alice, "GET", path, nil); status != 404 || v["errcode"] != "M_NOT_FOUND" {
				t.Errorf("%s: %d %v", path, status, v)
			}
		}
		for _, path := range []string{"/v3/thirdparty/location?alias=x", "/v3/thirdparty/user"} {
			if status, v := w.ask(alice, "GET", path, nil); status != 400 || v["errcode"] != "M_INVALID_PARAM" {
				t.Errorf("%s: %d %v", path, status, v)
			}
		}
	})
}

// text asks for something that is no JSON object.
func (w *world) text(token, path string) string {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), "GET", "http://a.test/_matrix/client"+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	a, err := w.web.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer a.Body.Close()
	var v json.RawMessage
	if err := json.NewDecoder(a.Body).Decode(&v); err != nil {
		w.t.Fatal(err)
	}
	return string(v)
}

// Files are read again when they change; mistakes change nothing.
func TestHotLoad(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		b := &bridge{t: t, news: make(chan struct{}, 1)}
		reg := register(t, func(r *registrations.Registration) { r.URL = listenURL(t, b) })
		b.token = reg.HSToken
		w.s.Folder = filepath.Join(t.TempDir(), "registrations") // does not exist yet
		if err := w.s.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		inside := register(t, func(r *registrations.Registration) { r.ID, r.SenderLocalpart, r.Users = "inside", "insidebot", nil })
		if err := w.s.Attach(inside, nil); err != nil {
			t.Fatal(err)
		}
		w.start()
		if status, _ := w.ask(reg.ASToken, "GET", "/v3/account/whoami", nil); status != 401 {
			t.Errorf("status %d before there is a file", status)
		}
		if err := os.Mkdir(w.s.Folder, 0o700); err != nil {
			t.Fatal(err)
		}
		file, err := reg.YAML()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(w.s.Folder, "irc.yaml")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		b.until("the appservice", func([]txn) bool { return w.known("irc") })
		if v := w.must(reg.ASToken, "GET", "/v3/account/whoami", nil); v["user_id"] != "@ircbot:a.test" {
			t.Errorf("got %v", v)
		}
		room := w.room(reg.ASToken)
		w.say(reg.ASToken, room, "hello")
		b.untilSaid("hello")
		w.must(inside.ASToken, "GET", "/v3/account/whoami", nil)

		if err := os.WriteFile(path, []byte("id: broken"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := w.s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "as_token is missing") {
			t.Errorf("got %v", err)
		}
		w.must(reg.ASToken, "GET", "/v3/account/whoami", nil)

		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(patience)
		for {
			if status, _ := w.ask(reg.ASToken, "GET", "/v3/account/whoami", nil); status == 401 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("a removed registration stays in force")
			}
			time.Sleep(20 * time.Millisecond)
		}
		w.must(inside.ASToken, "GET", "/v3/account/whoami", nil)
	})
}

func TestAttachRefusesDuplicates(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		reg := register(t, nil)
		if err := w.s.Attach(reg, nil); err != nil {
			t.Fatal(err)
		}
		if err := w.s.Attach(register(t, nil), nil); err == nil {
			t.Error("a second registration with the same ID is accepted")
		}
		if len(w.s.Registrations.All()) != 1 {
			t.Error("a refused registration is in force")
		}
	})
}
