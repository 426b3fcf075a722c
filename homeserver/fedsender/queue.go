package fedsender

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"time"

	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// mostQueued bounds what waits in memory for one server. Who falls further behind
// is caught up from the store.
const mostQueued = 500

// queue is what one server is still to be sent.
type queue struct {
	server matrix.ServerName

	mu      sync.Mutex // tier 1; guards all below; never held while calling out
	working bool       // somebody sends
	woken   bool       // there is something that the one who sends has not seen
	events  []*store.Event
	edus    []fedclient.EDU
	lasting bool  // some of edus must not be lost; they are in the log
	behind  bool  // events behind sent are to be looked up in the store
	more    bool  // and some came since the last look
	sent    int64 // everything up to here was sent; 0: not known
	saved   int64 // what is written down of that
}

// begin tells whether the caller is to work on the queue; else somebody does.
func (q *queue) begin() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.woken = true
	if q.working {
		return false
	}
	q.working = true
	return true
}

// rest tells whether there is nothing to do, so that the caller stops: somebody
// else may have begun when it returns.
func (q *queue) rest() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.woken || len(q.events) > 0 || len(q.edus) > 0 || q.behind {
		q.woken = false
		return false
	}
	q.working = false
	return true
}

// end says that the caller stops although there may be something to do.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.working = false
}

// add puts an event at the end. A server that is behind finds it in the store, and
// one that was found it there already if it came before the server caught up.
func (q *queue) add(e *store.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.behind {
		q.more = true
		return
	}
	if e.Pos <= q.sent {
		return
	}
	if len(q.events) >= mostQueued {
		q.drop()
		return
	}
	if q.sent == 0 {
		q.sent = e.Pos - 1
	}
	q.events = append(q.events, e)
}

// tell adds an ephemeral message, which is dropped where it would wait long.
func (q *queue) tell(e fedclient.EDU) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.behind && len(q.edus) < mostQueued {
		q.edus = append(q.edus, e)
	}
}

// keep adds ephemeral messages that must not be lost, and of which the log tells
// from pos on. A server that is behind is told by it.
func (q *queue) keep(list []fedclient.EDU, pos int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.behind {
		q.more = true
		return
	}
	if q.sent == 0 {
		q.sent = pos - 1
	}
	q.edus, q.lasting = append(q.edus, list...), true
	if len(q.edus) > mostQueued {
		q.drop()
	}
}

// fallBehind says that a server lacks what stands behind sent.
func (q *queue) fallBehind(sent int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.behind, q.sent, q.saved = true, sent, sent
}

// fail says that the server cannot be reached: what waits is in the store.
func (q *queue) fail() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.drop()
}

// drop empties the queue in memory.
func (q *queue) drop() {
	if len(q.events) > 0 || q.lasting {
		q.behind = true
	}
	q.events, q.edus, q.lasting = nil, nil, false
}

// take gives the next transaction's worth, without removing it.
func (q *queue) take() (events []*store.Event, edus []fedclient.EDU, behind bool, sent int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.more = false
	return slices.Clone(q.events[:min(len(q.events), fedclient.MaxPDUs)]),
		slices.Clone(q.edus[:min(len(q.edus), fedclient.MaxEDUs)]), q.behind, q.sent
}

// done removes what was sent.
func (q *queue) done(events, edus int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.edus = slices.Delete(q.edus, 0, min(edus, len(q.edus)))
	q.lasting = q.lasting && len(q.edus) > 0
	if events > 0 && len(q.events) >= events {
		if !q.lasting {
			q.sent = q.events[events-1].Pos
		}
		q.events = slices.Delete(q.events, 0, events)
	}
}

// caughtUp says that a server that was behind has everything up to pos, and
// whether that was all there was when the store was asked.
func (q *queue) caughtUp(pos int64, all bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sent = max(q.sent, pos)
	if all && !q.more {
		q.behind = false
	}
}

// sentUpTo is up to where everything was sent, whether that is news for the
// store, and whether the queue may be forgotten. Pos is how far the log was read.
func (q *queue) sentUpTo(pos int64) (at int64, changed, idle bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.behind && !q.lasting && len(q.events) == 0 && q.sent > 0 {
		q.sent = max(q.sent, pos)
	}
	changed = q.sent > q.saved
	q.saved = max(q.saved, q.sent)
	return q.sent, changed, !q.working && !q.behind && len(q.events) == 0 && len(q.edus) == 0
}

// sendSome sends one transaction and tells whether there was something.
func (s *Service) sendSome(ctx context.Context, q *queue) (bool, error) {
	events, edus, behind, sent := q.take()
	var missed catchUp
	if behind {
		edus = edus[:min(len(edus), fedclient.MaxEDUs/2)] // so that there is room for what was missed
		var err error
		if missed, err = s.missed(ctx, q.server, sent, fedclient.MaxEDUs-len(edus)); err != nil {
			return false, err
		}
		events = missed.events
	}
	waiting, err := s.Store.Outbox(ctx, q.server, fedclient.MaxEDUs)
	if err != nil {
		return false, err
	}
	own := len(edus)
	edus = append(edus, missed.edus...)
	waiting = waiting[:min(len(waiting), max(0, fedclient.MaxEDUs-len(edus)))]
	for _, o := range waiting {
		edus = append(edus, fedclient.EDU{Type: o.Type, Content: o.Content})
	}
	if len(events)+len(edus) > 0 {
		if err := s.transmit(ctx, q.server, events, edus); err != nil {
			return false, err
		}
	}
	if len(waiting) > 0 {
		err := s.Store.Update(ctx, func(tx *store.Tx) error { return tx.DropOutgoing(ctx, q.server, waiting[len(waiting)-1].Num) })
		if err != nil {
			return false, err
		}
	}
	if behind {
		q.caughtUp(missed.upto, missed.all)
		q.done(0, own)
		return true, nil
	}
	q.done(len(events), own)
	return len(events)+len(edus) > 0, nil
}

// transmit sends one transaction.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid
func (s *Service) transmit(ctx context.Context, server matrix.ServerName, events []*store.Event, edus []fedclient.EDU) error {
	now := time.Now()
	t := fedclient.Transaction{ID: strconv.FormatInt(now.UnixNano(), 36), OriginServerTS: now.UnixMilli(), EDUs: edus}
	for _, e := range events {
		t.PDUs = append(t.PDUs, json.RawMessage(e.PDU.JSON))
	}
	_, err := s.Client.Send(ctx, server, t)
	return err
}

// catchUp is what a server that was away is sent: the newest event of each room,
// from which it finds the others.
type catchUp struct {
	events []*store.Event
	edus   []fedclient.EDU
	upto   int64 // with this everything is sent up to here
	all    bool  // nothing is left
}

// missed finds what a server lacks behind a position, as far as it fits into a
// transaction with so many EDUs. Of rooms that the server is not in any more,
// that is how its users were put out.
func (s *Service) missed(ctx context.Context, server matrix.ServerName, since int64, most int) (catchUp, error) {
	c := catchUp{upto: s.Store.Position(), all: true}
	list, err := s.departures(ctx, server, since)
	if err != nil {
		return c, err
	}
	rooms, err := s.Store.RoomsOf(ctx, server)
	if err != nil || len(rooms)+len(list) == 0 {
		return c, err
	}
	latest, err := s.Store.Latest(ctx, rooms, s.ServerName, server, since)
	if err != nil {
		return c, err
	}
	list = append(list, latest...)
	slices.SortFunc(list, func(a, b *store.Event) int { return cmp.Compare(a.Pos, b.Pos) })
	if len(list) > fedclient.MaxPDUs {
		list = list[:fedclient.MaxPDUs]
		c.upto, c.all = list[len(list)-1].Pos, false
	}
	users, err := s.devicesChanged(ctx, server, since, c.upto)
	for err == nil && len(users)*edusOfUser > most { // a position is that of one user, so some will fit
		c.upto, c.all = since+(c.upto-since)/2, false
		users, err = s.devicesChanged(ctx, server, since, c.upto)
	}
	if err != nil {
		return c, err
	}
	for _, u := range users {
		edus, err := s.devices(ctx, u)
		if err != nil {
			return c, err
		}
		c.edus = append(c.edus, edus...)
	}
	c.events = slices.DeleteFunc(list, func(e *store.Event) bool { return e.Pos > c.upto || e.PDU.Local })
	return c, nil
}

// departures are the events of this server that put users of another one out of
// rooms in which it has nobody any more.
func (s *Service) departures(ctx context.Context, server matrix.ServerName, since int64) ([]*store.Event, error) {
	nums, err := s.Store.Departures(ctx, server, since)
	if err != nil || len(nums) == 0 {
		return nil, err
	}
	found, err := s.Store.EventsByNum(ctx, nums)
	var list []*store.Event
	for _, e := range found {
		if e.Pos > since && e.PDU.Sender.Server() == s.ServerName {
			list = append(list, e)
		}
	}
	return list, err
}
