package stateres

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
)

// MaxStates is how many different states can be resolved at once.
const MaxStates = 256

// set is a set of states.
type set [MaxStates / 64]uint64

func (s set) with(t set) set {
	for i := range s {
		s[i] |= t[i]
	}
	return s
}

func (s set) add(i int) set {
	s[i/64] |= 1 << (i % 64)
	return s
}

// Difference answers the auth difference of states, in ascending order: the
// events that are in the auth chains of some of them, but not of all. Each of
// heads are the auth events of those events in which one state is unlike the
// others; common is what they share.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v2/#state-resolution
func (c *Cover) Difference(heads [][]Num, common Common) ([]Num, error) {
	return c.difference(heads, newShade(c, common))
}

func (c *Cover) difference(heads [][]Num, s *shade) ([]Num, error) {
	if len(heads) > MaxStates {
		return nil, fmt.Errorf("%d states differ, at most %d can be resolved", len(heads), MaxStates)
	}
	w := walk{c: c, shade: s, chains: map[Num]*stretch{}}
	sets := map[Num]set{}
	var all []Num
	for i, list := range heads {
		w.full = w.full.add(i)
		for _, n := range list {
			if _, ok := sets[n]; !ok {
				all = append(all, n)
			}
			sets[n] = sets[n].add(i)
		}
	}
	places, err := c.positions(all)
	if err != nil {
		return nil, err
	}
	chains := make([]Num, len(places))
	for i, p := range places {
		if p.Chain == 0 {
			return nil, fmt.Errorf("event %d is not in the cover index", p.Num)
		}
		chains[i] = p.Chain
	}
	if err := c.load(chains); err != nil {
		return nil, err
	}
	for i, p := range places {
		if err := w.push(step{Position: p, sets: sets[all[i]]}); err != nil {
			return nil, err
		}
	}
	if err := w.run(); err != nil {
		return nil, err
	}
	slices.Sort(w.diff)
	return w.diff, nil
}

// step is what the walk has to look at: an event that some states reach or, if
// out is set, the links that leave an event.
type step struct {
	Position
	sets set
	out  bool
}

// steps is a heap, the newest event first. What reaches an event comes before
// what leaves it.
type steps []step

func (s steps) Len() int { return len(s) }
func (s steps) Less(i, j int) bool {
	if s[i].Num != s[j].Num {
		return s[i].Num > s[j].Num
	}
	return !s[i].out && s[j].out
}
func (s steps) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *steps) Push(x any)   { *s = append(*s, x.(step)) }
func (s *steps) Pop() any {
	old := *s
	x := old[len(old)-1]
	*s = old[:len(old)-1]
	return x
}

// stretch is what the walk knows of one chain: that the event top, and all that
// are older, are reached by sets.
type stretch struct {
	chain *Chain
	sets  set
	top   Num
	next  int  // of chain.Links, which still have to be followed
	ahead int  // how many links ahead to ask next time whether the common state reaches them
	done  bool // all that is older is in every auth chain
}

// walk goes down from the newest event to older ones, for all states at once. It
// ends where all states have reached the same.
type walk struct {
	c     *Cover
	shade *shade
	full  set
	diff  []Num

	steps  steps
	some   int // how many of steps are not of all states
	chains map[Num]*stretch
	open   nums // chains that some states reached, maybe more than are left
}

// push adds a step, unless it tells nothing new, or is in every auth chain through
// the common state: while a step of some states waits, the others have to go on.
func (w *walk) push(s step) error {
	if st := w.chains[s.Chain]; st != nil && (st.done || st.sets.with(s.sets) == st.sets) {
		return nil
	}
	if s.sets != w.full {
		if covered, err := w.shade.covers(s.Position); covered || err != nil {
			return err
		}
		w.some++
	}
	heap.Push(&w.steps, s)
	return nil
}

func (w *walk) run() error {
	for len(w.steps) > 0 {
		s := heap.Pop(&w.steps).(step)
		if s.sets != w.full {
			w.some--
		} else if !w.matters(s.Num) {
			break
		}
		ch, err := w.c.chain(s.Chain)
		if err != nil {
			return err
		}
		st := w.chains[s.Chain]
		if st == nil {
			st = &stretch{chain: ch}
			w.chains[s.Chain] = st
		}
		if st.done || !s.out && st.sets.with(s.sets) == st.sets {
			continue
		}
		covered, err := w.covered(s, st)
		switch {
		case err != nil:
			return err
		case covered:
			err = w.finish(s.Chain, st, s.Num)
		case s.out:
			err = w.leave(s.Chain, st, s.Num)
		default:
			err = w.arrive(s, st)
		}
		if err != nil {
			return err
		}
	}
	for chain, st := range w.chains {
		if err := w.finish(chain, st, 0); err != nil {
			return err
		}
	}
	return nil
}

// covered tells whether s is in the auth chain of the common state. In a chain
// that is not, it asks further and further ahead, as that answers for all events
// up to there.
func (w *walk) covered(s step, st *stretch) (bool, error) {
	if s.out && st.ahead > 0 {
		probe := Position{s.Chain, st.chain.Links[max(0, st.next-1-st.ahead)].From.Num}
		covered, err := w.shade.covers(probe)
		if err != nil {
			return false, err
		}
		if covered {
			st.ahead = 0
		}
	}
	covered, err := w.shade.covers(s.Position)
	if s.out && !covered {
		st.ahead = 2*st.ahead + 1
	}
	return covered, err
}

// matters tells whether it changes anything that all states reach an event n, and
// what is older: some states have reached something older.
func (w *walk) matters(n Num) bool {
	for len(w.open) > 0 {
		st := w.chains[w.open[0]]
		if !st.done && st.sets != w.full {
			break
		}
		heap.Pop(&w.open)
	}
	return w.some > 0 || len(w.open) > 0 && w.open[0] <= n
}

// arrive notes that more states reach an event that the common state does not
// reach.
func (w *walk) arrive(s step, st *stretch) error {
	chain := s.Chain
	if st.top == 0 {
		st.next = upto(st.chain.Links, s.Num)
		heap.Push(&w.open, chain)
		w.follow(chain, st)
	} else if st.sets != w.full { // newer events keep the states that they have
		part, err := w.c.piece(chain, s.Num+1, st.top)
		if err != nil {
			return err
		}
		w.diff = append(w.diff, part...)
	}
	st.sets, st.top = st.sets.with(s.sets), s.Num
	return nil
}

// follow makes a step of the next link that leaves a chain.
func (w *walk) follow(chain Num, st *stretch) {
	if st.next > 0 {
		heap.Push(&w.steps, step{Position: Position{chain, st.chain.Links[st.next-1].From.Num}, sets: w.full, out: true})
	}
}

// leave follows the links that leave the event n.
func (w *walk) leave(chain Num, st *stretch, n Num) error {
	for st.next > 0 && st.chain.Links[st.next-1].From.Num >= n {
		st.next--
		if err := w.push(step{Position: st.chain.Links[st.next].To, sets: st.sets}); err != nil {
			return err
		}
	}
	w.follow(chain, st)
	return nil
}

// finish notes that what is not newer than the event upto is in every auth chain,
// or not in this one, and adds the newer events to the difference that only some
// states reach.
func (w *walk) finish(chain Num, st *stretch, upto Num) error {
	if st.done {
		return nil
	}
	st.done = true
	if st.top == 0 || st.sets == w.full {
		return nil
	}
	return w.c.members(chain, upto+1, st.top, func(part []Num) (bool, error) {
		// The oldest first: if it is not covered, none is. Else the newest of those
		// that are is somewhere before it.
		low, high := 0, len(part)
		for probe := high - 1; low < high; probe = (low + high) / 2 {
			covered, err := w.shade.covers(Position{chain, part[probe]})
			if err != nil {
				return false, err
			}
			if covered {
				high = probe
			} else {
				low = probe + 1
			}
		}
		w.diff = append(w.diff, part[:low]...)
		return low == len(part), nil
	})
}

// nums is a heap, the smallest number first.
type nums []Num

func (s nums) Len() int           { return len(s) }
func (s nums) Less(i, j int) bool { return cmp.Less(s[i], s[j]) }
func (s nums) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *nums) Push(x any)        { *s = append(*s, x.(Num)) }
func (s *nums) Pop() any {
	old := *s
	x := old[len(old)-1]
	*s = old[:len(old)-1]
	return x
}
