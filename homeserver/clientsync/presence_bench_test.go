package clientsync

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// processor is how much processor time this process has taken.
func processor(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// crowd is users who share 10 rooms, and all of whom wait for news.
type crowd struct {
	*world
	users []matrix.UserID
	heard atomic.Int64 // presence events that clients got
	woken atomic.Int64 // syncs that were answered
}

func newCrowd(b *testing.B, n int) *crowd {
	c := &crowd{world: benchWorld(b, 256<<20)}
	c.Ephemeral.NoPresence = false
	for i := range n {
		c.users = append(c.users, matrix.NewUserID(fmt.Sprint("u", i), "a.test"))
	}
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			id := c.create(room.Creation{Preset: "public_chat"})
			for _, u := range c.users {
				c.ok(c.Rooms.Join(c.ctx(), room.Change{Room: id, Actor: u, Target: u}))
			}
		})
	}
	group.Wait()
	ctx, stop := context.WithCancel(c.ctx())
	var running sync.WaitGroup
	b.Cleanup(func() { stop(); running.Wait() })
	running.Go(func() {
		if err := c.Ephemeral.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	for _, u := range c.users {
		since := "" // all begin at the same place, and get no first answer
		running.Go(func() {
			for ctx.Err() == nil {
				if since == "" {
					since = token{pos: c.Store.Position()}.String()
				}
				a, err := c.Sync(ctx, Request{User: u, Device: "D", Since: since, Timeout: time.Minute, Filter: &Filter{}})
				if err != nil {
					if ctx.Err() == nil {
						b.Error(err)
					}
					return
				}
				if _, err := a.JSON(); err != nil {
					b.Error(err)
				}
				since = a.NextBatch
				c.woken.Add(1)
				if a.Presence != nil {
					c.heard.Add(int64(len(a.Presence.Events)))
				}
			}
		})
	}
	return c
}

// change lets a user's presence be another one.
func (c *crowd) change(i int) {
	state := []string{ephemeral.Online, ephemeral.Unavailable}[i/len(c.users)%2]
	if err := c.Ephemeral.SetPresence(c.ctx(), c.users[i%len(c.users)], "D", state, nil); err != nil {
		c.Error(err)
	}
}

// BenchmarkPresence is what changes of presence cost among 1,000 users who share
// 10 rooms and all wait for news: one that all of them are told, and many at once.
func BenchmarkPresence(b *testing.B) {
	c := newCrowd(b, 1000)
	for _, together := range []int{1, 1000} {
		b.Run(fmt.Sprint(together, " at once"), func(b *testing.B) {
			n := 0
			heard, woken, before := c.heard.Load(), c.woken.Load(), processor(b)
			for b.Loop() {
				for range together {
					c.change(n)
					n++
				}
				for last := int64(-1); last != c.heard.Load() || last < heard+int64(together); time.Sleep(5 * time.Second) {
					last = c.heard.Load()
				}
			}
			took := processor(b) - before
			b.ReportMetric(float64(took.Microseconds())/float64(n), "cpu-µs/change")
			b.ReportMetric(float64(c.woken.Load()-woken)/float64(n), "wakes/change")
			b.ReportMetric(float64(c.heard.Load()-heard)/float64(n), "told/change")
		})
	}
}
