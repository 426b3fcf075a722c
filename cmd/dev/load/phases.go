package load

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// probes is how many messages measure the time to delivery.
const probes = 200

// delivery measures the time from the start of a send to the sync of another
// member that answers with the message.
func (r *run) delivery(ctx context.Context) error {
	from, to, room := r.users[0], r.users[1], r.rooms[0]
	if err := r.client.join(ctx, to, room); err != nil {
		return err
	}
	start, err := r.client.sync(ctx, to, "", "", 0)
	if err != nil {
		return err
	}
	since := start.Next
	await := func(body string) error {
		for {
			a, err := r.client.sync(ctx, to, since, "", 10*time.Second)
			if err != nil {
				return err
			}
			since = a.Next
			if slices.Contains(a.bodies(room), body) {
				return nil
			}
		}
	}
	return r.phase(ctx, "send_to_sync", probes, 1, func(i int) error {
		body := fmt.Sprintf("probe %d", i)
		arrived := make(chan error, 1)
		go func() { arrived <- await(body) }()
		if err := r.send(ctx, from, room, fmt.Appendf(nil, `{"msgtype":"m.text","body":%q}`, body)); err != nil {
			return err
		}
		return <-arrived
	})
}

// bigRoom lets many accounts join one room and reads their view of it.
func (r *run) bigRoom(ctx context.Context) error {
	big := r.rooms[1]
	r.member = make([]user, r.Members)
	view := func(i int) user { return r.member[i%len(r.member)] }
	phases := []struct {
		name       string
		n, workers int
		fn         func(i int) error
	}{
		{"register_members", r.Members, 4, func(i int) (err error) {
			r.member[i], err = r.client.register(ctx, r.Secret, fmt.Sprintf("%s_m%d", r.Prefix, i))
			return err
		}},
		{"join_big_room", r.Members, 8, func(i int) error { return r.client.join(ctx, r.member[i], big) }},
		{"members_of_big_room", 50, 4, func(i int) error {
			return r.client.call(ctx, "GET", "/_matrix/client/v3/rooms/"+url.PathEscape(big)+"/members", view(i).token, nil, nil)
		}},
		{"send_big_room", 500, 8, func(i int) error { return r.send(ctx, view(i), big, message) }},
		{"initial_sync_big_room", 50, 4, func(i int) error {
			_, err := r.client.sync(ctx, view(i), "", "", 0)
			return err
		}},
	}
	for _, p := range phases {
		if err := r.phase(ctx, p.name, p.n, p.workers, p.fn); err != nil {
			return err
		}
	}
	return nil
}

// wideAccount puts one account into every room and reads its view.
func (r *run) wideAccount(ctx context.Context) error {
	wide := r.users[0]
	err := r.phase(ctx, "join_all_rooms", len(r.rooms), 4, func(i int) error { return r.client.join(ctx, wide, r.rooms[i]) })
	if err != nil {
		return err
	}
	err = r.phase(ctx, "initial_sync_all_rooms", 20, 2, func(int) error {
		_, err := r.client.sync(ctx, wide, "", "", 0)
		return err
	})
	if err != nil {
		return err
	}
	page := "/_matrix/client/v3/rooms/" + url.PathEscape(r.rooms[0]) + "/messages?dir=b&limit=100"
	return r.phase(ctx, "messages_page", 200, 4, func(int) error {
		return r.client.call(ctx, "GET", page, wide.token, nil, nil)
	})
}

const (
	// fanMessages is how many messages are delivered to every receiver.
	fanMessages = 50

	// maxReceivers bounds how many members hold a sync open at once.
	maxReceivers = 200

	// fanLimit is how long all deliveries may take.
	fanLimit = 5 * time.Minute

	// lazy is the filter of those syncs.
	lazy = `{"room":{"timeline":{"limit":50},"state":{"lazy_load_members":true}}}`
)

// fanOut lets members of the big room hold a sync open while messages are sent
// into it. Its phase counts deliveries, not requests; it has no latencies.
func (r *run) fanOut(ctx context.Context) error {
	big := r.rooms[1]
	receivers := r.member[:min(len(r.member), maxReceivers)]
	since := make([]string, len(receivers))
	err := r.phase(ctx, "initial_sync_lazy", len(receivers), 8, func(i int) error {
		a, err := r.client.sync(ctx, receivers[i], "", lazy, 0)
		since[i] = a.Next
		return err
	})
	if err != nil {
		return err
	}
	got := new(tally)
	listening, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	for i, u := range receivers {
		group.Go(func() { r.receive(listening, u, big, since[i], got) })
	}
	time.Sleep(time.Second) // let the long polls arrive

	want := int64(fanMessages * len(receivers))
	before, start := UsageOf(r.PID), time.Now()
	for i := range fanMessages {
		if err = r.send(ctx, receivers[0], big, fmt.Appendf(nil, `{"msgtype":"m.text","body":"fan %d"}`, i)); err != nil {
			break
		}
	}
	for err == nil && got.delivered.Load() < want && time.Since(start) < fanLimit && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	wall, after := time.Since(start), UsageOf(r.PID)
	stop()
	group.Wait()
	if err != nil {
		return err
	}
	p := Phase{
		Name: "fan_out", N: int(want), Failed: int(want - got.delivered.Load()), PerSec: float64(got.delivered.Load()) / wall.Seconds(),
		CPU: float64((after.CPU - before.CPU).Microseconds()) / 1000 / float64(want), RSS: after.RSS,
	}
	r.report.Phases = append(r.report.Phases, p)
	r.Progress("%-22s %6d delivered %8.1f/s  cpu %6.3f ms  rss %6.1f MB", p.Name, got.delivered.Load(), p.PerSec, p.CPU, p.RSS)
	return ctx.Err()
}

// tally is what all receivers have seen so far.
type tally struct {
	delivered atomic.Int64
	complaint sync.Once // tells the first error only
}

// receive syncs until ctx ends and counts the messages of the fan-out.
func (r *run) receive(ctx context.Context, u user, room, since string, got *tally) {
	for ctx.Err() == nil {
		a, err := r.client.sync(ctx, u, since, lazy, 5*time.Second)
		if err != nil {
			if ctx.Err() == nil {
				got.complaint.Do(func() { r.Progress("fan_out: %v", err) })
			}
			return
		}
		since = a.Next
		for _, body := range a.bodies(room) {
			if strings.HasPrefix(body, "fan ") {
				got.delivered.Add(1)
			}
		}
	}
}
