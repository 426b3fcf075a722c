package room

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/rs/zerolog"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/policylist"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// policyLists are the rooms with rules that the operator follows, and these
// rules as of the state of the rooms.
type policyLists struct {
	rooms atomic.Pointer[[]matrix.RoomID]
	read  atomic.Pointer[readLists]
}

// readLists are the lists' rules. They do not change.
type readLists struct {
	lists map[matrix.RoomID]readList
	rules *policylist.Rules
}

// readList is one list as of an event.
type readList struct {
	root  statetree.ID
	last  int64 // place of the event
	rules map[statetree.Key]stateRule
}

// stateRule is the rule in a state event.
type stateRule struct {
	policylist.Rule
	num store.EventNum
}

// Follow makes the rules in the state of some rooms those of this server, in
// place of the ones before: whom they ban may not invite, join or knock here,
// and nobody here comes into a room that they ban. Users of this server are not
// looked for: they are the operator's.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#subscribing-to-policy-lists
func (s *Service) Follow(rooms []matrix.RoomID) {
	rooms = slices.Compact(slices.Sorted(slices.Values(rooms)))
	s.lists.rooms.Store(&rooms)
}

// policyRules are the rules of the lists as they stand now, nil where none is
// followed. Only what changed in a list since the last time is read.
func (s *Service) policyRules(ctx context.Context) (*policylist.Rules, error) {
	rooms := s.lists.rooms.Load()
	if rooms == nil || len(*rooms) == 0 {
		return nil, nil
	}
	old := s.lists.read.Load()
	if old == nil {
		old = &readLists{}
	}
	now := &readLists{lists: make(map[matrix.RoomID]readList, len(*rooms))}
	changed := len(*rooms) != len(old.lists)
	for _, id := range *rooms {
		r, err := s.Store.Room(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			r, err = &store.Room{}, nil
		}
		if err != nil {
			return nil, err
		}
		list, known := old.lists[id]
		if !known || list.last != r.Last {
			changed = true
			if list, err = s.readList(ctx, list, r); err != nil {
				return nil, err
			}
		}
		now.lists[id] = list
	}
	if !changed {
		return old.rules, nil
	}
	now.rules = policylist.New(func(yield func(policylist.Rule) bool) {
		for _, list := range now.lists {
			for _, rule := range list.rules {
				if !yield(rule.Rule) {
					return
				}
			}
		}
	})
	s.lists.read.Store(now)
	return now.rules, nil
}

// readList brings a list to the newest event of its room.
func (s *Service) readList(ctx context.Context, old readList, r *store.Room) (readList, error) {
	list := readList{r.Current, r.Last, maps.Clone(old.rules)}
	if list.rules == nil {
		list.rules = map[statetree.Key]stateRule{}
	}
	read := map[statetree.Key]store.EventNum{}
	err := statetree.Diff(s.Store.Nodes(ctx), s.tree(old.root), s.tree(list.root), func(k statetree.Key, _, now statetree.Value) bool {
		delete(list.rules, k)
		if now != 0 {
			read[k] = store.EventNum(now)
		}
		return true
	})
	if err != nil {
		return list, err
	}
	redacted := false
	if old.rules != nil {
		if redacted, err = s.redactedSince(ctx, r, old.last); err != nil {
			return list, err
		}
	}
	if redacted {
		for k, rule := range list.rules {
			read[k] = rule.num
		}
		clear(list.rules)
	}
	events, err := s.Store.EventsByNum(ctx, slices.Collect(maps.Values(read)))
	for k, num := range read {
		if e := events[num]; e != nil {
			if rule, ok := policylist.Parse(e.PDU.Type, e.PDU.Content); ok {
				list.rules[k] = stateRule{rule, num}
			}
		}
	}
	return list, err
}

// redactedSince tells whether something in a room may have been redacted behind
// a place, which takes the content out of a state that stays the same.
func (s *Service) redactedSince(ctx context.Context, r *store.Room, since int64) (bool, error) {
	const most = 100
	events, err := s.Store.Newest(ctx, r.Num, since, r.Last, most)
	return len(events) == most || slices.ContainsFunc(events, func(e *store.Event) bool { return e.PDU.Type == event.TypeRedaction }), err
}

// errListed is what is told to those whom a policy list bans, or who want to go
// where it bans everybody.
var errListed = matrix.Errorf(matrix.Forbidden, "the moderation policy of this server does not allow it")

// RefuseListed answers M_FORBIDDEN if a policy list bans a room or one of some
// users, such as the one who wants to join it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mban-recommendation
func (s *Service) RefuseListed(ctx context.Context, id matrix.RoomID, users ...matrix.UserID) error {
	rules, err := s.policyRules(ctx)
	if err != nil || rules == nil {
		return err
	}
	for _, u := range users {
		if u.Server() != s.ServerName && rules.BansUser(u) {
			zerolog.Ctx(ctx).Info().Str("user", string(u)).Str("room", string(id)).Msg("a policy list bans the user")
			return errListed
		}
	}
	if rules.BansRoom(id) {
		zerolog.Ctx(ctx).Info().Str("room", string(id)).Msg("a policy list bans the room")
		return errListed
	}
	r, err := s.Store.Room(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	v := s.view(ctx, r.Current)
	if alias := v.content("m.room.canonical_alias", "alias"); alias != "" {
		return s.RefuseAlias(ctx, matrix.RoomAlias(alias))
	}
	return v.err
}

// RefuseAlias is RefuseListed for a room by a name of it.
func (s *Service) RefuseAlias(ctx context.Context, alias matrix.RoomAlias) error {
	rules, err := s.policyRules(ctx)
	if err == nil && rules != nil && rules.BansAlias(alias) {
		zerolog.Ctx(ctx).Info().Str("room", string(alias)).Msg("a policy list bans the room")
		err = errListed
	}
	return err
}

// RefuseInvite says no to an invitation of a user of this server: because the
// user wants none (M_INVITE_BLOCKED), or a policy list bans who invites, or the
// room (M_FORBIDDEN).
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#invite-permission
func (s *Service) RefuseInvite(ctx context.Context, user, inviter matrix.UserID, id matrix.RoomID) error {
	if inviter == s.NoticesUser {
		return nil
	}
	blocks, err := s.BlocksInvites(ctx, user)
	if err == nil && blocks {
		err = matrix.Errorf(matrix.InviteBlocked, "%s does not want to be invited to rooms", user)
	}
	if err != nil {
		return err
	}
	return s.RefuseListed(ctx, id, inviter)
}
