package clientsync

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"switchboard/homeserver/account"
	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
	"switchboard/homeserver/unread"
)

const (
	alice = matrix.UserID("@alice:a.test")
	bob   = matrix.UserID("@bob:a.test")
	carol = matrix.UserID("@carol:a.test")
)

// world is the sync service with everything below it, on a real store.
type world struct {
	testing.TB
	*Service
	accounts *account.Service
	stop     chan struct{}
}

// each runs f on both databases.
func each(t *testing.T, f func(w *world)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, st *store.Store) { f(newWorld(t, st)) })
}

func newWorld(t testing.TB, st *store.Store) *world {
	t.Helper()
	key, err := signing.Generate()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, stop: make(chan struct{})}
	bell := &notify.Bell{}
	config := account.DefaultConfig()
	config.Hash = account.Argon2{Memory: 64, Time: 1, Threads: 1} // cheap
	w.accounts = &account.Service{Store: st, Bell: bell, ServerName: "a.test", Config: config}
	w.Service = &Service{
		Store: st, Bell: bell, Stopping: w.stop,
		Rooms:     &room.Service{Store: st, Bell: bell, ServerName: "a.test", Key: key},
		Keys:      &e2ee.Service{Store: st, Bell: bell, ServerName: "a.test"},
		Ephemeral: &ephemeral.Service{Store: st, Bell: bell, NoPresence: true},
	}
	w.Unread = &unread.Service{Store: st, Rooms: w.Rooms}
	for _, u := range []string{"alice", "bob", "carol"} {
		w.newUser(u)
	}
	return w
}

// restart replaces the services by new ones on the same store.
func (w *world) restart() {
	old := w.Service
	w.Service = &Service{
		Store: old.Store, Bell: old.Bell, Stopping: w.stop,
		Rooms:     &room.Service{Store: old.Store, Bell: old.Bell, ServerName: "a.test", Key: old.Rooms.Key},
		Keys:      &e2ee.Service{Store: old.Store, Bell: old.Bell, ServerName: "a.test"},
		Ephemeral: &ephemeral.Service{Store: old.Store, Bell: old.Bell, NoPresence: true},
	}
	w.Unread = &unread.Service{Store: old.Store, Rooms: w.Rooms}
}

func (w *world) ctx() context.Context { return w.TB.Context() }

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) newUser(localpart string) {
	w.Helper()
	_, err := w.accounts.CreateUser(w.ctx(), account.NewUser{Localpart: localpart, Password: "correct horse"})
	w.ok(err)
}

// create makes a room of alice with members.
func (w *world) create(c room.Creation, members ...matrix.UserID) matrix.RoomID {
	w.Helper()
	c.Creator = alice
	c.Preset = cmp.Or(c.Preset, "public_chat")
	id, err := w.Rooms.Create(w.ctx(), c)
	w.ok(err)
	for _, u := range members {
		w.join(u, id)
	}
	return id
}

func (w *world) join(u matrix.UserID, id matrix.RoomID) {
	w.Helper()
	w.ok(w.Rooms.Join(w.ctx(), room.Change{Room: id, Actor: u}))
}

func (w *world) leave(u matrix.UserID, id matrix.RoomID) {
	w.Helper()
	w.ok(w.Rooms.Leave(w.ctx(), room.Change{Room: id, Actor: u}))
}

func (w *world) invite(u matrix.UserID, id matrix.RoomID) {
	w.Helper()
	w.ok(w.Rooms.Invite(w.ctx(), room.Change{Room: id, Actor: alice, Target: u}))
}

// send sends a message with a content and gives its ID.
func (w *world) send(u matrix.UserID, id matrix.RoomID, content string) matrix.EventID {
	w.Helper()
	e, err := w.Rooms.Send(w.ctx(), room.Sending{User: u, Room: id, Type: "m.room.message", Content: json.RawMessage(content)})
	w.ok(err)
	return e
}

// say sends a text and gives its ID.
func (w *world) say(u matrix.UserID, id matrix.RoomID, text string) matrix.EventID {
	w.Helper()
	b, err := json.Marshal(map[string]string{"msgtype": "m.text", "body": text})
	w.ok(err)
	return w.send(u, id, string(b))
}

// state sends a state event.
func (w *world) state(u matrix.UserID, id matrix.RoomID, typ, key, content string) {
	w.Helper()
	_, err := w.Rooms.Send(w.ctx(), room.Sending{User: u, Room: id, Type: typ, StateKey: &key, Content: json.RawMessage(content)})
	w.ok(err)
}

// topic changes the topic of a room of alice.
func (w *world) topic(id matrix.RoomID, text string) {
	w.Helper()
	w.state(alice, id, "m.room.topic", "", `{"topic":"`+text+`"}`)
}

// refused checks that err has a code.
func (w *world) refused(err error, code matrix.Code) {
	w.Helper()
	var e *matrix.Error
	if !errors.As(err, &e) || e.Code != code {
		w.Errorf("got %v, want %s", err, code)
	}
}

// client is one device that follows by syncs.
type client struct {
	*world
	user   matrix.UserID
	device matrix.DeviceID
	since  string

	// What it asks for.
	filter string
	full   bool
	after  bool
}

// client is a new device of a user, with a filter or "".
func (w *world) client(u matrix.UserID, filter string) *client {
	w.Helper()
	t, err := w.accounts.LoginPassword(w.ctx(), account.Credentials{User: string(u), Password: "correct horse"}, account.Login{}, account.Client{})
	w.ok(err)
	return &client{world: w, user: u, device: t.Device, filter: filter}
}

// request is the next sync of the client.
func (c *client) request() Request {
	c.Helper()
	f, err := ParseFilter([]byte(c.filter))
	c.ok(err)
	return Request{User: c.user, Device: c.device, Since: c.since, Filter: f, FullState: c.full, StateAfter: c.after}
}

// sync asks once and does not wait.
func (c *client) sync() *Answer {
	c.Helper()
	a, err := c.Sync(c.ctx(), c.request())
	c.ok(err)
	c.since = a.NextBatch
	return a
}

// poll asks and waits up to a time. The answer comes on the channel.
func (c *client) poll(timeout time.Duration) <-chan *Answer {
	c.Helper()
	r := c.request()
	r.Timeout = timeout
	done := make(chan *Answer, 1)
	go func() {
		a, err := c.Sync(c.ctx(), r)
		if err != nil {
			c.Error(err)
		}
		done <- a
	}()
	return done
}

// window is a request of sliding sync as Element X makes them: rooms up to one of
// the list, and all extensions.
func (c *client) window(pos string, last int) Window {
	var state RequiredState
	for _, typ := range []string{"m.room.name", "m.room.encryption", "m.room.power_levels", "m.room.canonical_alias", "m.room.create"} {
		state.Include = append(state.Include, StateMatch{Type: &typ, Key: new("")})
	}
	state.Lazy = true
	list := List{RoomConfig: RoomConfig{Limit: 1, State: state, Text: "x"}, Ranges: [][2]int{{0, last}}, Filters: RoomSieve{NotTypes: []*string{new("m.space")}}}
	return Window{
		User: c.user, Device: c.device, Pos: pos, Lists: map[string]List{"all_rooms": list},
		Extensions: Extensions{
			ToDevice: &ToDeviceExtension{}, E2EE: &Extension{}, AccountData: &Extension{}, Receipts: &Extension{}, Typing: &Extension{}, Threads: &ThreadsExtension{},
		},
	}
}

// in gives a room the client is in; an empty one if it is not in the answer.
func (a *Answer) in(id matrix.RoomID) *joined {
	if a.Rooms == nil || a.Rooms.Join[id] == nil {
		return &joined{}
	}
	return a.Rooms.Join[id]
}

// out is in for a room the client has left.
func (a *Answer) out(id matrix.RoomID) *joined {
	if a.Rooms == nil || a.Rooms.Leave[id] == nil {
		return &joined{}
	}
	return a.Rooms.Leave[id]
}

// seenEvent is an event as a client reads it.
type seenEvent struct {
	Type     string         `json:"type"`
	ID       matrix.EventID `json:"event_id"`
	Sender   matrix.UserID  `json:"sender"`
	StateKey *string        `json:"state_key"`
	Content  map[string]any `json:"content"`
	Unsigned map[string]any `json:"unsigned"`
}

// read decodes events.
func read(t testing.TB, list []json.RawMessage) []seenEvent {
	t.Helper()
	events := make([]seenEvent, len(list))
	for i, raw := range list {
		if err := json.Unmarshal(raw, &events[i]); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
	}
	return events
}

// String says in a word what the event is: the text of a message, who became
// what, or the type.
func (e seenEvent) String() string {
	text := func(key string) string { s, _ := e.Content[key].(string); return s }
	switch e.Type {
	case "m.room.message":
		return cmp.Or(text("body"), "(redacted)")
	case "m.room.member":
		return strings.Split(*e.StateKey, ":")[0] + ":" + text("membership")
	case "m.room.topic":
		return "topic:" + text("topic")
	}
	return strings.TrimPrefix(e.Type, "m.room.")
}

// words describes events in order.
func (w *world) words(list []json.RawMessage) string {
	w.Helper()
	var words []string
	for _, e := range read(w, list) {
		words = append(words, e.String())
	}
	return strings.Join(words, " ")
}

// timeline describes the timeline of a room.
func (w *world) timeline(j *joined) string {
	w.Helper()
	if j.Timeline == nil {
		return "(none)"
	}
	s := w.words(j.Timeline.Events)
	if j.Timeline.Limited {
		s = strings.TrimSpace("… " + s)
	}
	return s
}

// stated describes the state of a room in order of the words.
func (w *world) stated(e *events) string {
	w.Helper()
	if e == nil {
		return ""
	}
	words := strings.Fields(w.words(e.Events))
	slices.Sort(words)
	return strings.Join(words, " ")
}

// want compares two texts.
func (w *world) want(what, got, want string) {
	w.Helper()
	if got != want {
		w.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// text encodes as JSON.
func text(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func contains(s, part string) bool { return strings.Contains(s, part) }

// putRules writes a user's push rules.
func putRules(w *world, u matrix.UserID, rules string) func(tx *store.Tx) error {
	return func(tx *store.Tx) error {
		_, err := tx.PutAccountData(w.ctx(), store.AccountData{User: u, Type: "m.push_rules", Content: json.RawMessage(rules)})
		return err
	}
}

func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }
