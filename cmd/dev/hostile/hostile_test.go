package hostile

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"switchboard/cmd/dev/instance"
	"switchboard/homeserver/clientapi"
)

// seed makes the same requests again.
var seed = flag.Uint64("seed", 20260726, "what the malformed requests are made from; 0 takes a new one")

// most is how many complaints are worth printing.
const most = 25

// TestHostile sends malformed requests. None may be answered with 5xx or taken
// for a good one, and in the end the server must work as before.
func TestHostile(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed=%d", *seed)
	s := instance.New(t, instance.Binary(t), "")
	s.Start()
	f := newForge(s)

	requests := f.requests()
	malformed, faults, answers := 0, 0, map[string]int{}
	for _, r := range requests {
		if r.malformed {
			malformed++
		}
		a, err := r.send(strings.TrimPrefix(s.URL, "http://"))
		if !s.Running() {
			t.Fatalf("%s\nended the server", r)
		}
		fault := a.fault(r)
		if err != nil && !r.wire { // who sends no HTTP may find the connection closed
			fault = err.Error()
		}
		if fault != "" {
			if faults++; faults <= most {
				t.Errorf("%s: %s\ngot %d %s %.300s", fault, r, a.status, a.kind, a.body)
			}
		}
		answers[fmt.Sprintf("%s: %d", r.kind, a.status)]++
	}
	t.Logf("%d requests, %d of them certainly malformed, %d complaints\n%v", len(requests), malformed, faults, answers)
	if malformed < 1000 {
		t.Errorf("only %d malformed requests", malformed)
	}
	checkLog(t, s.Log())
	f.checkAlive(t)
	s.Stop()
}

// checkLog finds what must not be in the log, whatever is sent.
func checkLog(t *testing.T, log string) {
	t.Helper()
	n := 0
	for line := range strings.Lines(log) {
		bad := strings.Contains(line, "panic") || strings.Contains(line, `"level":"error"`) ||
			strings.Contains(line, " ERR ") || strings.Contains(line, "goroutine ")
		if bad {
			if n++; n <= most {
				t.Errorf("in the log: %s", line)
			}
		}
	}
}

// checkAlive sends a message and waits for it, as if nothing had happened.
func (f *forge) checkAlive(t *testing.T) {
	t.Helper()
	const text = "still there?"
	id, err := f.user.Send(t.Context(), f.room, "alive", text)
	if err != nil {
		t.Fatalf("send: %v", err)
	}
	if e := f.user.Event(f.room, id); e.Content.Body != text {
		t.Errorf("the event says %q, want %q", e.Content.Body, text)
	}
	var sync json.RawMessage
	f.user.Must(&sync, "GET", "/_matrix/client/v3/sync?timeout=0", nil)
	if !strings.Contains(string(sync), text) {
		t.Error("the message is not in /sync")
	}
}

// newForge makes what the requests need to come near to good ones: a user, a
// room, an event.
func newForge(s *instance.Server) *forge {
	s.Register("admin") // the first account is the administrator's
	f := &forge{
		Rand: rand.New(rand.NewPCG(*seed, *seed)), user: s.Register("mallory"), routes: clientapi.Routes(),
	}
	f.room = f.user.CreateRoom()
	for _, e := range f.user.Timeline(f.room) {
		f.event = e.ID
	}
	return f
}
