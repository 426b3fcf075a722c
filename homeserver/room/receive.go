package room

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// MissingError says which events must be here before one can be received. Who
// called fetches them and calls again.
type MissingError struct {
	Room matrix.RoomID
	Prev []matrix.EventID // events of the timeline
	Auth []matrix.EventID // events that authorize
}

// Error implements error.
func (e *MissingError) Error() string {
	return fmt.Sprintf("%d earlier and %d authorizing events of %s are missing", len(e.Prev), len(e.Auth), e.Room)
}

// Receive takes an event of another server into a room that this server is in.
// The caller has verified its signatures and hash. The answer is what became of
// it, or *MissingError; an event that is known already stays as it is.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
func (s *Service) Receive(ctx context.Context, p *event.PDU) (store.Status, error) {
	return s.receive(ctx, p, arrivalOptions{})
}

// Admit is Receive for an event that another server asked this one to let into
// the room, such as a join: the servers in the room get it from here.
func (s *Service) Admit(ctx context.Context, p *event.PDU) (store.Status, error) {
	return s.receive(ctx, p, arrivalOptions{relay: true})
}

// ReceiveAt is Receive for an event whose previous events cannot be had: another
// server told the state before it, which must be here.
func (s *Service) ReceiveAt(ctx context.Context, p *event.PDU, before []matrix.EventID) (store.Status, error) {
	return s.receive(ctx, p, arrivalOptions{before: before})
}

// arrival is an event on its way into a room, under the room's lock.
type arrival struct {
	s      *Service
	ctx    context.Context
	room   *store.Room
	pdu    *event.PDU
	old    *store.Event // the same event, if it was kept aside before
	before statetree.Tree
	new    []statetree.Node // nodes of before that are not stored yet
	gap    bool             // earlier events are missing
	relay  bool             // the servers in the room get it from here
	told   bool             // the servers in the room have it
	more   []also           // what is written with it
	place  int64            // in the past; 0: at the end of the timeline

	hand map[store.EventNum]*store.Event // events that need not be read

	resolved *statetree.Tree // the state of all heads, where there are others
	followed bool            // another event follows on it already: it is no head

	status store.Status
	why    error // why it is not accepted
}

// known finds the event if it was here before, and tells whether that settles it.
func (a *arrival) known() (bool, error) {
	old, err := a.s.Store.Event(a.ctx, a.pdu.ID)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	a.old, a.status = old, old.Status
	return old.Pos != 0 || old.Status != store.Accepted, nil
}

// arrivalOptions say how an event comes.
type arrivalOptions struct {
	before []matrix.EventID // the state before the event, where that was told
	relay  bool             // the servers in the room get it from here
	told   bool             // the servers in the room have it
	asked  policyServer     // who was asked about the event
	own    bool             // a user of this server sends it: it is stored only if it is accepted
	more   []also           // what is written with an event of our own, the redaction that it is included
}

// land puts an event into its room, or tells what it lacks: a *MissingError or
// an *unvettedError.
func (s *Service) land(ctx context.Context, p *event.PDU, o arrivalOptions) (store.Status, error) {
	defer s.locks.lock(p.Room)()
	r, err := s.resident(ctx, p.Room)
	if err != nil {
		return 0, err
	}
	a := &arrival{s: s, ctx: ctx, room: r, pdu: p, relay: o.relay, told: o.told, more: o.more}
	if known, err := a.known(); err != nil || known {
		return a.status, err
	}
	auth, prev, err := a.references(o.before != nil)
	if err != nil {
		return 0, err
	}
	if o.before != nil {
		err = a.stateOf(o.before)
	} else {
		err = a.stateAfter(prev)
	}
	if err != nil {
		return 0, err
	}
	if err := a.judge(auth); err != nil {
		return 0, err
	}
	if err := a.vetted(o.asked); err != nil {
		return 0, err
	}
	if o.own && a.status != store.Accepted {
		return 0, &matrix.Error{Code: matrix.Forbidden, Text: "the room does not allow this any more", Cause: a.why}
	}
	if err := a.fork(); err != nil {
		return 0, err
	}
	if err = a.commit(); err == nil && a.followed {
		err = s.closeGaps(ctx, r)
	}
	return a.status, err
}

// fork prepares an event that leaves the room with other heads: it is kept aside
// first, so that resolution can read it, and the state of all heads is resolved
// before the event is let in.
func (a *arrival) fork() error {
	if a.status != store.Accepted {
		return nil
	}
	heads, err := a.s.Store.EventsByNum(a.ctx, a.room.Heads)
	if err != nil {
		return err
	}
	var roots []statetree.ID
	for _, n := range a.room.Heads {
		if h := heads[n]; h != nil && !slices.Contains(a.pdu.PrevEvents, h.PDU.ID) {
			roots = append(roots, h.State)
		}
	}
	if len(roots) == 0 {
		return nil
	}
	if a.followed, err = a.precedes(); err != nil {
		return err
	}
	var aside *store.Event
	err = a.s.Store.Update(a.ctx, func(tx *store.Tx) error {
		l := &landing{arrival: a, tx: tx, room: *a.room}
		err := l.aside()
		aside = l.event
		return err
	})
	if err != nil {
		return err
	}
	a.old, a.new = aside, nil
	if !a.followed {
		roots = append(roots, aside.State)
	}
	current, nodes, err := a.s.resolve(a.ctx, a.room, roots)
	a.resolved, a.new = &current, nodes
	return err
}

// precedes tells whether an event behind a gap follows on this one, which is a
// part of what was missing there.
func (a *arrival) precedes() (bool, error) {
	nums, err := a.s.Store.Gaps(a.ctx, a.room.Num)
	if err != nil {
		return false, err
	}
	found, err := a.s.Store.EventsByNum(a.ctx, nums)
	for _, e := range found {
		if slices.Contains(e.PDU.PrevEvents, a.pdu.ID) {
			return true, err
		}
	}
	return false, err
}

// resident gives a room that this server is in, or M_NOT_FOUND.
func (s *Service) resident(ctx context.Context, id matrix.RoomID) (*store.Room, error) {
	r, err := s.find(ctx, id)
	if err == nil && r.Current == 0 {
		return nil, matrix.Errorf(matrix.NotFound, "this server is not in the room")
	}
	return r, err
}

// references finds the events that the event names. With known the earlier ones
// may be missing.
func (a *arrival) references(known bool) (auth, prev []*store.Event, err error) {
	missing := &MissingError{Room: a.pdu.Room}
	find := func(ids []matrix.EventID, lost *[]matrix.EventID) ([]*store.Event, error) {
		found, err := a.s.Store.EventsByID(a.ctx, ids)
		list := make([]*store.Event, 0, len(ids))
		for _, id := range ids {
			if e := found[id]; e != nil && !e.PDU.Local {
				list = append(list, e)
			} else {
				*lost = append(*lost, id)
			}
		}
		return list, err
	}
	if auth, err = find(a.pdu.AuthEvents, &missing.Auth); err != nil {
		return nil, nil, err
	}
	if prev, err = find(a.pdu.PrevEvents, &missing.Prev); err != nil {
		return nil, nil, err
	}
	for _, e := range prev { // kept aside: the state at it is not known
		if e.Pos == 0 && e.Status == store.Accepted {
			missing.Prev = append(missing.Prev, e.PDU.ID)
		}
	}
	a.gap = len(missing.Prev) > 0
	if known {
		missing.Prev = nil
	}
	if len(missing.Prev)+len(missing.Auth) > 0 {
		return nil, nil, missing
	}
	return auth, prev, nil
}

// stateAfter makes the state before the event from those after its previous ones.
func (a *arrival) stateAfter(prev []*store.Event) error {
	roots := make([]statetree.ID, 0, len(prev))
	for _, e := range prev {
		if e.Room != a.room.Num {
			return matrix.Errorf(matrix.Forbidden, "the event follows on one of another room")
		}
		roots = append(roots, e.State)
	}
	var err error
	a.before, a.new, err = a.s.resolve(a.ctx, a.room, roots)
	return err
}

// stateOf makes the state before the event from the IDs of its events.
func (a *arrival) stateOf(ids []matrix.EventID) error {
	found, err := a.s.Store.EventsByID(a.ctx, ids)
	if err != nil {
		return err
	}
	events := make([]*store.Event, 0, len(ids))
	missing := &MissingError{Room: a.pdu.Room}
	for _, id := range ids {
		if e := found[id]; e != nil {
			events = append(events, e)
		} else {
			missing.Auth = append(missing.Auth, id)
		}
	}
	if len(missing.Auth) > 0 {
		return missing
	}
	a.before, a.new, err = a.s.treeOf(a.ctx, a.room.Num, events)
	return err
}

// treeOf makes a state tree of state events of one room. Rejected events are
// left out.
func (s *Service) treeOf(ctx context.Context, room store.RoomNum, events []*store.Event) (statetree.Tree, []statetree.Node, error) {
	entries := make([]statetree.Entry, 0, len(events))
	for _, e := range events {
		if e.Room == room && e.Key != 0 && e.Status != store.Rejected {
			entries = append(entries, statetree.Entry{Key: e.Key, Value: statetree.Value(e.Num)})
		}
	}
	return statetree.Tree{}.Put(s.Store.Nodes(ctx), entries...)
}

// judge applies the authorization rules: against the event's own auth events,
// the state before it, and the state now.
func (a *arrival) judge(auth []*store.Event) error {
	pdus := make([]*event.PDU, len(auth))
	for i, e := range auth {
		pdus[i] = e.PDU
		if e.Status == store.Rejected || e.Room != a.room.Num {
			return a.reject(fmt.Errorf("it is authorized by %s, which is rejected", e.PDU.ID)) // 3.3
		}
	}
	if err := eventauth.CheckSelection(a.pdu, pdus); err != nil {
		return a.reject(err)
	}
	now := a.s.view(a.ctx, a.room.Current)
	if a.room.Version.RoomIDFromCreate {
		create := now.Event("m.room.create", "")
		if now.err != nil {
			return now.err
		}
		pdus = append(pdus, create)
	}
	if err := eventauth.Check(a.pdu, eventauth.NewSet(pdus...)); err != nil {
		return a.reject(err)
	}
	before := &view{ctx: a.ctx, s: a.s, tree: a.before}
	if err := eventauth.Check(a.pdu, before); before.err != nil {
		return before.err
	} else if err != nil {
		return a.reject(err)
	}
	if err := eventauth.Check(a.pdu, now); now.err != nil {
		return now.err
	} else if err != nil {
		a.status, a.why = store.SoftFailed, err
	}
	return nil
}

func (a *arrival) reject(why error) error {
	a.status, a.why = store.Rejected, why
	return nil
}

// commit stores the event, and the room's state with it where it counts.
func (a *arrival) commit() error {
	var done *landing
	err := a.s.Store.Update(a.ctx, func(tx *store.Tx) error {
		done = &landing{arrival: a, tx: tx, room: *a.room}
		return done.run()
	})
	if err != nil {
		return err
	}
	if a.status == store.Accepted && a.place == 0 {
		a.s.trees.Put(done.current.ID(), done.current)
		a.s.ring(a.room.Num, append(done.changed, a.pdu))
	}
	return nil
}

// landing is one commit of an arrival. It may be run more than once.
type landing struct {
	*arrival
	tx      *store.Tx
	room    store.Room
	event   *store.Event
	current statetree.Tree
	changed []*event.PDU // member events that the new state brings or takes away
}

// settle makes the event and the state after it, at a fresh position.
func (l *landing) settle() (after statetree.Tree, pos int64, err error) {
	if l.gap && l.place == 0 && l.room.Last != 0 {
		if _, err := l.tx.SkipPositions(l.ctx, gapRoom); err != nil {
			return after, 0, err
		}
	}
	if pos, err = l.tx.NextPosition(l.ctx); err != nil {
		return after, 0, err
	}
	l.event = &store.Event{PDU: l.pdu, Num: store.EventNum(pos), Room: l.room.Num, Status: l.status, Relay: l.relay, Told: l.told}
	if l.old != nil {
		l.event.Num, l.event.Key, l.event.RedactedBy = l.old.Num, l.old.Key, l.old.RedactedBy
	}
	if err := l.tx.PutNodes(l.ctx, l.new); err != nil {
		return after, 0, err
	}
	after, err = l.after()
	l.event.State, l.event.Current = after.ID(), l.room.Current
	return after, pos, err
}

// gapRoom is how many positions of the log stay free before an event before which
// others are missing, so that these find their place when they are fetched.
const gapRoom = 20_000

// aside stores the event without making it part of the timeline.
func (l *landing) aside() error {
	if _, _, err := l.settle(); err != nil {
		return err
	}
	return l.put()
}

func (l *landing) run() error {
	if l.status != store.Accepted {
		return l.aside()
	}
	after, pos, err := l.settle()
	if err != nil {
		return err
	}
	l.event.Pos = pos
	if l.place != 0 {
		l.event.Pos, l.event.Current = l.place, after.ID()
	} else if err := l.advance(after); err != nil {
		return err
	}
	if err := l.put(); err != nil {
		return err
	}
	if l.gap {
		if err := l.tx.PutGap(l.ctx, l.room.Num, l.event.Num, true); err != nil {
			return err
		}
	}
	for _, f := range l.more {
		if err := f(l.ctx, l.tx, []*store.Event{l.event}); err != nil {
			return err
		}
	}
	if l.more == nil {
		if err := l.redact(); err != nil {
			return err
		}
	}
	if l.place != 0 {
		return nil
	}
	room := l.room
	return l.tx.PutRoom(l.ctx, &room)
}

// put writes the event, new or out of what was kept aside.
func (l *landing) put() error {
	if l.old != nil {
		return l.tx.PlaceEvent(l.ctx, l.event)
	}
	return l.tx.AppendEvent(l.ctx, l.event)
}

// after is the state after the event. A rejected event changes none.
func (l *landing) after() (statetree.Tree, error) {
	if !l.pdu.IsState() || l.status == store.Rejected {
		return l.before, nil
	}
	key, err := l.tx.StateKey(l.ctx, l.pdu.Type, *l.pdu.StateKey)
	if err != nil {
		return statetree.Tree{}, err
	}
	loader := l.s.Store.Nodes(l.ctx)
	old, _, err := l.before.Value(loader, key)
	if err != nil {
		return statetree.Tree{}, err
	}
	l.event.Replaces = store.EventNum(old)
	after, nodes, err := l.before.Put(loader, statetree.Entry{Key: key, Value: statetree.Value(l.event.Num)})
	if err != nil {
		return statetree.Tree{}, err
	}
	return after, l.tx.PutNodes(l.ctx, nodes)
}

// advance makes the event one of the room's heads, unless another one follows on
// it, and finds the new state.
func (l *landing) advance(after statetree.Tree) error {
	heads, err := l.s.Store.EventsByNum(l.ctx, l.room.Heads)
	if err != nil {
		return err
	}
	var next []store.EventNum
	if !l.followed {
		next = append(next, l.event.Num)
	}
	for _, n := range l.room.Heads {
		if h := heads[n]; h != nil && !slices.Contains(l.pdu.PrevEvents, h.PDU.ID) {
			next = append(next, n)
		}
	}
	l.room.Heads, l.room.Last = next, l.event.Pos
	l.current = after
	if l.resolved != nil {
		l.current = *l.resolved
	}
	was := l.s.tree(l.room.Current)
	l.room.Current = l.current.ID()
	l.event.Current = l.room.Current
	if l.room.Open, err = l.s.isOpen(l.ctx, l.tx, l.current, l.event); err != nil {
		return err
	}
	l.changed, err = l.moveMembers(was)
	return err
}

// redact carries out the event if it redacts one that is known, and any
// redaction of it that came before it.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v11/#handling-redactions
func (l *landing) redact() error {
	if l.pdu.Type == event.TypeRedaction && l.pdu.Redacts != "" {
		target, err := l.s.Store.Event(l.ctx, l.pdu.Redacts)
		if errors.Is(err, store.ErrNotFound) {
			return l.tx.PutRedaction(l.ctx, l.pdu.Redacts, l.event.Num)
		}
		if err != nil {
			return err
		}
		return l.s.applyRedaction(l.ctx, l.tx, target, l.event)
	}
	earlier, err := l.s.Store.Redacting(l.ctx, l.pdu.ID)
	if err != nil || len(earlier) == 0 {
		return err
	}
	found, err := l.s.Store.EventsByNum(l.ctx, earlier)
	if err != nil {
		return err
	}
	for _, n := range earlier {
		if by := found[n]; by != nil {
			if err := l.s.applyRedaction(l.ctx, l.tx, l.event, by); err != nil {
				return err
			}
		}
	}
	return nil
}

// applyRedaction redacts target if by may do that: it comes from the same
// server, or from somebody with the power for it.
func (s *Service) applyRedaction(ctx context.Context, tx *store.Tx, target, by *store.Event) error {
	if target.RedactedBy != 0 || target.Room != by.Room || by.Status != store.Accepted {
		return nil
	}
	if target.PDU.Sender.Server() != by.PDU.Sender.Server() {
		levels, err := s.view(ctx, by.State).PowerLevels()
		if err != nil {
			return err
		}
		if levels.User(by.PDU.Sender) < levels.Redact() {
			return nil
		}
	}
	redacted, err := target.PDU.Redacted()
	if err != nil {
		return err
	}
	return tx.Redact(ctx, target, redacted, by.Num)
}

// moveMembers brings the memberships of the room from one state to the current
// one. The answer holds the member events that came or went.
func (l *landing) moveMembers(was statetree.Tree) ([]*event.PDU, error) {
	type change struct{ old, new store.EventNum }
	var changes []change
	var nums []store.EventNum
	err := statetree.Diff(l.s.Store.Nodes(l.ctx), was, l.current, func(_ statetree.Key, old, now statetree.Value) bool {
		changes = append(changes, change{store.EventNum(old), store.EventNum(now)})
		for _, v := range []statetree.Value{old, now} {
			if n := store.EventNum(v); n != 0 && l.hand[n] == nil {
				nums = append(nums, n)
			}
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	found, err := l.s.Store.EventsByNum(l.ctx, nums)
	if err != nil {
		return nil, err
	}
	found[l.event.Num] = l.event // which the store cannot find yet
	at := func(n store.EventNum) *store.Event {
		if e := l.hand[n]; e != nil {
			return e
		}
		return found[n]
	}
	var moved []*event.PDU
	m := moves{room: &l.room, pos: l.event.Pos}
	for _, c := range changes {
		old, now := at(c.old), at(c.new)
		var member *event.PDU
		switch {
		case now != nil && now.PDU.Type == event.TypeMember:
			member = now.PDU
		case now == nil && old != nil && old.PDU.Type == event.TypeMember:
			member = old.PDU
		default:
			continue
		}
		moved = append(moved, member)
		l.s.move(&m, matrix.UserID(*member.StateKey), old, now)
	}
	return moved, m.store(l.ctx, l.tx)
}

// moves are changes of memberships in a room, all at one position of the log.
type moves struct {
	room    *store.Room
	pos     int64
	members []store.Membership
	servers map[matrix.ServerName]int // how many members more each has
}

// move adds that what a user is in the room changed; nil for old or now means
// that the state has no event of the user.
func (s *Service) move(m *moves, user matrix.UserID, old, now *store.Event) {
	was, is := "leave", "leave"
	if old != nil {
		was = old.PDU.Membership()
	}
	ms := store.Membership{User: user, Room: m.room.Num, Pos: m.pos, Local: user.Server() == s.ServerName}
	if now != nil {
		is, ms.Event = now.PDU.Membership(), now.Num
	} else {
		ms.Event = old.Num
	}
	ms.Membership = is
	m.members = append(m.members, ms)
	m.room.Invited += count(is, "invite") - count(was, "invite")
	if more := count(is, "join") - count(was, "join"); more != 0 {
		m.room.Joined += more
		if m.servers == nil {
			m.servers = map[matrix.ServerName]int{}
		}
		m.servers[user.Server()] += more
	}
}

// store writes the changes.
func (m *moves) store(ctx context.Context, tx *store.Tx) error {
	for server, more := range m.servers {
		if err := tx.CountServer(ctx, m.room.Num, server, more); err != nil {
			return err
		}
	}
	slices.SortFunc(m.members, func(a, b store.Membership) int { return strings.Compare(string(a.User), string(b.User)) }) // as they are stored
	return tx.PutMemberships(ctx, m.members)
}
