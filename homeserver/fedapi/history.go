package fedapi

import (
	"switchboard/homeserver/federation"
	"switchboard/homeserver/matrix"
)

var historyRoutes = []route{
	{"backfillRoom", "GET /_matrix/federation/v1/backfill/{roomId}", servers, small, (*API).backfillRoom},
	{"getMissingPreviousEvents", "POST /_matrix/federation/v1/get_missing_events/{roomId}", servers, small, (*API).getMissingPreviousEvents},
	{"getRoomState", "GET /_matrix/federation/v1/state/{roomId}", servers, small, (*API).getRoomState},
	{"getRoomStateIds", "GET /_matrix/federation/v1/state_ids/{roomId}", servers, small, (*API).getRoomStateIDs},
	{"getEvent", "GET /_matrix/federation/v1/event/{eventId}", servers, small, (*API).getEvent},
	{"getEventAuth", "GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}", servers, small, (*API).getEventAuth},
	{"getEventByTimestamp", "GET /_matrix/federation/v1/timestamp_to_event/{roomId}", servers, small, (*API).getEventByTimestamp},
}

// page writes a list of events.
func page(p *federation.Page, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return answer{{name: "origin", value: p.Origin}, {name: "origin_server_ts", value: p.TS}, {name: "pdus", list: p.PDUs}}, nil
}

// backfillRoom gives events and what came before them.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid
func (a *API) backfillRoom(r *request) (any, error) {
	room, err := r.Room()
	if err != nil {
		return nil, err
	}
	limit, err := r.Number("limit", 10, federation.MostBackfill)
	if err != nil {
		return nil, err
	}
	var from []matrix.EventID
	for _, v := range r.URL.Query()["v"] {
		id, err := matrix.ParseEventID(v)
		if err != nil {
			return nil, err
		}
		from = append(from, id)
	}
	return page(a.Federation.Backfill(r.Context(), r.origin, room, from, int(limit)))
}

// getMissingPreviousEvents gives the events in a gap.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid
func (a *API) getMissingPreviousEvents(r *request) (any, error) {
	room, err := r.Room()
	if err != nil {
		return nil, err
	}
	var g federation.Gap
	if err := r.JSON(&g); err != nil {
		return nil, err
	}
	list, err := a.Federation.Missing(r.Context(), r.origin, room, g)
	if err != nil {
		return nil, err
	}
	return answer{{name: "events", list: list}}, nil
}

// before are the room of the path and the event of the query.
func (r *request) before() (room matrix.RoomID, id matrix.EventID, err error) {
	if room, err = r.Room(); err != nil {
		return "", "", err
	}
	name := r.URL.Query().Get("event_id")
	if name == "" {
		return "", "", matrix.Errorf(matrix.MissingParam, "event_id is missing")
	}
	id, err = matrix.ParseEventID(name)
	return room, id, err
}

// getRoomState gives the state before an event.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1stateroomid
func (a *API) getRoomState(r *request) (any, error) {
	room, id, err := r.before()
	if err != nil {
		return nil, err
	}
	state, auth, err := a.Federation.WholeStateBefore(r.Context(), r.origin, room, id)
	if err != nil {
		return nil, err
	}
	return answer{{name: "pdus", each: state}, {name: "auth_chain", each: auth}}, nil
}

// getRoomStateIDs gives the IDs of the state before an event.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid
func (a *API) getRoomStateIDs(r *request) (any, error) {
	room, id, err := r.before()
	if err != nil {
		return nil, err
	}
	s, err := a.Federation.StateBefore(r.Context(), r.origin, room, id)
	if err != nil {
		return nil, err
	}
	return s.IDs(), nil
}

// getEvent gives one event.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid
func (a *API) getEvent(r *request) (any, error) {
	id, err := r.Event()
	if err != nil {
		return nil, err
	}
	return page(a.Federation.Event(r.Context(), r.origin, id))
}

// getEventAuth gives what authorizes an event.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid
func (a *API) getEventAuth(r *request) (any, error) {
	room, id, err := r.roomEvent()
	if err != nil {
		return nil, err
	}
	list, err := a.Federation.AuthChain(r.Context(), r.origin, room, id)
	if err != nil {
		return nil, err
	}
	return answer{{name: "auth_chain", list: list}}, nil
}

// getEventByTimestamp finds the event next to a time.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid
func (a *API) getEventByTimestamp(r *request) (any, error) {
	room, err := r.Room()
	if err != nil {
		return nil, err
	}
	ts, backwards, err := r.Moment()
	if err != nil {
		return nil, err
	}
	p, err := a.Federation.ByTime(r.Context(), r.origin, room, ts, backwards)
	if err != nil {
		return nil, err
	}
	return map[string]any{"event_id": p.ID, "origin_server_ts": p.OriginServerTS}, nil
}
