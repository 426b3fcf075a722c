package clientapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"switchboard/homeserver/account"
	"switchboard/homeserver/clientsync"
	"switchboard/homeserver/delayed"
	"switchboard/homeserver/directory"
	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/federation"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/search"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/unread"
	"switchboard/registrations"
)

// server is the real API over a real store, as one client sees it.
type server struct {
	t       *testing.T
	handler http.Handler
	api     *API
	st      *store.Store
	bell    *notify.Bell

	user    matrix.UserID // who asks, "" for nobody
	token   string
	device  matrix.DeviceID
	address string // of the client
}

// The password of all users of the tests.
const password = "correct horse"

// start serves a.test with the user alice, who asks. Change may alter the API
// before it serves.
func start(t *testing.T, st *store.Store, change ...func(*API)) *server {
	t.Helper()
	return prepare(t, st, change...).new("alice")
}

// prepare is start without a user.
func prepare(t *testing.T, st *store.Store, change ...func(*API)) *server {
	t.Helper()
	const name = matrix.ServerName("a.test")
	bell := &notify.Bell{}
	config := account.DefaultConfig()
	config.Mode, config.Hash = account.Open, account.Argon2{Memory: 64, Time: 1, Threads: 1} // cheap
	key, err := signing.Generate()
	if err != nil {
		t.Fatal(err)
	}
	set := registrations.NewSet(string(name))
	rooms := &room.Service{Store: st, Bell: bell, ServerName: name, Key: key, Config: room.Config{DefaultVersion: matrix.DefaultRoomVersion}}
	keys := &e2ee.Service{Store: st, Bell: bell, ServerName: name}
	fleeting := &ephemeral.Service{Store: st, Bell: bell}
	counts := &unread.Service{Store: st, Rooms: rooms}
	api := &API{
		ServerName: name, Rooms: rooms, Keys: keys, Ephemeral: fleeting,
		Accounts:   &account.Service{Store: st, Bell: bell, ServerName: name, Config: config, Appservices: set},
		Directory:  &directory.Service{Store: st, Rooms: rooms, ServerName: name, Registrations: set},
		Federation: &federation.Service{Store: st, Bell: bell, Rooms: rooms, ServerName: name},
		Unread:     counts,
		Delayed:    &delayed.Service{Store: st, Rooms: rooms, Bell: bell},
		Search:     &search.Service{Store: st, Rooms: rooms, Bell: bell},
		Sync:       &clientsync.Service{Store: st, Rooms: rooms, Unread: counts, Bell: bell, Keys: keys, Ephemeral: fleeting},
	}
	for _, f := range change {
		f(api)
	}
	return &server{t: t, handler: api.Handler(), api: api, st: st, bell: bell, address: "192.0.2.1:5000"}
}

// new makes a user and is that user.
func (s *server) new(localpart string) *server {
	s.t.Helper()
	if _, err := s.api.Accounts.CreateUser(s.t.Context(), account.NewUser{Localpart: localpart, Password: password}); err != nil {
		s.t.Fatal(err)
	}
	return s.as(localpart)
}

// as is a user with a new session.
func (s *server) as(localpart string) *server {
	s.t.Helper()
	by := account.Credentials{User: localpart, Password: password}
	t, err := s.api.Accounts.LoginPassword(s.t.Context(), by, account.Login{}, account.Client{})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.with(t.User, t.Access, t.Device)
}

// with is somebody with a token.
func (s *server) with(user matrix.UserID, token string, device matrix.DeviceID) *server {
	other := *s
	other.user, other.token, other.device = user, token, device
	return &other
}

// nobody has no token.
func (s *server) nobody() *server { return s.with("", "", "") }

// appservice puts a registration in force and is its sender. It owns @irc_….
func (s *server) appservice(id string) *server {
	s.t.Helper()
	reg, err := registrations.Generate(registrations.Registration{
		ID: id, SenderLocalpart: id + "bot", RateLimited: true,
		Users: []registrations.Namespace{{Regex: "@" + id + "_.*", Exclusive: true}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.api.Accounts.Appservices.Replace(append(s.api.Accounts.Appservices.All(), reg)); err != nil {
		s.t.Fatal(err)
	}
	return s.with(matrix.UserID(reg.Sender("a.test")), reg.ASToken, "")
}

// do asks and gives the answer.
func (s *server) do(method, path, body string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), method, path, strings.NewReader(body))
	r.RemoteAddr = s.address
	if s.token != "" {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// want asks and compares the answer: its status, and the body, which must be
// want if that is a JSON object, and otherwise hold it. It returns the body.
func (s *server) want(status int, want, method, path, body string) answer {
	s.t.Helper()
	w := s.do(method, path, body)
	got := w.Body.String()
	same := strings.Contains(got, want)
	if strings.HasPrefix(want, "{") {
		same = got == want
	}
	if w.Code != status || !same {
		s.t.Errorf("%s %s %.300s\ngot  %d %s\nwant %d %s", method, path, body, w.Code, got, status, want)
	}
	if typ := w.Header().Get("Content-Type"); typ != "application/json" {
		s.t.Errorf("%s %s: Content-Type %q", method, path, typ)
	}
	var a answer
	if err := json.Unmarshal([]byte(got), &a); err != nil {
		s.t.Errorf("%s %s: the answer is not JSON: %s", method, path, got)
	}
	return a
}

// answer is the body of an answer.
type answer map[string]any

// at gives the value at a path of keys, nil if there is none.
func (a answer) at(keys ...string) any {
	var v any = map[string]any(a)
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}

// text is at for a text, "" if there is none.
func (a answer) text(keys ...string) string {
	s, _ := a.at(keys...).(string)
	return s
}
