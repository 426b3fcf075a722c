package clientapi

import (
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

var threadRoutes = []route{
	{"getThreadRoots", "GET /_matrix/client/v1/rooms/{roomId}/threads", users, (*API).getThreadRoots},
}

// The sizes of pages of threads.
const (
	threadsDefault = 20
	threadsMost    = 100
)

// getThreadRoots lists the threads of a room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidthreads
func (a *API) getThreadRoots(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	q := room.ThreadsAsked{Room: id, From: r.URL.Query().Get("from")}
	switch r.URL.Query().Get("include") {
	case "", "all":
	case "participated":
		q.Own = true
	default:
		return nil, matrix.Errorf(matrix.InvalidParam, "include must be all or participated")
	}
	if q.Limit, err = r.Number("limit", threadsDefault, threadsMost); err != nil {
		return nil, err
	}
	if q.Limit == 0 {
		return nil, matrix.Errorf(matrix.InvalidParam, "limit must be at least 1")
	}
	return a.Rooms.Threads(r.Context(), r.reader(), q)
}
