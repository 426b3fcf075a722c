package fedsender

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/fedclient/fedclienttest"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

const (
	us    = matrix.ServerName("a.test")
	alice = matrix.UserID("@alice:a.test")
)

// other is another server, which writes down what it is sent.
type other struct {
	name matrix.ServerName

	mu    sync.Mutex
	down  bool
	asked int      // how often it was sent something
	got   []string // "body" of messages and types of other events and EDUs, in order
}

// ServeHTTP takes transactions.
func (o *other) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	if o.down || !strings.HasPrefix(r.URL.Path, "/_matrix/federation/v1/send/") {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var t struct {
		PDUs []struct {
			Type    string
			Content struct{ Body string }
		}
		EDUs []struct {
			Type string `json:"edu_type"`
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&t); err != nil || len(t.PDUs) > fedclient.MaxPDUs || len(t.EDUs) > fedclient.MaxEDUs {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, p := range t.PDUs {
		if p.Type == "m.room.message" {
			p.Type = p.Content.Body
		}
		o.got = append(o.got, p.Type)
	}
	for _, e := range t.EDUs {
		o.got = append(o.got, e.Type)
	}
	fmt.Fprint(w, `{"pdus":{}}`)
}

func (o *other) set(down bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.down = down
}

// waitFor waits until what the server got ends with want.
func (o *other) waitFor(t *testing.T, want ...string) {
	t.Helper()
	t.Logf("%s should have %q at the end", o.name, want)
	o.waitUntil(t, func(got []string) bool { return len(got) >= len(want) && slices.Equal(got[len(got)-len(want):], want) })
}

// waitUntil waits until the server got what it should.
func (o *other) waitUntil(t *testing.T, enough func(got []string) bool) {
	t.Helper()
	var got []string
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		o.mu.Lock()
		got = slices.Clone(o.got)
		o.mu.Unlock()
		if enough(got) {
			return
		}
	}
	t.Fatalf("%s got %q", o.name, got)
}

// world is a server with a sender.
type world struct {
	*testing.T
	*Service
	rooms *room.Service
	other *other
}

func each(t *testing.T, f func(w *world)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		key, err := signing.Generate()
		if err != nil {
			t.Fatal(err)
		}
		o := &other{}
		o.name = fedclienttest.Server(t, o)
		bell := &notify.Bell{}
		f(&world{T: t, other: o,
			Service: &Service{Store: st, Client: fedclienttest.Client(t, us, st), Bell: bell, ServerName: us,
				Keys: &e2ee.Service{Store: st, Bell: bell, ServerName: us}, Ephemeral: &ephemeral.Service{Store: st, Bell: bell}},
			rooms: &room.Service{Store: st, Bell: bell, ServerName: us, Key: key},
		})
	})
}

// run lets the sender run until the function it gives is called.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- w.Service.Run(ctx) }()
	for known := false; !known; time.Sleep(time.Millisecond) { // it has begun
		var err error
		_, known, err = w.Store.Destination(w.Context(), everybody)
		w.ok(err)
	}
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	})
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// shared makes a room in which a user of the other server is, too.
func (w *world) shared() matrix.RoomID {
	w.Helper()
	ctx := w.Context()
	id, err := w.rooms.Create(ctx, room.Creation{Creator: alice, Preset: "public_chat"})
	w.ok(err)
	dave := matrix.NewUserID("dave", w.other.name)
	t, err := w.rooms.Template(ctx, id, dave, "join", nil)
	w.ok(err)
	var e struct {
		Content json.RawMessage
		Depth   int64
		Prev    []matrix.EventID `json:"prev_events"`
		Auth    []matrix.EventID `json:"auth_events"`
	}
	w.ok(json.Unmarshal(t.Event, &e))
	key, err := signing.Generate()
	w.ok(err)
	member := string(dave)
	p, err := event.Build(t.Version, event.Draft{Room: id, Type: "m.room.member", Sender: dave, StateKey: &member, Content: e.Content,
		Depth: e.Depth, PrevEvents: e.Prev, AuthEvents: e.Auth, OriginServerTS: time.Now().UnixMilli()}, w.other.name, key)
	w.ok(err)
	status, err := w.rooms.Receive(ctx, p)
	w.ok(err)
	if status != store.Accepted {
		w.Fatalf("the join of dave has status %d", status)
	}
	return id
}

func (w *world) say(id matrix.RoomID, text string) {
	w.Helper()
	_, err := w.rooms.Send(w.Context(), room.Sending{User: alice, Room: id, Type: "m.room.message", Content: json.RawMessage(fmt.Sprintf(`{"body":%q}`, text))})
	w.ok(err)
}

func TestSend(t *testing.T) {
	each(t, func(w *world) {
		id := w.shared()
		stop := w.run()
		defer stop()
		w.say(id, "one")
		w.other.waitFor(t, "one")
		w.say(id, "two")
		w.say(id, "three")
		w.other.waitFor(t, "one", "two", "three")
		w.ok(w.Ephemeral.SetTyping(t.Context(), alice, id, true, time.Hour))
		w.other.waitFor(t, "three", "m.typing")
	})
}

// TestNewsWhileReading has a device change, and an event behind that, while the
// sender reads what was before: it tells of both, the next time.
func TestNewsWhileReading(t *testing.T) {
	each(t, func(w *world) {
		id := w.shared()
		w.queues = map[matrix.ServerName]*queue{}
		r := reader{Service: w.Service, pos: w.Store.Position(), typing: w.Ephemeral.Serial()}
		ctx, cancel := context.WithCancel(w.Context())
		defer w.work.Wait()
		defer cancel()
		w.say(id, "one")
		upto := w.Store.Position()
		w.ok(w.Store.Update(ctx, func(tx *store.Tx) error {
			_, err := tx.PutDeviceListChange(ctx, alice, "")
			return err
		}))
		w.say(id, "two")
		w.ok(r.readUpTo(ctx, upto))
		w.ok(r.read(ctx))
		w.other.waitUntil(w.T, func(got []string) bool {
			return slices.Contains(got, "two") && slices.Contains(got, "m.device_list_update")
		})
	})
}

func TestServerThatWasAway(t *testing.T) {
	each(t, func(w *world) {
		tea, cake := w.shared(), w.shared()
		stop := w.run()
		defer stop()
		w.say(tea, "before")
		w.other.waitFor(t, "before")
		w.other.set(true)
		for i := range 5 {
			w.say(tea, fmt.Sprint("tea ", i))
		}
		for at := (time.Time{}); !at.After(time.Now()); time.Sleep(10 * time.Millisecond) { // until it is left alone
			var err error
			at, err = w.Client.RetryAt(t.Context(), w.other.name)
			w.ok(err)
		}
		for i := range 5 {
			w.say(cake, fmt.Sprint("cake ", i))
		}
		w.ok(w.Store.Update(t.Context(), func(tx *store.Tx) error {
			return tx.PutOutgoing(t.Context(), store.Outgoing{Server: w.other.name, Type: "m.direct_to_device", Content: json.RawMessage(`{}`)})
		}))
		w.other.set(false)
		w.Client.Heard(t.Context(), w.other.name)
		w.Bell.Ring(fedclient.BellKey(w.other.name))                          // the client of the tests has a bell of its own
		w.other.waitFor(t, "before", "tea 4", "cake 4", "m.direct_to_device") // the newest of each room leads to the others
		w.say(tea, "again")
		w.other.waitFor(t, "again")
		left, err := w.Store.Outbox(t.Context(), w.other.name, 10)
		w.ok(err)
		if len(left) != 0 {
			t.Errorf("%d messages are left for a server that has them", len(left))
		}
	})
}

// TestManyDevicesMeanwhile has the devices of more users change, while a server is
// away, than one transaction can tell.
func TestManyDevicesMeanwhile(t *testing.T) {
	each(t, func(w *world) {
		id := w.shared()
		stop := w.run()
		w.say(id, "before")
		w.other.waitFor(t, "before")
		stop()
		const users = fedclient.MaxEDUs + 20
		ctx := t.Context()
		for i := range users {
			u := matrix.NewUserID(fmt.Sprint("user", i), us)
			w.ok(w.rooms.Join(ctx, room.Change{Room: id, Actor: u}))
			w.ok(w.Store.Update(ctx, func(tx *store.Tx) error {
				_, err := tx.PutDeviceListChange(ctx, u, "")
				return err
			}))
		}
		w.say(id, "after")
		w.Service = &Service{Store: w.Store, Client: w.Client, Bell: w.Bell, Keys: w.Keys, Ephemeral: w.Ephemeral, ServerName: us}
		stop = w.run()
		defer stop()
		w.other.waitUntil(t, func(got []string) bool {
			n := 0
			for _, what := range got {
				if what == "m.device_list_update" {
					n++
				}
			}
			return n >= users && slices.Contains(got, "after")
		})
	})
}

func TestRestart(t *testing.T) {
	each(t, func(w *world) {
		id := w.shared()
		stop := w.run()
		w.say(id, "before")
		w.other.waitFor(t, "before")
		stop()
		w.say(id, "meanwhile")
		again := &Service{Store: w.Store, Client: w.Client, Bell: w.Bell, Keys: w.Keys, Ephemeral: w.Ephemeral, ServerName: us}
		w.Service = again
		stop = w.run()
		defer stop()
		w.other.waitFor(t, "before", "meanwhile")
	})
}

func TestQueueThatOverflows(t *testing.T) {
	q := &queue{server: "b.test"}
	for i := range mostQueued + 10 {
		q.add(&store.Event{Pos: int64(i + 100)})
	}
	events, _, behind, sent := q.take()
	if len(events) != 0 || !behind || sent != 99 {
		t.Errorf("%d events, behind %v, sent %d; want the store to be asked for all", len(events), behind, sent)
	}
}

// TestQueueThatCatchesUp has an event come while the store is asked for those
// before it.
func TestQueueThatCatchesUp(t *testing.T) {
	q := &queue{server: "b.test"}
	q.fallBehind(10)
	q.take()
	q.add(&store.Event{Pos: 21})
	q.caughtUp(20, true)
	if _, _, behind, sent := q.take(); !behind || sent != 20 {
		t.Errorf("behind %v, sent %d: the event at 21 is lost", behind, sent)
	}
	q.caughtUp(21, true)
	if _, _, behind, _ := q.take(); behind {
		t.Error("the server is behind although everything was sent")
	}
}

// TestServerThatRefuses is heard all the time and takes nothing: it is not asked
// as often as it is heard.
func TestServerThatRefuses(t *testing.T) {
	each(t, func(w *world) {
		id := w.shared()
		stop := w.run()
		defer stop()
		w.say(id, "before")
		w.other.waitFor(t, "before")
		w.other.set(true)
		w.say(id, "refused")
		const heard = 300
		for range heard {
			w.Client.Heard(t.Context(), w.other.name)
			w.Bell.Ring(fedclient.BellKey(w.other.name))
			time.Sleep(time.Millisecond)
		}
		w.other.mu.Lock()
		asked := w.other.asked
		w.other.mu.Unlock()
		if asked > heard/10 {
			t.Errorf("a server that was heard %d times and takes nothing was asked %d times", heard, asked)
		}
		w.other.set(false)
		w.other.waitFor(t, "before", "refused")
	})
}

// TestOneAtATime lets somebody begin to work on a queue at the moment in which
// another one stops: a server gets one transaction after the other.
func TestOneAtATime(t *testing.T) {
	db, err := database.Open(t.Context(), databasetest.SQLite(t), database.Options{Volatile: true, WriteTimeout: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	st, err := store.New(t.Context(), db, storetest.Budget)
	if err != nil {
		t.Fatal(err)
	}
	var under, got atomic.Int64
	q := &queue{server: fedclienttest.Server(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if under.Add(1) > 1 {
			t.Error("a transaction came while another one was under way")
		}
		time.Sleep(time.Millisecond)
		under.Add(-1)
		got.Add(1)
		fmt.Fprint(w, `{"pdus":{}}`)
	}))}
	s := &Service{Store: st, Client: fedclienttest.Client(t, us, st), Bell: &notify.Bell{}, ServerName: us}
	defer s.work.Wait()
	for range 50 {
		q.tell(fedclient.EDU{Type: "m.test", Content: json.RawMessage(`{}`)})
		end := time.Now().Add(2 * time.Minute)
		for n := got.Load(); got.Load() == n; runtime.Gosched() {
			if s.start(t.Context(), q); time.Now().After(end) {
				t.Fatal("a message got lost")
			}
		}
	}
}
