package room

import (
	"context"
	"fmt"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/stateres"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// resolve makes one state of those with some roots. The nodes of the answer that
// are not stored yet come with it.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v12/#state-resolution
func (s *Service) resolve(ctx context.Context, r *store.Room, roots []statetree.ID) (statetree.Tree, []statetree.Node, error) {
	roots = slices.Clone(roots)
	slices.Sort(roots)
	roots = slices.Compact(roots)
	switch len(roots) {
	case 0:
		return statetree.Tree{}, nil, nil
	case 1:
		return s.tree(roots[0]), nil, nil
	}
	if err := s.Store.CoverRoom(ctx, r.Num); err != nil {
		return statetree.Tree{}, nil, err
	}
	f := &fork{s: s, ctx: ctx, index: s.Store.Cover(ctx), loader: s.Store.Nodes(ctx)}
	for _, id := range roots {
		f.trees = append(f.trees, s.tree(id))
	}
	conflicts, err := f.conflicts()
	if err != nil {
		return statetree.Tree{}, nil, err
	}
	changes, err := stateres.Resolve(r.Version, stateres.Input{Conflicts: conflicts, Unconflicted: f.unconflicted, Source: f})
	if err != nil {
		return statetree.Tree{}, nil, fmt.Errorf("resolve the state of %s: %w", r.ID, err)
	}
	entries := make([]statetree.Entry, 0, len(changes))
	for _, c := range changes {
		k, ok, err := s.Store.StateKey(ctx, c.Key.Type, c.Key.StateKey)
		if err != nil {
			return statetree.Tree{}, nil, err
		}
		if !ok {
			return statetree.Tree{}, nil, fmt.Errorf("resolve the state of %s: the key %s %q has no number", r.ID, c.Key.Type, c.Key.StateKey)
		}
		entries = append(entries, statetree.Entry{Key: k, Value: statetree.Value(c.Event)})
	}
	return f.trees[0].Put(f.loader, entries...)
}

// index is the cover index, named so that fork can embed it.
type index = stateres.Index

// fork is a set of states that differ. It implements stateres.Source.
type fork struct {
	index
	s      *Service
	ctx    context.Context
	loader statetree.Loader
	trees  []statetree.Tree
}

// conflicts are the keys on which the states differ, found by comparing each
// with the first.
func (f *fork) conflicts() ([]stateres.Conflict, error) {
	values := map[statetree.Key]statetree.Value{} // any value of the key, for its name
	for _, t := range f.trees[1:] {
		err := statetree.Diff(f.loader, f.trees[0], t, func(k statetree.Key, a, b statetree.Value) bool {
			values[k] = max(a, b)
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	keys := make([]statetree.Key, 0, len(values))
	nums := make([]store.EventNum, 0, len(values))
	for k, v := range values {
		keys = append(keys, k)
		nums = append(nums, store.EventNum(v))
	}
	named, err := f.s.Store.EventsByNum(f.ctx, nums)
	if err != nil {
		return nil, err
	}
	list := make([]stateres.Conflict, len(keys))
	for i := range keys {
		e := named[nums[i]]
		if e == nil {
			return nil, fmt.Errorf("state event %d is missing", nums[i])
		}
		list[i].Key = eventauth.Key{Type: e.PDU.Type, StateKey: *e.PDU.StateKey}
	}
	for _, t := range f.trees {
		vs, err := t.Values(f.loader, keys...)
		if err != nil {
			return nil, err
		}
		for i, v := range vs {
			list[i].Events = append(list[i].Events, stateres.Num(v))
		}
	}
	return list, nil
}

// unconflicted reads keys on which the states agree.
func (f *fork) unconflicted(keys []eventauth.Key) ([]stateres.Num, error) {
	list := make([]stateres.Num, len(keys))
	var numbers []statetree.Key
	var places []int
	for i, k := range keys {
		n, ok, err := f.s.Store.StateKey(f.ctx, k.Type, k.StateKey)
		if err != nil {
			return nil, err
		}
		if ok {
			numbers = append(numbers, n)
			places = append(places, i)
		}
	}
	values, err := f.trees[0].Values(f.loader, numbers...)
	for i, v := range values {
		list[places[i]] = stateres.Num(v)
	}
	return list, err
}

// Find implements stateres.Source.
func (f *fork) Find(ids []matrix.EventID) ([]stateres.Ref, error) {
	found, err := f.s.Store.EventsByID(f.ctx, ids)
	if err != nil {
		return nil, err
	}
	list := make([]stateres.Ref, len(ids))
	for i, id := range ids {
		e := found[id]
		if e == nil {
			continue
		}
		list[i] = stateres.Ref{Num: stateres.Num(e.Num), Rejected: e.Status == store.Rejected}
		if e.PDU.IsState() {
			list[i].Key = eventauth.Key{Type: e.PDU.Type, StateKey: *e.PDU.StateKey}
		}
	}
	return list, nil
}

// Events implements stateres.Source.
func (f *fork) Events(nums []stateres.Num) ([]*event.PDU, error) {
	own := make([]store.EventNum, len(nums))
	for i, n := range nums {
		own[i] = store.EventNum(n)
	}
	found, err := f.s.Store.EventsByNum(f.ctx, own)
	if err != nil {
		return nil, err
	}
	list := make([]*event.PDU, len(nums))
	for i, n := range own {
		if e := found[n]; e != nil {
			list[i] = e.PDU
		}
	}
	return list, nil
}
