package fedclient

import (
	"container/list"
	"sync"
)

// cache keeps the values used last, up to a weight.
type cache[K comparable, V any] struct {
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

// put keeps v, which weighs 1.
func (c *cache[K, V]) put(k K, v V) { c.weigh(k, v, 1) }

// weigh keeps v and drops what was not used for longest when there is too much.
func (c *cache[K, V]) weigh(k K, v V, weight int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.items[k]; ok {
		c.remove(el)
	}
	c.items[k] = c.order.PushFront(&entry[K, V]{k, v, weight})
	c.total += weight
	for c.total > c.most && c.order.Len() > 1 {
		c.remove(c.order.Back())
	}
}

func (c *cache[K, V]) remove(el *list.Element) {
	e := c.order.Remove(el).(*entry[K, V])
	c.total -= e.weight
	delete(c.items, e.key)
}

// drop forgets k.
func (c *cache[K, V]) drop(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.items[k]; ok {
		c.remove(el)
	}
}
