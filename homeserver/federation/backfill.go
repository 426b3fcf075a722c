package federation

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"slices"

	"github.com/rs/zerolog"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// A client waits while history is fetched: that it does not wait for too long is
// not for the operator to weigh.
const (
	backfillServers = 4  // that are asked for one part of the history, one after the other
	mostFills       = 10 // parts of the history that one request fetches
)

// Messages gives a part of a room's timeline, and fetches history that is not
// here yet when the part goes over a gap or reaches where the timeline begins.
// Where nobody who has it can be reached now, the part that is here is given with
// an End, at which the client may ask again; a part with nothing in it is an
// error with status 502.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages
func (s *Service) Messages(ctx context.Context, rd room.Reader, p room.Page) (*room.PageAnswer, error) {
	var away error
	tried := map[store.EventNum]bool{}
	for {
		answer, err := s.Rooms.Messages(ctx, rd, p)
		if err != nil {
			return nil, err
		}
		gaps, err := s.gaps(ctx, p.Room)
		if err != nil {
			return nil, err
		}
		gaps = slices.DeleteFunc(gaps, func(g *store.Event) bool { return tried[g.Num] || !crosses(p, answer, g.Pos) })
		if len(gaps) > 0 && len(tried) < mostFills {
			tried[gaps[0].Num] = true
			if _, err := s.backfill(ctx, p.Room, gaps[0]); err != nil {
				away = err
			}
			continue
		}
		if more := away != nil || len(gaps) > 0; more && !p.Forward && p.To == "" && answer.End == "" {
			p.Open = true
			continue
		}
		if away != nil && answer.End == answer.Start {
			return nil, away
		}
		return answer, nil
	}
}

// crosses tells whether an answer goes over the gap right before an event at a
// position.
func crosses(p room.Page, answer *room.PageAnswer, pos int64) bool {
	place := func(token string, none int64) int64 {
		if n, err := room.ParseToken(token); err == nil {
			return n
		}
		return none
	}
	if p.Forward {
		return place(p.From, math.MinInt64) < pos && pos <= place(cmp.Or(answer.End, p.To), math.MaxInt64)
	}
	return place(cmp.Or(answer.End, p.To), math.MinInt64) < pos-1 && pos-1 <= place(p.From, math.MaxInt64)
}

// gaps are the events of a room, if this server is in it, before which others
// are missing.
func (s *Service) gaps(ctx context.Context, id matrix.RoomID) ([]*store.Event, error) {
	resident, err := s.Rooms.Resident(ctx, id)
	if err != nil || !resident {
		return nil, err
	}
	return s.Rooms.Gaps(ctx, id)
}

// backfill fetches what stands before a gap of a room, and tells whether there
// was something. It is an error if there may be, and who has it is out of reach.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid
func (s *Service) backfill(ctx context.Context, id matrix.RoomID, gap *store.Event) (bool, error) {
	r, err := s.Store.RoomByNum(ctx, gap.Room)
	if err != nil {
		return false, err
	}
	servers, err := s.Store.Servers(ctx, r.Num)
	if err != nil {
		return false, err
	}
	var away error
	servers = slices.DeleteFunc(servers, func(n matrix.ServerName) bool { return n == s.ServerName })
	for _, name := range servers[:min(len(servers), backfillServers)] {
		fetched, err := s.backfillBy(ctx, name, id, r.Version, gap)
		if err == nil && fetched {
			return true, nil
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			zerolog.Ctx(ctx).Info().Err(err).Str("server", string(name)).Str("room", string(id)).Msg("history could not be fetched")
			if refusal(err) == nil {
				away = err
			}
		}
	}
	if away != nil {
		away = &matrix.Error{Code: matrix.Unknown, Status: 502, Text: "the servers that have the earlier history cannot be reached; try again later", Cause: away}
	}
	return false, away
}

// backfillBy fetches from one server what stands before an event.
func (s *Service) backfillBy(ctx context.Context, server matrix.ServerName, id matrix.RoomID, v *matrix.RoomVersion, gap *store.Event) (bool, error) {
	raws, err := s.Client.Backfill(ctx, server, id, gap.PDU.PrevEvents, s.Config.MaxBackfill)
	if err != nil {
		return false, err
	}
	past, err := s.genuine(ctx, id, v, raws)
	if err != nil {
		return false, err
	}
	past = chain(past, gap.PDU)
	if len(past) == 0 {
		return false, nil
	}
	before, err := s.stateBefore(ctx, server, id, v, past[0])
	if err != nil {
		return false, err
	}
	return true, s.Rooms.History(ctx, id, gap, past, before)
}

// genuine parses events of a room and leaves out those that are broken or forged.
func (s *Service) genuine(ctx context.Context, id matrix.RoomID, v *matrix.RoomVersion, raws []json.RawMessage) ([]*event.PDU, error) {
	var list []*event.PDU
	for _, raw := range raws {
		if p, err := event.Parse(v, raw); err == nil && p.Room == id {
			list = append(list, p)
		}
	}
	errs := s.Keys.VerifyEvents(ctx, list)
	good := list[:0]
	for i, p := range list {
		if errs[i] == nil {
			good = append(good, p)
		}
	}
	return good, ctx.Err()
}

// chain puts events in order, the oldest first, and keeps those that lead without
// a hole to the event behind them.
func chain(events []*event.PDU, behind *event.PDU) []*event.PDU {
	byID := make(map[matrix.EventID]*event.PDU, len(events))
	for _, p := range events {
		byID[p.ID] = p
	}
	var list []*event.PDU
	level := []*event.PDU{behind}
	for len(level) > 0 {
		var next []*event.PDU
		for _, p := range level {
			for _, id := range p.PrevEvents {
				if e := byID[id]; e != nil {
					delete(byID, id)
					next = append(next, e)
				}
			}
		}
		list = append(list, next...)
		level = next
	}
	slices.SortStableFunc(list, func(a, b *event.PDU) int { return int(min(max(a.Depth-b.Depth, -1), 1)) })
	return list
}

// stateBefore makes sure that the state before an event is here, and gives the
// IDs of its events.
func (s *Service) stateBefore(ctx context.Context, server matrix.ServerName, id matrix.RoomID, v *matrix.RoomVersion, p *event.PDU) ([]matrix.EventID, error) {
	if p.Type == event.TypeCreate {
		return []matrix.EventID{}, nil
	}
	got := s.newArriving(v, id)
	call := func(ctx context.Context) error { return s.Client.RoomState(ctx, server, id, p.ID, got.add) }
	if err := got.read(ctx, call, func(context.Context, []*event.PDU) error { return nil }); err != nil {
		return nil, err
	}
	state, auth := got.good()
	if err := s.Rooms.Keep(ctx, id, append(auth, state...)); err != nil {
		return nil, err
	}
	ids := make([]matrix.EventID, len(state))
	for i, e := range state {
		ids[i] = e.ID
	}
	return ids, nil
}
