package stateres

import (
	"cmp"
	"slices"
)

// mainlineOrder sorts events by the mainline ordering based on the power levels
// event p, which is 0 for none.
//
// The mainline is as old as the room, so it is not read. A power levels event and
// the one among its auth events are neighbours in a chain, unless it is the first
// event of its chain; so where two mainlines meet follows from the chains. A place in the mainline is named by its event: the greater a
// mainline position, the smaller is the event's number, and infinity is 0.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v12/#state-resolution
func (r *resolver) mainlineOrder(p Num, events []*digest) error {
	m := mainline{r: r, met: map[Num]Num{0: 0}, parents: map[Num]Position{}}
	var err error
	if m.p, err = m.place(p); err != nil {
		return err
	}
	met := make(map[Num]Num, len(events))
	for _, d := range events {
		if met[d.num], err = m.meet(d.levels); err != nil {
			return err
		}
	}
	slices.SortFunc(events, func(x, y *digest) int {
		return cmp.Or(
			cmp.Compare(met[x.num], met[y.num]), // 1. the mainline position of x is greater; or
			cmp.Compare(x.ts, y.ts),             // 2. x's origin_server_ts is less; or
			cmp.Compare(x.id, y.id))             // 3. x's event_id is less
	})
	return nil
}

// mainline is the mainline of the event p.
type mainline struct {
	r       *resolver
	p       Position
	met     map[Num]Num
	parents map[Num]Position // of chains
}

// place is where an event stands. One that is not in the index makes a chain of its
// own; the place of none has the Chain 0.
func (m *mainline) place(n Num) (Position, error) {
	if n == 0 {
		return Position{}, nil
	}
	places, err := m.r.cover.positions([]Num{n})
	if err != nil {
		return Position{}, err
	}
	if places[0].Chain == 0 {
		return Position{n, n}, nil
	}
	return places[0], nil
}

// meet finds the first event of the mainline among the power levels event e1 in
// the auth events of an event, the one in the auth events of e1, and so on. It
// answers 0 if there is none.
func (m *mainline) meet(e1 Num) (Num, error) {
	if n, ok := m.met[e1]; ok {
		return n, nil
	}
	p := m.p
	e, err := m.place(e1)
	for err == nil && p.Chain != e.Chain && p.Chain != 0 && e.Chain != 0 {
		// What is in the chain that began later, the other cannot come to.
		if p.Chain > e.Chain {
			p, err = m.parent(p)
		} else {
			e, err = m.parent(e)
		}
	}
	if err != nil {
		return 0, err
	}
	if p.Chain == e.Chain {
		m.met[e1] = min(p.Num, e.Num)
	} else {
		m.met[e1] = 0
	}
	return m.met[e1], nil
}

// parent is the power levels event in the auth events of the first event of p's
// chain. Its Chain is 0 if there is none.
func (m *mainline) parent(p Position) (Position, error) {
	if q, ok := m.parents[p.Chain]; ok {
		return q, nil
	}
	d, err := m.r.digests([]Num{p.Chain})
	if err != nil {
		return Position{}, err
	}
	q, err := m.place(d[0].levels)
	if err == nil {
		m.parents[p.Chain] = q
	}
	return q, err
}
