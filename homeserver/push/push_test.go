package push

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"switchboard/homeserver/account"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/fedclient"
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
)

// world is the pushers with everything below them, and a gateway.
type world struct {
	testing.TB
	*Service
	accounts  *account.Service
	ephemeral *ephemeral.Service
	gateway   *gateway
	stop      func()
}

// gateway is a push gateway that remembers what it was told.
type gateway struct {
	mu       sync.Mutex // guards all below
	told     []notification
	status   int
	run      string // of the pushers that are listened to, see start
	rejected []string
	asked    int // requests, refused ones too
	changed  chan struct{}
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Notification notification `json:"notification"`
	}
	err := json.NewDecoder(r.Body).Decode(&body)
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() { close(g.changed); g.changed = make(chan struct{}) }()
	g.asked++
	switch {
	case err != nil || r.Method != "POST" || r.URL.Path != "/_matrix/push/v1/notify" || r.Header.Get("Content-Type") != "application/json":
		w.WriteHeader(http.StatusBadRequest)
	case g.status != 0:
		w.WriteHeader(g.status)
	case r.Header.Get(runHeader) != g.run: // on its way since before the pushers were stopped
		w.WriteHeader(http.StatusBadGateway)
	default:
		g.told = append(g.told, body.Notification)
		fmt.Fprintf(w, `{"rejected":%s}`, must(json.Marshal(append([]string{}, g.rejected...))))
	}
}

// answer has the gateway answer with a status from now on, 0 for what is right, and
// reject push keys.
func (g *gateway) answer(status int, rejected ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.status, g.rejected = status, rejected
}

// runHeader tells the gateway which run of the pushers asks.
const runHeader = "X-Test-Run"

// labelled is a RoundTripper that says which run of the pushers asks.
type labelled string

// RoundTrip implements http.RoundTripper.
func (l labelled) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(runHeader, string(l))
	return http.DefaultTransport.RoundTrip(r)
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// until waits until the gateway has been told, or asked, as ok wants.
func (w *world) until(what string, ok func(g *gateway) bool) {
	w.Helper()
	deadline := time.After(3 * time.Minute)
	for {
		w.gateway.mu.Lock()
		done, changed := ok(w.gateway), w.gateway.changed
		w.gateway.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			w.gateway.mu.Lock()
			defer w.gateway.mu.Unlock()
			w.Fatalf("waited in vain: %s; the gateway was told %+v", what, w.gateway.told)
		}
	}
}

// want waits for the nth notification and gives it.
func (w *world) want(n int) notification {
	w.Helper()
	w.until(fmt.Sprint("notification ", n), func(g *gateway) bool { return len(g.told) > n })
	w.gateway.mu.Lock()
	defer w.gateway.mu.Unlock()
	return w.gateway.told[n]
}

func each(t *testing.T, f func(w *world)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		key, err := signing.Generate()
		if err != nil {
			t.Fatal(err)
		}
		bell := &notify.Bell{}
		config := account.DefaultConfig()
		config.Hash = account.Argon2{Memory: 64, Time: 1, Threads: 1}
		rooms := &room.Service{Store: st, Bell: bell, ServerName: "a.test", Key: key}
		w := &world{
			TB:        t,
			Service:   &Service{Store: st, Rooms: rooms, Unread: &unread.Service{Store: st, Rooms: rooms}, Bell: bell},
			accounts:  &account.Service{Store: st, Bell: bell, ServerName: "a.test", Config: config},
			ephemeral: &ephemeral.Service{Store: st, Bell: bell, NoPresence: true},
			gateway:   &gateway{changed: make(chan struct{})},
		}
		for _, u := range []string{"alice", "bob"} {
			if _, err := w.accounts.CreateUser(t.Context(), account.NewUser{Localpart: u, Password: "correct horse"}); err != nil {
				t.Fatal(err)
			}
		}
		w.start()
		t.Cleanup(func() { w.stop() })
		f(w)
	})
}

// start runs the pushers. What those before them asked the gateway, it may hear
// only now.
func (w *world) start() {
	run := rand.Text()
	w.gateway.mu.Lock()
	w.gateway.run = run
	w.gateway.mu.Unlock()
	w.Client = &http.Client{Transport: labelled(run)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.Run(ctx) // ends with ctx
	}()
	w.stop = func() { cancel(); <-done }
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// pusher makes a pusher of bob at a server.
func (w *world) pusher(key, more string) {
	w.Helper()
	server := httptest.NewServer(w.gateway)
	w.Cleanup(server.Close)
	w.ok(w.accounts.SetPusher(w.Context(), store.Pusher{
		User: bob, Device: "PHONE", AppID: "app", Pushkey: key, Kind: "http", AppName: "App", DeviceName: "Phone", Lang: "en",
		Data: json.RawMessage(fmt.Sprintf(`{"url":%q%s}`, server.URL+"/_matrix/push/v1/notify", more)),
	}, true))
}

// room makes a room of alice and bob.
func (w *world) room() matrix.RoomID {
	w.Helper()
	name := "Talk"
	id, err := w.Rooms.Create(w.Context(), room.Creation{Creator: alice, Preset: "public_chat", Name: &name})
	w.ok(err)
	w.ok(w.Rooms.Join(w.Context(), room.Change{Room: id, Actor: bob, Target: bob}))
	return id
}

func (w *world) say(user matrix.UserID, id matrix.RoomID, text string) matrix.EventID {
	w.Helper()
	e, err := w.Rooms.Send(w.Context(), room.Sending{User: user, Room: id, Type: "m.room.message", Content: must(json.Marshal(map[string]string{"msgtype": "m.text", "body": text}))})
	w.ok(err)
	return e
}

func TestPush(t *testing.T) {
	each(t, func(w *world) {
		w.ok(w.accounts.SetProfile(w.Context(), alice, "displayname", json.RawMessage(`"Alice"`)))
		id := w.room()
		w.say(alice, id, "before there was a pusher")
		w.say(bob, id, "my own") // who writes has read what is before
		w.pusher("key", `,"default_payload":{"aps":{}}`)
		first := w.say(alice, id, "one")
		n := w.want(0)
		d := n.Devices[0]
		if n.Event != first || n.Room != id || n.Sender != alice || n.SenderName != "Alice" || n.RoomName != "Talk" || n.Type != "m.room.message" ||
			!strings.Contains(string(n.Content), "one") || d.AppID != "app" || d.Pushkey != "key" || d.TS == 0 || d.Data["url"] != nil || d.Data["default_payload"] == nil {
			w.Errorf("told %+v", n)
		}
		if n.Counts.Unread != 1 {
			w.Errorf("badge %d, want 1", n.Counts.Unread)
		}
		second, err := w.Rooms.Send(w.Context(), room.Sending{User: alice, Room: id, Type: "m.room.message", Content: json.RawMessage(
			`{"msgtype":"m.text","body":"you!","m.mentions":{"user_ids":["@bob:a.test"]}}`)})
		w.ok(err)
		if n := w.want(1); n.Event != second || n.Prio != "high" || string(n.Devices[0].Tweaks["highlight"]) != "true" || d.Tweaks["highlight"] != nil || n.Counts.Unread != 2 {
			w.Errorf("of a mention the gateway is told %+v", n)
		}
		w.ok(w.ephemeral.SetMarks(w.Context(), bob, id, ephemeral.Mark{Type: ephemeral.Read, Event: second}))
		if n := w.want(2); n.Event != "" || n.Counts.Unread != 0 {
			w.Errorf("when all is read, the gateway is told %+v", n)
		} else if b := must(json.Marshal(n)); !bytes.Contains(b, []byte(`"counts":{"unread":0}`)) {
			w.Errorf("that all is read is not told: %s", b)
		}
		other, err := w.Rooms.Create(w.Context(), room.Creation{Creator: alice, Invite: []matrix.UserID{bob}})
		w.ok(err)
		if n := w.want(3); n.Type != "m.room.member" || n.Room != other || !n.Target || n.Counts.Unread != 1 {
			w.Errorf("of an invitation the gateway is told %+v", n)
		}
	})
}

func TestEventIDOnly(t *testing.T) {
	each(t, func(w *world) {
		id := w.room()
		w.pusher("key", `,"format":"event_id_only"`)
		e := w.say(alice, id, "secret")
		n := w.want(0)
		if n.Event != e || n.Room != id || n.Counts.Unread != 1 || n.Sender != "" || n.Content != nil || n.Type != "" || n.RoomName != "" || n.Devices[0].Tweaks != nil {
			w.Errorf("told %+v", n)
		}
	})
}

// TestGatewayAway: nothing is lost while a gateway answers nothing good, also
// over a restart, and nothing is told that was read meanwhile.
func TestGatewayAway(t *testing.T) {
	each(t, func(w *world) {
		id := w.room()
		w.pusher("key", "")
		w.gateway.answer(502)
		first := w.say(alice, id, "one")
		w.until("a request", func(g *gateway) bool { return g.asked > 0 })
		w.stop()
		second := w.say(alice, id, "two")
		w.ok(w.ephemeral.SetMarks(w.Context(), bob, id, ephemeral.Mark{Type: ephemeral.Read, Event: first}))
		w.gateway.answer(0)
		w.start()
		if n := w.want(0); n.Event != second || n.Counts.Unread != 1 {
			w.Errorf("told %+v, want %s alone", n, second)
		}
		third := w.say(alice, id, "three")
		if n := w.want(1); n.Event != third {
			w.Errorf("told %+v, want %s", n, third)
		}
	})
}

// TestMutedBefore: what the push rules muted when it came is not told by a server
// that begins again under other rules.
func TestMutedBefore(t *testing.T) {
	each(t, func(w *world) {
		rules := func(content string) {
			w.ok(w.Store.Update(w.Context(), func(tx *store.Tx) error {
				_, err := tx.PutAccountData(w.Context(), store.AccountData{User: bob, Type: "m.push_rules", Content: json.RawMessage(content)})
				return err
			}))
		}
		id := w.room()
		w.pusher("key", "")
		first := w.say(alice, id, "one")
		w.want(0)
		rules(`{"global":{"override":[{"rule_id":"mute","default":false,"enabled":true,"actions":[],
			"conditions":[{"kind":"event_match","key":"content.body","pattern":"psst"}]}]}}`)
		w.say(alice, id, "psst")
		w.ok(w.ephemeral.SetMarks(w.Context(), bob, id, ephemeral.Mark{Type: ephemeral.Read, Event: first}))
		if n := w.want(1); n.Event != "" || n.Counts.Unread != 0 {
			w.Errorf("when all that is loud is read, the gateway is told %+v", n)
		}
		w.stop()
		w.Unread = &unread.Service{Store: w.Store, Rooms: w.Rooms} // which remembers nothing
		rules(`{"global":{}}`)
		w.start()
		second := w.say(alice, id, "two")
		if n := w.want(2); n.Event != second {
			w.Errorf("told %+v, want %s", n, second)
		}
	})
}

// TestRetry: a gateway that comes back is told in order, once.
func TestRetry(t *testing.T) {
	each(t, func(w *world) {
		id := w.room()
		w.pusher("key", "")
		w.gateway.answer(500)
		ids := []matrix.EventID{w.say(alice, id, "one"), w.say(alice, id, "two"), w.say(alice, id, "three")}
		w.until("two attempts", func(g *gateway) bool { return g.asked > 1 })
		w.gateway.answer(0)
		for i, e := range ids {
			if n := w.want(i); n.Event != e {
				w.Errorf("notification %d is of %s, want %s", i, n.Event, e)
			}
		}
	})
}

func TestRejected(t *testing.T) {
	each(t, func(w *world) {
		id := w.room()
		w.pusher("gone", "")
		w.pusher("there", "")
		w.gateway.answer(0, "gone")
		w.say(alice, id, "one")
		w.until("both were told", func(g *gateway) bool { return len(g.told) == 2 })
		for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
			list, err := w.Store.Pushers(w.Context(), bob)
			w.ok(err)
			if len(list) == 1 && list[0].Pushkey == "there" {
				break
			}
			if time.Now().After(deadline) {
				w.Fatalf("pushers %+v", list)
			}
		}
		w.say(alice, id, "two")
		if n := w.want(2); n.Devices[0].Pushkey != "there" {
			w.Errorf("told %+v", n)
		}
	})
}

// TestPusherBack: a pusher that is gone and back before anybody looks gets another
// worker.
func TestPusherBack(t *testing.T) {
	each(t, func(w *world) {
		w.stop()
		ctx, cancel := context.WithCancel(w.Context())
		var group sync.WaitGroup
		defer group.Wait()
		defer cancel()
		id := w.room()
		w.pusher("key", "")
		running := map[key]*worker{}
		employ := func() {
			list, err := w.Store.AllPushers(w.Context())
			w.ok(err)
			w.employ(ctx, list, running, &group)
		}
		employ()
		w.ok(w.Store.Update(w.Context(), func(tx *store.Tx) error { return tx.DeletePusher(w.Context(), bob, "app", "key") }))
		w.say(alice, id, "one")
		group.Wait() // the first one notices
		w.pusher("key", "")
		second := w.say(alice, id, "two")
		employ()
		if n := w.want(0); n.Event != second {
			w.Errorf("told %+v, want %s", n, second)
		}
	})
}

// TestStuckGateway: one user's gateway that never answers does not keep another
// one from being told.
func TestStuckGateway(t *testing.T) {
	each(t, func(w *world) {
		id := w.room()
		hung := make(chan struct{})
		stuck := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hung }))
		defer stuck.Close()
		defer close(hung)
		w.ok(w.accounts.SetPusher(w.Context(), store.Pusher{
			User: bob, Device: "OLD", AppID: "app", Pushkey: "stuck", Kind: "http", AppName: "App", DeviceName: "Old", Lang: "en",
			Data: json.RawMessage(fmt.Sprintf(`{"url":%q}`, stuck.URL+"/_matrix/push/v1/notify")),
		}, true))
		w.pusher("key", "")
		e := w.say(alice, id, "one")
		if n := w.want(0); n.Event != e {
			w.Errorf("told %+v", n)
		}
	})
}

// TestPrivateGateway: a user cannot make the server ask its own network.
func TestPrivateGateway(t *testing.T) {
	each(t, func(w *world) {
		w.stop()
		w.Client = fedclient.NewDialer(fedclient.DefaultOutboundConfig(), nil).Client(time.Minute)
		id := w.room()
		w.pusher("key", "")
		w.say(alice, id, "one")
		list, err := w.Store.AllPushers(w.Context())
		w.ok(err)
		worker := &worker{Service: w.Service, pusher: list[0], stop: func() {}}
		worker.pusher.Pos-- // the message is behind it
		if err := worker.turn(w.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
			w.Errorf("asking a gateway on this computer: %v", err)
		}
		w.gateway.mu.Lock()
		defer w.gateway.mu.Unlock()
		if w.gateway.asked > 0 {
			w.Error("the gateway on this computer was asked")
		}
	})
}

// TestComesMeanwhile: what comes while the pusher looks waits for the next look,
// also where a sync has counted it already: else what came before it in another
// room would be passed over.
func TestComesMeanwhile(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.room(), w.room()
		upto := w.Store.Position()
		pusher := &worker{Service: w.Service, pusher: store.Pusher{User: bob, Pos: upto}}
		want := []matrix.EventID{w.say(alice, b, "one"), w.say(alice, a, "two")}
		r, err := w.Store.Room(w.Context(), a)
		w.ok(err)
		_, err = w.Unread.Notes(w.Context(), r, bob, w.Store.Position()) // by a sync
		w.ok(err)
		third, err := w.Rooms.Create(w.Context(), room.Creation{Creator: alice, Preset: "private_chat", Invite: []matrix.UserID{bob}})
		w.ok(err)
		r, err = w.Store.Room(w.Context(), third)
		w.ok(err)
		invite, err := w.Store.EventByNum(w.Context(), w.Store.Membership(bob, r.Num).Event)
		w.ok(err)
		want = append(want, invite.PDU.ID)
		if items, err := pusher.look(w.Context(), upto); err != nil || len(items) > 0 {
			w.Errorf("told %v, %v up to a place before", items, err)
		}
		items, err := pusher.look(w.Context(), w.Store.Position())
		w.ok(err)
		var got []matrix.EventID
		for _, it := range items {
			got = append(got, it.event.PDU.ID)
		}
		if !slices.Equal(got, want) {
			w.Errorf("told %v, want %v", got, want)
		}
	})
}
