package clientapi

var timestampRoutes = []route{
	{"getEventByTimestamp", "GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event", users, (*API).getEventByTimestamp},
}

// getEventByTimestamp finds the event next to a time.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
func (a *API) getEventByTimestamp(r *request) (any, error) {
	room, err := r.Room()
	if err != nil {
		return nil, err
	}
	ts, backwards, err := r.Moment()
	if err != nil {
		return nil, err
	}
	return a.Federation.UserByTime(r.Context(), r.User, room, ts, backwards)
}
