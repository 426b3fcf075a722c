package fedclient

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/cache"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/store"
)

// BellKey is the key that is rung when a server is heard again that did not
// answer before.
func BellKey(server matrix.ServerName) string { return "server " + string(server) }

// The bounds of what is kept about reaching servers.
const (
	maxReach    = 20_000    // servers in memory; the store has them all
	successStep = time.Hour // how often it is written down that a server answers
)

// reach remembers which servers do not answer.
type reach struct {
	store       *store.Store
	bell        *notify.Bell
	first, most time.Duration
	now         func() time.Time

	mu    sync.Mutex // tier 1; held for one server's change, not while reading or writing the store
	known *cache.Cache[matrix.ServerName, store.Destination]
}

func newReach(st *store.Store, bell *notify.Bell, first, most time.Duration) *reach {
	return &reach{store: st, bell: bell, first: first, most: most, now: time.Now, known: cache.New[matrix.ServerName, store.Destination](maxReach)}
}

// RetryAt is when a server may be asked again that did not answer; a time that
// has passed, or the zero time, where it may be asked now.
func (c *Client) RetryAt(ctx context.Context, server matrix.ServerName) (time.Time, error) {
	d, err := c.reach.of(ctx, server)
	if err != nil || d.RetryTS == 0 {
		return time.Time{}, err
	}
	return time.UnixMilli(d.RetryTS), nil
}

// Failed notes that a server did not do what it should, so that it is left
// alone for a while: for callers who see more than that it answers. Failures
// while it is left alone count as one.
func (c *Client) Failed(ctx context.Context, server matrix.ServerName) { c.reach.failed(ctx, server) }

// Heard notes that a server is there: it asked us something, say. If it did not
// answer before, it may be asked again at once, and BellKey is rung.
func (c *Client) Heard(ctx context.Context, server matrix.ServerName) { c.reach.heard(ctx, server) }

// of answers what is known of a server.
func (r *reach) of(ctx context.Context, server matrix.ServerName) (store.Destination, error) {
	if d, ok := r.known.Find(server); ok {
		return d, nil
	}
	d, _, err := r.store.Destination(ctx, server)
	if err != nil {
		return store.Destination{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if newer, ok := r.known.Find(server); ok {
		return newer, nil
	}
	d.Server = server
	r.known.Put(server, d, 1)
	return d, nil
}

// check answers a BackoffError if the server is to be left alone.
func (r *reach) check(ctx context.Context, server matrix.ServerName) error {
	d, err := r.of(ctx, server)
	if err != nil {
		return err
	}
	if until := time.UnixMilli(d.RetryTS); r.now().Before(until) {
		return &BackoffError{server, until}
	}
	return nil
}

// failed and heard go on when their caller gives up, and do not fail: what a
// server answered counts more than that it answered.

func (r *reach) failed(ctx context.Context, server matrix.ServerName) {
	now := r.now().UnixMilli()
	r.change(ctx, server, func(d *store.Destination) bool {
		if d.RetryTS > now {
			return false // requests that were under way together
		}
		if d.Failures++; d.Failures == 1 {
			d.FailingTS = now
		}
		d.RetryTS = now + r.pause(d.Failures).Milliseconds()
		return true
	})
}

func (r *reach) heard(ctx context.Context, server matrix.ServerName) {
	now := r.now().UnixMilli()
	again := false
	changed := r.change(ctx, server, func(d *store.Destination) bool {
		again = d.Failures > 0
		if !again && now-d.SuccessTS < successStep.Milliseconds() {
			return false
		}
		d.Failures, d.FailingTS, d.RetryTS, d.SuccessTS = 0, 0, 0, now
		return true
	})
	if changed && again && r.bell != nil {
		r.bell.Ring(BellKey(server))
	}
}

// pause is how long a server is left alone after a number of failures in a row:
// twice as long each time, and a fifth more or less by chance.
func (r *reach) pause(failures int64) time.Duration {
	d := r.most
	if failures < 40 && r.first<<(failures-1)>>(failures-1) == r.first {
		d = min(d, r.first<<(failures-1))
	}
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// change changes what is known of a server, in memory and then in the store,
// and tells whether it did.
func (r *reach) change(ctx context.Context, server matrix.ServerName, f func(d *store.Destination) bool) bool {
	ctx = context.WithoutCancel(ctx)
	d, err := r.of(ctx, server)
	if err == nil {
		r.mu.Lock()
		if newer, ok := r.known.Find(server); ok {
			d = newer
		}
		changed := f(&d)
		if changed {
			r.known.Put(server, d, 1)
		}
		r.mu.Unlock()
		if !changed {
			return false
		}
		err = r.store.Update(ctx, func(tx *store.Tx) error {
			// What is newest when the lane comes here is written, so that two
			// changes cannot overtake each other.
			newest := d
			if n, ok := r.known.Find(server); ok {
				newest = n
			}
			return tx.PutReach(ctx, newest)
		})
	}
	if err != nil {
		zerolog.Ctx(ctx).Err(err).Str("server", string(server)).Msg("not written down whether a server answers")
	}
	return true
}
