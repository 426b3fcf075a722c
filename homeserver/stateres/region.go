package stateres

import (
	"cmp"
	"slices"
)

// region is the part of the auth graph that lies between events: all that one of
// them reaches and that reaches one of them, and they themselves. Of each chain
// it is one piece.
type region struct {
	c         *Cover
	low, high map[Num]Num // chain -> oldest and newest event
	links     []Link      // those between events of the region, ascending by From.Num
}

// between finds the region between events. Those that are not in the index, which
// nothing reaches, are given by their auth events in above.
func (c *Cover) between(events []Position, above []Position) (*region, error) {
	r := &region{c: c, low: map[Num]Num{}}
	d := descent{c: c, keep: true}
	for _, p := range events {
		if p.Chain == 0 {
			continue
		}
		if old, ok := r.low[p.Chain]; !ok || p.Num < old {
			r.low[p.Chain] = p.Num
		}
		if d.floor == 0 || p.Num < d.floor {
			d.floor = p.Num
		}
	}
	if d.floor == 0 {
		return r, nil
	}
	if err := d.run(append(slices.Clone(above), events...)); err != nil {
		return nil, err
	}
	r.high = d.tops
	// From old to new: whether the end of a link is in the region is known
	// before the link's start is in question, because it is older.
	slices.SortFunc(d.seen, func(a, b Link) int { return cmp.Compare(a.From.Num, b.From.Num) })
	for _, l := range d.seen {
		if low, ok := r.low[l.To.Chain]; !ok || l.To.Num < low {
			continue
		}
		r.links = append(r.links, l)
		if old, ok := r.low[l.From.Chain]; !ok || l.From.Num < old {
			r.low[l.From.Chain] = l.From.Num
		}
	}
	return r, nil
}

// has tells whether p lies in the region.
func (r *region) has(p Position) bool {
	low, ok := r.low[p.Chain]
	return ok && low <= p.Num && p.Num <= r.high[p.Chain]
}

// events lists what lies in the region, in no particular order.
func (r *region) events() ([]Num, error) {
	var all []Num
	for chain, low := range r.low {
		part, err := r.c.piece(chain, low, r.high[chain])
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	return all, nil
}
