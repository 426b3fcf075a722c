package fedapi

import (
	"io"
	"sync"
	"time"

	"switchboard/homeserver/federation"
	"switchboard/homeserver/matrix"
)

// traffic bounds what servers may ask at a time and in a second, and the memory
// of large bodies.
type traffic struct {
	mu      sync.Mutex // tier 1; guards all below
	callers map[matrix.ServerName]*caller
	large   int64 // bytes of the bodies that are under way, without the first free ones of each
}

// caller is a server that asks.
type caller struct {
	running int
	saved   float64 // requests that it may still make at once
	at      time.Time
}

const (
	burst       = 10 // seconds' worth of requests that a server may make at once
	mostCallers = 20_000
	free        = small // bytes of each body that are not counted
	dear        = 10    // requests of which one with a long answer counts for
)

// long are the operations whose answers are as large as a room's state.
var long = map[string]bool{"getRoomState": true, "getRoomStateIds": true, "getEventAuth": true, "sendJoinV1": true, "sendJoinV2": true}

// enter counts a request of a server and gives the function that ends it. The
// error is M_LIMIT_EXCEEDED and tells when to come again.
func (t *traffic) enter(origin matrix.ServerName, operation string, c federation.Config) (leave func(), err error) {
	cost := 1
	if long[operation] {
		cost = min(dear, c.MaxRequests)
	}
	now, rate := time.Now(), float64(c.RequestsPerSecond)
	t.mu.Lock()
	defer t.mu.Unlock()
	who := t.callers[origin]
	if who == nil {
		t.forget(now)
		who = &caller{saved: burst * rate, at: now}
		t.callers[origin] = who
	}
	who.saved, who.at = min(burst*rate, who.saved+now.Sub(who.at).Seconds()*rate), now
	if who.running+cost > c.MaxRequests || who.saved < 1 {
		wait := time.Duration((1 - min(who.saved, 0)) / rate * float64(time.Second))
		return nil, &matrix.Error{Code: matrix.LimitExceeded, Text: "too many requests", RetryAfter: max(wait, time.Second)}
	}
	who.saved--
	who.running += cost
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		who.running -= cost
	}, nil
}

// forget makes room for one more caller: those who ask nothing and have not asked
// for long are as good as new.
func (t *traffic) forget(now time.Time) {
	if t.callers == nil {
		t.callers = map[matrix.ServerName]*caller{}
	}
	if len(t.callers) < mostCallers {
		return
	}
	for name, c := range t.callers {
		if c.running == 0 && now.Sub(c.at) > burst*time.Second {
			delete(t.callers, name)
		}
	}
}

// body counts what is read of a large body. It is given back by done.
type body struct {
	io.ReadCloser
	t    *traffic
	most int64 // of all bodies together
	read int64
	held int64
}

// Read implements io.Reader. The error is M_LIMIT_EXCEEDED where the bodies of
// all servers take too much memory.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if b.read <= free {
		return n, err
	}
	more := b.read - free - b.held
	b.t.mu.Lock()
	defer b.t.mu.Unlock()
	if b.t.large+more > b.most {
		return 0, &matrix.Error{Code: matrix.LimitExceeded, Text: "too many large requests at a time", RetryAfter: time.Second}
	}
	b.t.large += more
	b.held += more
	return n, err
}

// done says that the body is needed no more.
func (b *body) done() {
	b.t.mu.Lock()
	defer b.t.mu.Unlock()
	b.t.large -= b.held
	b.held = 0
}
