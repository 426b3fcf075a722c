package voip

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// slots is how many buckets there are. Sources share them by chance, so that
// memory stays what it is however many there are.
const slots = 1 << 13

// throttle bounds how often each source is answered.
type throttle struct {
	rate  float64 // a second
	burst float64
	seed  maphash.Seed

	mu   sync.Mutex // tier 3; guards left and last
	left [slots]float32
	last [slots]int64 // when left was true, in nanoseconds
}

func newThrottle(rate, burst float64) *throttle {
	return &throttle{rate: rate, burst: burst, seed: maphash.MakeSeed()}
}

// Source is as whom limits count an address: all of an IPv6 /64 is one source,
// since whoever has one address of it has them all.
func Source(a netip.Addr) netip.Addr {
	if a = a.Unmap(); a.Is4() {
		return a
	}
	p, _ := a.WithZone("").Prefix(64) // no address stays none
	return p.Addr()
}

// take tells whether a source may be answered now.
func (t *throttle) take(a netip.Addr, now time.Time) bool {
	i := t.slot(a)
	t.mu.Lock()
	defer t.mu.Unlock()
	at := now.UnixNano()
	left := min(t.burst, float64(t.left[i])+t.rate*float64(max(0, at-t.last[i]))/1e9) // clocks are set back, too
	t.last[i] = at
	if left < 1 {
		t.left[i] = float32(left)
		return false
	}
	t.left[i] = float32(left - 1)
	return true
}

// slot is the number of a source's bucket.
func (t *throttle) slot(a netip.Addr) uint64 {
	b := Source(a).As16()
	return maphash.Bytes(t.seed, b[:]) % slots
}

// bucket bounds the bytes of one direction. It is used under a lock.
type bucket struct {
	left float64
	last int64 // nanoseconds
}

// take tells whether n more bytes may pass, at a rate of bytes a second and half
// a second's worth at once. A rate of 0 bounds nothing. Now may be before the
// last one: clocks are set back.
func (b *bucket) take(n int, rate int64, now int64) bool {
	if rate == 0 {
		return true
	}
	b.left += float64(min(max(0, now-b.last), int64(time.Second))) * float64(rate) / 1e9
	b.left = min(float64(rate)/2, b.left)
	b.last = now
	if b.left < float64(n) {
		return false
	}
	b.left -= float64(n)
	return true
}

// quotas count what users hold.
type quotas struct {
	user, total int

	mu   sync.Mutex // tier 3; guards held and all
	held map[string]int
	all  int
}

// take counts one more for a user. The error is errQuota if the user has too many,
// and errFull if all users have.
func (q *quotas) take(user string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.held[user] >= q.user:
		return errQuota
	case q.all >= q.total:
		return errFull
	}
	if q.held == nil {
		q.held = map[string]int{}
	}
	q.held[user]++
	q.all++
	return nil
}

// give back what was taken.
func (q *quotas) give(user string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all--
	if q.held[user]--; q.held[user] == 0 {
		delete(q.held, user)
	}
}

// addressBytes is what of an address goes into a nonce.
func addressBytes(a netip.AddrPort) []byte {
	b := a.Addr().As16()
	return binary.BigEndian.AppendUint16(b[:], a.Port())
}
