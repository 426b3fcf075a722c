package bridgetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"maunium.net/go/mautrix/bridgev2/status"

	"switchboard/appservices"
	"switchboard/bridges/bridge"
)

// Footprint measures the memory of an idle login. It runs a server in a process
// of its own as Contract does, first with users who are not logged in and then
// with all of them connected, each time after a restart, so that only what a
// login keeps counts. The result is in the test's log. It fails the test when a
// login takes more than most bytes of heap and stacks.
//
// Network.LogIn must give each user an account of his own.
func Footprint(t *testing.T, options func(settings string) Options, start func(t *testing.T) Network, logins int, most int64) {
	if serve(t, options) {
		return
	}
	if raced {
		t.Skip("the race detector takes memory of its own")
	}
	n := start(t)
	p := startProcess(t, n.Settings())
	bot := Bot(options(n.Settings()).ID)
	var logIn []func()
	for i := range logins {
		u := p.User(fmt.Sprintf("user%d", i))
		manage := u.Manage(bot)
		logIn = append(logIn, func() { n.LogIn(u, manage) })
	}
	// What the users' clients take when they come back goes again, on some machines
	// soon: it is measured until it is as little as is enough.
	measure := func(connected int, enough func(footprint) bool) footprint {
		p.stop()
		p.run()
		awaitLong(t, fmt.Sprintf("%d logins are connected", connected), func() bool {
			f, err := p.footprint()
			return err == nil && f.Connected == connected
		})
		var least footprint
		for i, end := 0, time.Now().Add(patience); i < 25 || !enough(least) && time.Now().Before(end); i++ {
			time.Sleep(200 * time.Millisecond)
			f, err := p.footprint()
			if err != nil {
				t.Fatal(err)
			}
			if i <= 15 {
				least = f
			}
			least.Heap, least.Resident = min(least.Heap, f.Heap), min(least.Resident, f.Resident)
		}
		return least
	}
	before := measure(0, func(footprint) bool { return true })
	for _, f := range logIn {
		f()
	}
	after := measure(logins, func(f footprint) bool { return (f.Heap-before.Heap)/int64(logins) <= most })
	heap, resident := (after.Heap-before.Heap)/int64(logins), (after.Resident-before.Resident)/int64(logins)
	t.Logf("an idle login takes %d bytes of heap and stacks, %d bytes resident (%d logins; without any: %d and %d)",
		heap, resident, logins, before.Heap, before.Resident)
	if heap > most {
		t.Errorf("an idle login takes %d bytes of heap and stacks, %d are allowed", heap, most)
	}
}

// footprint is the memory of a process that hosts a bridge.
type footprint struct {
	Connected int   // logins
	Heap      int64 // bytes, with the stacks, after a collection
	Resident  int64 // bytes; 0 where the system does not tell
}

// footprintPath is where a server in a process of its own tells its footprint.
const footprintPath = "/_bridgetest/footprint"

// footprint asks the process.
func (p *process) footprint() (f footprint, err error) {
	r, err := http.NewRequest(http.MethodGet, "http://homeserver.invalid"+footprintPath, nil)
	if err != nil {
		return f, err
	}
	answer, err := (&appservices.Wire{Handler: p.Server}).RoundTrip(r)
	if err != nil {
		return f, err
	}
	defer answer.Body.Close()
	return f, json.NewDecoder(answer.Body).Decode(&f)
}

// tellFootprint answers with the footprint of this process.
func tellFootprint(w http.ResponseWriter, host *bridge.Host) {
	var f footprint
	for _, l := range host.Health().Logins {
		if l.State == string(status.StateConnected) {
			f.Connected++
		}
	}
	runtime.GC() // what a finalizer holds is free after the next one
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f.Heap = int64(m.HeapAlloc + m.StackInuse) //nolint:gosec // far below 2^63
	var pages int64
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		_, _ = fmt.Sscanf(string(text), "%d %d", new(int64), &pages)
	}
	f.Resident = pages * int64(os.Getpagesize())
	_ = json.NewEncoder(w).Encode(f)
}
