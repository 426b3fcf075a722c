package cache

import (
	"fmt"
	"testing"
)

// TestCache fills a cache beyond its bound.
func TestCache(t *testing.T) {
	c := New[int, string](100)
	for i := range 5 {
		c.Put(i, fmt.Sprint(i), 30) // three fit
	}
	for i, want := range []bool{false, false, true, true, true} {
		if v, ok := c.Find(i); ok != want || ok && v != fmt.Sprint(i) {
			t.Errorf("%d: %q, %v", i, v, ok)
		}
	}
	c.Find(2)
	c.Put(5, "5", 30)
	if _, ok := c.Find(2); !ok {
		t.Error("what was used last was dropped")
	}
	if _, ok := c.Find(3); ok {
		t.Error("what was not used for longest is still there")
	}
	c.Put(5, "five", 80)
	if v, _ := c.Find(5); v != "five" || c.total > 100 {
		t.Errorf("%q in %d bytes", v, c.total)
	}
	c.Put(6, "huge", 1000)
	if _, ok := c.Find(6); !ok || c.order.Len() != 1 {
		t.Error("one that is too large stays alone until the next")
	}
	c.Put(7, "7", 10)
	if c.order.Len() != 1 || c.total != 10 {
		t.Errorf("%d values in %d bytes", c.order.Len(), c.total)
	}
	kept := c.Keep(7, "new", 10, func(old string) bool { return old == "7" })
	if v, _ := c.Find(7); kept != "7" || v != "7" {
		t.Errorf("kept %q and %q", kept, v)
	}
	if kept := c.Keep(7, "new", 20, func(string) bool { return false }); kept != "new" || c.total != 20 {
		t.Errorf("kept %q in %d bytes", kept, c.total)
	}
	c.Replace(7, "other", 10, func(old string) bool { return old == "seven" })
	c.Replace(9, "nine", 10, func(string) bool { return true })
	if v, _ := c.Find(7); v != "new" || len(c.items) != 1 {
		t.Errorf("%q stands among %d values", v, len(c.items))
	}
	if c.Replace(7, "other", 30, func(old string) bool { return old == "new" }); c.items[7].Value.(*entry[int, string]).val != "other" || c.total != 30 {
		t.Error("a value was not replaced")
	}
	c.Drop(7)
	c.Drop(8)
	if c.total != 0 || len(c.items) != 0 || c.order.Len() != 0 {
		t.Errorf("empty, but %d bytes", c.total)
	}
}
