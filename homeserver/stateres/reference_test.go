package stateres

import (
	"bytes"
	"crypto/sha1"
	"maps"
	"math"
	"math/bits"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
)

// The reference is written from the specification, sentence by sentence, with
// whole states and whole auth chains. It shares nothing with the package.

const maxSet = 512

// numset is a set of events of a small room.
type numset [maxSet / 64]uint64

func (s numset) with(n Num) numset {
	s[n/64] |= 1 << (n % 64)
	return s
}
func (s numset) has(n Num) bool { return s[n/64]&(1<<(n%64)) != 0 }
func (s numset) union(t numset) numset {
	for i := range s {
		s[i] |= t[i]
	}
	return s
}
func (s numset) intersection(t numset) numset {
	for i := range s {
		s[i] &= t[i]
	}
	return s
}
func (s numset) minus(t numset) numset {
	for i := range s {
		s[i] &^= t[i]
	}
	return s
}
func (s numset) list() []Num {
	var all []Num
	for i, x := range s {
		for ; x != 0; x &= x - 1 {
			all = append(all, Num(64*i+bits.TrailingZeros64(x)))
		}
	}
	return all
}

// lookup is an eventauth.State made of a function.
type lookup func(k eventauth.Key) *event.PDU

func (f lookup) Event(typ, stateKey string) *event.PDU {
	return f(eventauth.Key{Type: typ, StateKey: stateKey})
}

func (w *world) allowed(n Num, s func(k eventauth.Key) Num) bool {
	return eventauth.Check(w.pdus[n], lookup(func(k eventauth.Key) *event.PDU {
		if m := s(k); m != 0 {
			return w.pdus[m]
		}
		return nil
	})) == nil
}

// reference resolves states.
func (w *world) reference(states ...state) state {
	if w.v.StateRes == matrix.StateResV1 {
		return w.referenceV1(states)
	}
	return w.referenceV2(states)
}

func (w *world) referenceV1(states []state) state {
	// A conflict occurs between states where those states have different
	// event_ids for the same (event_type, state_key).
	values := map[eventauth.Key][]Num{}
	for _, st := range states {
		for k, n := range st {
			if !slices.Contains(values[k], n) {
				values[k] = append(values[k], n)
			}
		}
	}
	// Start by setting R to the union of the states to be resolved, excluding any
	// conflicting events.
	r := state{}
	for k, list := range values {
		if len(list) == 1 {
			r[k] = list[0]
		}
	}
	sorted := func(list []Num) []Num {
		list = slices.Clone(list)
		slices.SortFunc(list, func(a, b Num) int { // ascending depth then descending sha1(event_id)
			if c := w.pdus[a].Depth - w.pdus[b].Depth; c != 0 {
				return int(c)
			}
			x, y := sha1.Sum([]byte(w.pdus[a].ID)), sha1.Sum([]byte(w.pdus[b].ID))
			return -bytes.Compare(x[:], y[:])
		})
		return list
	}
	for _, typ := range []string{event.TypePowerLevels, event.TypeJoinRules, event.TypeMember} {
		result := maps.Clone(r)
		for k, list := range values {
			if k.Type != typ || len(list) == 1 {
				continue
			}
			tried := maps.Clone(r)
			for i, n := range sorted(list) {
				if i > 0 && !w.allowed(n, func(k eventauth.Key) Num { return tried[k] }) {
					break
				}
				tried[k] = n
			}
			result[k] = tried[k]
		}
		r = result
	}
	result := maps.Clone(r)
	for k, list := range values {
		switch k.Type {
		case event.TypePowerLevels, event.TypeJoinRules, event.TypeMember:
			continue
		}
		if len(list) == 1 {
			continue
		}
		list = sorted(list)
		slices.Reverse(list)
		result[k] = list[len(list)-1]
		for _, n := range list {
			if w.allowed(n, func(k eventauth.Key) Num { return r[k] }) {
				result[k] = n
				break
			}
		}
	}
	return result
}

// steps are what the reference found on its way.
type refSteps struct {
	conflicted, difference, subgraph, full numset
}

func (w *world) sets(states []state) (unconflicted state, s refSteps) {
	unconflicted = state{}
	var all, common numset
	for i, st := range states {
		var chain numset // the union of the auth chains for each event in S_i
		for k, n := range st {
			chain = chain.union(w.reach[n])
			same := true
			for _, other := range states {
				same = same && other[k] == n
			}
			if same {
				unconflicted[k] = n
			} else {
				s.conflicted = s.conflicted.with(n)
			}
		}
		all = all.union(chain)
		if i == 0 {
			common = chain
		}
		common = common.intersection(chain)
	}
	s.difference = all.minus(common)
	s.full = s.conflicted.union(s.difference)
	if w.v.StateRes == matrix.StateResV21 {
		for _, a := range s.conflicted.list() {
			for _, b := range s.conflicted.list() {
				if a != b && !w.reach[a].has(b) {
					continue
				}
				for x := Num(1); int(x) < len(w.pdus); x++ {
					if (x == a || w.reach[a].has(x)) && (x == b || w.reach[x].has(b)) {
						s.subgraph = s.subgraph.with(x)
					}
				}
			}
		}
		s.full = s.full.union(s.subgraph)
	}
	return unconflicted, s
}

func (w *world) referenceV2(states []state) state {
	unconflicted, s := w.sets(states)
	// 1.
	var x numset
	for _, p := range s.full.list() {
		if w.power(p) {
			x = x.with(p).union(w.reach[p].intersection(s.full))
		}
	}
	partial := state{}
	if w.v.StateRes == matrix.StateResV2 {
		partial = maps.Clone(unconflicted)
	}
	// 2.
	w.iterate(partial, w.topological(x.list()))
	// 3.
	rest := s.full.minus(x).list()
	w.mainlineSort(partial[eventauth.Key{Type: event.TypePowerLevels}], rest)
	// 4.
	w.iterate(partial, rest)
	// 5.
	maps.Copy(partial, unconflicted)
	return partial
}

func (w *world) power(n Num) bool {
	p := w.pdus[n]
	return p.Type == event.TypePowerLevels || p.Type == event.TypeJoinRules ||
		p.Type == event.TypeMember && (p.Membership() == "leave" || p.Membership() == "ban") && string(p.Sender) != *p.StateKey
}

func (w *world) authOf(n Num, typ string) Num {
	for _, a := range w.auth[n] {
		if w.pdus[a].Type == typ {
			return a
		}
	}
	return 0
}

func (w *world) senderLevel(n Num) eventauth.Level {
	var create, pl *event.PDU
	if a := w.authOf(n, event.TypePowerLevels); a != 0 {
		pl = w.pdus[a]
	}
	if a := w.authOf(n, event.TypeCreate); a != 0 {
		create = w.pdus[a]
	} else if w.v.RoomIDFromCreate {
		create = w.pdus[1]
	}
	levels, err := eventauth.ParsePowerLevels(create, pl)
	if err != nil {
		w.Fatal(err)
	}
	return levels.User(w.pdus[n].Sender)
}

// topological is the reverse topological power ordering: at each step the
// smallest of the events whose auth chains hold none of those left.
func (w *world) topological(left []Num) []Num {
	level := map[Num]eventauth.Level{}
	for _, n := range left {
		level[n] = w.senderLevel(n)
	}
	less := func(x, y Num) bool {
		a, b := w.pdus[x], w.pdus[y]
		switch {
		case level[x] != level[y]:
			return level[x] > level[y]
		case a.OriginServerTS != b.OriginServerTS:
			return a.OriginServerTS < b.OriginServerTS
		}
		return a.ID < b.ID
	}
	var order []Num
	for len(left) > 0 {
		best := Num(0)
		for _, n := range left {
			ready := !slices.ContainsFunc(left, func(m Num) bool { return w.reach[n].has(m) })
			if ready && (best == 0 || less(n, best)) {
				best = n
			}
		}
		order = append(order, best)
		left = slices.DeleteFunc(left, func(n Num) bool { return n == best })
	}
	return order
}

func (w *world) mainlineSort(p Num, events []Num) {
	var mainline []Num
	for ; p != 0; p = w.authOf(p, event.TypePowerLevels) {
		mainline = append(mainline, p)
	}
	position := map[Num]int{}
	for _, n := range events {
		position[n] = math.MaxInt
		for e := w.authOf(n, event.TypePowerLevels); e != 0; e = w.authOf(e, event.TypePowerLevels) {
			if i := slices.Index(mainline, e); i >= 0 {
				position[n] = i
				break
			}
		}
	}
	slices.SortFunc(events, func(x, y Num) int {
		a, b := w.pdus[x], w.pdus[y]
		switch {
		case position[x] > position[y]:
			return -1
		case position[x] < position[y]:
			return 1
		case a.OriginServerTS != b.OriginServerTS:
			return int(a.OriginServerTS - b.OriginServerTS)
		case a.ID < b.ID:
			return -1
		}
		return 1
	})
}

// iterate is the iterative auth checks algorithm.
func (w *world) iterate(st state, events []Num) {
	for _, n := range events {
		ok := w.allowed(n, func(k eventauth.Key) Num {
			if st[k] != 0 {
				return st[k]
			}
			for _, a := range w.auth[n] {
				if w.key(a) == k && !w.rejected[a] {
					return a
				}
			}
			if w.v.RoomIDFromCreate && k.Type == event.TypeCreate {
				return 1
			}
			return 0
		})
		if ok {
			st[w.key(n)] = n
		}
	}
}
