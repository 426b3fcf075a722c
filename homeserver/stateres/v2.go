package stateres

import (
	"maps"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
)

// v2 resolves states as room versions 2 to 11 do, and, in room version 12 and
// later, as v2.1 does.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v12/#state-resolution
func (r *resolver) v2() (map[eventauth.Key]Num, error) {
	full, err := r.fullConflictedSet()
	if err != nil {
		return nil, err
	}

	// 1. Select the set X of all power events that appear in the full conflicted
	// set. For each such power event P, enlarge X by adding the events in the auth
	// chain of P which also belong to the full conflicted set. Sort X into a list
	// using the reverse topological power ordering.
	first, rest, err := r.powerOrder(full)
	if err != nil {
		return nil, err
	}

	// 2. Apply the iterative auth checks algorithm, starting from the unconflicted
	// state map (v2) or an empty state map (v2.1), to the list of events from the
	// previous step to get a partially resolved state.
	t := &trial{r: r, own: map[eventauth.Key]Num{}, agreed: r.v.StateRes != matrix.StateResV21, fallback: true}
	if err := t.apply(first); err != nil {
		return nil, err
	}

	// 3. Take all remaining events that weren't picked in step 1 and order them by
	// the mainline ordering based on the power level in the partially resolved state
	// obtained in step 2.
	k := eventauth.Key{Type: event.TypePowerLevels}
	levels, held := t.held(k)
	if t.agreed && !held {
		found, err := r.At([]eventauth.Key{k})
		if err != nil {
			return nil, err
		}
		levels = found[0]
	}
	if err := r.mainlineOrder(levels, rest); err != nil {
		return nil, err
	}

	// 4. Apply the iterative auth checks algorithm on the partial resolved state
	// and the list of events from the previous step.
	if err := t.apply(rest); err != nil {
		return nil, err
	}

	// 5. Update the result by replacing any event with the event with the same key
	// from the unconflicted state map, if such an event exists, to get the final
	// resolved state. What the caller gets are differences from that map.
	keys := slices.Collect(maps.Keys(t.own))
	agreed, err := r.At(keys)
	if err != nil {
		return nil, err
	}
	for i, k := range keys {
		if agreed[i] != 0 {
			delete(t.own, k)
		}
	}
	for _, c := range r.in.Conflicts { // a key that was given, on which the states agree
		if n := r.agreed[c.Key]; n != 0 {
			t.own[c.Key] = n
		}
	}
	return t.own, nil
}

// fullConflictedSet is the union of the conflicted state set, the conflicted state
// subgraph (v2.1), and the auth difference.
func (r *resolver) fullConflictedSet() ([]*digest, error) {
	conflicted := r.conflicted()
	digests, err := r.digests(conflicted)
	if err != nil {
		return nil, err
	}
	ask := slices.Clone(conflicted) // at once
	for _, d := range digests {
		ask = append(ask, d.auth...)
	}
	if _, err := r.cover.positions(ask); err != nil {
		return nil, err
	}
	heads := make([][]Num, len(r.states))
	for i, state := range r.states {
		events, err := r.digests(state)
		if err != nil {
			return nil, err
		}
		for _, d := range events {
			auth, err := r.cited(d)
			if err != nil {
				return nil, err
			}
			heads[i] = append(heads[i], auth...)
		}
	}
	diff, err := r.cover.Difference(heads, r)
	if err != nil {
		return nil, err
	}
	all := append(diff, conflicted...)
	if r.v.StateRes == matrix.StateResV21 {
		g, err := r.region(conflicted)
		if err != nil {
			return nil, err
		}
		subgraph, err := g.events()
		if err != nil {
			return nil, err
		}
		all = append(all, subgraph...)
	}
	slices.Sort(all)
	return r.digests(slices.Compact(all))
}

// region finds what lies between events. Those of conflicted states are in no
// chain if their type authorises nothing.
func (r *resolver) region(events []Num) (*region, error) {
	places, err := r.cover.positions(events)
	if err != nil {
		return nil, err
	}
	var above []Position
	for _, p := range places {
		if p.Chain != 0 {
			continue
		}
		auth, err := r.AuthEvents(p.Num)
		if err != nil {
			return nil, err
		}
		heads, err := r.cover.positions(auth)
		if err != nil {
			return nil, err
		}
		above = append(above, heads...)
	}
	return r.cover.between(places, above)
}
