package stateres

import (
	"fmt"
	"maps"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
)

// nodes is a statetree.Loader.
type nodes map[statetree.ID][]byte

func (s nodes) Nodes(ids []statetree.ID) ([][]byte, error) {
	data := make([][]byte, len(ids))
	for i, id := range ids {
		data[i] = s[id]
	}
	return data, nil
}

// store is a room whose states are trees and whose events are read from their
// bytes every time.
type store struct {
	*world
	disk   nodes
	keys   map[eventauth.Key]statetree.Key
	byKey  []eventauth.Key
	forked [2]statetree.ID
}

func (s *store) tree(base statetree.Tree, st state) statetree.Tree {
	var entries []statetree.Entry
	for k, n := range st {
		if s.keys[k] == 0 {
			s.byKey = append(s.byKey, k)
			s.keys[k] = statetree.Key(len(s.byKey))
		}
		entries = append(entries, statetree.Entry{Key: s.keys[k], Value: statetree.Value(n)})
	}
	t, fresh, err := base.Put(s.disk, entries...)
	if err != nil {
		s.Fatal(err)
	}
	for _, n := range fresh {
		s.disk[n.ID] = n.Data
	}
	return t
}

// Events implements Source.
func (s *store) Events(nums []Num) ([]*event.PDU, error) {
	list, err := s.world.Events(nums)
	if err != nil {
		return nil, err
	}
	for i, p := range list {
		if list[i], err = event.Load(p.Version, p.ID, p.JSON); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// newStore makes a room with members, in which a fork then makes ten conflicts.
func newStore(t testing.TB, version string, members int) *store {
	w, st := newRoom(t, version, bob, carol)
	s := &store{world: w, disk: nodes{}, keys: map[eventauth.Key]statetree.Key{}, byKey: nil}
	join := func(user string) {
		sp := member(user, user, "join")
		sp.auth, sp.prev, sp.ts = w.selected(sp, st), []Num{Num(len(w.pdus) - 1)}, int64(len(w.pdus))
		st[memberKey(user)] = w.add(sp)
	}
	for i := range members {
		join(fmt.Sprintf("@u%d:s%d", i, i%100))
		if i%1000 == 500 { // what happens in a room
			st = w.then(st, levels(alice, w.users(fmt.Sprintf(`"@bob:b":50,"@u%d:s%d":40`, i, i%100))), topic(alice, fmt.Sprint(i)), renamed(alice), renamed(bob))
		}
	}
	base := s.tree(statetree.Tree{}, st)
	for i, who := range []string{alice, bob} {
		fork := w.then(st,
			levels(who, w.users(fmt.Sprintf(`"@bob:b":50,"@u1:s1":%d`, 10+i))), topic(who, fmt.Sprint(i)), spec{sender: who, typ: "m.room.name", content: fmt.Sprintf(`{"name":"%d"}`, i)},
			member(who, "@u7:s7", pick2(i, "ban", "leave")), member(who, "@u8:s8", pick2(i, "leave", "ban")),
			member("@u9:s9", "@u9:s9", pick2(i, "leave", "join")), renamed("@u10:s10"), renamed(who),
			spec{sender: who, typ: "org.x", content: fmt.Sprintf(`{"x":%d}`, i)}, rules(who, pick2(i, "invite", "knock")))
		changed := state{}
		for k, n := range fork {
			if st[k] != n {
				changed[k] = n
			}
		}
		s.forked[i] = s.tree(base, changed).ID()
	}
	return s
}

func pick2(i int, list ...string) string { return list[i] }

// resolve compares two trees and resolves what differs.
func (s *store) resolve(trees [2]statetree.Tree) (int, error) {
	in, err := s.inputFor(trees)
	if err != nil {
		return 0, err
	}
	changes, err := Resolve(s.v, in)
	return len(changes), err
}

func (s *store) inputFor(trees [2]statetree.Tree) (Input, error) {
	var in Input
	err := statetree.Diff(s.disk, trees[0], trees[1], func(k statetree.Key, a, b statetree.Value) bool {
		in.Conflicts = append(in.Conflicts, Conflict{s.byKey[k-1], []Num{Num(a), Num(b)}})
		return true
	})
	in.Source = s
	in.Unconflicted = func(keys []eventauth.Key) ([]Num, error) {
		numbers := make([]statetree.Key, len(keys))
		for i, k := range keys {
			numbers[i] = s.keys[k]
		}
		values, err := trees[0].Values(s.disk, numbers...)
		list := make([]Num, len(values))
		for i, v := range values {
			list[i] = Num(v)
		}
		return list, err
	}
	return in, err
}

func (s *store) open() [2]statetree.Tree {
	return [2]statetree.Tree{statetree.Open(s.forked[0]), statetree.Open(s.forked[1])}
}

// BenchmarkFork resolves a fork with ten conflicts in rooms of several sizes. Trees
// and events are decoded anew every time, as after a start.
func BenchmarkFork(b *testing.B) {
	for _, version := range []string{"1", "11", "12"} {
		for _, members := range []int{500, 5000, 50000} {
			b.Run(fmt.Sprintf("v%s/%d", version, members), func(b *testing.B) {
				s := newStore(b, version, members)
				b.ReportAllocs()
				s.calls, s.rows, s.read = 0, 0, 0
				for b.Loop() {
					if n, err := s.resolve(s.open()); err != nil || n < 10 {
						b.Fatal(n, err)
					}
				}
				b.ReportMetric(float64(s.calls)/float64(b.N), "calls/op")
				b.ReportMetric(float64(s.read)/float64(b.N), "events/op")
			})
		}
	}
}

// BenchmarkConflicts resolves forks with more and more conflicts in a large room.
func BenchmarkConflicts(b *testing.B) {
	for _, version := range []string{"11", "12"} {
		s := newStore(b, version, 20000)
		base := statetree.Open(s.forked[0])
		for _, conflicts := range []int{10, 100, 1000, 10000} {
			b.Run(fmt.Sprintf("v%s/%d", version, conflicts), func(b *testing.B) {
				st := map[eventauth.Key]Num{}
				err := base.Walk(s.disk, func(k statetree.Key, v statetree.Value) bool {
					st[s.byKey[k-1]] = Num(v)
					return true
				})
				if err != nil {
					b.Fatal(err)
				}
				var changed [2]state
				for i := range changed {
					changed[i] = state{}
					for c := range conflicts {
						sp := renamed(fmt.Sprintf("@u%d:s%d", 100+c, (100+c)%100))
						sp.auth, sp.prev, sp.ts = s.selected(sp, st), []Num{Num(len(s.pdus) - 1)}, int64(len(s.pdus))
						changed[i][memberKey(sp.sender)] = s.add(sp)
					}
				}
				trees := [2]statetree.Tree{s.tree(base, changed[0]), s.tree(base, changed[1])}
				b.ReportAllocs()
				for b.Loop() {
					if n, err := s.resolve(trees); err != nil || n < conflicts {
						b.Fatal(n, err)
					}
				}
			})
		}
	}
}

// BenchmarkAdd places the members of a room in the index, and reports what has to
// be stored for each.
func BenchmarkAdd(b *testing.B) {
	g := newGraph()
	create := g.add(b, eventauth.Key{Type: event.TypeCreate})
	creator := g.add(b, memberKey(alice), create)
	pl := g.add(b, levelsKey, create, creator)
	rule := g.add(b, rulesKey, create, creator, pl)
	builder := NewBuilder(g)
	n, links := Num(len(g.keys)), 0
	b.ReportAllocs()
	for b.Loop() {
		e, err := builder.Add(n, memberKey(fmt.Sprint(n)), []Num{create, pl, rule})
		if err != nil {
			b.Fatal(err)
		}
		links += len(e.Links)
		n++
	}
	b.ReportMetric(float64(links)/float64(b.N), "links/op")
}

// BenchmarkLadder resolves power levels that have two parents on each of 18
// layers, 37 events in all, and of 1,000 layers.
func BenchmarkLadder(b *testing.B) {
	for _, layers := range []int{18, 1000} {
		b.Run(fmt.Sprint(layers), func(b *testing.B) {
			w, top, other := ladder(b, "12", layers)
			for b.Loop() {
				w.resolve(top, other)
			}
		})
	}
}

// TestCost: what is read for a resolution depends on the conflict, not on how many
// members the room has.
func TestCost(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		var was [3]int
		for i, members := range []int{100, 2000} {
			s := newStore(t, version, members)
			s.calls, s.rows, s.read = 0, 0, 0
			if n, err := s.resolve(s.open()); err != nil || n < 10 {
				t.Fatal(n, err)
			}
			is := [3]int{s.calls, s.rows, s.read}
			for j := range is {
				if i > 0 && is[j] > was[j]*3/2+10 {
					t.Errorf("with 100 members %d calls, %d rows, %d events; with %d members %v", was[0], was[1], was[2], members, is)
				}
			}
			was = is
		}
	}, matrix.StateResV1, matrix.StateResV2, matrix.StateResV21)
}

// ladder makes a room with two power levels events on each of many layers, each
// naming both of the layer below, and two states with the events of the top layer.
func ladder(t testing.TB, version string, layers int) (w *world, top, other state) {
	w, st := newRoom(t, version)
	low, high := st[levelsKey], st[levelsKey]
	for range layers {
		var next [2]Num
		for i := range next {
			s := levels(alice, w.users(fmt.Sprintf(`"@x:x":%d`, i)))
			s.auth, s.prev = []Num{st[memberKey(alice)], low}, []Num{low}
			if high != low {
				s.auth = append(s.auth, high)
			}
			if !w.v.RoomIDFromCreate {
				s.auth = append(s.auth, 1)
			}
			next[i] = w.add(s)
		}
		low, high = next[0], next[1]
	}
	top, other = maps.Clone(st), maps.Clone(st)
	top[levelsKey], other[levelsKey] = low, high
	return w, top, other
}
