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
// search of one that is in the common state.
type ascent struct {
	s     *shade
	seen  map[Num]Num // chain -> oldest event that was looked at
	queue []Position  // each stands for itself and all that is newer in its chain
}

func (a *ascent) run(start Position) (hit bool, err error) {
	if hit, err = a.holds([]Position{start}, 1); hit || err != nil {
		return hit, err
	}
	a.queue = append(a.queue, start)
	for len(a.queue) > 0 {
		p := a.queue[len(a.queue)-1]
		a.queue = a.queue[:len(a.queue)-1]
		if !a.fresh(p) {
			continue
		}
		if hit, err = a.citing(p); hit || err != nil {
			return hit, err
		}
		if hit, err = a.leaves(p); hit || err != nil {
			return hit, err
		}
	}
	return false, nil
}

// holds tells whether the common state holds an event of the chain of one of
// list that is at least by newer than it.
func (a *ascent) holds(list []Position, by Num) (bool, error) {
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

// Pages begin small, because mostly one of the newest events is in the state.
const (
	firstPage = 8
	pageGrows = 4
)

// citing looks at the events that link to p or newer events of its chain, and
// puts those that are not in the state into the queue.
func (a *ascent) citing(p Position) (bool, error) {
	end := Num(math.MaxInt64) // newer ones were looked at
	if n, ok := a.s.dead[p.Chain]; ok {
		end = n
	}
	if n, ok := a.seen[p.Chain]; ok {
		end = min(end, n)
	}
	a.seen[p.Chain] = p.Num
	var after Link
	if end < math.MaxInt64 {
		after = Link{To: Position{p.Chain, end}} // From.Num 0 is behind all links to end
	}
	for size := firstPage; ; size = min(page, size*pageGrows) {
		links, err := a.s.c.index.Citing(p.Chain, p.Num, after, size)
		if err != nil {
			return false, fmt.Errorf("read links into chain %d: %w", p.Chain, err)
		}
		from := make([]Position, 0, len(links))
		for _, l := range links {
			if a.fresh(l.From) {
				from = append(from, l.From)
			}
		}
		if hit, err := a.holds(from, 0); hit || err != nil {
			return hit, err
		}
		a.queue = append(a.queue, from...)
		if len(links) < size {
			return false, nil
		}
		after = links[len(links)-1]
	}
}

// fresh tells whether p has not been looked at.
func (a *ascent) fresh(p Position) bool {
	if n, ok := a.s.dead[p.Chain]; ok && p.Num >= n {
		return false
	}
	n, ok := a.seen[p.Chain]
	return !ok || p.Num < n
}

// leaves looks at the leaves of p and newer events of its chain.
func (a *ascent) leaves(p Position) (bool, error) {
	var after Leaf
	for size := firstPage; ; size = min(page, size*pageGrows) {
		list, err := a.s.c.index.Leaves(p.Chain, p.Num, after, size)
		if err != nil {
			return false, fmt.Errorf("read leaves of chain %d: %w", p.Chain, err)
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
		if len(list) < size {
			return false, nil
		}
		after = list[len(list)-1]
	}
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
