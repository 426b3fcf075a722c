package media

import (
	"sync"

	"switchboard/homeserver/blob"
)

// locks keep a blob from being deleted while a row begins to need it. The zero
// value is ready.
type locks struct {
	mu    sync.Mutex // tier 1; guards all below
	known map[blob.Digest]*lock
}

// lock is that of one blob. It is held for reading from before the blob is there
// until its row is committed, and for writing while the blob is deleted.
type lock struct {
	sync.RWMutex     // tier 1
	users        int // who hold it or wait for it; at 0 it is forgotten
}

// hold keeps a blob from being deleted until release is called. It waits for who
// deletes it at the moment.
func (l *locks) hold(d blob.Digest) (release func()) {
	k := l.enter(d)
	k.RLock()
	return func() {
		k.RUnlock()
		l.leave(d, k)
	}
}

// own tells whether nobody holds a blob. Then it may be deleted until release
// is called.
func (l *locks) own(d blob.Digest) (release func(), ok bool) {
	k := l.enter(d)
	if !k.TryLock() {
		l.leave(d, k)
		return nil, false
	}
	return func() {
		k.Unlock()
		l.leave(d, k)
	}, true
}

func (l *locks) enter(d blob.Digest) *lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.known[d]
	if k == nil {
		if l.known == nil {
			l.known = map[blob.Digest]*lock{}
		}
		k = &lock{}
		l.known[d] = k
	}
	k.users++
	return k
}

func (l *locks) leave(d blob.Digest, k *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(l.known, d)
	}
}
