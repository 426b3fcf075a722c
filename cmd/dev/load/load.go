// Package load puts the same client-server load on any Matrix homeserver and
// measures it from outside: rates, latencies, memory and CPU time. It knows the
// specification's client-server API and the shared-secret registration that
// Synapse, Dendrite and Switchboard offer, and nothing of a particular server.
package load

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options say what load is put on which server.
type Options struct {
	URL      string // of the client API, with no slash at its end
	Secret   string // shared secret for registration
	PID      int    // of the server, whose memory and CPU time are read; 0 for none
	Users    int    // accounts
	Rooms    int    // rooms, spread over the accounts
	Sends    int    // messages of the largest phase
	Parallel int    // senders at once
	Members  int    // members of the big room
	Prefix   string // of the accounts' names, new for each run on one server
	Progress func(string, ...any)
}

// Phase is what one kind of request did.
type Phase struct {
	Name   string  `json:"name"`
	N      int     `json:"n"`      // requests
	Failed int     `json:"failed"` // of these
	PerSec float64 `json:"per_s"`  // those that succeeded
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
	CPU    float64 `json:"server_cpu_ms_each"`
	RSS    float64 `json:"rss_mb_after"`
}

// Report is what a whole run measured. Memory is in MB of 2^20 bytes.
type Report struct {
	Phases  []Phase `json:"phases"`
	IdleRSS float64 `json:"idle_rss_mb"` // before the first request
	EndRSS  float64 `json:"end_rss_mb"`
	PeakRSS float64 `json:"peak_rss_mb"`
	CPU     float64 `json:"cpu_s"`
}

// Phase returns the phase of a name, or nil.
func (r *Report) Phase(name string) *Phase {
	i := slices.IndexFunc(r.Phases, func(p Phase) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return &r.Phases[i]
}

// message is the body of most messages.
var message = []byte(`{"msgtype":"m.text","body":"the quick brown fox jumps over the lazy dog"}`)

// run is a load in progress.
type run struct {
	Options
	client *client
	report *Report
	users  []user
	rooms  []string
	member []user // of the big room, rooms[1]
	txn    atomic.Int64
}

// Run puts the load on the server, phase by phase. A request that fails is
// counted; the error is of what later phases need.
func Run(ctx context.Context, opts Options) (*Report, error) {
	if opts.Users < 2 || opts.Rooms < 2 || opts.Members < 1 || opts.Sends < 10 || opts.Parallel < 1 {
		return nil, fmt.Errorf("too little load: 2 users, 2 rooms, 1 member, 10 sends and 1 sender are the least")
	}
	r := &run{Options: opts, client: newClient(opts.URL), report: new(Report)}
	defer r.client.close()
	r.report.IdleRSS = UsageOf(opts.PID).RSS
	for _, step := range []func(context.Context) error{r.populate, r.sends, r.delivery, r.bigRoom, r.wideAccount, r.fanOut} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	end := UsageOf(opts.PID)
	r.report.EndRSS, r.report.PeakRSS, r.report.CPU = end.RSS, end.Peak, end.CPU.Seconds()
	return r.report, nil
}

// phase calls fn(0..n-1) on some workers and reports what that took. It fails
// only if no call at all succeeds.
func (r *run) phase(ctx context.Context, name string, n, workers int, fn func(i int) error) error {
	before := UsageOf(r.PID)
	start := time.Now()
	took, failed, first := timeEach(n, workers, fn)
	wall := time.Since(start)
	after := UsageOf(r.PID)
	p := Phase{
		Name: name, N: n, Failed: failed, PerSec: float64(n-failed) / wall.Seconds(),
		P50: percentile(took, 50), P99: percentile(took, 99),
		CPU: float64((after.CPU - before.CPU).Microseconds()) / 1000 / float64(n), RSS: after.RSS,
	}
	r.report.Phases = append(r.report.Phases, p)
	r.Progress("%-22s %6d requests %9.1f/s  p50 %8.2f ms  p99 %8.2f ms  cpu %6.2f ms  rss %6.1f MB", name, n, p.PerSec, p.P50, p.P99, p.CPU, p.RSS)
	if failed > 0 {
		r.Progress("%-22s %6d failed, the first with: %v", name, failed, first)
	}
	if failed == n {
		return fmt.Errorf("%s: %w", name, first)
	}
	return ctx.Err()
}

// timeEach calls fn(0..n-1) on some workers. It returns the sorted times of the
// calls that succeeded, how many did not, and the first error.
func timeEach(n, workers int, fn func(i int) error) (took []time.Duration, failed int, first error) {
	var next atomic.Int64
	var mu sync.Mutex // guards the results
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				start := time.Now()
				err := fn(i)
				d := time.Since(start)
				mu.Lock()
				if err == nil {
					took = append(took, d)
				} else if failed++; first == nil {
					first = err
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	slices.Sort(took)
	return took, failed, first
}

// percentile returns the pth percentile of sorted times, in milliseconds.
func percentile(sorted []time.Duration, p int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := min(len(sorted)-1, len(sorted)*p/100)
	return float64(sorted[i].Microseconds()) / 1000
}

// populate makes the accounts and rooms.
func (r *run) populate(ctx context.Context) error {
	r.users = make([]user, r.Users)
	err := r.phase(ctx, "register", r.Users, 4, func(i int) (err error) {
		r.users[i], err = r.client.register(ctx, r.Secret, fmt.Sprintf("%s_%d", r.Prefix, i))
		return err
	})
	if err != nil {
		return err
	}
	r.rooms = make([]string, r.Rooms)
	err = r.phase(ctx, "create_room", r.Rooms, 4, func(i int) error {
		var made struct {
			RoomID string `json:"room_id"`
		}
		err := r.client.call(ctx, "POST", "/_matrix/client/v3/createRoom", r.owner(i).token, []byte(`{"preset":"public_chat"}`), &made)
		r.rooms[i] = made.RoomID
		return err
	})
	if err != nil {
		return err
	}
	if slices.Contains(r.rooms, "") {
		return fmt.Errorf("not every room was made")
	}
	return nil
}

// owner returns the account that made room i.
func (r *run) owner(i int) user { return r.users[i%len(r.users)] }

// send sends one message.
func (r *run) send(ctx context.Context, u user, room string, body []byte) error {
	path := fmt.Sprintf("/_matrix/client/v3/rooms/%s/send/m.room.message/t%d", url.PathEscape(room), r.txn.Add(1))
	return r.client.call(ctx, "PUT", path, u.token, body, nil)
}

// sends measures messages alone.
func (r *run) sends(ctx context.Context) error {
	many := func(i int) error {
		room := i % len(r.rooms)
		return r.send(ctx, r.owner(room), r.rooms[room], message)
	}
	one := func(int) error { return r.send(ctx, r.users[0], r.rooms[0], message) }
	if err := r.phase(ctx, "send_many_rooms", r.Sends, r.Parallel, many); err != nil {
		return err
	}
	if err := r.phase(ctx, "send_one_room", r.Sends/2, r.Parallel, one); err != nil {
		return err
	}
	return r.phase(ctx, "send_serial", r.Sends/10, 1, one)
}
