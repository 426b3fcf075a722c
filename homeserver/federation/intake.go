package federation

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// errMissing tells that an event refers to others that nobody gives us.
var errMissing = errors.New("events that it refers to are missing, and could not be had")

// passing tells whether an error of a request, or of a check, may be gone later.
func passing(err error) bool {
	var unreachable *fedclient.UnreachableError
	var backoff *fedclient.BackoffError
	var refused *fedclient.ResponseError
	return errors.As(err, &unreachable) || errors.As(err, &backoff) || errors.Is(err, fedclient.ErrNoKey) ||
		errors.As(err, &refused) && (refused.Status >= 500 || refused.Status == http.StatusTooManyRequests)
}

// silence tells whether an error of a request says that the server did not answer.
// A proxy that finds no server behind it knows nothing of errcodes.
func silence(err error) bool {
	var unreachable *fedclient.UnreachableError
	var backoff *fedclient.BackoffError
	var refused *fedclient.ResponseError
	return errors.As(err, &unreachable) || errors.As(err, &backoff) ||
		errors.As(err, &refused) && refused.Status >= 500 && refused.Code == ""
}

// How a gap is asked for. How much of it is, the operator says; these follow from
// what other servers do: they give some 20 events of a gap at a time, and have
// others to serve.
const (
	gapPage      = 50 // events of a gap that are asked for at a time
	gapQuestions = 10 // for one event that came
	eventsAtOnce = 8  // single events that one server is asked for at the same time
)

// receive takes an event whose signatures were verified. What is missing before
// it is fetched from the server that sent it, unless that one did not answer
// just now. The error is errMissing where it could not be had.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
func (s *Service) receive(ctx context.Context, origin matrix.ServerName, p *event.PDU) error {
	if at, ok := s.inbox.deaf.Find(origin); ok && time.Since(at) < deafTime {
		if _, err := s.Rooms.Receive(ctx, p); missingOf(err) == nil {
			return err
		}
		return errMissing
	}
	return s.gap(origin, p).bring(ctx, p, true)
}

// admit is receive for an event that its server asks this one to let into the
// room: the other servers in it get the event from here.
func (s *Service) admit(ctx context.Context, origin matrix.ServerName, p *event.PDU) error {
	g := s.gap(origin, p)
	g.admitted = p
	return g.bring(ctx, p, true)
}

// gap is the work on what is missing before one event.
type gap struct {
	s         *Service
	client    *fedclient.Client // asks also who did not answer before: we have just heard from it
	origin    matrix.ServerName // who is asked
	room      matrix.RoomID
	version   *matrix.RoomVersion
	left      int        // events of the timeline that may still be fetched
	bytes     int64      // of them and of state that may still be fetched
	questions int        // that may still be asked for them
	later     bool       // something could not be had that may be had later
	silent    bool       // who is asked did not answer
	admitted  *event.PDU // goes from here to the other servers in the room
}

// failed notes what went wrong with a question.
func (g *gap) failed(ctx context.Context, err error, what string) {
	g.later, g.silent = g.later || passing(err), g.silent || silence(err)
	var unreachable *fedclient.UnreachableError
	if errors.As(err, &unreachable) && ctx.Err() == nil {
		g.s.inbox.deaf.Put(unreachable.Server, time.Now())
	}
	zerolog.Ctx(ctx).Debug().Err(err).Str("room", string(g.room)).Str("server", string(g.origin)).Msg(what)
}

func (s *Service) gap(origin matrix.ServerName, p *event.PDU) *gap {
	return &gap{
		s: s, client: s.Client.Insisting(), origin: origin, room: p.Room, version: p.Version, left: s.Config.MaxMissing, questions: gapQuestions,
		bytes: s.Config.GapMemory,
	}
}

// take gives an event to its room.
func (g *gap) take(ctx context.Context, p *event.PDU) error {
	take := g.s.Rooms.Receive
	if p == g.admitted {
		take = g.s.Rooms.Admit
	}
	_, err := take(ctx, p)
	return err
}

// bring takes an event, first the ones before it that are missing, and where
// that cannot be done, the state before it. For an event that was pushed to us
// it is not enough that its server tells the state: it could become the room's.
func (g *gap) bring(ctx context.Context, p *event.PDU, pushed bool) error {
	err := g.take(ctx, p)
	missing := missingOf(err)
	if missing == nil {
		return err
	}
	if len(missing.Prev) > 0 && g.left > 0 && g.questions > 0 {
		for _, e := range g.earlier(ctx, p) {
			if err := g.bring(ctx, e, false); err != nil {
				zerolog.Ctx(ctx).Debug().Err(err).Str("event", string(e.ID)).Str("server", string(g.origin)).Msg("an event of a gap was not taken")
			}
		}
		err = g.take(ctx, p)
		if missing = missingOf(err); missing == nil {
			return err
		}
	}
	if pushed && len(missing.Prev) > 0 {
		return errMissing
	}
	if len(missing.Auth) > 0 {
		if err := g.authorize(ctx, p, missing.Auth); err != nil {
			return err
		}
		err = g.take(ctx, p)
		if missing = missingOf(err); missing == nil {
			return err
		}
	}
	if len(missing.Auth) > 0 || pushed {
		return errMissing // pushed: its earlier events are here, but nobody knows the state at them
	}
	return g.bridge(ctx, p)
}

// missingOf is err as a MissingError, nil if it is another one.
func missingOf(err error) *room.MissingError {
	var missing *room.MissingError
	errors.As(err, &missing)
	return missing
}

// earlier asks for events of the timeline between those that are here and p,
// and answers them with the oldest first.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
func (g *gap) earlier(ctx context.Context, p *event.PDU) []*event.PDU {
	r, err := g.s.Store.Room(ctx, g.room)
	if err != nil {
		return nil
	}
	heads, err := g.s.Store.EventsByNum(ctx, r.Heads)
	if err != nil {
		return nil
	}
	question := fedclient.Gap{Latest: []matrix.EventID{p.ID}, Limit: min(g.left, gapPage)}
	for _, h := range heads {
		question.Earliest = append(question.Earliest, h.PDU.ID)
	}
	g.questions--
	raws, err := g.client.MissingEvents(ctx, g.origin, g.room, question)
	if err != nil {
		g.failed(ctx, err, "the events of a gap could not be had")
		return nil
	}
	g.left -= len(raws)
	return before(p, g.good(ctx, raws))
}

// good parses events of the room that came in an answer, and leaves out those
// that are none, that are here already and that are not signed as they must be.
func (g *gap) good(ctx context.Context, raws []json.RawMessage) []*event.PDU {
	var list []*event.PDU
	var ids []matrix.EventID
	seen := map[matrix.EventID]bool{}
	for _, raw := range raws {
		p, err := event.Parse(g.version, raw)
		if err != nil || p.Room != g.room || seen[p.ID] {
			zerolog.Ctx(ctx).Debug().Err(err).Str("room", string(g.room)).Str("server", string(g.origin)).Msg("an event in an answer is no good")
			continue
		}
		seen[p.ID] = true
		list = append(list, p)
		ids = append(ids, p.ID)
	}
	known, err := g.s.Store.EventsByID(ctx, ids)
	if err != nil {
		return nil
	}
	var fresh []*event.PDU
	for _, p := range list {
		if e := known[p.ID]; e == nil || e.Pos == 0 && e.Status == 0 {
			fresh = append(fresh, p)
		}
	}
	var good []*event.PDU
	for i, err := range g.s.Keys.VerifyEvents(ctx, fresh) {
		if err == nil {
			good = append(good, fresh[i])
		} else {
			g.failed(ctx, err, "an event in an answer is not signed as it must be")
		}
	}
	return good
}

// before picks of events those that p follows on, the oldest first. The others come
// before what is here already, such as what was said before this server joined:
// they are history, and nothing that happens now.
func before(p *event.PDU, list []*event.PDU) []*event.PDU {
	byID := make(map[matrix.EventID]*event.PDU, len(list))
	for _, e := range list {
		byID[e.ID] = e
	}
	sorted := make([]*event.PDU, 0, len(list))
	var visit func(p *event.PDU)
	visit = func(p *event.PDU) {
		for _, id := range p.PrevEvents {
			if e := byID[id]; e != nil {
				delete(byID, id)
				visit(e)
				sorted = append(sorted, e)
			}
		}
	}
	visit(p)
	return sorted
}

// authorize fetches what authorizes an event.
func (g *gap) authorize(ctx context.Context, p *event.PDU, missing []matrix.EventID) error {
	var raws []json.RawMessage
	err := g.client.EventAuth(ctx, g.origin, g.room, p.ID, g.collect(&raws))
	if err != nil {
		g.failed(ctx, err, "an auth chain could not be had")
		if errors.Is(err, errMissing) {
			return err
		}
	}
	if err := g.keep(ctx, g.good(ctx, raws)); err != nil {
		return err
	}
	return g.fetch(ctx, missing)
}

// collect keeps the events of a long answer, as many as are allowed.
func (g *gap) collect(raws *[]json.RawMessage) fedclient.Each {
	return func(_ fedclient.Part, raw json.RawMessage) error {
		if g.bytes -= int64(len(raw)); len(*raws) >= g.s.Config.MaxState || g.bytes < 0 {
			return errMissing
		}
		*raws = append(*raws, append(json.RawMessage(nil), raw...))
		return nil
	}
}

// fetch asks for single events that are not here, and for what authorizes them,
// and keeps them.
func (g *gap) fetch(ctx context.Context, ids []matrix.EventID) error {
	var list []*event.PDU
	asked := map[matrix.EventID]bool{}
	for len(ids) > 0 {
		wanted, err := g.unknown(ctx, ids, asked)
		if err != nil {
			return err
		}
		if len(asked)+len(wanted) > g.s.Config.MaxSingle {
			return errMissing
		}
		var mu sync.Mutex // tier 1; guards raws and what g.failed notes
		var raws []json.RawMessage
		var group errgroup.Group
		group.SetLimit(eventsAtOnce)
		for _, id := range wanted {
			asked[id] = true
			group.Go(func() error {
				raw, err := g.client.Event(ctx, g.origin, id)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					raws = append(raws, raw)
				} else {
					g.failed(ctx, err, "an event could not be had")
				}
				return nil
			})
		}
		group.Wait()
		ids = nil
		for _, p := range g.good(ctx, raws) {
			list = append(list, p)
			ids = append(ids, p.AuthEvents...)
		}
	}
	return g.keep(ctx, list)
}

// unknown gives the IDs of events that are not here and were not asked for.
func (g *gap) unknown(ctx context.Context, ids []matrix.EventID, asked map[matrix.EventID]bool) ([]matrix.EventID, error) {
	known, err := g.s.Store.EventsByID(ctx, ids)
	var list []matrix.EventID
	seen := map[matrix.EventID]bool{}
	for _, id := range ids {
		if known[id] == nil && !asked[id] && !seen[id] {
			seen[id] = true
			list = append(list, id)
		}
	}
	return list, err
}

// keep stores events aside, but those whose auth events are not all here.
func (g *gap) keep(ctx context.Context, list []*event.PDU) error {
	for len(list) > 0 {
		err := g.s.Rooms.Keep(ctx, g.room, list)
		missing := missingOf(err)
		if missing == nil {
			return err
		}
		list = without(list, missing.Auth)
	}
	return nil
}

// without leaves out the events that one of the missing ones authorizes, and
// those that these authorize, and so on. There may be many, in the worst order.
func without(list []*event.PDU, missing []matrix.EventID) []*event.PDU {
	authorized := make(map[matrix.EventID][]*event.PDU, len(list))
	for _, p := range list {
		for _, id := range p.AuthEvents {
			authorized[id] = append(authorized[id], p)
		}
	}
	gone := map[matrix.EventID]bool{}
	for ids := slices.Clone(missing); len(ids) > 0; ids = ids[1:] {
		for _, p := range authorized[ids[0]] {
			if !gone[p.ID] {
				gone[p.ID] = true
				ids = append(ids, p.ID)
			}
		}
	}
	return slices.DeleteFunc(list, func(p *event.PDU) bool { return gone[p.ID] })
}

// bridge takes an event whose earlier ones cannot be had, with the state before
// it as the other server tells it.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid
func (g *gap) bridge(ctx context.Context, p *event.PDU) error {
	state, auth, err := g.client.RoomStateIDs(ctx, g.origin, g.room, p.ID)
	if err != nil {
		g.failed(ctx, err, "the state before an event could not be had")
		return errMissing
	}
	if len(state)+len(auth) > g.s.Config.MaxState {
		return errMissing
	}
	lost, err := g.unknown(ctx, append(append([]matrix.EventID(nil), state...), auth...), nil)
	if err != nil {
		return err
	}
	if len(lost) > g.s.Config.MaxSingle {
		var raws []json.RawMessage
		if err := g.client.RoomState(ctx, g.origin, g.room, p.ID, g.collect(&raws)); err != nil {
			g.failed(ctx, err, "the state before an event could not be had")
			return errMissing
		}
		err = g.keep(ctx, g.good(ctx, raws))
	} else {
		err = g.fetch(ctx, lost)
	}
	if err != nil {
		return err
	}
	known, err := g.s.Store.EventsByID(ctx, state)
	if err != nil {
		return err
	}
	here := state[:0]
	for _, id := range state {
		if known[id] != nil {
			here = append(here, id)
		}
	}
	_, err = g.s.Rooms.ReceiveAt(ctx, p, here)
	if missing := missingOf(err); missing != nil && len(missing.Auth) > 0 {
		if err := g.authorize(ctx, p, missing.Auth); err != nil {
			return err
		}
		_, err = g.s.Rooms.ReceiveAt(ctx, p, here)
	}
	if missingOf(err) != nil {
		return errMissing
	}
	return err
}
