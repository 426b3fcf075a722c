package room

import (
	"context"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// Ahead says what of several rooms a member of them is about to read.
type Ahead struct {
	User  matrix.UserID
	Rooms []*store.Room
	Limit int              // events of each timeline
	Start bool             // the state before these is wanted
	End   bool             // the state after these is wanted
	Lazy  bool             // of other members only those who sent something
	Also  []store.EventNum // other events
}

const (
	// mostMembersAhead is how many members a room has at most whose state is read
	// ahead: that of a larger one takes few statements for much, as it is.
	mostMembersAhead = 500

	// mostEventsAhead bounds the state events that are read ahead at once.
	mostEventsAhead = 2000

	// placesAhead is of how many events of each timeline memory learns where they
	// stand: who has not read them wants them, too.
	placesAhead = 100
)

// ReadAhead brings the ends of timelines and the states that belong to them into
// memory, in a few statements for all rooms. Whatever memory has no place for is
// read when it is needed.
func (s *Service) ReadAhead(ctx context.Context, a Ahead) error {
	nums := make([]store.RoomNum, len(a.Rooms))
	for i, r := range a.Rooms {
		nums[i] = r.Num
	}
	ends, err := s.Store.Endings(ctx, nums, a.Limit+1, placesAhead)
	if err != nil {
		return err
	}
	var states []aheadState
	members := []string{string(a.User)}
	for _, r := range a.Rooms {
		if r.Joined+r.Invited <= mostMembersAhead {
			var senders []string
			states, senders = appendAhead(states, r, ends[r.Num], a)
			members = append(members, senders...)
		}
	}
	trees := make([]statetree.Tree, len(states))
	for i, st := range states {
		trees[i] = s.tree(st.root)
	}
	if err := statetree.Fetch(s.Store.Nodes(ctx), trees...); err != nil {
		return err
	}
	slices.Sort(members)
	if err := s.Store.FindStateKeys(ctx, event.TypeMember, slices.Compact(members)); err != nil {
		return err
	}
	events, err := s.eventsAhead(ctx, states, a)
	if err != nil {
		return err
	}
	_, err = s.Store.EventsByNum(ctx, append(events, a.Also...))
	return err
}

// StateAhead brings the state events of some types, under the empty key, into memory
// for several states, in a few statements for all.
func (s *Service) StateAhead(ctx context.Context, roots []statetree.ID, types ...string) error {
	var keys []statetree.Key
	var pairs [][2]string
	for _, typ := range types {
		k, ok, err := s.Store.StateKey(ctx, typ, "")
		if err != nil {
			return err
		}
		if ok {
			keys, pairs = append(keys, k), append(pairs, [2]string{typ, ""})
		}
	}
	trees, states := make([]statetree.Tree, len(roots)), make([]aheadState, len(roots))
	for i, root := range roots {
		trees[i], states[i] = s.tree(root), aheadState{root: root, pairs: pairs}
	}
	if err := statetree.FetchTo(s.Store.Nodes(ctx), keys, trees...); err != nil {
		return err
	}
	events, err := s.eventsAhead(ctx, states, Ahead{})
	if err != nil {
		return err
	}
	_, err = s.Store.EventsByNum(ctx, events)
	return err
}

// MembersAhead brings the member events of some users in rooms that were read ahead
// into memory, in a few statements for all.
func (s *Service) MembersAhead(ctx context.Context, users map[*store.Room][]matrix.UserID) error {
	var states []aheadState
	var keys []string
	for r, list := range users {
		st := aheadState{root: r.Current}
		for _, u := range list {
			keys, st.pairs = append(keys, string(u)), append(st.pairs, [2]string{event.TypeMember, string(u)})
		}
		states = append(states, st)
	}
	slices.Sort(keys)
	if err := s.Store.FindStateKeys(ctx, event.TypeMember, slices.Compact(keys)); err != nil {
		return err
	}
	events, err := s.eventsAhead(ctx, states, Ahead{})
	if err != nil {
		return err
	}
	_, err = s.Store.EventsByNum(ctx, events)
	return err
}

// aheadState is what is wanted of a state.
type aheadState struct {
	root  statetree.ID
	pairs [][2]string // types and state keys
	whole bool        // all of it, members as the Ahead says
}

// appendAhead adds the states that belong to the end of a room's timeline, and
// names the senders.
func appendAhead(list []aheadState, r *store.Room, end []*store.Event, a Ahead) (_ []aheadState, senders []string) {
	sight := [][2]string{{"m.room.history_visibility", ""}, {event.TypeMember, string(a.User)}}
	list = append(list, aheadState{root: r.Current, whole: a.End, pairs: append(slices.Clone(sight),
		[2]string{event.TypeCreate, ""}, [2]string{event.TypePowerLevels, ""}, [2]string{"m.room.name", ""}, [2]string{"m.room.canonical_alias", ""})})
	var last *store.Event
	for _, e := range slices.Backward(end) {
		if !carries(last, e, a.User) { // Visible looks there
			list = append(list, aheadState{root: e.State, pairs: sight})
		}
		last = e
	}
	if len(end) > a.Limit {
		list = append(list, aheadState{root: end[0].Current, whole: a.Start})
		end = end[1:]
	}
	for _, e := range end {
		if sender := string(e.PDU.Sender); !slices.Contains(senders, sender) {
			senders = append(senders, sender)
			list = append(list, aheadState{root: e.State, pairs: [][2]string{{event.TypeMember, sender}}})
		}
	}
	return list, senders
}

// eventsAhead gives the numbers of the events that are wanted of states, whose trees
// are loaded.
func (s *Service) eventsAhead(ctx context.Context, states []aheadState, a Ahead) ([]store.EventNum, error) {
	var nums []store.EventNum
	var keys []statetree.Key
	for _, st := range states {
		v := s.view(ctx, st.root)
		for _, p := range st.pairs {
			num, err := v.num(p[0], p[1])
			if err != nil {
				return nil, err
			}
			if num != 0 {
				nums = append(nums, num)
			}
		}
		if !st.whole {
			continue
		}
		err := v.tree.Walk(s.Store.Nodes(ctx), func(k statetree.Key, _ statetree.Value) bool {
			keys = append(keys, k)
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	if _, err := s.Store.AreMembers(ctx, keys); err != nil { // for all states at once
		return nil, err
	}
	for _, st := range states {
		if st.whole && len(nums) < mostEventsAhead {
			more, err := s.stateNums(ctx, st.root, a.Lazy, a.User)
			if err != nil {
				return nil, err
			}
			nums = append(nums, more...)
		}
	}
	slices.Sort(nums)
	return slices.Compact(nums), nil
}
