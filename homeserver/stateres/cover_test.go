package stateres

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
)

// graph is an auth DAG without events. It implements Common with a state of its
// own.
type graph struct {
	*memory
	builder *Builder
	keys    []eventauth.Key // by Num
	auth    [][]Num
	reach   []numset
	common  state
}

func newGraph() *graph {
	m := newMemory()
	return &graph{memory: m, builder: NewBuilder(m), keys: make([]eventauth.Key, 1), auth: make([][]Num, 1), reach: make([]numset, 1), common: state{}}
}

func (g *graph) add(t testing.TB, k eventauth.Key, auth ...Num) Num {
	t.Helper()
	n := Num(len(g.keys))
	g.keys, g.auth = append(g.keys, k), append(g.auth, auth)
	if n < maxSet {
		var reach numset
		for _, a := range auth {
			reach = reach.union(g.reach[a]).with(a)
		}
		g.reach = append(g.reach, reach)
	}
	e, err := g.builder.Add(n, k, auth)
	if err != nil {
		t.Fatal(err)
	}
	g.put(k, e)
	return n
}

func (g *graph) At(keys []eventauth.Key) ([]Num, error) {
	list := make([]Num, len(keys))
	for i, k := range keys {
		list[i] = g.common[k]
	}
	return list, nil
}

func (g *graph) AuthEvents(n Num) ([]Num, error) { return g.auth[n], nil }

// randomGraph makes a graph that no authorization rules restrain.
func randomGraph(t testing.TB, r *rand.Rand) *graph {
	g := newGraph()
	users := 1 + r.IntN(6)
	var cited []Num // of types that authorise
	for range 2 + r.IntN(120) {
		k := pick(r, eventauth.Key{Type: event.TypePowerLevels}, eventauth.Key{Type: event.TypeJoinRules},
			eventauth.Key{Type: event.TypeMember, StateKey: fmt.Sprint(r.IntN(users))}, eventauth.Key{Type: event.TypeMember, StateKey: fmt.Sprint(r.IntN(users))},
			eventauth.Key{Type: event.TypeThirdPartyInvite, StateKey: fmt.Sprint(r.IntN(users))},
			eventauth.Key{Type: "m.room.topic"}, eventauth.Key{Type: "org.x", StateKey: fmt.Sprint(r.IntN(users))})
		var auth []Num
		for range r.IntN(5) {
			if len(cited) == 0 {
				break
			}
			a := cited[len(cited)-1-r.IntN(min(len(cited), 1+r.IntN(1+r.IntN(40))))]
			if !slices.Contains(auth, a) {
				auth = append(auth, a)
			}
		}
		if r.IntN(3) > 0 { // the newest of its own key, mostly
			for _, a := range slices.Backward(cited) {
				if g.keys[a] == k && r.IntN(4) > 0 {
					if !slices.Contains(auth, a) {
						auth = append(auth, a)
					}
					break
				}
			}
		}
		if n := g.add(t, k, auth...); Authorises(k.Type) {
			cited = append(cited, n)
		}
	}
	return g
}

func (g *graph) random(r *rand.Rand) Num { return Num(1 + r.IntN(len(g.keys)-1)) }

// TestCover compares the cover index with whole auth chains.
func TestCover(t *testing.T) {
	for s := range uint64(*forks) {
		r := rand.New(rand.NewPCG(*seed+s, 3))
		g := randomGraph(t, r)
		t.Run(fmt.Sprint(*seed+s), func(t *testing.T) {
			g.checkReach(t, r)
			for range 20 {
				g.checkDifference(t, r)
				g.checkBetween(t, r)
			}
		})
		if t.Failed() {
			for n := 1; n < len(g.keys); n++ {
				t.Logf("%d in chain %d: %v names %v", n, g.places[Num(n)], g.keys[n], g.auth[n])
			}
			t.FailNow()
		}
	}
}

func (g *graph) checkReach(t *testing.T, r *rand.Rand) {
	c := NewCover(g)
	for range 20 {
		a, b := g.random(r), g.random(r)
		if g.places[a] == 0 || g.places[b] == 0 {
			if _, err := c.Reaches(a, b); err == nil {
				t.Errorf("Reaches(%d, %d) of a leaf has no error", a, b)
			}
			continue
		}
		ok, err := c.Reaches(a, b)
		if err != nil || ok != g.reach[a].has(b) {
			t.Errorf("Reaches(%d, %d): %v, %v", a, b, ok, err)
		}
		var got numset
		err = c.AuthChain([]Num{a, b}, func(part []Num) bool {
			for _, n := range part {
				if got.has(n) {
					t.Errorf("AuthChain gave %d twice", n)
				}
				got = got.with(n)
			}
			return true
		})
		if want := g.reach[a].union(g.reach[b]).with(a).with(b); err != nil || got != want {
			t.Errorf("AuthChain(%d, %d): %v, want %v: %v", a, b, got.list(), want.list(), err)
		}
	}
}

func (g *graph) checkDifference(t *testing.T, r *rand.Rand) {
	states := make([][]Num, 1+r.IntN(4))
	conflict := map[eventauth.Key]bool{}
	for i := range states {
		for range r.IntN(4) {
			n := g.random(r)
			states[i] = append(states[i], n)
			conflict[g.keys[n]] = true
		}
	}
	g.common = state{}
	var shared numset
	for range r.IntN(6) {
		if n := g.random(r); !conflict[g.keys[n]] && g.common[g.keys[n]] == 0 {
			g.common[g.keys[n]] = n
			shared = shared.union(g.reach[n])
		}
	}
	var some, all numset
	heads := make([][]Num, len(states))
	for i, st := range states {
		chain := shared
		for _, n := range st {
			chain = chain.union(g.reach[n])
			heads[i] = append(heads[i], g.auth[n]...)
		}
		if i == 0 {
			all = chain
		}
		some, all = some.union(chain), all.intersection(chain)
	}
	got, err := NewCover(g).Difference(heads, g)
	if want := some.minus(all).list(); err != nil || !slices.Equal(got, want) {
		t.Errorf("Difference of %v with %v in common: %v, want %v: %v", states, g.common, got, want, err)
	}
}

func (g *graph) checkBetween(t *testing.T, r *rand.Rand) {
	var events []Num
	var above []Position
	for range r.IntN(6) {
		events = append(events, g.random(r))
	}
	var want numset
	for _, a := range events {
		for _, b := range events {
			for x := Num(1); int(x) < len(g.keys); x++ {
				if (x == a || g.reach[a].has(x)) && (x == b || g.reach[x].has(b)) && g.places[x] != 0 {
					want = want.with(x)
				}
			}
		}
	}
	c := NewCover(g)
	places, _ := c.positions(events)
	for _, p := range places {
		if p.Chain == 0 {
			heads, _ := c.positions(g.auth[p.Num])
			above = append(above, heads...)
		}
	}
	region, err := c.between(places, above)
	if err != nil {
		t.Fatal(err)
	}
	list, err := region.events()
	slices.Sort(list)
	if err != nil || !slices.Equal(list, want.list()) {
		t.Errorf("between %v: %v, want %v: %v", events, list, want.list(), err)
	}
	for _, l := range region.links {
		if !region.has(l.From) || !region.has(l.To) {
			t.Errorf("between %v: the link %v leaves the region", events, l)
		}
	}
}
