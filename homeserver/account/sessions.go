package account

import (
	"sync"
	"time"

	"switchboard/homeserver/matrix"
)

// How many sessions are remembered in each of two halves, and how long one may
// be used before it is read again: another process, such as the command line,
// may have ended it.
const (
	mostSessions  = 1 << 15
	sessionKeeps  = time.Minute
	seenEvery     = time.Minute
	mostSightings = 1 << 16
)

// sessions remembers who authenticated, so that it costs no query each time.
// It holds two halves: when the young one is full it becomes the old one, and
// what is used in the old one moves on. So its memory is bounded, and what is
// in use stays.
type sessions struct {
	mu         sync.Mutex // tier 1; guards all below
	young, old map[string]kept
	dropped    uint64 // how often something was dropped
}

type kept struct {
	*remembered
	until time.Time
}

// age is to be given to put. What was read before a drop is not remembered
// after it.
func (c *sessions) age() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped
}

func (c *sessions) find(key string) (*remembered, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.young[key]
	if !ok {
		if k, ok = c.old[key]; ok {
			delete(c.old, key)
			c.add(key, k)
		}
	}
	if !ok || time.Now().After(k.until) {
		return nil, false
	}
	return k.remembered, true
}

func (c *sessions) put(key string, e *remembered, now time.Time, age uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dropped != age {
		return
	}
	if before, ok := c.young[key]; ok {
		e.seen.Store(before.seen.Load())
	}
	c.add(key, kept{e, now.Add(sessionKeeps)})
}

func (c *sessions) add(key string, k kept) {
	if c.young == nil || len(c.young) >= mostSessions {
		c.old, c.young = c.young, make(map[string]kept)
	}
	c.young[key] = k
}

// drop forgets one token.
func (c *sessions) drop(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped++
	delete(c.young, key)
	delete(c.old, key)
}

// dropUser forgets everything of a user, or of one device if device is not "".
func (c *sessions) dropUser(user matrix.UserID, device matrix.DeviceID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped++
	for _, half := range []map[string]kept{c.young, c.old} {
		for key, k := range half {
			if k.session.User == user && (device == "" || k.session.Device == device) {
				delete(half, key)
			}
		}
	}
}
