package e2ee

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/fedclient/fedclienttest"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// elsewhere is another server with one user, carol.
type elsewhere struct {
	name  matrix.ServerName
	carol matrix.UserID

	mu      sync.Mutex
	asked   []string // what it was asked for, by the last part of the path
	stream  int64
	devices map[string]string // keys of carol's devices
	master  string
	claims  string // answer to claims
	hold    chan struct{}
}

func newElsewhere(t *testing.T) *elsewhere {
	t.Helper()
	e := &elsewhere{devices: map[string]string{}, stream: 1}
	mux := http.NewServeMux()
	handle := func(pattern string, f func(r *http.Request) any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			e.mu.Lock()
			hold := e.hold
			e.mu.Unlock()
			if hold != nil {
				<-hold
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			parts := strings.Split(r.Pattern, "/")
			e.asked = append(e.asked, parts[len(parts)-2]+"/"+parts[len(parts)-1])
			if err := json.NewEncoder(w).Encode(f(r)); err != nil {
				t.Error(err)
			}
		})
	}
	handle("GET /_matrix/federation/v1/user/devices/{user}", func(r *http.Request) any {
		var list []any
		for id, keys := range e.devices {
			list = append(list, map[string]any{"device_id": id, "keys": json.RawMessage(keys), "device_display_name": "Name of " + id})
		}
		return map[string]any{"user_id": r.PathValue("user"), "stream_id": e.stream, "devices": list, "master_key": raw(e.master)}
	})
	handle("POST /_matrix/federation/v1/user/keys/query", func(*http.Request) any {
		keys := map[string]any{"BAD": map[string]string{"user_id": "@carol:other"}}
		for id, obj := range e.devices {
			keys[id] = json.RawMessage(obj)
		}
		return map[string]any{
			"device_keys": map[matrix.UserID]any{e.carol: keys, alice: keys},
			"master_keys": map[matrix.UserID]any{e.carol: raw(e.master), alice: raw(e.master)},
		}
	})
	handle("POST /_matrix/federation/v1/user/keys/claim", func(*http.Request) any {
		return map[string]any{"one_time_keys": json.RawMessage(e.claims)}
	})
	e.name = fedclienttest.Server(t, mux)
	e.carol = matrix.UserID("@carol:" + string(e.name))
	return e
}

func raw(s string) json.RawMessage {
	if s == "" {
		return json.RawMessage("null")
	}
	return json.RawMessage(s)
}

// wantAsked checks what the server was asked for since the last time.
func (e *elsewhere) wantAsked(t *testing.T, want ...string) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Equal(e.asked, want) {
		t.Errorf("the server was asked for %v, want %v", e.asked, want)
	}
	e.asked = nil
}

func (e *elsewhere) set(t *testing.T, device, word string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stream++
	e.devices[device] = deviceJSON(t, e.carol, device, word)
	return e.devices[device]
}

// apart runs f on both databases, with another server that can be asked.
func apart(t *testing.T, f func(t *testing.T, s *Service, e *elsewhere)) {
	each(t, func(t *testing.T, s *Service) {
		s.Client = fedclienttest.Client(t, s.ServerName, s.Store)
		f(t, s, newElsewhere(t))
	})
}

// move lets a user come into a room or leave it.
func (s *Service) move(t *testing.T, user matrix.UserID, room store.RoomNum, membership string) {
	t.Helper()
	s.write(t, func(tx *store.Tx) error {
		pos, err := tx.NextPosition(t.Context())
		if err != nil {
			return err
		}
		return tx.PutMembership(t.Context(), store.Membership{User: user, Room: room, Membership: membership, Event: store.EventNum(pos), Pos: pos, Local: s.local(user)})
	})
}

// devicesOf asks for a user's keys and gives the names of the devices.
func (s *Service) devicesOf(t *testing.T, user matrix.UserID) string {
	t.Helper()
	k, err := s.QueryAll(t.Context(), alice, map[matrix.UserID][]matrix.DeviceID{user: nil}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if len(k.Failures) > 0 {
		return fmt.Sprintf("failures of %d", len(k.Failures))
	}
	var names []string
	for id, obj := range k.Devices[user] {
		var u struct {
			Unsigned struct {
				Name string `json:"device_display_name"`
			} `json:"unsigned"`
		}
		if err := json.Unmarshal(obj, &u); err != nil {
			t.Error(err)
		}
		if u.Unsigned.Name != "" {
			id += "!"
		}
		names = append(names, string(id))
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// told lists whose keys changed behind a position, as alice may see it.
func (s *Service) told(t *testing.T, since int64) []matrix.UserID {
	t.Helper()
	list, err := s.Store.DeviceListChanges(t.Context(), alice, since, s.Store.Position())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestRemoteList follows the device list of a user of another server from the
// first question to the last common room.
func TestRemoteList(t *testing.T) {
	apart(t, func(t *testing.T, s *Service, e *elsewhere) {
		wantDevices := func(want string) {
			t.Helper()
			if got := s.devicesOf(t, e.carol); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		update := func(u DeviceUpdate, want bool) {
			t.Helper()
			u.User = e.carol
			stale, err := s.UpdateRemote(t.Context(), u)
			if err != nil || stale != want {
				t.Errorf("update %d: stale %v, %v", u.Stream, stale, err)
			}
		}
		e.set(t, "C1", "one")

		// There is no common room: nothing is kept.
		wantDevices("C1")
		wantDevices("C1")
		e.wantAsked(t, "keys/query", "keys/query")

		// That the devices of who came are introduced is no news.
		s.move(t, alice, 1, "join")
		s.move(t, e.carol, 1, "join")
		start := s.Store.Position()
		update(DeviceUpdate{Device: "C1", Stream: 2, Keys: json.RawMessage(e.devices["C1"])}, false)
		wantDevices("C1!")
		wantDevices("C1!")
		e.wantAsked(t, "devices/{user}")
		if list := s.told(t, start); len(list) > 0 {
			t.Errorf("told of %v", list)
		}

		// One update after the other is taken as it is.
		rung := s.Bell.Listen(string(alice))
		update(DeviceUpdate{Device: "C2", Stream: 3, Prev: []int64{2}, Keys: json.RawMessage(e.set(t, "C2", "two"))}, false)
		update(DeviceUpdate{Device: "C5", Stream: 4, Prev: []int64{3}}, false) // has no keys
		update(DeviceUpdate{Device: "C1", Stream: 5, Prev: []int64{4}, Deleted: true}, false)
		update(DeviceUpdate{Device: "C1", Stream: 3, Prev: []int64{2}, Keys: json.RawMessage(e.devices["C1"])}, false) // old
		wantDevices("C2")
		e.wantAsked(t)
		if list := s.told(t, start); !slices.Equal(list, []matrix.UserID{e.carol}) {
			t.Errorf("told of %v", list)
		}
		select {
		case <-rung:
		default:
			t.Error("no sync was woken")
		}

		// One is missed. The list that the server answers with is older than what
		// it told, so that it is asked for the keys, and again for the list.
		update(DeviceUpdate{Device: "C9", Stream: 9, Prev: []int64{8}}, true)
		wantDevices("C1 C2")
		wantDevices("C1! C2!")
		wantDevices("C1! C2!")
		e.wantAsked(t, "devices/{user}", "keys/query", "devices/{user}")

		// The last common room is left, and there is a new one.
		s.move(t, e.carol, 1, "leave")
		e.set(t, "C3", "three")
		wantDevices("C1 C2 C3")
		s.move(t, alice, 2, "join")
		s.move(t, e.carol, 2, "join")
		start = s.Store.Position()
		wantDevices("C1! C2! C3!")
		wantDevices("C1! C2! C3!")
		e.wantAsked(t, "keys/query", "devices/{user}")
		if list := s.told(t, start); !slices.Equal(list, []matrix.UserID{e.carol}) {
			t.Errorf("told of %v", list)
		}
	})
}

// TestRemoteAnew loses no change when a server begins to count anew.
func TestRemoteAnew(t *testing.T) {
	apart(t, func(t *testing.T, s *Service, e *elsewhere) {
		e.set(t, "C1", "one")
		e.set(t, "C2", "two")
		s.move(t, alice, 1, "join")
		s.move(t, e.carol, 1, "join")
		if got := s.devicesOf(t, e.carol); got != "C1! C2!" {
			t.Fatalf("got %q", got)
		}
		for _, tt := range []struct {
			stream int64
			prev   []int64
			gone   bool
			stale  bool
			told   bool
		}{
			{5, []int64{4}, false, true, true},
			{5, nil, false, false, false}, // again
			{5, nil, true, true, true},    // one number for a device and its end
			{1, nil, true, true, true},
			{1, nil, false, false, false},
			{2, []int64{1}, false, false, true},
			{2, []int64{1}, true, false, true},  // two changes at once
			{1, []int64{0}, true, false, false}, // late
		} {
			start := s.Store.Position()
			stale, err := s.UpdateRemote(t.Context(), DeviceUpdate{User: e.carol, Device: "C2", Stream: tt.stream, Prev: tt.prev, Deleted: tt.gone})
			if told := len(s.told(t, start)) > 0; err != nil || stale != tt.stale || told != tt.told {
				t.Errorf("%+v: stale %v, told %v, %v", tt, stale, told, err)
			}
			if err := s.PutRemote(t.Context(), RemoteDevices{User: e.carol, Stream: tt.stream}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestRemoteOvertaken tells of a change that came while the first question was
// asked, and is not in the answer.
func TestRemoteOvertaken(t *testing.T) {
	apart(t, func(t *testing.T, s *Service, e *elsewhere) {
		s.move(t, alice, 1, "join")
		s.move(t, e.carol, 1, "join")
		if _, err := s.UpdateRemote(t.Context(), DeviceUpdate{User: e.carol, Device: "C1", Stream: 2}); err != nil {
			t.Fatal(err)
		}
		for _, want := range [][]matrix.UserID{{e.carol}, nil} { // once
			start := s.Store.Position()
			if err := s.PutRemote(t.Context(), RemoteDevices{User: e.carol, Stream: 1}); err != nil {
				t.Fatal(err)
			}
			if list := s.told(t, start); !slices.Equal(list, want) {
				t.Errorf("told of %v, want %v", list, want)
			}
		}
	})
}

// TestRemoteUnasked looks at changes of users for whose keys nobody has asked.
func TestRemoteUnasked(t *testing.T) {
	apart(t, func(t *testing.T, s *Service, e *elsewhere) {
		update := func(stream int64, want bool) {
			t.Helper()
			start := s.Store.Position()
			stale, err := s.UpdateRemote(t.Context(), DeviceUpdate{User: e.carol, Device: "C1", Stream: stream, Prev: []int64{stream - 1}})
			if err != nil || stale {
				t.Errorf("update %d: stale %v, %v", stream, stale, err)
			}
			if got := len(s.told(t, start)) > 0; got != want {
				t.Errorf("update %d: told %v, want %v", stream, got, want)
			}
		}
		update(1, false) // no common room
		s.move(t, alice, 1, "join")
		s.move(t, e.carol, 1, "join")
		update(2, false) // introduced
		update(3, true)
		update(3, false) // again
		e.wantAsked(t)
	})
	apart(t, func(t *testing.T, s *Service, e *elsewhere) { // we came to carol
		s.move(t, e.carol, 1, "join")
		s.move(t, alice, 1, "join")
		start := s.Store.Position()
		if _, err := s.UpdateRemote(t.Context(), DeviceUpdate{User: e.carol, Device: "C1", Stream: 2}); err != nil {
			t.Fatal(err)
		}
		if list := s.told(t, start); len(list) != 1 {
			t.Errorf("told of %v", list)
		}
		e.wantAsked(t)
	})
}

// TestQueryManyLists asks for more users of one server than lists are fetched.
func TestQueryManyLists(t *testing.T) {
	apart(t, func(t *testing.T, s *Service, e *elsewhere) {
		s.move(t, alice, 1, "join")
		asked := map[matrix.UserID][]matrix.DeviceID{}
		for i := range mostLists + 1 {
			u := matrix.UserID(fmt.Sprintf("@u%d:%s", i, e.name))
			s.move(t, u, 1, "join")
			asked[u] = nil
		}
		k, err := s.QueryAll(t.Context(), alice, asked, time.Minute)
		if err != nil || len(k.Devices) != mostLists+1 || len(k.Failures) != 0 {
			t.Errorf("got %d users, %v, %v", len(k.Devices), k.Failures, err)
		}
		e.wantAsked(t, "keys/query")
		list, err := s.Store.StaleDeviceLists(t.Context(), 100)
		if err != nil || len(list) != mostLists+1 {
			t.Errorf("%d lists are to be fetched, %v", len(list), err)
		}
	})
}

// TestQueryForeign looks at what is believed of another server's answer.
func TestQueryForeign(t *testing.T) {
	apart(t, func(t *testing.T, s *Service, e *elsewhere) {
		e.set(t, "C1", "one")
		e.set(t, "C2", "two")
		e.master = crossJSON(e.carol, "master", "carol")
		s.write(t, func(tx *store.Tx) error {
			return tx.PutKeySignature(t.Context(), store.KeySignature{User: e.carol, Key: public("carol"), Signer: alice, SignedBy: "ed25519:A", Signature: "sig"})
		})
		k, err := s.QueryAll(t.Context(), alice, map[matrix.UserID][]matrix.DeviceID{e.carol: {"C2", "BAD", "none"}, bob: nil}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if len(k.Devices) != 2 || len(k.Devices[e.carol]) != 1 || k.Devices[e.carol]["C2"] == nil || k.Devices[bob] == nil {
			t.Errorf("got %v", k.Devices)
		}
		if len(k.Master) != 1 || !strings.Contains(string(k.Master[e.carol]), `"signatures":{"@alice:a.test":{"ed25519:A":"sig"}}`) {
			t.Errorf("got %s", k.Master)
		}
	})
}

// TestQueryFails asks servers that do not answer, and one that is too slow.
func TestQueryFails(t *testing.T) {
	apart(t, func(t *testing.T, s *Service, e *elsewhere) {
		e.set(t, "C1", "one")
		e.hold = make(chan struct{})
		gone := matrix.UserID("@dan:" + string(fedclienttest.Absent))
		asked := map[matrix.UserID][]matrix.DeviceID{e.carol: nil, gone: nil, bob: nil}
		k, err := s.QueryAll(t.Context(), alice, asked, 0)
		if err != nil || len(k.Failures) != 2 || len(k.Devices) != 1 {
			t.Errorf("got %v, %v, %v", k.Devices, k.Failures, err)
		}
		close(e.hold)
		k, err = s.QueryAll(t.Context(), alice, asked, time.Minute)
		if err != nil || k.Failures[fedclienttest.Absent] == nil || len(k.Failures) != 1 || len(k.Devices[e.carol]) != 1 {
			t.Errorf("got %v, %v, %v", k.Devices, k.Failures, err)
		}
		k, err = newService(s.Store).QueryAll(t.Context(), alice, asked, 0) // one that can ask nobody
		if err != nil || len(k.Failures) != 2 {
			t.Errorf("got %v, %v", k.Failures, err)
		}
		for { // who was asked first has answered by now, or will
			s.asking.mu.Lock()
			n := s.asking.n
			s.asking.mu.Unlock()
			if n == 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// TestResyncPanics: what goes wrong while another server is asked ends nothing else.
func TestResyncPanics(t *testing.T) {
	s := &Service{Client: &fedclient.Client{}} // without a store
	if err := s.Resync(t.Context(), "@carol:b.test"); err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("got %v", err)
	}
}

func TestClaimAll(t *testing.T) {
	apart(t, func(t *testing.T, s *Service, e *elsewhere) {
		if _, err := s.Upload(t.Context(), alice, "A1", Upload{OneTimeKeys: oneTime(1, 1)}); err != nil {
			t.Fatal(err)
		}
		good := `{"key":"x","signatures":{}}`
		e.claims = fmt.Sprintf(`{%q:{"C1":{"signed_curve25519:1":%s},"C2":{"other:1":%s},"C3":{"signed_curve25519:1":7},"C4":{"signed_curve25519:1":%s}},"@alice:a.test":{"A1":{"signed_curve25519:9":%s}}}`,
			e.carol, good, good, good, good)
		ask := map[matrix.DeviceID]string{"C1": "signed_curve25519", "C2": "signed_curve25519", "C3": "signed_curve25519"}
		claimed, failures, err := s.ClaimAll(t.Context(), map[matrix.UserID]map[matrix.DeviceID]string{
			e.carol: ask, alice: {"A1": "signed_curve25519"}, matrix.UserID("@dan:" + string(fedclienttest.Absent)): {"D": "signed_curve25519"},
		}, time.Minute)
		if err != nil || len(failures) != 1 || failures[fedclienttest.Absent] == nil {
			t.Errorf("failures %v, %v", failures, err)
		}
		got, _ := json.Marshal(claimed)
		want := fmt.Sprintf(`{%q:{"C1":{"signed_curve25519:1":%s}},"@alice:a.test":{"A1":{"signed_curve25519:K001":%s}}}`, e.carol, good, oneTime(1, 1)["signed_curve25519:K001"])
		if string(got) != want && !sameJSON(got, []byte(want)) {
			t.Errorf("got %s\nwant %s", got, want)
		}
		e.wantAsked(t, "keys/claim")
	})
}

func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	ja, _ := json.Marshal(x)
	jb, _ := json.Marshal(y)
	return string(ja) == string(jb)
}

// TestSendElsewhere looks at the messages that wait for other servers.
func TestSendElsewhere(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		type piece struct {
			Sender   matrix.UserID `json:"sender"`
			Type     string        `json:"type"`
			ID       string        `json:"message_id"`
			Messages Messages      `json:"messages"`
		}
		outbox := func(server matrix.ServerName) (list []piece) {
			t.Helper()
			waiting, err := st.Outbox(t.Context(), server, 100)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range waiting {
				var p piece
				if err := json.Unmarshal(o.Content, &p); err != nil || o.Type != "m.direct_to_device" {
					t.Errorf("%s %s: %v", o.Type, o.Content, err)
				}
				list = append(list, p)
			}
			return list
		}
		s := newService(st)
		s.Client = fedclienttest.Client(t, s.ServerName, st)
		rung := s.Bell.Listen(store.LogBell)
		big := json.RawMessage(`{"text":"` + strings.Repeat("x", mostOutgoing/2) + `"}`)
		for range 2 { // the second is a repetition
			err := s.SendToDevice(t.Context(), alice, "A1", "m.test", "txn", Messages{
				"@c:b.test": {"*": json.RawMessage(`{"n":1}`), "C1": json.RawMessage(`{"n":2}`)}, "@d:b.test": {"D": json.RawMessage(`{"n":3}`)},
				"@e:c.test": {"E1": big, "E2": big, "E3": big},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-rung:
		default:
			t.Error("nobody was told that there is something to send")
		}
		small := outbox("b.test")
		if len(small) != 1 || small[0].Sender != alice || small[0].Type != "m.test" || small[0].ID == "" ||
			len(small[0].Messages) != 2 || string(small[0].Messages["@c:b.test"]["*"]) != `{"n":1}` {
			t.Errorf("got %+v", small)
		}
		devices := map[matrix.DeviceID]bool{}
		large := outbox("c.test")
		for _, p := range large {
			for id := range p.Messages["@e:c.test"] {
				devices[id] = true
			}
		}
		if len(large) != 3 || len(devices) != 3 || large[0].ID == large[1].ID {
			t.Errorf("%d pieces for %d devices", len(large), len(devices))
		}

		// What another server sent is not passed on.
		err := s.SendToDevice(t.Context(), "@c:b.test", "", "m.test", "txn", Messages{"@f:d.test": {"*": json.RawMessage(`{}`)}})
		if err != nil || len(outbox("d.test")) != 0 {
			t.Errorf("passed on: %v", err)
		}
	})
}
