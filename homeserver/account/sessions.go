package account

import (
	"slices"
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
	young, old half
	dropped    uint64 // how often something was dropped
}

// half finds what is kept by key, and the keys by user.
type half struct {
	kept map[string]kept
	keys map[matrix.UserID][]string
}

type kept struct {
	*remembered
	until time.Time
}

func (h *half) add(key string, k kept) {
	if _, ok := h.kept[key]; !ok {
		h.keys[k.session.User] = append(h.keys[k.session.User], key)
	}
	h.kept[key] = k
}

// take removes and returns what is kept under key.
func (h *half) take(key string) (kept, bool) {
	k, ok := h.kept[key]
	if !ok {
		return k, false
	}
	delete(h.kept, key)
	user := k.session.User
	list := h.keys[user]
	i := slices.Index(list, key)
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(h.keys, user)
	} else {
		h.keys[user] = list
	}
	return k, true
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
	k, ok := c.young.kept[key]
	if !ok {
		if k, ok = c.old.take(key); ok {
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
	if before, ok := c.young.kept[key]; ok {
		e.seen.Store(before.seen.Load())
	}
	c.add(key, kept{e, now.Add(sessionKeeps)})
}

func (c *sessions) add(key string, k kept) {
	if c.young.kept == nil || len(c.young.kept) >= mostSessions {
		c.old, c.young = c.young, half{make(map[string]kept), make(map[matrix.UserID][]string)}
	}
	c.young.add(key, k)
}

// drop forgets one token.
func (c *sessions) drop(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped++
	c.young.take(key)
	c.old.take(key)
}

// dropUser forgets everything of a user, or of one device if device is not "".
func (c *sessions) dropUser(user matrix.UserID, device matrix.DeviceID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped++
	for _, h := range []*half{&c.young, &c.old} {
		for _, key := range slices.Clone(h.keys[user]) {
			if device == "" || h.kept[key].session.Device == device {
				h.take(key)
			}
		}
	}
}
