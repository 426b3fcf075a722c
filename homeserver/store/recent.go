package store

import "sync"

// Recent keeps values that were read or derived lately, the ones used last: at
// least recentMost of them, and at most twice as many. The zero value is empty;
// its methods may be called from several goroutines.
type Recent[K comparable, V any] struct {
	mu         sync.Mutex // tier 1; guards the maps; never held while calling out
	young, old map[K]V
}

const recentMost = 4096

// Find gives the value of k.
func (r *Recent[K, V]) Find(k K) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.young[k]
	if !ok {
		if v, ok = r.old[k]; ok {
			r.add(k, v)
		}
	}
	return v, ok
}

// Put keeps v under k.
func (r *Recent[K, V]) Put(k K, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(k, v)
}

func (r *Recent[K, V]) add(k K, v V) {
	if _, known := r.young[k]; !known && (r.young == nil || len(r.young) >= recentMost) {
		r.old, r.young = r.young, make(map[K]V)
	}
	r.young[k] = v
}
