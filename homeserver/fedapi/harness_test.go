package fedapi

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"switchboard/homeserver/account"
	"switchboard/homeserver/blob"
	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/directory"
	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/federation"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/media"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
	"switchboard/registrations"
)

// host is a whole server behind real TLS on loopback. Its name is its address.
type host struct {
	testing.TB
	name      matrix.ServerName
	key       signing.Key
	url       string // of its database
	authority string // file
	limits    federation.Config
	deny      []string // servers
	blobs     *blob.Disk
	db        *database.DB
	st        *store.Store
	bell      *notify.Bell
	rooms     *room.Service
	accounts  *account.Service
	keys      *e2ee.Service
	ephemeral *ephemeral.Service
	fed       *federation.Service
	media     *media.Service
	directory *directory.Service
	client    *fedclient.Client
	api       *API
	http      *http.Client
	front     http.Handler // what the listener serves; the API where nothing else is said
}

// together runs f with n servers; the first one is on each database.
func together(t *testing.T, n int, f func(t *testing.T, hosts []*host)) {
	t.Helper()
	databasetest.EachURL(t, func(t *testing.T, url string) {
		hosts := []*host{newHost(t, url)}
		for len(hosts) < n {
			hosts = append(hosts, newHost(t, databasetest.SQLite(t)))
		}
		f(t, hosts)
	})
}

func newHost(t testing.TB, url string) *host {
	t.Helper()
	h := &host{TB: t, url: url}
	dir := t.TempDir() // goes when the server has gone
	listener := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.front.ServeHTTP(w, r) }))
	listener.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.front = http.NotFoundHandler()
	listener.StartTLS()
	t.Cleanup(func() { // what is worked on needs the database to the end
		listener.CloseClientConnections()
		listener.Close()
		h.close()
	})
	h.http = listener.Client()
	h.name = matrix.ServerName(strings.TrimPrefix(listener.URL, "https://"))
	var err error
	h.key, err = signing.Generate()
	h.ok(err)
	h.authority = filepath.Join(dir, "ca.pem")
	h.ok(os.WriteFile(h.authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: listener.Certificate().Raw}), 0o600))
	h.blobs, err = blob.OpenDisk(t.TempDir())
	h.ok(err)
	h.limits = federation.DefaultConfig()
	h.open()
	h.front = h.api.Handler()
	return h
}

// open starts the server on its database.
func (h *host) open() {
	h.Helper()
	var err error
	h.db, err = database.Open(h.ctx(), h.url, database.Options{Volatile: true, WriteTimeout: 10 * time.Minute})
	h.ok(err)
	h.st, err = store.New(h.ctx(), h.db, storetest.Budget)
	h.ok(err)
	h.bell = &notify.Bell{}
	c := fedclient.DefaultConfig()
	c.DenyServers, c.Notaries, c.RootCA, c.RetryFirst, c.RetryMost = h.deny, nil, h.authority, 20*time.Millisecond, 100*time.Millisecond
	out := fedclient.DefaultOutboundConfig()
	out.ConnectTimeout = time.Minute
	out.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	h.client, err = fedclient.New(c, h.name, h.key, fedclient.NewDialer(out, nil), h.st, h.bell)
	h.ok(err)
	h.wire()
}

// close ends it without a farewell.
func (h *host) close() {
	h.client.Close()
	if err := h.db.Close(); err != nil {
		h.Errorf("close the database: %v", err)
	}
}

// wire makes the services as the facade does.
func (h *host) wire() {
	set := registrations.NewSet(string(h.name))
	config := account.DefaultConfig()
	config.Mode, config.Hash = account.Open, account.Argon2{Memory: 64, Time: 1, Threads: 1} // cheap
	ring := fedclient.NewKeyRing(h.client)
	h.accounts = &account.Service{Store: h.st, Bell: h.bell, ServerName: h.name, Config: config, Appservices: set}
	h.keys = &e2ee.Service{Store: h.st, Bell: h.bell, ServerName: h.name, Client: h.client}
	h.ephemeral = &ephemeral.Service{Store: h.st, Bell: h.bell}
	h.rooms = &room.Service{Store: h.st, Bell: h.bell, ServerName: h.name, Key: h.key}
	h.media = media.New(h.st, h.bell, h.blobs, h.name, media.DefaultConfig())
	h.directory = &directory.Service{Store: h.st, Rooms: h.rooms, ServerName: h.name, Registrations: set, Client: h.client}
	h.fed = &federation.Service{
		Store: h.st, Bell: h.bell, Rooms: h.rooms, Client: h.client, Keys: ring, Accounts: h.accounts, Encryption: h.keys, Ephemeral: h.ephemeral,
		ServerName: h.name, Config: h.limits, VetTime: 2 * time.Minute,
	}
	h.rooms.Vet = h.fed.Vet
	h.api = &API{
		ServerName: h.name, Federation: h.fed, KeyRing: ring, Accounts: h.accounts, Directory: h.directory, Encryption: h.keys, Media: h.media,
	}
}

func (h *host) ctx() context.Context { return h.Context() }

func (h *host) ok(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// refused checks that err has a code, whether it is ours or another server's.
func (h *host) refused(err error, code matrix.Code) {
	h.Helper()
	var e *matrix.Error
	var r *fedclient.ResponseError
	if errors.As(err, &r) {
		e = &matrix.Error{Code: r.Code, Text: r.Text, Status: r.Status} // as the other server said it
	} else {
		errors.As(err, &e)
	}
	if e == nil || e.Code != code {
		h.Fatalf("got %v, want %s", err, code)
	}
}

// user makes a user.
func (h *host) user(localpart string) matrix.UserID {
	h.Helper()
	id, err := h.accounts.CreateUser(h.ctx(), account.NewUser{Localpart: localpart, Password: "correct horse"})
	h.ok(err)
	return id
}

// public makes a public room.
func (h *host) public(creator matrix.UserID, version string) matrix.RoomID {
	h.Helper()
	id, err := h.rooms.Create(h.ctx(), room.Creation{Creator: creator, Version: version, Preset: "public_chat"})
	h.ok(err)
	return id
}

func (h *host) join(user matrix.UserID, id matrix.RoomID, by *host) {
	h.Helper()
	h.ok(h.fed.Join(h.ctx(), room.Change{Room: id, Actor: user}, []matrix.ServerName{by.name}))
}

// say sends a text and gives its event.
func (h *host) say(user matrix.UserID, id matrix.RoomID, text string) *event.PDU {
	h.Helper()
	content, err := json.Marshal(map[string]string{"msgtype": "m.text", "body": text})
	h.ok(err)
	return h.send(user, id, "m.room.message", nil, string(content))
}

func (h *host) send(user matrix.UserID, id matrix.RoomID, typ string, key *string, content string) *event.PDU {
	h.Helper()
	e, err := h.rooms.Send(h.ctx(), room.Sending{User: user, Room: id, Type: typ, StateKey: key, Content: json.RawMessage(content)})
	h.ok(err)
	return h.event(e)
}

func (h *host) state(user matrix.UserID, id matrix.RoomID, typ, content string) *event.PDU {
	h.Helper()
	return h.send(user, id, typ, new(string), content)
}

func (h *host) event(id matrix.EventID) *event.PDU {
	h.Helper()
	e, err := h.st.Event(h.ctx(), id)
	h.ok(err)
	return e.PDU
}

// membership is what a user is in a room, as this server knows.
func (h *host) membership(user matrix.UserID, id matrix.RoomID) string {
	h.Helper()
	r, err := h.st.Room(h.ctx(), id)
	h.ok(err)
	e, err := h.rooms.StateEvent(h.ctx(), r.Current, event.TypeMember, string(user))
	h.ok(err)
	if e == nil {
		return ""
	}
	return e.PDU.Membership()
}

// texts are the bodies of the messages in a room in the order of its timeline.
func (h *host) texts(id matrix.RoomID) string {
	h.Helper()
	r, err := h.st.Room(h.ctx(), id)
	h.ok(err)
	list, err := h.st.Newest(h.ctx(), r.Num, -1<<60, r.Last, 1000)
	h.ok(err)
	var texts []string
	for _, e := range list {
		if e.PDU.Type == "m.room.message" {
			texts = append(texts, e.PDU.ContentString("body"))
		}
	}
	return strings.Join(texts, " ")
}

// stateOf is the state of a room as text.
func (h *host) stateOf(id matrix.RoomID) string {
	h.Helper()
	r, err := h.st.Room(h.ctx(), id)
	h.ok(err)
	events, err := h.rooms.StateEvents(h.ctx(), r.Current)
	h.ok(err)
	var list []string
	for _, e := range events {
		list = append(list, fmt.Sprintf("%s %q %s", e.PDU.Type, *e.PDU.StateKey, e.PDU.ID))
	}
	slices.Sort(list)
	return strings.Join(list, "\n")
}

// push sends events and messages to another server, and gives its results.
func (h *host) push(to *host, pdus []*event.PDU, edus ...fedclient.EDU) map[matrix.EventID]string {
	h.Helper()
	t := fedclient.Transaction{ID: fmt.Sprint(time.Now().UnixNano()), OriginServerTS: 1, EDUs: edus}
	for _, p := range pdus {
		t.PDUs = append(t.PDUs, p.JSON)
	}
	results, err := h.client.Send(h.ctx(), to.name, t)
	h.ok(err)
	return results
}

// tell pushes events that must be taken.
func (h *host) tell(to *host, pdus ...*event.PDU) {
	h.Helper()
	for id, err := range h.push(to, pdus) {
		if err != "" {
			h.Fatalf("%s: %s", id, err)
		}
	}
}

// ask makes a signed request with a body that may be no JSON at all, and gives
// the answer and its status.
func (h *host) ask(to *host, method, path, body string) (int, map[string]json.RawMessage) {
	h.Helper()
	return h.request(to, method, path, body, h.header(to, method, path, body))
}

// header is the signature of a request; none where the body is no JSON that can be
// signed.
func (h *host) header(to *host, method, path, body string) string {
	h.Helper()
	canonical, err := canonjson.Relaxed([]byte(body))
	if err != nil && body != "" {
		return ""
	}
	object := map[string]any{"method": method, "uri": path, "origin": h.name, "destination": to.name}
	if body != "" {
		object["content"] = json.RawMessage(canonical)
	}
	raw, err := json.Marshal(object)
	h.ok(err)
	signed, err := signing.SignJSON(raw, h.name, h.key)
	if err != nil {
		return ""
	}
	var s struct {
		Signatures map[matrix.ServerName]map[string]string
	}
	h.ok(json.Unmarshal(signed, &s))
	return fmt.Sprintf(`X-Matrix origin="%s",destination="%s",key="%s",sig="%s"`, h.name, to.name, h.key.ID, s.Signatures[h.name][h.key.ID])
}

// request makes a request as it is.
func (h *host) request(to *host, method, path, body, authorization string) (int, map[string]json.RawMessage) {
	h.Helper()
	r, err := http.NewRequestWithContext(h.ctx(), method, "https://"+string(to.name)+path, bytes.NewReader([]byte(body)))
	h.ok(err)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	resp, err := to.http.Do(r)
	h.ok(err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	h.ok(err)
	var answer map[string]json.RawMessage
	if err := json.Unmarshal(raw, &answer); err != nil {
		answer = map[string]json.RawMessage{"": raw}
	}
	return resp.StatusCode, answer
}

// want checks the status of a signed request, and the errcode where it is not
// 200, and gives the answer.
func (h *host) want(to *host, status int, code matrix.Code, method, path, body string) map[string]json.RawMessage {
	h.Helper()
	got, answer := h.ask(to, method, path, body)
	var errcode string
	json.Unmarshal(answer["errcode"], &errcode)
	if got != status || errcode != string(code) {
		h.Errorf("%s %s: %d %s %s, want %d %s", method, path, got, errcode, answer["error"], status, code)
	}
	return answer
}
