package statetree

import (
	"math/rand/v2"
	"testing"
)

const members = 50000

func room(b *testing.B) (*disk, Tree) {
	b.Helper()
	d := newDisk()
	entries := make([]Entry, members)
	for i := range entries {
		entries[i] = Entry{Key(1000 + i), Value(100000 + i)}
	}
	return d, d.put(b, Tree{}, entries...)
}

// BenchmarkPut changes one of 50,000 members, and reports what has to be
// stored for it.
func BenchmarkPut(b *testing.B) {
	d, tree := room(b)
	r := rand.New(rand.NewPCG(1, 1))
	bytes, nodes := 0, 0
	v := Value(members + 100000)
	b.ReportAllocs()
	for b.Loop() {
		v++
		next, fresh, err := tree.Put(d, Entry{Key(1000 + r.IntN(members)), v})
		if err != nil {
			b.Fatal(err)
		}
		for _, n := range fresh {
			bytes += len(n.Data)
		}
		nodes += len(fresh)
		tree = next
	}
	b.ReportMetric(float64(bytes)/float64(b.N), "bytes/change")
	b.ReportMetric(float64(nodes)/float64(b.N), "nodes/change")
}

// BenchmarkBuild stores 50,000 members at once.
func BenchmarkBuild(b *testing.B) {
	for b.Loop() {
		room(b)
	}
}

// BenchmarkDiff compares two states of 50,000 members that differ in 10.
func BenchmarkDiff(b *testing.B) {
	d, tree := room(b)
	other := tree
	for i := range 10 {
		other = d.put(b, other, Entry{Key(1000 + i*77), Value(900000 + i)})
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		if err := Diff(d, tree, other, func(Key, Value, Value) bool { n++; return true }); err != nil || n != 10 {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkValue looks up one of 50,000 members in a loaded tree.
func BenchmarkValue(b *testing.B) {
	d, tree := room(b)
	r := rand.New(rand.NewPCG(1, 1))
	for b.Loop() {
		if _, ok, err := tree.Value(d, Key(1000+r.IntN(members))); err != nil || !ok {
			b.Fatal(ok, err)
		}
	}
}

// BenchmarkWalk reads all of 50,000 members, of a tree that is not loaded and
// of one that is.
func BenchmarkWalk(b *testing.B) {
	d, tree := room(b)
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			if err := Open(tree.ID()).Walk(d, func(Key, Value) bool { return true }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("warm", func(b *testing.B) {
		for b.Loop() {
			if err := tree.Walk(d, func(Key, Value) bool { return true }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
