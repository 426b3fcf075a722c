package stateres

import (
	"fmt"
	"slices"

	"switchboard/homeserver/eventauth"
)

// Entry is what the index has to keep for one event.
type Entry struct {
	Position Position // of an event that belongs to a chain; else the Chain is 0
	Links    []Link   // new links out of its chain
	Leaves   []Leaf   // each replaces that of its Key and To.Chain, unless that has a newer To
}

// Builder finds places in the cover index for new events. It remembers those that
// it placed, so that one Builder can serve for many events before any of them is
// stored. It is for one goroutine.
//
// Every state event belongs in the index that may be in a state or in an auth
// chain: all whose auth events are in the index and allow them, also those that
// the state before them rejects, because another server may claim to have them.
type Builder struct {
	cover *Cover
	own   map[Num]bool // chains in cover that are ours to change
	known map[[2]Num]bool
}

// NewBuilder makes a Builder that goes on where ix ends.
func NewBuilder(ix Index) *Builder {
	return &Builder{cover: NewCover(ix), own: map[Num]bool{}, known: map[[2]Num]bool{}}
}

// Add places the event n, which is the state key, and returns what has to be
// stored. auth are its auth events; they must have been added before, and have
// smaller numbers. An event may be added once.
func (b *Builder) Add(n Num, key eventauth.Key, auth []Num) (Entry, error) {
	auth = slices.Clone(auth)
	slices.Sort(auth)
	auth = slices.Compact(auth)
	slices.Reverse(auth)
	to, err := b.cover.positions(auth)
	if err != nil {
		return Entry{}, err
	}
	chains := make([]Num, len(to))
	for i, p := range to {
		if p.Chain == 0 {
			return Entry{}, fmt.Errorf("add event %d: auth event %d is not in the cover index", n, p.Num)
		}
		if p.Num >= n {
			return Entry{}, fmt.Errorf("add event %d: its number is not greater than that of auth event %d", n, p.Num)
		}
		chains[i] = p.Chain
	}
	if !Authorises(key.Type) {
		return Entry{Leaves: leaves(n, key, to)}, nil
	}
	if err := b.cover.load(chains); err != nil {
		return Entry{}, err
	}
	e := Entry{Position: Position{n, n}}
	kept := make([]Position, 0, len(to)) // what n is known to reach
	for _, p := range to {               // the chain to continue, unless another event did that
		if ch := b.cover.chains[p.Chain]; ch.Key == key && ch.Last == p.Num {
			e.Position.Chain = p.Chain
			kept = append(kept, p)
			break
		}
	}
	for _, p := range to {
		ok, err := b.implied(kept, p)
		if err != nil {
			return Entry{}, err
		}
		if !ok {
			e.Links = append(e.Links, Link{e.Position, p})
			kept = append(kept, p)
		}
	}
	b.remember(n, key, e)
	return e, nil
}

// leaves are the entries of an event that belongs to no chain. Of two auth events
// in one chain the newer counts, which comes first.
func leaves(n Num, key eventauth.Key, to []Position) []Leaf {
	var list []Leaf
	for _, p := range to {
		if !slices.ContainsFunc(list, func(l Leaf) bool { return l.To.Chain == p.Chain }) {
			list = append(list, Leaf{key, n, p})
		}
	}
	return list
}

const (
	maxSteps = 64   // links that are tried in order to save one
	maxKnown = 4096 // answers that are remembered
)

// implied tells whether one of kept is p or reaches it. It may answer false where
// that is hard to find out.
func (b *Builder) implied(kept []Position, p Position) (bool, error) {
	for _, k := range kept {
		if k == p {
			return true, nil
		}
		pair := [2]Num{k.Num, p.Num}
		ok, known := b.known[pair]
		if !known {
			var err error
			if ok, _, err = b.cover.reaches(k, p, maxSteps); err != nil {
				return false, err
			}
			if len(b.known) >= maxKnown {
				clear(b.known)
			}
			b.known[pair] = ok
		}
		if ok {
			return true, nil
		}
	}
	return false, nil
}

// remember puts a new event into the chains in memory.
func (b *Builder) remember(n Num, key eventauth.Key, e Entry) {
	c, chain := b.cover, e.Position.Chain
	c.places[n] = chain
	if chain == n {
		c.chains[n] = &Chain{Key: key, Last: n, Links: slices.Clone(e.Links)}
		b.own[n] = true
		return
	}
	old := c.chains[chain]
	if !b.own[chain] { // the index's own copy stays as it is
		clone := *old
		clone.Links = slices.Clone(old.Links)
		old = &clone
		c.chains[chain], b.own[chain] = old, true
	}
	old.Last = n
	old.Links = append(old.Links, e.Links...)
}
