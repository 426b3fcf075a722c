package statetree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// disk is a Loader that counts how it is used.
type disk struct {
	mu    sync.Mutex // tier 1; guards what follows
	nodes map[ID][]byte
	calls int
	read  int
}

func newDisk() *disk { return &disk{nodes: map[ID][]byte{}} }

func (d *disk) Nodes(ids []ID) ([][]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	d.read += len(ids)
	data := make([][]byte, len(ids))
	for i, id := range ids {
		data[i] = d.nodes[id]
	}
	return data, nil
}

func (d *disk) store(t testing.TB, nodes []Node) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range nodes {
		if hash(n.Data) != n.ID {
			t.Fatalf("node %d does not have the hash of its content", n.ID)
		}
		children, err := Children(n.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range children {
			if d.nodes[c] == nil {
				t.Fatalf("node %d is given before its child %d", n.ID, c)
			}
		}
		d.nodes[n.ID] = n.Data
	}
}

// put sets entries and stores the nodes.
func (d *disk) put(t testing.TB, tree Tree, entries ...Entry) Tree {
	t.Helper()
	next, nodes, err := tree.Put(d, entries...)
	if err != nil {
		t.Fatal(err)
	}
	d.store(t, nodes)
	return next
}

func content2map(t testing.TB, l Loader, tree Tree) map[Key]Value {
	t.Helper()
	got := map[Key]Value{}
	err := tree.Walk(l, func(k Key, v Value) bool {
		if _, twice := got[k]; twice {
			t.Errorf("Walk gave key %d twice", k)
		}
		got[k] = v
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// randomKey prefers few keys, and some that agree in many of their first mixed
// bits, so that the tree gets deep.
func randomKey(r *rand.Rand) Key {
	switch r.IntN(4) {
	case 0:
		return unmix(0x123456789abcdef0 ^ r.Uint64N(16)) // differ in the last 4 bits alone
	case 1:
		return Key(r.Uint64())
	}
	return Key(r.IntN(60))
}

// unmix undoes mix.
func unmix(x uint64) Key {
	inverse := func(a uint64) uint64 { // of an odd number modulo 2^64
		y := a
		for range 5 {
			y *= 2 - a*y
		}
		return y
	}
	unshift := func(x uint64, n int) uint64 {
		y := x
		for range 64 / n {
			y = x ^ y>>n
		}
		return y
	}
	x = unshift(x, 31) * inverse(0x94d049bb133111eb)
	x = unshift(x, 27) * inverse(0xbf58476d1ce4e5b9)
	return Key(unshift(x, 30))
}

func TestMixIsBijective(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100000 {
		if k := Key(r.Uint64()); unmix(mix(k)) != k {
			t.Fatalf("mix(%d) is not undone", k)
		}
	}
}

// TestAgainstMap makes random changes to trees and maps, and compares.
func TestAgainstMap(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := newDisk()
		var trees []Tree
		var models []map[Key]Value
		tree, model := Tree{}, map[Key]Value{}
		ids := map[string]ID{}
		for range 120 {
			if r.IntN(3) == 0 {
				tree = Open(tree.ID()) // nothing in memory
			}
			model = maps.Clone(model)
			var entries []Entry
			for range 1 + r.IntN(1+r.IntN(40)) {
				e := Entry{Key: randomKey(r), Value: Value(1 + r.IntN(5))}
				if r.IntN(2) == 0 {
					e.Value = 0
				}
				entries = append(entries, e)
				if model[e.Key] = e.Value; e.Value == 0 {
					delete(model, e.Key)
				}
			}
			tree = d.put(t, tree, entries...)
			checkTree(t, d, r, tree, model, ids)
			trees, models = append(trees, tree), append(models, model)
			i := r.IntN(len(trees))
			checkDiff(t, d, Open(trees[i].ID()), tree, models[i], model)
			checkDiff(t, d, tree, trees[i], model, models[i])
		}
		all := make([]Entry, 0, len(model))
		for k := range model {
			all = append(all, Entry{Key: k})
		}
		if tree = d.put(t, tree, all...); tree.ID() != 0 {
			t.Fatalf("seed %d: a tree without entries has the ID %d", seed, tree.ID())
		}
	}
}

func checkTree(t *testing.T, d *disk, r *rand.Rand, tree Tree, model map[Key]Value, ids map[string]ID) {
	t.Helper()
	for _, from := range []Tree{tree, Open(tree.ID())} {
		if got := content2map(t, d, from); !maps.Equal(got, model) {
			t.Fatalf("the tree has %v, want %v", got, model)
		}
	}
	k := randomKey(r)
	v, ok, err := tree.Value(d, k)
	if want, has := model[k]; err != nil || v != want || ok != has {
		t.Fatalf("Value(%d) = %d, %v, %v, want %d, %v", k, v, ok, err, want, has)
	}
	some := []Key{randomKey(r), randomKey(r), randomKey(r), k, k}
	values, err := Open(tree.ID()).Values(d, some...)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range some {
		if values[i] != model[k] {
			t.Fatalf("Values: key %d has %d, want %d", k, values[i], model[k])
		}
	}

	// Equal content has an equal ID, however it came about, and no other.
	keys := slices.Collect(maps.Keys(model))
	r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	again := Tree{}
	for len(keys) > 0 {
		n := 1 + r.IntN(len(keys))
		var part []Entry
		for _, k := range keys[:n] {
			part = append(part, Entry{Key: k, Value: model[k]})
		}
		again = d.put(t, again, part...)
		keys = keys[n:]
	}
	if again.ID() != tree.ID() {
		t.Fatalf("equal content has the IDs %d and %d", again.ID(), tree.ID())
	}
	text := fmt.Sprint(model) // sorted
	if id, seen := ids[text]; seen && id != tree.ID() {
		t.Fatalf("content that came back has a new ID")
	}
	ids[text] = tree.ID()
}

func checkDiff(t *testing.T, d *disk, a, b Tree, ma, mb map[Key]Value) {
	t.Helper()
	type change struct{ old, new Value }
	want, got := map[Key]change{}, map[Key]change{}
	for k, v := range ma {
		if mb[k] != v {
			want[k] = change{v, mb[k]}
		}
	}
	for k, v := range mb {
		if ma[k] != v {
			want[k] = change{ma[k], v}
		}
	}
	err := Diff(d, a, b, func(k Key, old, new Value) bool {
		if _, twice := got[k]; twice {
			t.Errorf("Diff gave key %d twice", k)
		}
		got[k] = change{old, new}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("Diff gave %v, want %v", got, want)
	}
}

func TestPutNothingNew(t *testing.T) {
	d := newDisk()
	tree := d.put(t, Tree{}, Entry{1, 10}, Entry{2, 20}, Entry{3, 30})
	for _, entries := range [][]Entry{nil, {{2, 20}}, {{9, 0}}, {{2, 5}, {2, 20}}} {
		same, nodes, err := tree.Put(d, entries...)
		if err != nil || same.ID() != tree.ID() || len(nodes) != 0 {
			t.Errorf("Put(%v) gave %d new nodes, ID %d for %d, %v", entries, len(nodes), same.ID(), tree.ID(), err)
		}
	}
}

func TestLoadsByLevel(t *testing.T) {
	d := newDisk()
	entries := make([]Entry, 3000)
	for i := range entries {
		entries[i] = Entry{Key(i), Value(i + 1)}
	}
	tree := d.put(t, Tree{}, entries...)
	for _, tt := range []struct {
		name        string
		f           func() error
		calls, read int // at most
	}{
		{"Value", func() error { _, _, err := Open(tree.ID()).Value(d, 7); return err }, 8, 8},
		{"Values", func() error { _, err := Open(tree.ID()).Values(d, 1, 2, 3, 4, 5); return err }, 8, 30},
		{"Put", func() error { _, _, err := Open(tree.ID()).Put(d, Entry{1, 1e6}, Entry{2, 1e6}); return err }, 8, 14},
		{"Walk", func() error { return Open(tree.ID()).Walk(d, func(Key, Value) bool { return true }) }, 12, len(d.nodes)},
		{"Diff", func() error {
			other := d.put(t, tree, Entry{5, 77})
			d.calls, d.read = 0, 0
			return Diff(d, Open(tree.ID()), Open(other.ID()), func(Key, Value, Value) bool { return true })
		}, 8, 16},
		{"the same", func() error { return Diff(d, Open(tree.ID()), Open(tree.ID()), nil) }, 0, 0},
		{"kept", func() error { return tree.Walk(d, func(Key, Value) bool { return true }) }, 0, 0},
	} {
		d.calls, d.read = 0, 0
		if err := tt.f(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if d.calls > tt.calls || d.read > tt.read {
			t.Errorf("%s read %d nodes in %d calls, want at most %d in %d", tt.name, d.read, d.calls, tt.read, tt.calls)
		}
	}
}

func TestDamage(t *testing.T) {
	d := newDisk()
	var entries []Entry
	for i := range 100 {
		entries = append(entries, Entry{Key(i), 5})
	}
	tree := d.put(t, Tree{}, entries...)
	walk := func() error { return Open(tree.ID()).Walk(d, func(Key, Value) bool { return true }) }
	var missing *NodeError
	for id, data := range maps.Clone(d.nodes) {
		delete(d.nodes, id)
		if err := walk(); !errors.As(err, &missing) || missing.ID != id {
			t.Errorf("without node %d: %v", id, err)
		}
		for i := range data {
			broken := bytes.Clone(data)
			broken[i] ^= 1 << (i % 8)
			d.nodes[id] = broken
			if err := walk(); !errors.As(err, &missing) || missing.ID != id {
				t.Errorf("node %d with byte %d changed: %v", id, i, err)
			}
		}
		d.nodes[id] = data
	}
	if err := walk(); err != nil {
		t.Error(err)
	}
	failing := errors.New("disk on fire")
	if _, _, err := Open(tree.ID()).Value(loaderFunc(func([]ID) ([][]byte, error) { return nil, failing }), 1); !errors.Is(err, failing) {
		t.Errorf("the loader's error became %v", err)
	}
}

type loaderFunc func([]ID) ([][]byte, error)

func (f loaderFunc) Nodes(ids []ID) ([][]byte, error) { return f(ids) }

// TestConcurrent reads and changes one lazily loaded tree from many sides; the
// race detector looks on.
func TestConcurrent(t *testing.T) {
	d := newDisk()
	var entries []Entry
	for i := range 2000 {
		entries = append(entries, Entry{Key(i), Value(i + 1)})
	}
	tree := Open(d.put(t, Tree{}, entries...).ID())
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 3))
			for range 300 {
				k := Key(r.IntN(2000))
				if v, ok, err := tree.Value(d, k); err != nil || !ok || v != Value(k+1) {
					t.Errorf("Value(%d) = %d, %v, %v", k, v, ok, err)
				}
			}
			other, _, err := tree.Put(d, Entry{Key(g), 1e6})
			if err != nil {
				t.Error(err)
				return
			}
			n := 0
			if err := Diff(d, tree, other, func(Key, Value, Value) bool { n++; return true }); err != nil || n != 1 {
				t.Errorf("%d differences, %v", n, err)
			}
		})
	}
	wg.Wait()
}

// FuzzDecode checks that bytes are refused or are the encoding of what was
// read, and that a whole tree of such bytes ends in an error or an end.
func FuzzDecode(f *testing.F) {
	d := newDisk()
	tree := d.put(f, Tree{}, Entry{1, 10}, Entry{2, 20}, Entry{1 << 40, 30}, Entry{4, 1 << 50}, Entry{5, -1})
	for _, data := range d.nodes {
		f.Add(data)
	}
	f.Add([]byte{0, 0})
	f.Add([]byte{1, 1, 1, 1})
	f.Add(append([]byte{0, 255}, bytes.Repeat(binary.BigEndian.AppendUint64(nil, uint64(tree.ID())), 8)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := decode(data)
		if err != nil {
			return
		}
		if again := n.encode(); !bytes.Equal(again, data) {
			t.Errorf("%x came back as %x", data, again)
		}
		for depth := range maxDepth + 2 {
			_ = n.check(0, depth)
		}
		// A node that is its own child has another hash, so it cannot load.
		loop := loaderFunc(func(ids []ID) ([][]byte, error) {
			all := make([][]byte, len(ids))
			for i := range all {
				all[i] = data
			}
			return all, nil
		})
		_ = Open(hash(data)).Walk(loop, func(Key, Value) bool { return true })
	})
}
