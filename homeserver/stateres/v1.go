package stateres

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"maps"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
)

// v1 resolves states as room version 1 does.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v1/#state-resolution
func (r *resolver) v1() (map[eventauth.Key]Num, error) {
	// Start by setting R to the union of the states to be resolved, excluding any
	// conflicting events.
	resolved := map[eventauth.Key]Num{}
	for k, n := range r.agreed {
		if n != 0 {
			resolved[k] = n
		}
	}
	passes := map[string][][]*digest{}
	for _, events := range r.conflicts {
		list, err := r.digests(events)
		if err != nil {
			return nil, err
		}
		// Sort the list by ascending depth then descending sha1(event_id).
		slices.SortFunc(list, func(a, b *digest) int {
			if c := cmp.Compare(a.depth, b.depth); c != 0 {
				return c
			}
			x, y := sha1.Sum([]byte(a.id)), sha1.Sum([]byte(b.id))
			return bytes.Compare(y[:], x[:])
		})
		pass := list[0].key.Type
		switch pass {
		case event.TypePowerLevels, event.TypeJoinRules, event.TypeMember:
		default:
			pass = ""
		}
		passes[pass] = append(passes[pass], list)
	}
	// First m.room.power_levels, then m.room.join_rules, then m.room.member, then
	// all others. The keys of one pass do not see each other, so their order is
	// of no account.
	for _, pass := range []string{event.TypePowerLevels, event.TypeJoinRules, event.TypeMember, ""} {
		pick := r.latest
		if pass == "" {
			pick = r.highest
		}
		picked := map[eventauth.Key]Num{}
		for _, list := range passes[pass] {
			n, err := pick(resolved, list)
			if err != nil {
				return nil, err
			}
			picked[list[0].key] = n
		}
		maps.Copy(resolved, picked)
	}
	return resolved, nil
}

// latest resolves a conflict over a key on which the authorization rules depend.
func (r *resolver) latest(resolved map[eventauth.Key]Num, list []*digest) (Num, error) {
	// Add the first event in the list to R.
	s := r.trial(resolved)
	s.own[list[0].key] = list[0].num
	for _, d := range list[1:] {
		// For each subsequent event in the list, check that the event would be
		// allowed by the authorisation rules for a room in state R. If it would
		// not be allowed, stop.
		ok, err := s.allows(d)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		s.own[d.key] = d.num
	}
	return s.own[list[0].key], nil
}

// highest resolves a conflict over any other key: it picks the event with the
// highest depth and lowest sha1(event_id) that passes authentication in R. Where
// none does, of which the specification says nothing, the last one stays, as with
// other servers.
func (r *resolver) highest(resolved map[eventauth.Key]Num, list []*digest) (Num, error) {
	s := r.trial(resolved)
	for _, d := range slices.Backward(list[1:]) {
		if ok, err := s.allows(d); ok || err != nil {
			return d.num, err
		}
	}
	return list[0].num, nil
}
