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

// rates counts what happened in this hour, by name.
type rates struct {
	mu    sync.Mutex // tier 1; guards all below
	since time.Time  // when the hour began
	count map[string]int
}

// take counts one more, or answers M_LIMIT_EXCEEDED if there are the given
// number in this hour already.
func (r *rates) take(name string, most int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := time.Hour - time.Since(r.since)
	if left <= 0 || r.count == nil {
		r.since, r.count, left = time.Now(), map[string]int{}, time.Hour
	}
	if r.count[name] >= most {
		return &matrix.Error{Code: matrix.LimitExceeded, Text: "too many invitations", RetryAfter: left}
	}
	r.count[name]++
	return nil
}
