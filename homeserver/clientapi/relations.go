package clientapi

import (
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

var relationRoutes = []route{
	{"getRelatingEvents", "GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}", guests, (*API).getRelatingEvents},
	{"getRelatingEventsWithRelType", "GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}", guests, (*API).getRelatingEvents},
	{"getRelatingEventsWithRelTypeAndEventType", "GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}", guests, (*API).getRelatingEvents},
}

// The sizes of pages of related events.
const (
	relationsDefault = 50
	relationsMost    = 500
)

// getRelatingEvents gives the events that refer to another.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventid
func (a *API) getRelatingEvents(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	event, err := r.Event()
	if err != nil {
		return nil, err
	}
	u := r.URL.Query()
	q := room.Relating{Room: id, Event: event, RelType: r.PathValue("relType"), Type: r.PathValue("eventType"), From: u.Get("from"), To: u.Get("to")}
	switch u.Get("dir") {
	case "", "b":
	case "f":
		q.Forward = true
	default:
		return nil, matrix.Errorf(matrix.InvalidParam, "dir must be b or f")
	}
	if q.Limit, err = r.Number("limit", relationsDefault, relationsMost); err != nil {
		return nil, err
	}
	if q.Limit == 0 {
		return nil, matrix.Errorf(matrix.InvalidParam, "limit must be at least 1")
	}
	recurse := "recurse"
	if !u.Has(recurse) {
		recurse = "org.matrix.msc3981.recurse" // the name where clients know the feature by its flag
	}
	if q.Recurse, err = r.Flag(recurse); err != nil {
		return nil, err
	}
	return a.Rooms.Relating(r.Context(), r.reader(), q)
}
