package stateres

import (
	"cmp"
	"fmt"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
)

// Position is where an event stands in the cover index.
type Position struct {
	Chain Num // number of the first event of its chain; 0: it is not in the index
	Num   Num // its own number
}

// Link says that an event of a chain has an event of another chain in its auth
// chain, and with it all that are older in that chain.
type Link struct{ From, To Position }

// Leaf says that Event, of a type that authorises nothing, has To among its auth
// events. Of the events of one Key there is only the Leaf with the latest event
// of a chain.
type Leaf struct {
	Key   eventauth.Key
	Event Num
	To    Position
}

// Chain is what the index knows of one chain.
type Chain struct {
	Key   eventauth.Key // of all its events
	Last  Num           // the newest event
	Links []Link        // out of the chain, ascending by From.Num
}

// Index is the stored part of the cover index. What it returns must not change
// later.
type Index interface {
	// Positions answers the chain of each event, 0 for one that is not in the
	// index.
	Positions(nums []Num) ([]Num, error)

	// Chains answers each of the chains, nil for one that does not exist.
	Chains(chains []Num) ([]*Chain, error)

	// Members answers the events of a chain up to and with the event upto, the
	// newest first, at most limit.
	Members(chain, upto Num, limit int) ([]Num, error)

	// Citing answers what cites events of chains, for each of spans.
	Citing(spans []Span) ([]Citations, error)
}

// Span asks for what cites the event From of a chain, or a newer one.
type Span struct {
	Chain, From Num

	// Links and Leaves are how many of each are wanted at most, in descending
	// order of their To.Num, and of From.Num or Event. They begin behind AfterLink
	// and AfterLeaf, which need not be in the index; the zero values stand before
	// all others.
	Links     int
	AfterLink Link
	Leaves    int
	AfterLeaf Leaf
}

// Citations are links into a chain, and leaves of it.
type Citations struct {
	Links  []Link
	Leaves []Leaf
}

// Authorises tells whether events of a type can be auth events of others, and
// thus belong to chains.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection
func Authorises(typ string) bool {
	switch typ {
	case event.TypeCreate, event.TypeMember, event.TypeJoinRules, event.TypePowerLevels, event.TypeThirdPartyInvite:
		return true
	}
	return false
}

// Cover answers questions about auth chains from an Index. It remembers what it
// read, so it is for one piece of work, in which the index does not change, and
// for one goroutine.
type Cover struct {
	index  Index
	places map[Num]Num
	chains map[Num]*Chain

	limit int // how many members of chains may be read; 0: any number
	count int // how many were read
}

// NewCover makes a Cover.
func NewCover(ix Index) *Cover {
	return &Cover{index: ix, places: map[Num]Num{}, chains: map[Num]*Chain{}}
}

// positions looks up where events stand. Chain is 0 for those that are not in
// the index.
func (c *Cover) positions(nums []Num) ([]Position, error) {
	var unknown []Num
	for _, n := range nums {
		if _, ok := c.places[n]; !ok && n != 0 {
			unknown = append(unknown, n)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		unknown = slices.Compact(unknown)
		chains, err := c.index.Positions(unknown)
		if err != nil {
			return nil, fmt.Errorf("read positions: %w", err)
		}
		if len(chains) != len(unknown) {
			return nil, fmt.Errorf("read positions: asked for %d, got %d", len(unknown), len(chains))
		}
		for i, n := range unknown {
			c.places[n] = chains[i]
		}
	}
	list := make([]Position, len(nums))
	for i, n := range nums {
		list[i] = Position{c.places[n], n}
	}
	return list, nil
}

// load makes sure that chains are in c.chains.
func (c *Cover) load(chains []Num) error {
	var unknown []Num
	for _, n := range chains {
		if c.chains[n] == nil {
			unknown = append(unknown, n)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	unknown = slices.Compact(unknown)
	found, err := c.index.Chains(unknown)
	if err != nil {
		return fmt.Errorf("read chains: %w", err)
	}
	if len(found) != len(unknown) {
		return fmt.Errorf("read chains: asked for %d, got %d", len(unknown), len(found))
	}
	for i, n := range unknown {
		if found[i] == nil {
			return fmt.Errorf("chain %d is not in the cover index", n)
		}
		c.chains[n] = found[i]
	}
	return nil
}

// chain answers one chain.
func (c *Cover) chain(n Num) (*Chain, error) {
	if ch := c.chains[n]; ch != nil {
		return ch, nil
	}
	err := c.load([]Num{n})
	return c.chains[n], err
}

// upto returns how many of links start at the event n or before.
func upto(links []Link, n Num) int {
	i, _ := slices.BinarySearchFunc(links, n+1, func(l Link, n Num) int { return cmp.Compare(l.From.Num, n) })
	return i
}

// descent is a walk from events down to what they reach. It handles each link
// once, and asks the index once for each level.
type descent struct {
	c     *Cover
	floor Num                    // older events are of no interest
	tops  map[Num]Num            // chain -> the newest event that is reached
	seen  []Link                 // the links on the way, if keep is set
	keep  bool                   // whether to collect seen
	found func(l Link) (ok bool) // called for each link; false ends the walk
}

// run walks down from events, which count as reached.
func (d *descent) run(from []Position) error {
	d.tops = map[Num]Num{}
	next := map[Num]Num{}
	for _, p := range from {
		if p.Chain != 0 && p.Num >= d.floor {
			next[p.Chain] = max(next[p.Chain], p.Num)
		}
	}
	for len(next) > 0 {
		level := make([]Num, 0, len(next))
		for chain := range next {
			level = append(level, chain)
		}
		if err := d.c.load(level); err != nil {
			return err
		}
		reached := next
		next = map[Num]Num{}
		for _, chain := range level {
			was, is := d.tops[chain], reached[chain]
			d.tops[chain] = is
			links := d.c.chains[chain].Links
			for _, l := range links[upto(links, was):upto(links, is)] {
				if l.To.Num < d.floor {
					continue
				}
				if d.keep {
					d.seen = append(d.seen, l)
				}
				if d.found != nil && !d.found(l) {
					return nil
				}
				if n := l.To.Num; n > d.tops[l.To.Chain] && n > next[l.To.Chain] {
					next[l.To.Chain] = n
				}
			}
		}
		for chain, n := range next { // reached on this level, after it was put there
			if n <= d.tops[chain] {
				delete(next, chain)
			}
		}
	}
	return nil
}

// Reaches tells whether b is in the auth chain of a. Both must be in the index.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v2/#state-resolution
func (c *Cover) Reaches(a, b Num) (bool, error) {
	p, err := c.positions([]Num{a, b})
	if err != nil {
		return false, err
	}
	for _, q := range p {
		if q.Chain == 0 {
			return false, fmt.Errorf("event %d is not in the cover index", q.Num)
		}
	}
	ok, _, err := c.reaches(p[0], p[1], 0)
	return ok, err
}

// reaches tells whether b is in the auth chain of a. It may stop after a number of
// links, known is then false; 0 stands for no limit.
func (c *Cover) reaches(a, b Position, limit int) (ok, known bool, err error) {
	switch {
	case b.Num >= a.Num:
		return false, true, nil
	case a.Chain == b.Chain:
		return true, true, nil
	}
	known, steps := true, 0
	d := descent{c: c, floor: b.Num, found: func(l Link) bool {
		ok = ok || l.To.Chain == b.Chain && l.To.Num >= b.Num
		steps++
		known = known && (limit == 0 || steps < limit)
		return !ok && known
	}}
	err = d.run([]Position{a})
	return ok, known || ok, err
}

// How many entries of the index are asked for at once: few, because mostly the
// newest settle it, and then more and more.
const (
	firstPage = 8
	pageGrows = 4
	lastPage  = 512
)

// members gives f the events of a chain from upto back to from, newest first and
// some at a time, until it returns false.
func (c *Cover) members(chain, from, upto Num, f func(part []Num) (bool, error)) error {
	for size := firstPage; upto >= from && upto > 0; size = min(lastPage, size*pageGrows) {
		part, err := c.index.Members(chain, upto, size)
		if err != nil {
			return fmt.Errorf("read chain %d: %w", chain, err)
		}
		more := len(part) == size
		if i := slices.IndexFunc(part, func(n Num) bool { return n < from }); i >= 0 {
			part, more = part[:i], false
		}
		if len(part) == 0 {
			return nil
		}
		if c.count += len(part); c.limit > 0 && c.count > c.limit {
			return &LimitError{Limit: c.limit}
		}
		for _, n := range part {
			c.places[n] = chain
		}
		if ok, err := f(part); err != nil || !ok || !more {
			return err
		}
		upto = part[len(part)-1] - 1
	}
	return nil
}

// piece lists the events of a chain from from to upto, newest first.
func (c *Cover) piece(chain, from, upto Num) ([]Num, error) {
	var all []Num
	err := c.members(chain, from, upto, func(part []Num) (bool, error) {
		all = append(all, part...)
		return true, nil
	})
	return all, err
}

// AuthChain gives f the auth chains of events, one part of it at a time, in no
// particular order, until f returns false. The events must be in the index, and
// are themselves among those that f gets.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v2/#state-resolution
func (c *Cover) AuthChain(events []Num, f func(part []Num) bool) error {
	from, err := c.positions(events)
	if err != nil {
		return err
	}
	for _, p := range from {
		if p.Chain == 0 {
			return fmt.Errorf("event %d is not in the cover index", p.Num)
		}
	}
	d := descent{c: c}
	if err := d.run(from); err != nil {
		return err
	}
	for chain, top := range d.tops {
		part, err := c.piece(chain, 0, top)
		if err != nil {
			return err
		}
		if !f(part) {
			return nil
		}
	}
	return nil
}
