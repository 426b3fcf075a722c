package clientapi

import (
	"switchboard/homeserver/edge"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

var reportRoutes = []route{
	{"reportEvent", "POST /_matrix/client/v3/rooms/{roomId}/report/{eventId}", users, (*API).reportEvent},
	{"reportRoom", "POST /_matrix/client/v3/rooms/{roomId}/report", users, (*API).reportRoom},
	{"reportUser", "POST /_matrix/client/v3/users/{userId}/report", users, (*API).reportUser},
	// Where clients of ruma, such as Element X, look on a server that does not say v1.14.
	{"", "POST /_matrix/client/unstable/org.matrix.msc4151/rooms/{roomId}/report", users, (*API).reportRoom},
	{"", "POST /_matrix/client/unstable/org.matrix.msc4260/users/{userId}/report", users, (*API).reportUser},
}

// reportEvent tells the administrators of an event.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreporteventid
func (a *API) reportEvent(r *request) (any, error) {
	event, err := r.Event()
	if err != nil {
		return nil, err
	}
	return a.reportIn(r, room.Reported{Event: event})
}

// reportRoom tells the administrators of a room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreport
func (a *API) reportRoom(r *request) (any, error) { return a.reportIn(r, room.Reported{}) }

// reportIn tells of the room in the path, or something in it.
func (a *API) reportIn(r *request, report room.Reported) (_ any, err error) {
	if report.Room, err = r.Room(); err != nil {
		return nil, err
	}
	return a.report(r, report)
}

// reportUser tells the administrators of a user.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3usersuseridreport
func (a *API) reportUser(r *request) (any, error) {
	user, err := matrix.ParseUserID(r.PathValue("userId"))
	if err != nil {
		return nil, err
	}
	return a.report(r, room.Reported{User: user})
}

func (a *API) report(r *request, report room.Reported) (any, error) {
	var body struct {
		Reason string `json:"reason"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	report.By, report.Reason = r.User, body.Reason
	return edge.Empty{}, a.Rooms.Report(r.Context(), report)
}
