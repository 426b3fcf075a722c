package client

import "time"

// bucket is a token bucket: it holds at most burst tokens and gains one every
// interval. A line costs one. The zero interval means no limit.
type bucket struct {
	burst    int
	interval time.Duration
	tokens   int
	last     time.Time // when the newest token was gained
}

// take takes a token. When there is none it returns how long to wait for one.
func (b *bucket) take(now time.Time) (wait time.Duration, ok bool) {
	if b.interval <= 0 {
		return 0, true
	}
	if b.last.IsZero() {
		b.tokens, b.last = b.burst, now
	}
	if gained := int(now.Sub(b.last) / b.interval); gained > 0 {
		b.tokens = min(b.burst, b.tokens+gained)
		b.last = b.last.Add(time.Duration(gained) * b.interval)
	}
	if b.tokens == b.burst {
		b.last = now // a full bucket gains nothing
	}
	if b.tokens > 0 {
		b.tokens--
		return 0, true
	}
	return b.last.Add(b.interval).Sub(now), false
}
