package load

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is as much of a homeserver as the load can tell from a real one. It
// keeps one list of messages for all rooms.
type fake struct {
	t      *testing.T
	mu     sync.Mutex // guards what follows
	bodies []string
	more   chan struct{} // closed at the next message
	calls  map[string]int
}

func (f *fake) handler() http.Handler {
	mux := http.NewServeMux()
	reply := func(w http.ResponseWriter, v any) { json.NewEncoder(w).Encode(v) }
	mux.HandleFunc("GET /_synapse/admin/v1/register", func(w http.ResponseWriter, r *http.Request) {
		reply(w, map[string]string{"nonce": "n0"})
	})
	mux.HandleFunc("POST /_synapse/admin/v1/register", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Nonce, Username, Password, MAC string }
		json.NewDecoder(r.Body).Decode(&in)
		mac := hmac.New(sha1.New, []byte("secret"))
		fmt.Fprintf(mac, "%s\x00%s\x00%s\x00notadmin", in.Nonce, in.Username, in.Password)
		if hex.EncodeToString(mac.Sum(nil)) != in.MAC {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		reply(w, map[string]string{"user_id": "@" + in.Username + ":a.test", "access_token": in.Username})
	})
	mux.HandleFunc("POST /_matrix/client/v3/createRoom", func(w http.ResponseWriter, r *http.Request) {
		reply(w, map[string]string{"room_id": "!r:a.test"})
	})
	mux.HandleFunc("PUT /_matrix/client/v3/rooms/{room}/send/m.room.message/{txn}", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Body string }
		json.NewDecoder(r.Body).Decode(&in)
		f.mu.Lock()
		f.bodies = append(f.bodies, in.Body)
		close(f.more)
		f.more = make(chan struct{})
		f.mu.Unlock()
		reply(w, struct{}{})
	})
	mux.HandleFunc("GET /_matrix/client/v3/sync", f.sync)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { reply(w, struct{}{}) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := mux.Handler(r)
		f.mu.Lock()
		f.calls[pattern]++
		f.mu.Unlock()
		mux.ServeHTTP(w, r)
	})
}

func (f *fake) sync(w http.ResponseWriter, r *http.Request) {
	var since int
	incremental := r.FormValue("since") != ""
	fmt.Sscan(r.FormValue("since"), &since)
	for {
		f.mu.Lock()
		bodies, more := f.bodies, f.more
		f.mu.Unlock()
		if !incremental {
			since = len(bodies)
		}
		if len(bodies) > since || !incremental {
			var events []map[string]any
			for _, b := range bodies[since:] {
				events = append(events, map[string]any{"content": map[string]string{"body": b}})
			}
			json.NewEncoder(w).Encode(map[string]any{
				"next_batch": fmt.Sprint(len(bodies)),
				"rooms":      map[string]any{"join": map[string]any{"!r:a.test": map[string]any{"timeline": map[string]any{"events": events}}}},
			})
			return
		}
		select {
		case <-more:
		case <-r.Context().Done():
			return
		}
	}
}

// TestRun puts a small load on the fake and looks at what it saw.
func TestRun(t *testing.T) {
	f := &fake{t: t, more: make(chan struct{}), calls: map[string]int{}}
	s := httptest.NewServer(f.handler())
	defer s.Close()
	var said strings.Builder
	var mu sync.Mutex
	report, err := Run(context.Background(), Options{
		URL: s.URL, Secret: "secret", PID: os.Getpid(), Users: 4, Rooms: 6, Sends: 40, Parallel: 4, Members: 5, Prefix: "p",
		Progress: func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintf(&said, format+"\n", args...)
		},
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	for _, p := range report.Phases {
		if p.Failed > 0 || p.PerSec <= 0 {
			t.Errorf("%+v", p)
		}
	}
	wants := map[string]int{"register": 4, "create_room": 6, "send_many_rooms": 40, "send_one_room": 20, "send_serial": 4, "fan_out": 5 * fanMessages}
	for name, n := range wants {
		if p := report.Phase(name); p == nil || p.N != n {
			t.Errorf("%s: %+v, want %d", name, p, n)
		}
	}
	s.Close() // who was told to stop may only now have been heard
	if n := f.calls["PUT /_matrix/client/v3/rooms/{room}/send/m.room.message/{txn}"]; n != 40+20+4+probes+500+fanMessages {
		t.Errorf("the server saw %d messages", n)
	}
	if report.PeakRSS < report.EndRSS || report.EndRSS <= 0 || report.CPU <= 0 {
		t.Errorf("usage: %+v", report)
	}
}

// TestRefused stops at the first phase that fails as a whole.
func TestRefused(t *testing.T) {
	f := &fake{t: t, more: make(chan struct{}), calls: map[string]int{}}
	s := httptest.NewServer(f.handler())
	defer s.Close()
	_, err := Run(context.Background(), Options{
		URL: s.URL, Secret: "wrong", Users: 2, Rooms: 2, Sends: 10, Parallel: 1, Members: 1, Progress: func(string, ...any) {},
	})
	if err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("got %v, want a 403", err)
	}
}

// TestTimeEach counts what fails apart from what is timed.
func TestTimeEach(t *testing.T) {
	odd := errors.New("odd")
	took, failed, first := timeEach(100, 7, func(i int) error {
		if i%2 == 1 {
			return odd
		}
		return nil
	})
	if len(took) != 50 || failed != 50 || first != odd {
		t.Errorf("%d timed, %d failed, %v", len(took), failed, first)
	}
	var sorted []time.Duration
	for i := range 200 {
		sorted = append(sorted, time.Duration(i+1)*time.Millisecond)
	}
	if p50, p99 := percentile(sorted, 50), percentile(sorted, 99); p50 != 101 || p99 != 199 {
		t.Errorf("p50 %v, p99 %v", p50, p99)
	}
}
