package stateres

import (
	"fmt"
	"math"

	"switchboard/homeserver/eventauth"
)

// Common is the part of the states that they all share: the unconflicted state
// map.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v2/#state-resolution
type Common interface {
	// At answers the events of keys, 0 where the states differ or have none.
	At(keys []eventauth.Key) ([]Num, error)

	// AuthEvents answers the auth events of the event n.
	AuthEvents(n Num) ([]Num, error)
}

// shade tells which events are in the auth chain of the common state. It does not
// walk down from that state, which is as large as the room, but up from the event
// in question: the first event on the way that is in the state settles it, and
// where there is none, few events are newer.
type shade struct {
	c      *Cover
	common Common

	in  map[Num]Num // chain -> newest event that is known to be in the auth chain
	out map[Num]Num // chain -> oldest event that is known not to be

	// dead has for a chain the oldest event that neither is in the common state
	// nor in its auth chain, as far as that is known.
	dead map[Num]Num
}

func newShade(c *Cover, common Common) *shade {
	return &shade{c: c, common: common, in: map[Num]Num{}, out: map[Num]Num{}, dead: map[Num]Num{}}
}

// covers tells whether p is in the auth chain of the common state.
func (s *shade) covers(p Position) (bool, error) {
	if p.Num <= s.in[p.Chain] {
		return true, nil
	}
	if out, ok := s.out[p.Chain]; ok && p.Num >= out {
		return false, nil
	}
	if dead, ok := s.dead[p.Chain]; ok && p.Num >= dead {
		return false, nil
	}
	up := ascent{s: s, seen: map[Num]Num{}}
	hit, err := up.run(p)
	if err != nil {
		return false, err
	}
	if hit {
		s.in[p.Chain] = p.Num
		return true, nil
	}
	s.out[p.Chain] = p.Num
	for chain, from := range up.seen {
		if chain == p.Chain {
			from++ // the event itself may be in the state
		}
		if old, ok := s.dead[chain]; !ok || from < old {
			s.dead[chain] = from
		}
	}
	return false, nil
}

// ascent is a walk from an event up to those that have it in their auth chain, in
// search of one that is in the common state. It goes breadth first, and reads a
// little of each chain before it reads on, because mostly one of the newest
// events is in the state.
type ascent struct {
	s     *shade
	seen  map[Num]Num // chain -> oldest event that was looked at
	queue []visit
}

// visit is an event whose citations, and those of what is newer in its chain, are
// still to be read.
type visit struct {
	Position
	span Span
}

func (a *ascent) run(start Position) (hit bool, err error) {
	if hit, err = a.holds([]Position{start}, 1); hit || err != nil {
		return hit, err
	}
	a.look(start)
	for len(a.queue) > 0 {
		level := a.queue[:min(len(a.queue), batch)]
		a.queue = a.queue[len(level):]
		spans := make([]Span, len(level))
		for i, v := range level {
			spans[i] = v.span
		}
		found, err := a.s.c.index.Citing(spans)
		if err == nil && len(found) != len(spans) {
			err = fmt.Errorf("asked for %d chains, got %d", len(spans), len(found))
		}
		if err != nil {
			return false, fmt.Errorf("read citations: %w", err)
		}
		for i, v := range level {
			if hit, err = a.leaves(v.Position, found[i].Leaves); hit || err != nil {
				return hit, err
			}
		}
		if hit, err = a.links(found); hit || err != nil {
			return hit, err
		}
		for i, v := range level {
			a.goOn(v, found[i])
		}
	}
	return false, nil
}

// look puts p into the queue, unless it was looked at.
func (a *ascent) look(p Position) {
	end := a.end(p.Chain)
	if p.Num >= end {
		return
	}
	a.seen[p.Chain] = p.Num
	v := visit{Position: p, span: Span{Chain: p.Chain, From: p.Num, Links: firstPage, Leaves: firstPage}}
	if end < math.MaxInt64 {
		v.span.AfterLink = Link{To: Position{p.Chain, end}} // behind all links to end and newer events
	}
	a.queue = append(a.queue, v)
}

// end is the oldest event of a chain of which it is known that the common state
// neither holds nor reaches it, or that was looked at.
func (a *ascent) end(chain Num) Num {
	end := Num(math.MaxInt64)
	if n, ok := a.s.dead[chain]; ok {
		end = n
	}
	if n, ok := a.seen[chain]; ok {
		end = min(end, n)
	}
	return end
}

// goOn puts what is left of v into the queue.
func (a *ascent) goOn(v visit, c Citations) {
	size := min(lastPage, max(v.span.Links, v.span.Leaves)*pageGrows)
	if n := len(c.Links); n > 0 && n >= v.span.Links {
		v.span.AfterLink, v.span.Links = c.Links[n-1], size
	} else {
		v.span.Links = 0
	}
	if n := len(c.Leaves); n > 0 && n >= v.span.Leaves {
		v.span.AfterLeaf, v.span.Leaves = c.Leaves[n-1], size
	} else {
		v.span.Leaves = 0
	}
	if v.span.Links > 0 || v.span.Leaves > 0 {
		a.queue = append(a.queue, v)
	}
}

// links looks at the events that cite others, and puts those that are not in the
// state into the queue.
func (a *ascent) links(found []Citations) (bool, error) {
	oldest := map[Num]Num{} // of each chain
	for _, c := range found {
		for _, l := range c.Links {
			if n, ok := oldest[l.From.Chain]; l.From.Num < a.end(l.From.Chain) && (!ok || l.From.Num < n) {
				oldest[l.From.Chain] = l.From.Num
			}
		}
	}
	from := make([]Position, 0, len(oldest))
	for chain, n := range oldest {
		from = append(from, Position{chain, n})
	}
	hit, err := a.holds(from, 0)
	if hit || err != nil {
		return hit, err
	}
	for _, p := range from {
		a.look(p)
	}
	return false, nil
}

// holds tells whether the common state holds an event of the chain of one of
// list that is at least by newer than it.
func (a *ascent) holds(list []Position, by Num) (bool, error) {
	if len(list) == 0 {
		return false, nil
	}
	chains := make([]Num, len(list))
	for i, p := range list {
		chains[i] = p.Chain
	}
	if err := a.s.c.load(chains); err != nil {
		return false, err
	}
	keys := make([]eventauth.Key, len(list))
	for i, p := range list {
		keys[i] = a.s.c.chains[p.Chain].Key
	}
	events, err := a.at(keys)
	if err != nil {
		return false, err
	}
	places, err := a.s.c.positions(events)
	if err != nil {
		return false, err
	}
	for i, p := range list {
		if events[i] >= p.Num+by && places[i].Chain == p.Chain {
			return true, nil
		}
	}
	return false, nil
}

func (a *ascent) at(keys []eventauth.Key) ([]Num, error) {
	events, err := a.s.common.At(keys)
	if err == nil && len(events) != len(keys) {
		err = fmt.Errorf("read common state: asked for %d keys, got %d", len(keys), len(events))
	}
	return events, err
}

// leaves looks at leaves of p and newer events of its chain.
func (a *ascent) leaves(p Position, list []Leaf) (bool, error) {
	if len(list) == 0 {
		return false, nil
	}
	keys := make([]eventauth.Key, len(list))
	for i, l := range list {
		keys[i] = l.Key
	}
	events, err := a.at(keys)
	if err != nil {
		return false, err
	}
	for i, l := range list {
		switch {
		case events[i] == l.Event:
			return true, nil
		case events[i] <= p.Num:
		default: // another event of the key is in the state; it may name the chain, too
			if hit, err := a.names(events[i], p); hit || err != nil {
				return hit, err
			}
		}
	}
	return false, nil
}

// names tells whether p or a newer event of its chain is an auth event of n.
func (a *ascent) names(n Num, p Position) (bool, error) {
	auth, err := a.s.common.AuthEvents(n)
	if err != nil {
		return false, err
	}
	places, err := a.s.c.positions(auth)
	if err != nil {
		return false, err
	}
	for _, q := range places {
		if q.Chain == p.Chain && q.Num >= p.Num {
			return true, nil
		}
	}
	return false, nil
}
