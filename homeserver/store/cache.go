package store

import (
	"container/list"
	"sync"
)

// cache keeps the values used last, up to a number of bytes.
type cache[K comparable, V any] struct {
	mu    sync.Mutex // guards all below; never held while calling out
	most  int
	bytes int
	order *list.List // of *entry, the newest at the front
	items map[K]*list.Element
}

type entry[K comparable, V any] struct {
	key  K
	val  V
	size int
}

func newCache[K comparable, V any](most int) *cache[K, V] {
	return &cache[K, V]{most: most, order: list.New(), items: map[K]*list.Element{}}
}

// find gives the value of k.
func (c *cache[K, V]) find(k K) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.items[k]
	if !ok {
		return v, false
	}
	c.order.MoveToFront(el)
	return el.Value.(*entry[K, V]).val, true
}

// put keeps v, which takes about size bytes, and drops what was not used for
// longest when there is too much.
func (c *cache[K, V]) put(k K, v V, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(k, v, size)
}

// keep is put, unless there is an older value that stays. It gives the one that
// is there in the end.
func (c *cache[K, V]) keep(k K, v V, size int, stays func(old V) bool) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.items[k]; ok {
		if old := el.Value.(*entry[K, V]).val; stays(old) {
			return old
		}
	}
	c.set(k, v, size)
	return v
}

// set is put under mu.
func (c *cache[K, V]) set(k K, v V, size int) {
	if el, ok := c.items[k]; ok {
		e := el.Value.(*entry[K, V])
		c.bytes += size - e.size
		e.val, e.size = v, size
		c.order.MoveToFront(el)
	} else {
		c.items[k] = c.order.PushFront(&entry[K, V]{k, v, size})
		c.bytes += size
	}
	for c.bytes > c.most && c.order.Len() > 1 {
		c.remove(c.order.Back())
	}
}

// drop forgets k.
func (c *cache[K, V]) drop(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.items[k]; ok {
		c.remove(el)
	}
}

func (c *cache[K, V]) remove(el *list.Element) {
	e := c.order.Remove(el).(*entry[K, V])
	delete(c.items, e.key)
	c.bytes -= e.size
}
