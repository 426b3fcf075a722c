package federation

import (
	"context"
	"sync"
	"time"

	"switchboard/homeserver/matrix"
)

// origins bounds how much is done for one server at a time, so that none takes
// the place of others.
type origins struct {
	mu   sync.Mutex // tier 1; guards what follows
	work map[matrix.ServerName]*lane
}

// lane is what is done for one server.
type lane struct {
	slots chan struct{}
	users int // who hold a slot or wait for one; guarded by origins.mu
}

// enter waits for a place among the work for a server and gives the function
// that leaves it. The error is M_LIMIT_EXCEEDED where too many wait already.
func (o *origins) enter(ctx context.Context, origin matrix.ServerName, most, waiting int) (leave func(), err error) {
	o.mu.Lock()
	l := o.work[origin]
	if l == nil {
		if o.work == nil {
			o.work = map[matrix.ServerName]*lane{}
		}
		l = &lane{slots: make(chan struct{}, most)}
		o.work[origin] = l
	}
	if l.users >= most+waiting {
		o.mu.Unlock()
		return nil, &matrix.Error{Code: matrix.LimitExceeded, Text: "too many requests at a time", RetryAfter: 5 * time.Second}
	}
	l.users++
	o.mu.Unlock()
	done := func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(o.work, origin)
		}
	}
	select {
	case l.slots <- struct{}{}:
		return func() { <-l.slots; done() }, nil
	case <-ctx.Done():
		done()
		return nil, ctx.Err()
	}
}

// rates counts what happened in the last hour, by name.
type rates struct {
	mu    sync.Mutex // tier 1; guards all below
	hour  int64
	count map[string]int
}

// allow counts one more and tells whether there are at most the given number
// in this hour.
func (r *rates) allow(name string, most int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if hour := time.Now().Unix() / 3600; hour != r.hour || r.count == nil {
		r.hour, r.count = hour, map[string]int{}
	}
	if r.count[name] >= most {
		return false
	}
	r.count[name]++
	return true
}
