package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"switchboard/cmd/dev/instance"
	"switchboard/homeserver/database/databasetest"
)

// TestKillToDevice kills the server while people send messages to a device that
// syncs: it gets each of them, each sender's in order.
func TestKillToDevice(t *testing.T) {
	binary := instance.Binary(t)
	databasetest.EachURL(t, func(t *testing.T, url string) {
		s := instance.New(t, binary, url)
		s.Start()
		r := &recipient{User: s.Register("recipient"), got: map[string][]int{}}
		var people []*sender
		for i := range 4 {
			people = append(people, &sender{User: s.Register(fmt.Sprint("sender", i)), to: r.User})
		}
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		for range rounds {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			var group sync.WaitGroup
			for _, p := range people {
				group.Go(func() {
					for p.send(ctx) == nil {
					}
				})
			}
			group.Go(func() {
				for r.sync(ctx, 5000) == nil {
				}
			})
			time.Sleep(time.Duration(100+random.IntN(900)) * time.Millisecond)
			s.Kill()
			group.Wait()
			cancel()
			s.Start()
		}
		sent := 0
		for _, p := range people {
			if err := p.send(t.Context()); err != nil { // what was cut off, again
				t.Fatal(err)
			}
			sent += p.next
		}
		r.drain(t)
		for _, p := range people {
			newest := -1
			for _, n := range r.got[p.ID] {
				switch {
				case n == newest+1:
					newest = n
				case n > newest:
					t.Fatalf("%s: %d came after %d", p.ID, n, newest)
				}
			}
			if newest != p.next-1 {
				t.Errorf("%s: the newest that came is %d, %d were sent", p.ID, newest, p.next)
			}
		}
		t.Logf("%d messages", sent)
	})
}

// sender sends numbers to a device.
type sender struct {
	*instance.User
	to   *instance.User
	next int
}

// send sends the next number; one that is not answered comes again.
func (p *sender) send(ctx context.Context) error {
	path := fmt.Sprintf("/_matrix/client/v3/sendToDevice/m.test/%d", p.next)
	messages := map[string]any{p.to.ID: map[string]any{p.to.Device: map[string]int{"n": p.next}}}
	answer, err := p.Do(ctx, http.MethodPut, path, map[string]any{"messages": messages})
	if err == nil && answer.Status != http.StatusOK {
		err = &instance.Refusal{Answer: answer}
	}
	if err == nil {
		p.next++
	}
	return err
}

// recipient is a client that notes what its device gets.
type recipient struct {
	*instance.User
	since string
	got   map[string][]int // by sender
}

// sync asks once.
func (r *recipient) sync(ctx context.Context, timeout int) error {
	_, err := r.syncOnce(ctx, timeout)
	return err
}

// syncOnce asks once and tells how many messages came.
func (r *recipient) syncOnce(ctx context.Context, timeout int) (int, error) {
	q := url.Values{"since": {r.since}, "timeout": {fmt.Sprint(timeout)}}
	answer, err := r.Do(ctx, http.MethodGet, "/_matrix/client/v3/sync?"+q.Encode(), nil)
	if err != nil {
		return 0, err
	}
	if answer.Status != http.StatusOK {
		return 0, &instance.Refusal{Answer: answer}
	}
	var body struct {
		Next     string `json:"next_batch"`
		ToDevice struct {
			Events []struct {
				Sender  string
				Content struct{ N int }
			}
		} `json:"to_device"`
	}
	if err := json.Unmarshal(answer.Body, &body); err != nil {
		return 0, err
	}
	for _, e := range body.ToDevice.Events {
		r.got[e.Sender] = append(r.got[e.Sender], e.Content.N)
	}
	r.since = body.Next
	return len(body.ToDevice.Events), nil
}

// drain takes all that is left.
func (r *recipient) drain(t *testing.T) {
	t.Helper()
	for {
		n, err := r.syncOnce(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
}
