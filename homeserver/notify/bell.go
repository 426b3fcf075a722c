// Package notify wakes whoever waits for new rows in the log. It is a
// doorbell: it carries no data, and a reader that missed a ring loses nothing,
// because the rows are in the store. It does not know who rings or what for.
package notify

import (
	"sync"
	"time"
)

// Log is the key that is rung at every commit, for those who read the whole
// log. All other keys are the IDs of local users.
const Log = "log"

// keep is how long a channel is remembered that nobody asks for again. A
// listener that waits longer is woken for nothing.
const keep = 10 * time.Minute

// Bell wakes listeners by key. The zero Bell is ready. Its methods may be
// called from several goroutines.
//
// A listener that gave up need not say so: what it leaves behind is removed by
// the next Ring for its key, or after a while. A wake-up is therefore only a
// reason to look, not a promise of something new.
type Bell struct {
	mu      sync.Mutex // tier 1; guards what follows
	keys    map[string]*waiting
	cleaned time.Time
}

// waiting is who waits for one key.
type waiting struct {
	one  *listener              // shared by all calls of Listen; may be nil
	many map[*listener]struct{} // of ListenAll; may be nil
}

// listener is one channel and when it was asked for.
type listener struct {
	ch   chan struct{}
	keys []string
	last time.Time
}

// Ring wakes those who listen for any of keys. A key that nobody listens for
// costs nothing.
func (b *Bell) Ring(keys ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range keys {
		w := b.keys[key]
		if w == nil {
			continue
		}
		if w.one != nil {
			b.wake(w.one)
		}
		for l := range w.many {
			b.wake(l)
		}
	}
}

// Listen returns a channel that is closed at the next Ring for key. Call it
// before reading the store, or a row may slip in between the read and the
// wait.
func (b *Bell) Listen(key string) <-chan struct{} {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clean(now)
	w := b.waiting(key)
	if w.one == nil {
		w.one = &listener{ch: make(chan struct{}), keys: []string{key}}
	}
	w.one.last = now
	return w.one.ch
}

// ListenAll is Listen for several keys: the channel is closed at the next Ring
// for any of them. Without keys it is never closed.
func (b *Bell) ListenAll(keys ...string) <-chan struct{} {
	if len(keys) == 1 {
		return b.Listen(keys[0])
	}
	now := time.Now()
	l := &listener{ch: make(chan struct{}), keys: append([]string(nil), keys...), last: now}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clean(now)
	for _, key := range keys {
		w := b.waiting(key)
		if w.many == nil {
			w.many = map[*listener]struct{}{}
		}
		w.many[l] = struct{}{}
	}
	return l.ch
}

// waiting returns those who wait for key. b.mu is held.
func (b *Bell) waiting(key string) *waiting {
	if b.keys == nil {
		b.keys = map[string]*waiting{}
	}
	w := b.keys[key]
	if w == nil {
		w = &waiting{}
		b.keys[key] = w
	}
	return w
}

// wake closes the channel of l and forgets it under all its keys. b.mu is
// held.
func (b *Bell) wake(l *listener) {
	close(l.ch)
	for _, key := range l.keys {
		w := b.keys[key]
		if w == nil {
			continue // the same key twice
		}
		if w.one == l {
			w.one = nil
		}
		delete(w.many, l)
		if w.one == nil && len(w.many) == 0 {
			delete(b.keys, key)
		}
	}
}

// clean wakes the listeners that nobody asked for in a while. Most of them
// have left. b.mu is held.
func (b *Bell) clean(now time.Time) {
	if now.Sub(b.cleaned) < keep/2 {
		return
	}
	b.cleaned = now
	for _, w := range b.keys {
		if w.one != nil && now.Sub(w.one.last) > keep {
			b.wake(w.one)
		}
		for l := range w.many {
			if now.Sub(l.last) > keep {
				b.wake(l)
			}
		}
	}
}
