package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"switchboard/cmd/dev/load"
	"switchboard/cmd/dev/peers"
	"switchboard/homeserver/matrix"
)

// syncOptions are the command line of the syncs.
type syncOptions struct {
	rooms    int // of the wide account
	messages int // in each of them, where they are made through the API
	sends    int // that wake clients
}

// syncReport is what was measured of one account in many rooms in one round. Times
// are in ms.
type syncReport struct {
	Cold, Initial  float64 // of /sync without a token: right after the start, and the median of those after it
	InitialCPU     float64 // of the server, for each of those after the first
	ColdList, List float64 // the same for 20 rooms of sliding sync
	ListCPU        float64
	Memory         float64    // MB, at the end
	Wakes          [4]float64 // of wakeKinds
}

// wakeKinds are who waits in each of the measured wake-ups.
var wakeKinds = [4]string{
	"/sync, accounts in one room", "/sync, an account in all rooms", "sliding sync, the same, looking at 20 rooms", "sliding sync, the same, looking at all",
}

// syncSubject is a server with the data of an account in many rooms.
type syncSubject struct {
	subject
	data   string // "made" through the API, or a "crowd"
	host   *peers.Server
	wide   *load.Account
	people []*load.Account // who wait in the square
	square string          // a room of the wide account and of people
}

// measureSyncs makes the data, once, and measures every server in turn.
func (b *bench) measureSyncs(ctx context.Context) error {
	var all []*syncSubject
	for _, database := range b.databases {
		for _, p := range b.servers {
			s := &syncSubject{subject: subject{p.Name(), database}, data: "made"}
			if p.Name() == "dendrite" && database == "sqlite" && len(b.databases) > 1 {
				continue // its makers advise against it
			}
			if err := b.prepareSync(ctx, p, s); err != nil {
				return fmt.Errorf("%s on %s: %w", p.Name(), database, err)
			}
			all = append(all, s)
			if p.Name() == "switchboard" {
				s := &syncSubject{subject: s.subject, data: "crowd"}
				if err := b.prepareSync(ctx, p, s); err != nil {
					return err
				}
				all = append(all, s)
			}
		}
	}
	for round := range b.rounds {
		for _, s := range all {
			r, err := s.measure(ctx, b.sync.sends)
			if err != nil {
				return fmt.Errorf("%s on %s: %w", s.server, s.database, err)
			}
			fmt.Printf("== round %d of %d: %s on %s, %s: %+v\n", round+1, b.rounds, s.server, s.database, s.data, *r)
			key := syncKey{s.subject, s.data}
			b.synced[key] = append(b.synced[key], r)
		}
	}
	return nil
}

// syncKey is what a syncReport is of.
type syncKey struct {
	subject
	data string
}

// prepareSync starts a server, makes its accounts and rooms, and stops it.
func (b *bench) prepareSync(ctx context.Context, p peers.Program, s *syncSubject) (err error) {
	start := time.Now()
	dir, address, err := b.place(ctx, s.database)
	if err != nil {
		return err
	}
	if s.host, err = peers.New(ctx, p, peers.Options{Dir: dir, Database: address}); err != nil {
		return err
	}
	if err := s.host.Start(ctx); err != nil {
		return err
	}
	err = s.register(ctx)
	if err == nil && s.data == "made" {
		err = furnish(ctx, s.wide, b.sync.rooms, b.sync.messages)
	}
	if stopErr := s.host.Stop(syscall.SIGTERM); err == nil {
		err = stopErr
	}
	if err == nil && s.data == "crowd" {
		b.crowded, err = crowd(ctx, address, filepath.Join(dir, "data"), matrix.UserID(s.wide.ID), b.sync.rooms)
	}
	fmt.Printf("== %s on %s has its rooms: %s\n", p.Name(), s.database, time.Since(start).Round(time.Second))
	return err
}

// register makes the accounts and the square.
func (s *syncSubject) register(ctx context.Context) (err error) {
	if s.wide, err = load.Register(ctx, s.host.URL, peers.Secret, "wide"); err != nil {
		return err
	}
	if s.data != "crowd" {
		return nil
	}
	s.people = make([]*load.Account, waiters)
	err = each(len(s.people), 2, func(i int) (err error) {
		s.people[i], err = load.Register(ctx, s.host.URL, peers.Secret, fmt.Sprintf("person%d", i))
		return err
	})
	if err != nil {
		return err
	}
	var made struct {
		Room string `json:"room_id"`
	}
	if err := s.wide.Call(ctx, "POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "public_chat"}, &made); err != nil {
		return err
	}
	s.square = url.PathEscape(made.Room)
	return each(len(s.people), 4, func(i int) error {
		return s.people[i].Call(ctx, "POST", "/_matrix/client/v3/join/"+s.square, map[string]any{}, nil)
	})
}

// measure is one round.
func (s *syncSubject) measure(ctx context.Context, sends int) (r *syncReport, err error) {
	if err := s.host.Start(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if stopErr := s.host.Stop(syscall.SIGTERM); err == nil {
			err = stopErr
		}
	}()
	r = &syncReport{}
	const lazy = `{"room":{"timeline":{"limit":20},"state":{"lazy_load_members":true}}}`
	r.Cold, r.Initial, r.InitialCPU, err = s.again(3, func() error {
		return s.wide.Call(ctx, "GET", "/_matrix/client/v3/sync?filter="+url.QueryEscape(lazy), nil, nil)
	})
	if err != nil || s.data != "crowd" {
		return r, err
	}
	conn := 0
	r.ColdList, r.List, r.ListCPU, err = s.again(31, func() error {
		conn++
		var a slideAnswer
		err := s.wide.Call(ctx, "POST", slidePath, slideBody(fmt.Sprint(conn), "", 19), &a)
		if err == nil && len(a.Rooms) != 20 {
			err = fmt.Errorf("sliding sync showed %d rooms", len(a.Rooms))
		}
		return err
	})
	if err != nil {
		return r, err
	}
	for kind := range wakeKinds {
		if r.Wakes[kind], err = s.wake(ctx, kind, sends); err != nil {
			return r, fmt.Errorf("%s: %w", wakeKinds[kind], err)
		}
	}
	r.Memory = load.UsageOf(s.host.PID()).RSS
	return r, nil
}

// again calls f n times. It answers how long the first call took and the others at
// the median, and the processor time of the server for each of these, in ms.
func (s *syncSubject) again(n int, f func() error) (first, median, cpu float64, err error) {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	var took []float64
	var used time.Duration
	for i := range n {
		start := time.Now()
		if err := f(); err != nil {
			return 0, 0, 0, err
		}
		d := ms(time.Since(start))
		if i == 0 {
			first, used = d, processorTime(s.host.PID())
			continue
		}
		took = append(took, d)
	}
	used = processorTime(s.host.PID()) - used
	slices.Sort(took)
	return first, took[len(took)/2], ms(used) / float64(n-1), nil
}

// wake measures what one wake-up costs the server, in ms of processor time: that of
// sends which wake clients, less that of as many which wake nobody.
func (s *syncSubject) wake(ctx context.Context, kind, sends int) (float64, error) {
	pause := func() { time.Sleep(10 * time.Millisecond) } // until all wait again

	// What only the first messages after a start cost counts for neither.
	if _, err := s.send(ctx, fmt.Sprint("first", kind), 3, pause); err != nil {
		return 0, err
	}
	alone, err := s.send(ctx, fmt.Sprint("alone", kind), sends, pause)
	if err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	var got atomic.Int64
	loops, err := s.loops(ctx, kind)
	if err != nil {
		return 0, err
	}
	failed := make(chan error, len(loops))
	for _, ask := range loops {
		group.Go(func() {
			for ctx.Err() == nil {
				messages, err := ask(ctx)
				if err != nil {
					failed <- err
					return
				}
				got.Add(int64(messages))
			}
		})
	}
	pause()
	var want int64
	waited, err := s.send(ctx, fmt.Sprint("waited", kind), sends, func() {
		want += int64(len(loops))
		for limit := time.Now().Add(time.Minute); got.Load() < want && len(failed) == 0 && time.Now().Before(limit); {
			time.Sleep(time.Millisecond)
		}
		pause()
	})
	switch {
	case err != nil:
		return 0, err
	case len(failed) > 0:
		return 0, <-failed
	case got.Load() < want:
		return 0, errors.New("not everybody was woken")
	}
	return float64((waited - alone).Microseconds()) / 1000 / float64(want), nil
}

// send sends messages into the square, waits after each of them, and answers how
// long the server's threads have run.
func (s *syncSubject) send(ctx context.Context, txn string, n int, wait func()) (time.Duration, error) {
	before := processorTime(s.host.PID())
	for i := range n {
		path := fmt.Sprintf("/_matrix/client/v3/rooms/%s/send/m.room.message/%s.%d.%d", s.square, txn, os.Getpid(), time.Now().UnixNano())
		if err := s.people[0].Call(ctx, "PUT", path, map[string]any{"msgtype": "m.text", "body": fmt.Sprint("wake up ", i)}, nil); err != nil {
			return 0, err
		}
		wait()
	}
	return processorTime(s.host.PID()) - before, nil
}

// waiters is how many clients wait, and wideWaiters how many of the wide account,
// which has to sync everything before.
const waiters, wideWaiters = 50, 10

// loops are the clients that wait, each with what it needs to wait. A call is one
// request, and answers how many messages it brought.
func (s *syncSubject) loops(ctx context.Context, kind int) (list []func(context.Context) (int, error), err error) {
	n := wideWaiters
	if kind == 0 {
		n = waiters
	}
	since := ""
	if kind == 1 { // one initial sync does for all
		if _, err := syncLoop(s.wide, &since)(ctx); err != nil {
			return nil, err
		}
	}
	for i := range n {
		var ask func(context.Context) (int, error)
		switch kind {
		case 0:
			ask = syncLoop(s.people[i], new(string))
		case 1:
			ask = syncLoop(s.wide, new(since))
		case 2:
			ask = slideLoop(s.wide, i, 19)
		default:
			ask = slideLoop(s.wide, i, 1<<20)
		}
		if kind != 1 {
			if _, err := ask(ctx); err != nil { // the first answer comes at once
				return nil, err
			}
		}
		list = append(list, ask)
	}
	return list, nil
}

// waiting is for how long a client waits, in ms.
const waiting = 60_000

// syncLoop follows by /sync, from a token on, which it changes.
func syncLoop(a *load.Account, since *string) func(context.Context) (int, error) {
	return func(ctx context.Context) (n int, err error) {
		q := url.Values{"filter": {`{"room":{"timeline":{"limit":20},"state":{"lazy_load_members":true}}}`}}
		if *since != "" {
			q.Set("since", *since)
			q.Set("timeout", fmt.Sprint(waiting))
		}
		var answer struct {
			Next  string `json:"next_batch"`
			Rooms struct {
				Join map[string]struct {
					Timeline struct{ Events []struct{} }
				}
			}
		}
		err = a.Call(ctx, "GET", "/_matrix/client/v3/sync?"+q.Encode(), nil, &answer)
		*since = answer.Next
		for _, r := range answer.Rooms.Join {
			n += len(r.Timeline.Events)
		}
		return n, err
	}
}

const slidePath = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"

type slideAnswer struct {
	Pos        string
	Rooms      map[string]struct{ Timeline []struct{} }
	Extensions struct {
		ToDevice struct {
			Next string `json:"next_batch"`
		} `json:"to_device"`
	}
}

// slideBody is a request as Element X makes them. Since is how far it has the
// messages to its device, "" at the beginning.
func slideBody(conn, since string, last int) map[string]any {
	on, toDevice := map[string]any{"enabled": true}, map[string]any{"enabled": true}
	if since != "" {
		toDevice["since"] = since
	}
	return map[string]any{
		"conn_id": conn,
		"lists": map[string]any{"all_rooms": map[string]any{
			"ranges": [][2]int{{0, last}}, "timeline_limit": 1, "filters": map[string]any{"not_room_types": []string{"m.space"}},
			"required_state": [][2]string{
				{"m.room.name", ""}, {"m.room.encryption", ""}, {"m.room.member", "$LAZY"}, {"m.room.member", "$ME"}, {"m.room.topic", ""},
				{"m.room.avatar", ""}, {"m.room.canonical_alias", ""}, {"m.room.power_levels", ""}, {"m.room.join_rules", ""},
				{"m.room.tombstone", ""}, {"m.room.create", ""}, {"m.room.history_visibility", ""}, {"m.space.parent", "*"}, {"m.space.child", "*"},
			},
		}},
		"extensions": map[string]any{"to_device": toDevice, "e2ee": on, "account_data": on, "receipts": on, "typing": on},
	}
}

// slideLoop follows by sliding sync.
func slideLoop(a *load.Account, conn, last int) func(context.Context) (int, error) {
	pos, since := "", ""
	return func(ctx context.Context) (n int, err error) {
		path := slidePath
		if pos != "" {
			path += "?" + url.Values{"pos": {pos}, "timeout": {fmt.Sprint(waiting)}}.Encode()
		}
		var answer slideAnswer
		err = a.Call(ctx, "POST", path, slideBody(fmt.Sprint("loop", conn, ".", last), since, last), &answer)
		pos, since = answer.Pos, answer.Extensions.ToDevice.Next
		for _, r := range answer.Rooms {
			n += len(r.Timeline)
		}
		return n, err
	}
}
