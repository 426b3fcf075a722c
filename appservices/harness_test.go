package appservices

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"switchboard/homeserver/account"
	"switchboard/homeserver/clientapi"
	"switchboard/homeserver/clientsync"
	"switchboard/homeserver/directory"
	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/federation"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/registrations"
)

// world is a homeserver a.test with its client API, and the service under test.
type world struct {
	t   *testing.T
	s   *Service
	api *clientapi.API
	web *http.Client // to the client API
}

// patience is how long anything may take that must happen.
const patience = 2 * time.Minute

func newWorld(t *testing.T, st *store.Store) *world {
	t.Helper()
	const name = matrix.ServerName("a.test")
	bell, set := &notify.Bell{}, registrations.NewSet(string(name))
	key, err := signing.Generate()
	if err != nil {
		t.Fatal(err)
	}
	config := account.DefaultConfig()
	config.Mode, config.Hash = account.Open, account.Argon2{Memory: 64, Time: 1, Threads: 1} // cheap
	rooms := &room.Service{Store: st, Bell: bell, ServerName: name, Key: key, Config: room.Config{DefaultVersion: matrix.DefaultRoomVersion}}
	keys := &e2ee.Service{Store: st, Bell: bell, ServerName: name}
	fleeting := &ephemeral.Service{Store: st, Bell: bell}
	w := &world{t: t, s: &Service{Store: st, Bell: bell, Rooms: rooms, Ephemeral: fleeting, Keys: keys, ServerName: name, Registrations: set}}
	w.api = &clientapi.API{
		ServerName: name, Rooms: rooms, Keys: keys, Ephemeral: fleeting,
		Accounts:   &account.Service{Store: st, Bell: bell, ServerName: name, Config: config, Appservices: set},
		Directory:  &directory.Service{Store: st, Rooms: rooms, ServerName: name, Registrations: set, AskAlias: w.s.AskAlias},
		Federation: &federation.Service{Store: st, Bell: bell, Rooms: rooms, ServerName: name},
		Sync:       &clientsync.Service{Store: st, Rooms: rooms, Bell: bell, Keys: keys, Ephemeral: fleeting},
		Appservices: clientapi.Appservices{
			Ping: w.s.Ping, Protocols: w.s.Protocols, Protocol: w.s.Protocol,
			Locations: w.s.Locations, Users: w.s.Users, LocationsOf: w.s.LocationsOf, UsersOf: w.s.UsersOf,
		},
	}
	w.web = &http.Client{Transport: &Wire{Handler: w.api.Handler()}}
	return w
}

// start runs the service until stop is called or the test ends. When it returns,
// the appservices that are called have begun to read the log.
func (w *world) start() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.s.Run(ctx); err != nil {
			w.t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	w.t.Cleanup(stop)
	callers, _ := w.s.current()
	for id, c := range callers {
		for deadline := time.Now().Add(patience); c.transport != nil && !w.known(id); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				w.t.Fatalf("%s is not told anything", id)
			}
		}
	}
	return stop
}

// known tells whether an appservice has begun to read the log.
func (w *world) known(id string) bool {
	_, ok, err := w.s.Store.AppserviceSender(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return ok
}

// user makes an account and gives its token.
func (w *world) user(localpart string) (token string) {
	w.t.Helper()
	if _, err := w.api.Accounts.CreateUser(w.t.Context(), account.NewUser{Localpart: localpart, Password: "correct horse"}); err != nil {
		w.t.Fatal(err)
	}
	by := account.Credentials{User: localpart, Password: "correct horse"}
	t, err := w.api.Accounts.LoginPassword(w.t.Context(), by, account.Login{Device: "D" + matrix.DeviceID(localpart)}, account.Client{})
	if err != nil {
		w.t.Fatal(err)
	}
	return t.Access
}

// ask makes a request of the client API.
func (w *world) ask(token, method, path string, body any) (int, map[string]any) {
	w.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, "http://a.test/_matrix/client"+path, bytes.NewReader(b))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := w.web.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	var v map[string]any
	if len(content) > 0 && content[0] == '{' {
		if err := json.Unmarshal(content, &v); err != nil {
			w.t.Fatal(err)
		}
	}
	return answer.StatusCode, v
}

// must is ask for what has to succeed.
func (w *world) must(token, method, path string, body any) map[string]any {
	w.t.Helper()
	status, v := w.ask(token, method, path, body)
	if status != http.StatusOK {
		w.t.Fatalf("%s %s: %d %v", method, path, status, v)
	}
	return v
}

// room makes a public room and gives its ID, escaped for paths.
func (w *world) room(token string) string {
	w.t.Helper()
	v := w.must(token, "POST", "/v3/createRoom", map[string]any{"preset": "public_chat"})
	return url.PathEscape(v["room_id"].(string))
}

// say sends a message.
func (w *world) say(token, room, text string) {
	w.t.Helper()
	w.must(token, "PUT", "/v3/rooms/"+room+"/send/m.room.message/"+url.PathEscape(text), map[string]any{"msgtype": "m.text", "body": text})
}

// as adds the user_id of a ghost to a path.
func as(path, localpart string) string {
	return path + "?user_id=" + url.QueryEscape("@"+localpart+":a.test")
}

// ghost registers a user of an appservice.
func (w *world) ghost(reg *registrations.Registration, localpart string) {
	w.t.Helper()
	w.must(reg.ASToken, "POST", "/v3/register", map[string]any{"type": "m.login.application_service", "username": localpart, "inhibit_login": true})
}

// register makes a registration for @irc_….
func register(t *testing.T, edit func(*registrations.Registration)) *registrations.Registration {
	t.Helper()
	r := registrations.Registration{ID: "irc", SenderLocalpart: "ircbot", Users: []registrations.Namespace{{Regex: "@irc_.*", Exclusive: true}}}
	if edit != nil {
		edit(&r)
	}
	reg, err := registrations.Generate(r)
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

// bridge is an appservice that writes down what it is told.
type bridge struct {
	t       *testing.T
	token   string // hs_token
	answers func(w http.ResponseWriter, r *http.Request) bool

	mu   sync.Mutex // guards what follows
	fail int        // how many transactions to refuse
	txns []txn
	news chan struct{}
}

type txn struct {
	id      string
	refused bool
	raw     string
	transaction
	Events []map[string]any `json:"events"`
}

func newBridge(t *testing.T, reg *registrations.Registration) *bridge {
	return &bridge{t: t, token: reg.HSToken, news: make(chan struct{}, 1)}
}

// ServeHTTP implements http.Handler.
func (b *bridge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+b.token {
		b.t.Errorf("%s without the hs_token", r.URL.Path)
	}
	if b.answers != nil && b.answers(w, r) {
		return
	}
	id, ok := strings.CutPrefix(r.URL.Path, "/_matrix/app/v1/transactions/")
	if !ok || r.Method != http.MethodPut {
		w.WriteHeader(http.StatusOK)
		io.WriteString(w, "{}")
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		b.t.Error(err)
	}
	one := txn{id: id, raw: string(body)}
	if err := json.Unmarshal(body, &one); err != nil {
		b.t.Errorf("%v in %s", err, body)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if one.refused = b.fail > 0; one.refused {
		b.fail--
		w.WriteHeader(http.StatusInternalServerError)
	}
	b.txns = append(b.txns, one)
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// until waits until done says so of all transactions so far.
func (b *bridge) until(what string, done func(txns []txn) bool) []txn {
	b.t.Helper()
	timeout := time.After(patience)
	for {
		b.mu.Lock()
		txns := b.txns[:len(b.txns):len(b.txns)]
		b.mu.Unlock()
		if done(txns) {
			return txns
		}
		select {
		case <-b.news:
		case <-time.After(10 * time.Millisecond): // not all that is waited for comes here
		case <-timeout:
			for _, t := range txns {
				b.t.Logf("%s: %s", t.id, t.raw)
			}
			b.t.Fatalf("%s did not come", what)
		}
	}
}

// bodies lists the messages that were taken, in order. A transaction that was
// taken already counts once, as for every appservice.
func bodies(txns []txn) []string {
	var list []string
	taken := map[string]bool{}
	for _, t := range txns {
		if t.refused || taken[t.id] {
			continue
		}
		taken[t.id] = true
		for _, e := range t.Events {
			if c, ok := e["content"].(map[string]any); ok && c["body"] != nil {
				list = append(list, fmt.Sprint(c["body"]))
			}
		}
	}
	return list
}

// untilSaid waits for a message.
func (b *bridge) untilSaid(text string) []txn {
	b.t.Helper()
	return b.until("the message "+text, func(txns []txn) bool {
		list := bodies(txns)
		return len(list) > 0 && list[len(list)-1] == text
	})
}

// refuse makes the next n transactions fail.
func (b *bridge) refuse(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = n
}

// listenURL serves h over HTTP and gives its address.
func listenURL(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}
