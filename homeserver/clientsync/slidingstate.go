package clientsync

import (
	"encoding/json"
	"slices"
	"strconv"

	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// combined is what all rules together want to know of a room. It is shared by
// the rooms for which it is the same.
type combined struct {
	limit int
	state []RequiredState
	text  string // of state, to compare
}

// look adds what another rule wants to know of the room.
func (s *seat) look(c RoomConfig, all map[string]*combined) {
	next := &combined{limit: c.Limit, state: []RequiredState{c.State}}
	if s.config != nil {
		next.limit = max(next.limit, s.config.limit)
		next.state = append(slices.Clone(s.config.state), c.State)
	}
	b, err := json.Marshal(next.state)
	if err != nil {
		panic(err) // it holds texts only
	}
	next.text = string(b)
	key := strconv.Itoa(next.limit) + next.text
	if all[key] == nil {
		all[key] = next
	}
	s.config = all[key]
}

// lazy tells whether members come with what they did.
func (c *combined) lazy() bool {
	return slices.ContainsFunc(c.state, func(r RequiredState) bool { return r.Lazy })
}

// wants tells whether a state event is wanted, other than lazily.
func (c *combined) wants(typ, key string) bool {
	return slices.ContainsFunc(c.state, func(r RequiredState) bool { return r.wants(typ, key) })
}

func (r *RequiredState) wants(typ, key string) bool {
	matches := func(m StateMatch) bool {
		if r.Lazy && m.Type == nil && m.Key == nil && typ == "m.room.member" {
			return false
		}
		return (m.Type == nil || *m.Type == typ) && (m.Key == nil || *m.Key == key)
	}
	return slices.ContainsFunc(r.Include, matches) && !slices.ContainsFunc(r.Exclude, matches)
}

// single lists the events that are wanted where each is named, false where some
// are described.
func (c *combined) single() ([]StateMatch, bool) {
	var list []StateMatch
	for _, r := range c.state {
		for _, m := range r.Include {
			if m.Type == nil || m.Key == nil {
				return nil, false
			}
			list = append(list, m)
		}
	}
	return list, true
}

// pick gives the events of a state that c wants.
func (sl *slide) pick(root statetree.ID, c *combined) ([]*store.Event, error) {
	named, ok := c.single()
	if !ok {
		all, err := sl.reading.Rooms.StateEvents(sl.ctx, root)
		return slices.DeleteFunc(all, func(e *store.Event) bool { return !c.wants(e.PDU.Type, *e.PDU.StateKey) }), err
	}
	var list []*store.Event
	for _, m := range named {
		e, err := sl.reading.Rooms.StateEvent(sl.ctx, root, *m.Type, *m.Key)
		if err != nil {
			return nil, err
		}
		if e != nil && c.wants(*m.Type, *m.Key) && !slices.Contains(list, e) {
			list = append(list, e)
		}
	}
	return list, nil
}

// changes gives what changed between two states of a room and is wanted, and of
// what is wanted now but was not before, all. Gone is what has no place in the
// state any more.
func (sl *slide) changes(before, after statetree.ID, was, is *combined, members bool) (list, gone []*store.Event, err error) {
	wanted := func(e *store.Event) bool {
		return is.wants(e.PDU.Type, *e.PDU.StateKey) || members && is.lazy() && isMember(e)
	}
	changed, err := sl.reading.Rooms.StateChanges(sl.ctx, before, after)
	if err != nil {
		return nil, nil, err
	}
	there := make(map[statetree.Key]bool, len(changed))
	for _, e := range changed {
		there[e.Key] = true
	}
	if before != after {
		old, err := sl.reading.Rooms.StateChanges(sl.ctx, after, before)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range old {
			if wanted(e) && !there[e.Key] {
				gone = append(gone, e)
			}
		}
	}
	list = slices.DeleteFunc(changed, func(e *store.Event) bool { return !wanted(e) })
	if was.text == is.text {
		return list, gone, nil
	}
	all, err := sl.pick(after, is)
	for _, e := range all {
		if !was.wants(e.PDU.Type, *e.PDU.StateKey) && !slices.Contains(list, e) {
			list = append(list, e)
		}
	}
	return list, gone, err
}
