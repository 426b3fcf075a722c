package store

import (
	"sort"
	"sync"
)

// tail is the newest of what is written to one table, in memory: a reader whose
// position lies inside asks no database.
type tail[T any] struct {
	mu    sync.RWMutex // tier 1; guards all below
	list  []T          // in order of position
	place func(*T) int64
	size  func(*T) int
	floor int64 // positions up to this one have left memory
	bytes int
	most  int // bound of bytes
}

func newTail[T any](pos int64, most int, place func(*T) int64, size func(*T) int) *tail[T] {
	return &tail[T]{place: place, size: size, floor: pos, most: most}
}

// add takes what was committed, in order of position.
func (t *tail[T]) add(v T) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, v)
	for t.bytes += t.size(&v); t.bytes > t.most; {
		t.drop()
	}
}

// drop forgets the oldest.
func (t *tail[T]) drop() {
	var none T
	t.floor = t.place(&t.list[0])
	t.bytes -= t.size(&t.list[0])
	t.list[0] = none
	t.list = t.list[1:]
}

// forget forgets everything: some of it is not in the table any more.
func (t *tail[T]) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.list) > 0 {
		t.drop()
	}
}

// after lists what stands behind since and is wanted, and false if some of it may
// have left memory.
func (t *tail[T]) after(since int64, wanted func(*T) bool) (found []T, sure bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if since < t.floor {
		return nil, false
	}
	begin := sort.Search(len(t.list), func(i int) bool { return t.place(&t.list[i]) > since })
	for i := begin; i < len(t.list); i++ {
		if wanted(&t.list[i]) {
			found = append(found, t.list[i])
		}
	}
	return found, true
}

// rows is after for a table that has one row of each key, the newest, and for those
// not behind upto.
func rows[T any, K comparable](t *tail[T], since, upto int64, wanted func(*T) bool, key func(*T) K) ([]T, bool) {
	list, sure := t.after(since, wanted)
	last := make(map[K]int, len(list))
	for i := range list {
		last[key(&list[i])] = i
	}
	kept := list[:0]
	for i := range list {
		if last[key(&list[i])] == i && t.place(&list[i]) <= upto {
			kept = append(kept, list[i])
		}
	}
	return kept, sure
}
