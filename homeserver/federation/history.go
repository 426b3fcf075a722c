package federation

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// What other servers ask for in practice is less: they name the previous events of
// one event, of which it has 20 at most, and ask for 10 or 20 events of a gap. The
// answer with the IDs of a state has no limit of its own, as half of it would be of
// no use; whoever asks for it says how much it takes (max_state_events).
const (
	mostGap   = 50  // events of a gap in one answer
	mostNamed = 100 // events that one question may name
)

// Page is a list of events as another server gets it.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid
type Page struct {
	Origin matrix.ServerName `json:"origin"`
	TS     int64             `json:"origin_server_ts"` // milliseconds
	PDUs   []json.RawMessage `json:"pdus"`
}

func (s *Service) page(list []*event.PDU) *Page {
	p := &Page{Origin: s.ServerName, TS: time.Now().UnixMilli(), PDUs: make([]json.RawMessage, len(list))}
	for i, e := range list {
		p.PDUs[i] = e.JSON
	}
	return p
}

// Event gives one event that a server may see.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid
func (s *Service) Event(ctx context.Context, origin matrix.ServerName, id matrix.EventID) (*Page, error) {
	e, err := s.Store.Event(ctx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && e.PDU.Local {
		return nil, errNoEvent()
	}
	if err != nil {
		return nil, err
	}
	r, err := s.Store.RoomByNum(ctx, e.Room)
	if err != nil {
		return nil, err
	}
	if r, err = s.shared(ctx, origin, r.ID, id); err != nil {
		return nil, err
	}
	list, err := s.Rooms.ServerSees(ctx, r, origin, []*store.Event{e})
	if err != nil {
		return nil, err
	}
	return s.page(list), nil
}

func errNoEvent() error { return matrix.Errorf(matrix.NotFound, "there is no such event") }

// find gives an event of a room that a server shares with us.
func (s *Service) find(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID) (*store.Room, *store.Event, error) {
	r, err := s.shared(ctx, origin, id, eventID)
	if err != nil {
		return nil, nil, err
	}
	e, err := s.Store.Event(ctx, eventID)
	if errors.Is(err, store.ErrNotFound) || err == nil && (e.Room != r.Num || e.PDU.Local) {
		return nil, nil, errNoEvent()
	}
	return r, e, err
}

// AuthChain gives the events that authorize an event.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid
func (s *Service) AuthChain(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID) ([]json.RawMessage, error) {
	_, e, err := s.find(ctx, origin, id, eventID)
	if err != nil {
		return nil, err
	}
	chain, err := s.Rooms.AuthChain(ctx, []*event.PDU{e.PDU})
	return raws(chain), err
}

// Snapshot is the state of a room before an event, and what authorizes it.
type Snapshot struct {
	State, Auth []*store.Event
}

// IDs is the answer with the events' IDs.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid
func (s *Snapshot) IDs() map[string][]matrix.EventID {
	return map[string][]matrix.EventID{"pdu_ids": ids(s.State), "auth_chain_ids": ids(s.Auth)}
}

func ids(events []*store.Event) []matrix.EventID {
	list := make([]matrix.EventID, len(events))
	for i, e := range events {
		list[i] = e.PDU.ID
	}
	return list
}

// StateBefore gives the state of a room before an event, for its IDs.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid
func (s *Service) StateBefore(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID) (*Snapshot, error) {
	_, root, err := s.rootBefore(ctx, origin, id, eventID)
	if err != nil {
		return nil, err
	}
	snap := &Snapshot{}
	if snap.State, err = s.Rooms.StateEvents(ctx, root); err != nil {
		return nil, err
	}
	snap.Auth, err = s.Rooms.AuthChain(ctx, pdus(snap.State))
	return snap, err
}

// WholeStateBefore gives the state of a room before an event, and what authorizes
// it, which is to be asked for after that.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1stateroomid
func (s *Service) WholeStateBefore(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID) (state, auth Events, err error) {
	r, root, err := s.rootBefore(ctx, origin, id, eventID)
	if err != nil {
		return nil, nil, err
	}
	all, err := s.Rooms.Snapshot(ctx, r, root)
	if err != nil {
		return nil, nil, err
	}
	return all.State, all.Auth, nil
}

// rootBefore finds the state before an event.
func (s *Service) rootBefore(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID) (*store.Room, statetree.ID, error) {
	r, e, err := s.find(ctx, origin, id, eventID)
	if err != nil {
		return nil, 0, err
	}
	if e.State == 0 { // kept aside: nobody knows
		return nil, 0, errNoEvent()
	}
	root, err := s.Rooms.StateBefore(ctx, e)
	return r, root, err
}

// Backfill gives some events and what came before them, the newest first.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid
func (s *Service) Backfill(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, from []matrix.EventID, limit int) (*Page, error) {
	r, err := s.shared(ctx, origin, id, from...)
	if err != nil {
		return nil, err
	}
	if len(from) == 0 || len(from) > mostNamed {
		return nil, matrix.Errorf(matrix.InvalidParam, "v must name 1 to %d events", mostNamed)
	}
	events, err := s.Rooms.Earlier(ctx, r, from, min(limit, s.Config.MaxBackfill))
	if err != nil {
		return nil, err
	}
	list, err := s.Rooms.ServerSees(ctx, r, origin, events)
	if err != nil {
		return nil, err
	}
	return s.page(list), nil
}

// Gap says between which events a server lacks others.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid
type Gap struct {
	Earliest []matrix.EventID `json:"earliest_events"`
	Latest   []matrix.EventID `json:"latest_events"`
	Limit    *int             `json:"limit"`
	MinDepth int64            `json:"min_depth"`
}

// Missing gives the events in a gap, the oldest first.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid
func (s *Service) Missing(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, g Gap) ([]json.RawMessage, error) {
	r, err := s.shared(ctx, origin, id, g.Latest...)
	if err != nil {
		return nil, err
	}
	if len(g.Earliest) > mostNamed || len(g.Latest) > mostNamed {
		return nil, matrix.Errorf(matrix.InvalidParam, "more than %d events are named", mostNamed)
	}
	limit := 10
	if g.Limit != nil {
		limit = min(max(*g.Limit, 0), mostGap)
	}
	events, err := s.Rooms.Between(ctx, r, g.Earliest, g.Latest, limit, g.MinDepth)
	if err != nil {
		return nil, err
	}
	list, err := s.Rooms.ServerSees(ctx, r, origin, events)
	if err != nil {
		return nil, err
	}
	return s.page(list).PDUs, nil
}

// ByTime finds the event next to a time (ms), see room.Service.ByTime.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid
func (s *Service) ByTime(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, ts int64, backwards bool) (*event.PDU, error) {
	r, err := s.shared(ctx, origin, id)
	if err != nil {
		return nil, err
	}
	e, err := s.Rooms.ByTime(ctx, r, ts, backwards, func(list []*store.Event) ([]*store.Event, error) {
		return slices.DeleteFunc(list, func(e *store.Event) bool { return e.PDU.Local }), nil
	})
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, matrix.Errorf(matrix.NotFound, "there is no event at that time")
	}
	return e.PDU, nil
}

// Hosts lists the servers of a room, this one first: for who is told where the
// room is.
func (s *Service) Hosts(ctx context.Context, id matrix.RoomID) ([]matrix.ServerName, error) {
	r, err := s.Store.Room(ctx, id)
	if err != nil {
		return nil, err
	}
	list, err := s.Store.Servers(ctx, r.Num)
	list = slices.DeleteFunc(list, func(name matrix.ServerName) bool { return name == s.ServerName })
	return append([]matrix.ServerName{s.ServerName}, list[:min(len(list), mostHosts)]...), err
}

// mostHosts is how many other servers of a room are told.
const mostHosts = 20
