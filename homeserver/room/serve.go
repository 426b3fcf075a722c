package room

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// Template is an event that another server may complete, sign and send back.
type Template struct {
	Version *matrix.RoomVersion
	Event   json.RawMessage // without hashes and signatures
}

// Template drafts a membership event of a user of another server, who wants to
// join, leave or knock. Versions are the room versions which that server knows.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid
func (s *Service) Template(ctx context.Context, id matrix.RoomID, user matrix.UserID, membership string, versions []string) (*Template, error) {
	r, err := s.resident(ctx, id)
	if err != nil {
		return nil, err
	}
	if versions != nil && !slices.Contains(versions, r.Version.ID) {
		return nil, &matrix.Error{
			Code: matrix.IncompatibleRoomVersion, Text: "your server does not know the room's version",
			Extra: map[string]any{"room_version": r.Version.ID},
		}
	}
	h, err := s.open(ctx, r)
	if err != nil {
		return nil, err
	}
	o := object{"membership": membership}
	if membership == event.Join {
		if err := s.authorise(h, user, h.view.Event(event.TypeMember, string(user)), o); err != nil {
			return nil, err
		}
	}
	key := string(user)
	p, err := s.build(h, draft{Type: event.TypeMember, StateKey: &key, Sender: user, Content: o.raw()})
	if err != nil {
		return nil, err
	}
	members, err := canonjson.Members(nil, p.JSON, canonjson.Any)
	if err != nil {
		return nil, err
	}
	members = slices.DeleteFunc(members, func(m canonjson.Member) bool {
		return string(m.Key) == "hashes" || string(m.Key) == "signatures"
	})
	return &Template{r.Version, canonjson.Object(nil, members, nil)}, nil
}

// Version is the version of a room that this server is in.
func (s *Service) Version(ctx context.Context, id matrix.RoomID) (*matrix.RoomVersion, error) {
	r, err := s.resident(ctx, id)
	if err != nil {
		return nil, err
	}
	return r.Version, nil
}

// Resident tells whether this server is in a room.
func (s *Service) Resident(ctx context.Context, id matrix.RoomID) (bool, error) {
	_, err := s.resident(ctx, id)
	var e *matrix.Error
	if errors.As(err, &e) && e.Code == matrix.NotFound {
		return false, nil
	}
	return err == nil, err
}

// StateBefore is the root of the state before an event. Its nodes need not be
// stored: the tree is kept in memory for those who read it now.
func (s *Service) StateBefore(ctx context.Context, e *store.Event) (statetree.ID, error) {
	if !e.PDU.IsState() || e.Status == store.Rejected {
		return e.State, nil
	}
	k, ok, err := s.Store.StateKey(ctx, e.PDU.Type, *e.PDU.StateKey)
	if err != nil || !ok {
		return 0, err
	}
	before, _, err := s.tree(e.State).Put(s.Store.Nodes(ctx), statetree.Entry{Key: k, Value: statetree.Value(e.Replaces)})
	if err != nil {
		return 0, err
	}
	s.trees.Put(before.ID(), before)
	return before.ID(), nil
}

// AuthChain gives the events that authorize some events, and those that
// authorize these, and so on, in no particular order. The events themselves are
// in it only if they authorize others of them.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid
func (s *Service) AuthChain(ctx context.Context, events []*event.PDU) ([]*store.Event, error) {
	seen := map[matrix.EventID]*store.Event{}
	level := events
	for len(level) > 0 {
		var next []matrix.EventID
		for _, p := range level {
			for _, id := range authorizers(p) {
				if _, known := seen[id]; !known {
					seen[id] = nil
					next = append(next, id)
				}
			}
		}
		found, err := s.Store.EventsByID(ctx, next)
		if err != nil {
			return nil, err
		}
		level = level[:0:0]
		for id, e := range found {
			seen[id] = e
			level = append(level, e.PDU)
		}
	}
	maps.DeleteFunc(seen, func(_ matrix.EventID, e *store.Event) bool { return e == nil })
	return slices.Collect(maps.Values(seen)), nil
}

// authorizers are the events that authorize an event: those that it names and,
// from room version 12 on, the create event, which the room ID names. Servers
// look for that one in an auth chain.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules
func authorizers(p *event.PDU) []matrix.EventID {
	if !p.Version.RoomIDFromCreate || p.Type == event.TypeCreate {
		return p.AuthEvents
	}
	return append(slices.Clone(p.AuthEvents), createID(p.Room))
}

// ServerSees leaves out the events that a server may not see: none of its users
// could. Those are redacted, as other servers expect, and not dropped.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid
func (s *Service) ServerSees(ctx context.Context, r *store.Room, server matrix.ServerName, events []*store.Event) ([]*event.PDU, error) {
	joined, err := s.Store.ServerInRoom(ctx, server, r.Num)
	if err != nil {
		return nil, err
	}
	list := make([]*event.PDU, 0, len(events))
	for _, e := range events {
		ok, err := s.serverSees(ctx, server, joined, e)
		if err != nil {
			return nil, err
		}
		p := e.PDU
		if !ok {
			if p, err = p.Redacted(); err != nil {
				return nil, err
			}
		}
		list = append(list, p)
	}
	return list, nil
}

// serverSees is the rule for one event. Joined tells whether the server is in
// the room now.
func (s *Service) serverSees(ctx context.Context, server matrix.ServerName, joined bool, e *store.Event) (bool, error) {
	p := e.PDU
	if e.State == rootless || p.Sender.Server() == server || p.Type == event.TypeMember && p.IsState() && matrix.UserID(*p.StateKey).Server() == server {
		return true, nil
	}
	v := s.view(ctx, e.State)
	history := v.content("m.room.history_visibility", "history_visibility")
	if v.err != nil {
		return false, v.err
	}
	ok, err := s.historyShows(ctx, server, joined, history, e)
	if err != nil || ok || !p.Is("m.room.history_visibility", "") || e.Replaces == 0 {
		return ok, err
	}
	old, err := s.Store.EventByNum(ctx, e.Replaces) // what either visibility shows, is shown
	if err != nil {
		return false, err
	}
	return s.historyShows(ctx, server, joined, old.PDU.ContentString("history_visibility"), e)
}

// historyShows tells whether a visibility shows a server an event.
func (s *Service) historyShows(ctx context.Context, server matrix.ServerName, joined bool, history string, e *store.Event) (bool, error) {
	switch history {
	case "world_readable":
		return true, nil
	case "invited", "joined":
	default:
		if joined {
			return true, nil
		}
	}
	return s.serverIn(ctx, e.Room, server, e.State, history == "invited")
}

// attendanceKey and attendance are how many users of a server are in a room, and
// are invited, in the state that was last asked about.
type attendanceKey struct {
	room   store.RoomNum
	server matrix.ServerName
}

type attendance struct {
	root            statetree.ID
	joined, invited int
}

// serverIn tells whether a state of a room has a member of a server, or with
// invited also somebody who was invited. Questions come about states that hardly
// differ, one after the other: only what differs is looked at.
func (s *Service) serverIn(ctx context.Context, room store.RoomNum, server matrix.ServerName, root statetree.ID, invited bool) (bool, error) {
	key := attendanceKey{room, server}
	a, _ := s.attendances.Find(key) // else nobody is in the empty state
	if a.root != root {
		if err := s.attend(ctx, &a, server, root); err != nil {
			return false, err
		}
		s.attendances.Put(key, a)
	}
	return a.joined > 0 || invited && a.invited > 0, nil
}

// membersAtOnce is how many membership events are held in memory to be counted.
const membersAtOnce = 500

// attend turns an attendance into that of the state with another root.
func (s *Service) attend(ctx context.Context, a *attendance, server matrix.ServerName, root statetree.ID) error {
	type change struct{ old, new statetree.Value }
	changes := map[statetree.Key]change{}
	err := statetree.Diff(s.Store.Nodes(ctx), s.tree(a.root), s.tree(root), func(k statetree.Key, old, new statetree.Value) bool {
		changes[k] = change{old, new}
		return true
	})
	if err != nil {
		return err
	}
	members, err := s.Store.MemberKeys(ctx, server, slices.Collect(maps.Keys(changes)))
	if err != nil {
		return err
	}
	more := make(map[store.EventNum]int, 2*len(members))
	for _, k := range members {
		more[store.EventNum(changes[k].old)]--
		more[store.EventNum(changes[k].new)]++
	}
	delete(more, 0) // none
	for part := range slices.Chunk(slices.Sorted(maps.Keys(more)), membersAtOnce) {
		found, err := s.Store.EventsByNum(ctx, part)
		if err != nil {
			return err
		}
		for num, e := range found {
			switch e.PDU.Membership() {
			case event.Join:
				a.joined += more[num]
			case event.Invite:
				a.invited += more[num]
			}
		}
	}
	a.root = root
	return nil
}

// Earlier gives up to limit events of a room: those with the IDs, and what came
// before them, the newest first.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid
func (s *Service) Earlier(ctx context.Context, r *store.Room, from []matrix.EventID, limit int) ([]*store.Event, error) {
	return s.walk(ctx, r, from, nil, limit, 0)
}

// Between gives up to limit events that stand between some that a server has
// (earliest) and some that it lacks the previous events of (latest), the oldest
// first.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid
func (s *Service) Between(ctx context.Context, r *store.Room, earliest, latest []matrix.EventID, limit int, minDepth int64) ([]*store.Event, error) {
	found, err := s.Store.EventsByID(ctx, latest)
	if err != nil {
		return nil, err
	}
	var from []matrix.EventID
	for _, e := range found {
		if e.Room == r.Num {
			from = append(from, e.PDU.PrevEvents...)
		}
	}
	list, err := s.walk(ctx, r, from, earliest, limit, minDepth)
	slices.Reverse(list)
	return list, err
}

// walk goes back over previous events, those of greater depth first. What was soft
// failed here may be accepted elsewhere, so it is given like any other.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#soft-failure
func (s *Service) walk(ctx context.Context, r *store.Room, from, stop []matrix.EventID, limit int, minDepth int64) ([]*store.Event, error) {
	seen := map[matrix.EventID]bool{}
	for _, id := range stop {
		seen[id] = true
	}
	var queue, list []*store.Event
	add := func(ids []matrix.EventID) error {
		ids = slices.DeleteFunc(slices.Clone(ids), func(id matrix.EventID) bool { return seen[id] })
		found, err := s.Store.EventsByID(ctx, ids)
		for _, id := range ids {
			e := found[id]
			if e == nil || seen[id] || e.Room != r.Num || e.Status == store.Rejected || e.State == rootless || e.PDU.Local || e.PDU.Depth < minDepth {
				continue
			}
			seen[id] = true
			i, _ := slices.BinarySearchFunc(queue, e, func(a, b *store.Event) int { return byDepth(a.PDU, b.PDU) })
			queue = slices.Insert(queue, i, e)
		}
		return err
	}
	if err := add(from); err != nil {
		return nil, err
	}
	for len(queue) > 0 && len(list) < limit {
		e := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		list = append(list, e)
		if err := add(e.PDU.PrevEvents); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func byDepth(a, b *event.PDU) int { return cmp.Compare(a.Depth, b.Depth) }

// Sign adds this server's signature to an event of another one, such as an
// invitation or a join that a user of ours authorizes.
func (s *Service) Sign(p *event.PDU) (*event.PDU, error) { return p.Sign(s.ServerName, s.Key) }

// ACL tells whether the room's m.room.server_acl lets a server take part.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mroomserver_acl
func (s *Service) ACL(ctx context.Context, r *store.Room, server matrix.ServerName) (bool, error) {
	v := s.view(ctx, r.Current)
	p := v.Event("m.room.server_acl", "")
	if p == nil {
		return true, v.err
	}
	return allows(p.Content, server), nil
}
