package room

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// draft is an event that is to be made.
type draft struct {
	Type     string
	StateKey *string
	Sender   matrix.UserID
	Content  json.RawMessage
	Redacts  matrix.EventID
	At       int64 // origin_server_ts in ms; 0: now
}

// head is the end of a room, to which events are appended under its lock.
type head struct {
	room  *store.Room // a zero Num means that the room is not stored yet
	view  *view
	prev  []*event.PDU
	rest  []store.EventNum // heads that the next event has no room to name
	depth int64
	made  []*event.PDU
	free  func() // frees the room's lock, for commit
}

// open reads the end of a room. The caller holds the room's lock.
func (s *Service) open(ctx context.Context, r *store.Room) (*head, error) {
	h := &head{room: r, view: s.view(ctx, r.Current)}
	heads, err := s.Store.EventsByNum(ctx, r.Heads)
	if err != nil {
		return nil, err
	}
	for i, n := range r.Heads { // the newest stand first
		if i >= event.MaxPrevEvents {
			h.rest = r.Heads[i:]
			break
		}
		e := heads[n]
		if e == nil {
			return nil, fmt.Errorf("room %s: head %d is missing", r.ID, n)
		}
		h.prev = append(h.prev, e.PDU)
		h.depth = max(h.depth, e.PDU.Depth)
	}
	return h, nil
}

// maxDepth is the largest number that canonical JSON allows.
const maxDepth = 1<<53 - 1

// build makes an event on top of h: chooses what authorizes it, hashes, signs
// and checks it. It becomes part of h, and of the store with commit.
func (s *Service) build(h *head, d draft) (*event.PDU, error) {
	full := event.Draft{
		Room: h.room.ID, Type: d.Type, Sender: d.Sender, StateKey: d.StateKey, Content: d.Content, Redacts: d.Redacts,
		Depth: min(h.depth+1, maxDepth), OriginServerTS: d.At, Hashes: map[matrix.EventID]string{},
	}
	if full.OriginServerTS == 0 {
		full.OriginServerTS = now()
	}
	refer := func(list *[]matrix.EventID, p *event.PDU) {
		*list = append(*list, p.ID)
		if h.room.Version.EventIDInEvent {
			full.Hashes[p.ID] = p.ReferenceHash()
		}
	}
	for _, p := range h.prev {
		refer(&full.PrevEvents, p)
	}
	for _, k := range eventauth.Selection(h.room.Version, full) {
		if p := h.view.Event(k.Type, k.StateKey); p != nil {
			refer(&full.AuthEvents, p)
		}
	}
	if h.view.err != nil {
		return nil, h.view.err
	}
	p, err := event.Build(h.room.Version, full, s.ServerName, s.Key)
	if err != nil {
		return nil, err
	}
	if err := eventauth.Check(p, h.view); h.view.err != nil {
		return nil, h.view.err
	} else if err != nil {
		var refused *eventauth.Error
		if errors.As(err, &refused) {
			return nil, matrix.Errorf(matrix.Forbidden, "%s", refused.Text)
		}
		return nil, err
	}
	h.add(p)
	return p, nil
}

// add makes p the end of the room.
func (h *head) add(p *event.PDU) {
	h.made = append(h.made, p)
	h.prev, h.depth = []*event.PDU{p}, p.Depth
	if p.IsState() {
		if h.view.pending == nil {
			h.view.pending = map[eventauth.Key]*event.PDU{}
		}
		h.view.pending[eventauth.Key{Type: p.Type, StateKey: *p.StateKey}] = p
	}
}

// also is what a commit writes beside the events, in the same transaction.
type also func(ctx context.Context, tx *store.Tx, events []*store.Event) error

// commit stores what was built on h and wakes whom it concerns. The answer
// holds the events in order. Where the room has a policy server, that is asked
// before, and the room's lock is free afterwards.
func (s *Service) commit(ctx context.Context, h *head, more ...also) ([]*store.Event, error) {
	by, err := s.policyServer(ctx, h.room)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(h.made, func(p *event.PDU) bool { return !by.recommends(p) }) {
		return s.commitVetted(ctx, h, by, more)
	}
	var events []*store.Event
	err = s.commitAll(ctx, []*head{h}, func(ctx context.Context, tx *store.Tx, steps []*step) error {
		events = steps[0].events
		for _, f := range more {
			if err := f(ctx, tx, events); err != nil {
				return err
			}
		}
		return nil
	})
	return events, err
}

// commitAll is commit for several rooms, all of them or none.
func (s *Service) commitAll(ctx context.Context, heads []*head, more func(context.Context, *store.Tx, []*step) error) error {
	var steps []*step
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		steps = nil
		for _, h := range heads {
			st := &step{s: s, ctx: ctx, tx: tx, tree: h.view.tree, room: *h.room}
			if err := st.run(h); err != nil {
				return err
			}
			steps = append(steps, st)
		}
		return more(ctx, tx, steps)
	})
	if err != nil {
		return err
	}
	for i, st := range steps {
		s.trees.Put(st.tree.ID(), st.tree)
		s.ring(st.room.Num, heads[i].made)
	}
	return nil
}

// ring wakes the readers of the log and the syncs of those whom events of a
// room concern.
func (s *Service) ring(room store.RoomNum, made []*event.PDU) {
	keys := []string{store.LogBell}
	for _, u := range s.Store.LocalMembers(room) {
		keys = append(keys, string(u))
	}
	for _, p := range made {
		if p.Type == "m.room.member" && p.IsState() {
			keys = append(keys, *p.StateKey)
		}
	}
	s.Bell.Ring(keys...)
}

// step is one commit inside its transaction. It may be run more than once.
type step struct {
	s      *Service
	ctx    context.Context
	tx     *store.Tx
	tree   statetree.Tree
	room   store.Room
	events []*store.Event
}

// run stores what was built on h.
func (st *step) run(h *head) error {
	if st.room.Num == 0 {
		n, err := st.tx.NextNumber(st.ctx, "rooms")
		if err != nil {
			return err
		}
		st.room.Num = store.RoomNum(n)
	}
	for _, p := range h.made {
		if err := st.append(p); err != nil {
			return err
		}
	}
	if len(st.events) > 0 {
		last := st.events[len(st.events)-1]
		st.room.Heads, st.room.Last = append([]store.EventNum{last.Num}, h.rest...), last.Pos
	}
	if st.room.Current != st.tree.ID() {
		st.room.Current = st.tree.ID()
		var err error
		if st.room.Open, err = st.s.isOpen(st.ctx, st.tx, st.tree, st.events...); err != nil {
			return err
		}
	}
	room := st.room
	return st.tx.PutRoom(st.ctx, &room)
}

// append stores one event and the state after it.
func (st *step) append(p *event.PDU) error {
	pos, err := st.tx.NextPosition(st.ctx)
	if err != nil {
		return err
	}
	e := &store.Event{PDU: p, Num: store.EventNum(pos), Pos: pos, Room: st.room.Num}
	if p.IsState() {
		if err := st.setState(e); err != nil {
			return err
		}
	}
	e.State = st.tree.ID()
	e.Current = e.State
	if err := st.tx.AppendEvent(st.ctx, e); err != nil {
		return err
	}
	st.events = append(st.events, e)
	return nil
}

// setState puts e into the state, and into the memberships if it is one.
func (st *step) setState(e *store.Event) error {
	p := e.PDU
	key, err := st.tx.StateKey(st.ctx, p.Type, *p.StateKey)
	if err != nil {
		return err
	}
	loader := st.s.Store.Nodes(st.ctx)
	old, _, err := st.tree.Value(loader, key)
	if err != nil {
		return err
	}
	e.Replaces = store.EventNum(old)
	tree, nodes, err := st.tree.Put(loader, statetree.Entry{Key: key, Value: statetree.Value(e.Num)})
	if err != nil {
		return err
	}
	st.tree = tree
	if err := st.tx.PutNodes(st.ctx, nodes); err != nil {
		return err
	}
	if p.Type != event.TypeMember {
		return nil
	}
	before, err := st.find(e.Replaces)
	if err != nil {
		return err
	}
	m := moves{room: &st.room, pos: e.Pos}
	st.s.move(&m, matrix.UserID(*p.StateKey), before, e)
	return m.store(st.ctx, st.tx)
}

// find gives the event with a number, which may be one of this step; nil for 0.
func (st *step) find(num store.EventNum) (*store.Event, error) {
	if num == 0 {
		return nil, nil
	}
	if i := slices.IndexFunc(st.events, func(e *store.Event) bool { return e.Num == num }); i >= 0 {
		return st.events[i], nil
	}
	return st.s.Store.EventByNum(st.ctx, num)
}

func count(membership, want string) int {
	if membership == want {
		return 1
	}
	return 0
}
