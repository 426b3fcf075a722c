package clientsync

import (
	"slices"

	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// combined is what all rules together want to know of a room. It is shared by
// the rooms for which it is the same, and never changed.
type combined struct {
	lists listSet // that show the room
	limit int
	state []RequiredState
	text  string // of state, to compare
}

// rule names what is combined: lists, and the subscription of a room.
type rule struct {
	lists listSet
	limit int // -1 for no subscription
	text  string
}

// combine gives what some lists and a subscription want, nil for none.
func (sl *slide) combine(lists listSet, sub *RoomConfig) *combined {
	key := rule{lists: lists, limit: -1}
	if sub != nil {
		key.limit, key.text = sub.Limit, sub.Text
	}
	if c := sl.next.wanted[key]; c != nil {
		return c
	}
	c := &combined{lists: lists}
	add := func(one RoomConfig) {
		c.limit = max(c.limit, one.Limit)
		c.state = append(c.state, one.State)
		c.text += one.Text + "\n"
	}
	for i, name := range sl.names {
		if lists.has(i) {
			add(sl.Lists[name].RoomConfig)
		}
	}
	if sub != nil {
		add(*sub)
	}
	if old := sl.known.wanted[key]; old != nil && old.limit == c.limit && old.text == c.text {
		c = old
	}
	sl.next.wanted[key] = c
	return c
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
