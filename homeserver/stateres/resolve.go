package stateres

import (
	"cmp"
	"fmt"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
)

// Conflict is a key on which the states do not agree.
type Conflict struct {
	Key    eventauth.Key
	Events []Num // what each of the states holds, in their order; 0: nothing
}

// Change says which event a key has in the resolved state.
type Change struct {
	Key   eventauth.Key
	Event Num // 0: none
}

// Ref is what is known of an event without reading it.
type Ref struct {
	Num      Num           // 0: the event is not known
	Key      eventauth.Key // of a state event
	Rejected bool
}

// Source is where events are. What it returns must not change later.
type Source interface {
	Index

	// Find looks up events by their IDs. Those that are not known have the Num 0.
	Find(ids []matrix.EventID) ([]Ref, error)

	// Events reads events, nil for one that is not there.
	Events(nums []Num) ([]*event.PDU, error)
}

// Input are the states that are to be resolved, as differences.
type Input struct {
	// Conflicts are all keys on which the states differ, each once, in any order.
	// The Events of all have the same length: the number of the states.
	Conflicts []Conflict

	// Unconflicted answers the events that the states hold for keys on which they
	// agree, 0 for those that they do not have. It is not asked about keys of
	// Conflicts.
	Unconflicted func(keys []eventauth.Key) ([]Num, error)

	Source Source

	// Limit is how many events may be in the conflicted states, and how many in
	// between them and in the auth difference. Each takes some hundred bytes of
	// memory. 0 stands for DefaultLimit.
	Limit int
}

// DefaultLimit is the Limit of an Input that has none.
const DefaultLimit = 250000

// Resolve resolves the states of a room. It answers what the resolved state holds
// for all keys of the conflicts, in their order, and for other keys that the
// algorithm adds, behind them in the order of the events; on all else the resolved
// state is as the states agree. The error is a *MissingError where events are
// missing, and a *LimitError where there are too many.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v12/#state-resolution
func Resolve(v *matrix.RoomVersion, in Input) ([]Change, error) {
	r, err := newResolver(v, in)
	if err != nil {
		return nil, err
	}
	if len(in.Conflicts) == 0 {
		return nil, nil
	}
	var resolved map[eventauth.Key]Num
	if v.StateRes == matrix.StateResV1 {
		resolved, err = r.v1()
	} else {
		resolved, err = r.v2()
	}
	if err != nil {
		return nil, err
	}
	changes := make([]Change, 0, len(in.Conflicts))
	for _, c := range in.Conflicts {
		changes = append(changes, Change{c.Key, resolved[c.Key]})
		delete(resolved, c.Key)
	}
	added := len(changes)
	for k, n := range resolved {
		changes = append(changes, Change{k, n})
	}
	slices.SortFunc(changes[added:], func(a, b Change) int { return cmp.Compare(a.Event, b.Event) })
	return changes, nil
}

// resolver is one resolution.
type resolver struct {
	v     *matrix.RoomVersion
	in    Input
	cover *Cover

	states    [][]Num // what each different state holds for the conflicted keys
	conflicts map[eventauth.Key][]Num
	agreed    map[eventauth.Key]Num // of the unconflicted state map, as far as it was read

	library
}

// newResolver checks the input, and separates its conflicts from what all states
// agree on.
func newResolver(v *matrix.RoomVersion, in Input) (*resolver, error) {
	r := &resolver{
		v: v, in: in, cover: NewCover(in.Source),
		conflicts: make(map[eventauth.Key][]Num, len(in.Conflicts)),
		agreed:    map[eventauth.Key]Num{},
		library:   newLibrary(in.Source),
	}
	limit := cmp.Or(in.Limit, DefaultLimit)
	r.cover.limit = limit
	count := 0
	for _, c := range in.Conflicts {
		if len(c.Events) == 0 || len(c.Events) != len(in.Conflicts[0].Events) {
			return nil, fmt.Errorf("conflict over %s %q: %d events of %d states", c.Key.Type, c.Key.StateKey, len(c.Events), len(in.Conflicts[0].Events))
		}
		if _, twice := r.conflicts[c.Key]; twice {
			return nil, fmt.Errorf("conflict over %s %q is given twice", c.Key.Type, c.Key.StateKey)
		}
		r.conflicts[c.Key] = distinct(c.Events)
		if count += len(r.conflicts[c.Key]); count > limit {
			return nil, &LimitError{Limit: limit}
		}
		if events := r.conflicts[c.Key]; r.v.StateRes == matrix.StateResV1 && len(events) == 1 || !slices.ContainsFunc(c.Events, func(n Num) bool { return n != c.Events[0] }) {
			r.agreed[c.Key] = append(events, 0)[0]
			delete(r.conflicts, c.Key)
		}
	}
	r.separate()
	return r, nil
}

// distinct lists the events among nums, each once, in ascending order.
func distinct(nums []Num) []Num {
	list := slices.Clone(nums)
	slices.Sort(list)
	list = slices.Compact(list)
	if len(list) > 0 && list[0] == 0 {
		list = list[1:]
	}
	return list
}

// separate makes one list of each state that is unlike the others. States may be
// given several times, as branches of a fork often have the same.
func (r *resolver) separate() {
	if len(r.in.Conflicts) == 0 {
		return
	}
	seen := map[string]bool{}
	var name []byte
	for i := range r.in.Conflicts[0].Events {
		state := make([]Num, 0, len(r.in.Conflicts))
		name = name[:0]
		for _, c := range r.in.Conflicts {
			n := c.Events[i]
			name = fmt.Append(name, n, " ")
			if _, ok := r.conflicts[c.Key]; ok && n != 0 {
				state = append(state, n)
			}
		}
		if !seen[string(name)] {
			seen[string(name)] = true
			r.states = append(r.states, state)
		}
	}
}

// At implements Common: the unconflicted state map.
func (r *resolver) At(keys []eventauth.Key) ([]Num, error) {
	var unknown []eventauth.Key
	for _, k := range keys {
		if _, ok := r.agreed[k]; !ok && r.conflicts[k] == nil {
			unknown = append(unknown, k)
		}
	}
	if len(unknown) > 0 {
		found, err := r.in.Unconflicted(unknown)
		if err != nil {
			return nil, fmt.Errorf("read unconflicted state: %w", err)
		}
		if len(found) != len(unknown) {
			return nil, fmt.Errorf("read unconflicted state: asked for %d keys, got %d", len(unknown), len(found))
		}
		for i, k := range unknown {
			r.agreed[k] = found[i]
		}
	}
	events := make([]Num, len(keys))
	for i, k := range keys {
		events[i] = r.agreed[k]
	}
	return events, nil
}

// AuthEvents implements Common.
func (r *resolver) AuthEvents(n Num) ([]Num, error) {
	d, err := r.digests([]Num{n})
	if err != nil {
		return nil, err
	}
	return r.cited(d[0])
}

// cited are the auth events of an event, but for those that were rejected and
// that no chain has.
func (r *resolver) cited(d *digest) ([]Num, error) {
	places, err := r.cover.positions(d.auth)
	if err != nil {
		return nil, err
	}
	list := make([]Num, 0, len(places))
	for _, p := range places {
		if p.Chain != 0 || !r.refs[p.Num].Rejected {
			list = append(list, p.Num)
		}
	}
	return list, nil
}

// conflicted lists the conflicted state set, in ascending order.
func (r *resolver) conflicted() []Num {
	var all []Num
	for _, events := range r.conflicts {
		all = append(all, events...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
