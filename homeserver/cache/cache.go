// Package cache keeps the values used last, up to a budget. It knows neither
// what they are nor where they come from.
package cache

import (
	"container/list"
	"sync"
)

// Cache keeps the values used last, up to a weight. Its methods may be called
// from several goroutines.
type Cache[K comparable, V any] struct {
	mu    sync.Mutex // tier 1; guards all below
	most  int
	total int
	order *list.List // of *entry[K, V], the one used last at the front
	items map[K]*list.Element
}

type entry[K comparable, V any] struct {
	key    K
	val    V
	weight int
}

// New makes a cache of values that together weigh at most so much. What that is,
// bytes or pieces, is up to who puts them.
func New[K comparable, V any](most int) *Cache[K, V] {
	return &Cache[K, V]{most: most, order: list.New(), items: map[K]*list.Element{}}
}

// Find gives the value of k.
func (c *Cache[K, V]) Find(k K) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.items[k]
	if !ok {
		return v, false
	}
	c.order.MoveToFront(el)
	return el.Value.(*entry[K, V]).val, true
}

// Put keeps v and drops what was not used for longest when there is too much.
// The newest value stays, whatever it weighs.
func (c *Cache[K, V]) Put(k K, v V, weight int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(k, v, weight)
}

// Keep is Put, unless there is an older value that stays. It gives the one that
// is there in the end.
func (c *Cache[K, V]) Keep(k K, v V, weight int, stays func(old V) bool) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.items[k]; ok {
		if old := el.Value.(*entry[K, V]).val; stays(old) {
			return old
		}
	}
	c.set(k, v, weight)
	return v
}

// Replace is Put where there still is an older value that goes.
func (c *Cache[K, V]) Replace(k K, v V, weight int, goes func(old V) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.items[k]; ok && goes(el.Value.(*entry[K, V]).val) {
		c.set(k, v, weight)
	}
}

// set is Put under mu.
func (c *Cache[K, V]) set(k K, v V, weight int) {
	if el, ok := c.items[k]; ok {
		e := el.Value.(*entry[K, V])
		c.total += weight - e.weight
		e.val, e.weight = v, weight
		c.order.MoveToFront(el)
	} else {
		c.items[k] = c.order.PushFront(&entry[K, V]{k, v, weight})
		c.total += weight
	}
	for c.total > c.most && c.order.Len() > 1 {
		c.remove(c.order.Back())
	}
}

// Drop forgets k.
func (c *Cache[K, V]) Drop(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.items[k]; ok {
		c.remove(el)
	}
}

func (c *Cache[K, V]) remove(el *list.Element) {
	e := c.order.Remove(el).(*entry[K, V])
	delete(c.items, e.key)
	c.total -= e.weight
}
