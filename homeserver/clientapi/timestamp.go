package clientapi

import (
	"net/url"
	"strconv"

	"switchboard/homeserver/matrix"
)

var timestampRoutes = []route{
	{"getEventByTimestamp", "GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event", users, (*API).getEventByTimestamp},
}

// getEventByTimestamp finds the event next to a time.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
func (a *API) getEventByTimestamp(r *request) (any, error) {
	room, err := r.room()
	if err != nil {
		return nil, err
	}
	ts, backwards, err := moment(r.URL.Query())
	if err != nil {
		return nil, err
	}
	return a.Federation.UserByTime(r.Context(), r.User, room, ts, backwards)
}

// moment is the time of a query in milliseconds, and whether the search goes back
// from it.
func moment(q url.Values) (ts int64, backwards bool, err error) {
	if q.Get("ts") == "" {
		return 0, false, matrix.Errorf(matrix.MissingParam, "ts is missing")
	}
	if ts, err = strconv.ParseInt(q.Get("ts"), 10, 64); err != nil {
		return 0, false, matrix.Errorf(matrix.InvalidParam, "ts must be a time in milliseconds")
	}
	switch q.Get("dir") {
	case "f":
	case "b":
		backwards = true
	case "":
		return 0, false, matrix.Errorf(matrix.MissingParam, "dir is missing")
	default:
		return 0, false, matrix.Errorf(matrix.InvalidParam, "dir must be f or b")
	}
	return ts, backwards, nil
}
