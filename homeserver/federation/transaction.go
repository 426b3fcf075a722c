package federation

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// EDU is an ephemeral message of another server.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#edus
type EDU struct {
	Type    string          `json:"edu_type"`
	Content json.RawMessage `json:"content"`
}

// Transaction is what another server pushes in one go.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#transactions
type Transaction struct {
	ID   string
	PDUs []json.RawMessage
	EDUs []EDU
}

// Result tells what became of one event of a transaction.
type Result struct {
	Error string `json:"error,omitempty"` // "" if it was taken
}

// Results are the results of a transaction's events by their IDs. Events whose
// ID cannot be told have none.
type Results map[matrix.EventID]Result

// roomsAtOnce is of how many rooms the events of one transaction are worked on
// at a time.
const roomsAtOnce = 8

// Transaction takes a transaction of another server. A repeated one gets the
// first one's answer. What an event or a message in it does wrong is no error
// of the whole: an event that follows on others which cannot be had just now
// waits for them here. The errors are M_INVALID_PARAM for one that is too large,
// and M_LIMIT_EXCEEDED.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid
func (s *Service) Transaction(ctx context.Context, origin matrix.ServerName, t Transaction) (Results, error) {
	if len(t.PDUs) > fedclient.MaxPDUs || len(t.EDUs) > fedclient.MaxEDUs {
		return nil, matrix.Errorf(matrix.InvalidParam, "a transaction may have %d PDUs and %d EDUs", fedclient.MaxPDUs, fedclient.MaxEDUs)
	}
	return s.transactions.once(ctx, transactionKey{origin, t.ID}, func() (Results, error) {
		// A sender that hangs up will come again; what has begun is finished.
		work, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Config.TransactionTime)
		defer cancel()
		free, err := s.origins.enter(work, origin, s.Config.MaxTransactions, s.Config.MaxWaiting)
		if err != nil {
			return nil, err
		}
		defer free()
		results, later, err := s.receiveAll(work, origin, t.PDUs)
		if err == nil {
			err = s.hold(work, origin, later)
		}
		if err != nil {
			return nil, err
		}
		s.receiveEDUs(work, origin, t.EDUs)
		return results, nil
	})
}

// incoming is an event of a transaction.
type incoming struct {
	pdu  *event.PDU
	room *store.Room // nil: one that takes back an invitation from outside
}

// receiveAll takes the events of a transaction: those of one room one after the
// other, and several rooms at a time. Later are those that cannot be taken now. An
// error is of ours: the sender has to come again.
func (s *Service) receiveAll(ctx context.Context, origin matrix.ServerName, raws []json.RawMessage) (results Results, later []*event.PDU, err error) {
	results = Results{}
	refuse := func(id matrix.EventID, err error) {
		if _, known := results[id]; id != "" && !known {
			results[id] = Result{Error: reason(err)}
		}
	}
	var list []incoming
	for _, raw := range raws {
		in, id, err := s.read(ctx, origin, raw)
		switch {
		case err == nil:
			list = append(list, in)
		case verdict(err):
			refuse(id, err)
		case in.pdu != nil:
			later = append(later, in.pdu)
		default:
			return nil, nil, err
		}
	}
	list, keyless := s.verified(ctx, list, refuse)
	later = append(later, keyless...)
	rooms := map[matrix.RoomID][]incoming{}
	for _, in := range list {
		rooms[in.pdu.Room] = append(rooms[in.pdu.Room], in)
	}
	var mu sync.Mutex // tier 1; guards results and later
	var group errgroup.Group
	group.SetLimit(roomsAtOnce)
	for id, events := range rooms {
		group.Go(func() error {
			for _, in := range events {
				err := s.takeIn(ctx, origin, in)
				mu.Lock()
				results[in.pdu.ID] = Result{}
				switch {
				case err == nil:
				case verdict(err) && ctx.Err() == nil:
					results[in.pdu.ID] = Result{Error: reason(err)}
				default:
					later = append(later, in.pdu)
					if !errors.Is(err, errMissing) {
						zerolog.Ctx(ctx).Warn().Err(err).Str("server", string(origin)).Msg("an event could not be received now")
					}
				}
				mu.Unlock()
			}
			if s.inbox.stir(id, false) { // which may have been what others waited for
				s.Bell.Ring(inboxBell)
			}
			return nil
		})
	}
	group.Wait()
	return results, later, nil
}

// takeIn takes an event that is verified.
func (s *Service) takeIn(ctx context.Context, origin matrix.ServerName, in incoming) (err error) {
	err = errBroken // if what follows panics
	defer s.recovered(ctx)
	if in.room == nil {
		return s.Rooms.PutOutside(ctx, room.Outside{Version: in.pdu.Version, Event: in.pdu})
	}
	return s.receive(ctx, origin, in.pdu)
}

// errBroken is what another server is told of an event whose work panicked. It would
// again.
var errBroken = matrix.Errorf(matrix.Unknown, "internal server error")

// verdict tells whether an error says that an event is no good, and not that
// something went wrong here.
func verdict(err error) bool {
	var refused *matrix.Error
	var unsigned *fedclient.SignatureError
	return errors.As(err, &unsigned) || errors.As(err, &refused) && refused.Cause == nil
}

// read parses an event, for which it needs its room. The ID is answered also
// with an error if it can be told.
func (s *Service) read(ctx context.Context, origin matrix.ServerName, raw json.RawMessage) (incoming, matrix.EventID, error) {
	var place struct {
		Room matrix.RoomID  `json:"room_id"`
		ID   matrix.EventID `json:"event_id"`
	}
	if err := json.Unmarshal(raw, &place); err != nil || canonjson.Valid(raw) != nil {
		return incoming{}, "", matrix.Errorf(matrix.BadJSON, "not an event")
	}
	if _, err := matrix.ParseRoomID(string(place.Room)); err != nil {
		return incoming{}, place.ID, err
	}
	known, err := s.Store.Room(ctx, place.Room)
	if errors.Is(err, store.ErrNotFound) {
		return incoming{}, place.ID, matrix.Errorf(matrix.NotFound, "this server is not in the room")
	}
	if err != nil {
		return incoming{}, place.ID, err
	}
	p, err := event.Parse(known.Version, raw)
	if err != nil {
		return incoming{}, place.ID, err
	}
	r, err := s.room(ctx, origin, p.Room)
	if err != nil && s.retracts(ctx, known, p) {
		return incoming{pdu: p}, p.ID, nil
	}
	return incoming{p, r}, p.ID, err
}

// retracts tells whether an event of a room that this server is not in takes
// back an invitation, as only who invited can: nobody knows here who else may.
func (s *Service) retracts(ctx context.Context, r *store.Room, p *event.PDU) bool {
	if p.Type != event.TypeMember || p.StateKey == nil || p.Membership() != event.Leave {
		return false
	}
	m := s.Store.Membership(matrix.UserID(*p.StateKey), r.Num)
	if m.Membership != event.Invite {
		return false
	}
	found, err := s.Store.EventsByNum(ctx, []store.EventNum{m.Event})
	invited := found[m.Event]
	return err == nil && invited != nil && invited.PDU.Sender == p.Sender && slices.Contains(p.AuthEvents, invited.PDU.ID)
}

// verified leaves out the events without the signatures that they need. Later
// are those for which there is no key yet.
func (s *Service) verified(ctx context.Context, list []incoming, refuse func(matrix.EventID, error)) (good []incoming, later []*event.PDU) {
	pdus := make([]*event.PDU, len(list))
	for i, in := range list {
		pdus[i] = in.pdu
	}
	for i, err := range s.Keys.VerifyEvents(ctx, pdus) {
		switch {
		case err == nil:
			good = append(good, list[i])
		case errors.Is(err, fedclient.ErrNoKey):
			later = append(later, pdus[i])
			fallthrough
		default:
			refuse(pdus[i].ID, err)
		}
	}
	return good, later
}

// reason is what another server is told of a verdict.
func reason(err error) string {
	var refused *matrix.Error
	if errors.As(err, &refused) {
		return refused.Text
	}
	return err.Error()
}

// recovered keeps a panic in the work on one room from ending the process.
func (s *Service) recovered(ctx context.Context) {
	if p := recover(); p != nil {
		zerolog.Ctx(ctx).Error().Interface("panic", p).Stack().Msg("receiving events panicked")
	}
}

// transactionKey names a transaction.
type transactionKey struct {
	origin matrix.ServerName
	id     string
}

// transactions are those that are worked on and the answers of those that
// were, so that a repeated one is not worked on again. Without that nothing
// would go wrong, as events and messages are known by their own IDs.
type transactions struct {
	mu      sync.Mutex // tier 1; guards running
	running map[transactionKey]*flight
	done    store.Recent[transactionKey, Results]
}

type flight struct {
	done    chan struct{} // closed when the rest is set
	results Results
	err     error
}

// mostKept is the largest answer that is kept.
const mostKept = fedclient.MaxPDUs

// once calls work unless the transaction is known.
func (t *transactions) once(ctx context.Context, key transactionKey, work func() (Results, error)) (Results, error) {
	if results, ok := t.done.Find(key); ok {
		return results, nil
	}
	t.mu.Lock()
	if f := t.running[key]; f != nil {
		t.mu.Unlock()
		select {
		case <-f.done:
			return f.results, f.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if t.running == nil {
		t.running = map[transactionKey]*flight{}
	}
	f := &flight{done: make(chan struct{}), err: errors.New("the work on the transaction " + strconv.Quote(key.id) + " broke off")}
	t.running[key] = f
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.running, key)
		t.mu.Unlock()
		close(f.done)
	}()
	f.results, f.err = work()
	if f.err == nil && len(f.results) <= mostKept {
		t.done.Put(key, f.results)
	}
	return f.results, f.err
}
