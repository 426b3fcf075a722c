package statetree

import "testing"

// TestFetch loads trees that share most of their nodes, some of them in part.
func TestFetch(t *testing.T) {
	d := newDisk()
	var entries []Entry
	for i := range 500 {
		entries = append(entries, Entry{Key(i + 1), Value(i + 1)})
	}
	a := d.put(t, Tree{}, entries...)
	b := d.put(t, a, Entry{7, 1000})
	c := d.put(t, b, Entry{8, 1001}, Entry{600, 1002})
	nodes := len(d.nodes)

	open := []Tree{Open(a.ID()), Open(b.ID()), Open(b.ID()), Open(c.ID()), {}}
	for _, k := range []Key{7, 300} { // on the way to these, two are loaded already
		for _, tree := range open[1:3] {
			if _, ok, err := tree.Value(d, k); err != nil || !ok {
				t.Fatal(ok, err)
			}
		}
	}
	d.calls, d.read = 0, 0
	if err := Fetch(d, open...); err != nil {
		t.Fatal(err)
	}
	if d.read > nodes || d.calls > 6 {
		t.Errorf("asked %d times for %d nodes of %d", d.calls, d.read, nodes)
	}
	d.read = 0
	for i, want := range []Tree{a, b, b, c, {}} {
		got := map[Key]Value{}
		if err := open[i].Walk(d, func(k Key, v Value) bool { got[k] = v; return true }); err != nil {
			t.Fatal(err)
		}
		err := want.Walk(d, func(k Key, v Value) bool {
			if got[k] != v {
				t.Errorf("tree %d: %d is %d, want %d", i, k, got[k], v)
			}
			delete(got, k)
			return true
		})
		if err != nil || len(got) > 0 {
			t.Error(err, got)
		}
	}
	if d.read > 0 {
		t.Errorf("%d nodes were not loaded", d.read)
	}
	if err := Fetch(newDisk(), Open(a.ID())); err == nil {
		t.Error("a missing node shows no error")
	}
}

// TestFetchTo loads of some trees what is on the way to two keys, one of which is in
// none of them, and no more.
func TestFetchTo(t *testing.T) {
	d := newDisk()
	var entries []Entry
	for i := range 500 {
		entries = append(entries, Entry{Key(i + 1), Value(i + 1)})
	}
	a := d.put(t, Tree{}, entries...)
	b := d.put(t, a, Entry{7, 1000})
	open := []Tree{Open(a.ID()), Open(b.ID()), Open(b.ID()), {}}
	d.calls, d.read = 0, 0
	if err := FetchTo(d, []Key{7, 900}, open...); err != nil {
		t.Fatal(err)
	}
	if d.calls > 6 || d.read > 20 {
		t.Errorf("asked %d times for %d nodes", d.calls, d.read)
	}
	d.read = 0
	for i, want := range []Value{7, 1000, 1000, 0} {
		for k, want := range map[Key]Value{7: want, 900: 0} {
			if got, _, err := open[i].Value(d, k); got != want || err != nil {
				t.Errorf("tree %d: %d is %d, want %d (%v)", i, k, got, want, err)
			}
		}
	}
	if d.read > 0 {
		t.Errorf("%d nodes were not loaded", d.read)
	}
	if err := FetchTo(newDisk(), []Key{7}, Open(a.ID())); err == nil {
		t.Error("a missing node shows no error")
	}
}
