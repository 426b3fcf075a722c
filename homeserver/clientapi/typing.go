package clientapi

import (
	"time"

	"switchboard/homeserver/edge"

	"switchboard/homeserver/matrix"
)

var typingRoutes = []route{
	{"setTyping", "PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}", users, (*API).setTyping},
}

// setTyping says that the user types, or has stopped.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid
func (a *API) setTyping(r *request) (any, error) {
	if err := r.self(); err != nil {
		return nil, err
	}
	room, err := r.Room()
	if err != nil {
		return nil, err
	}
	var body struct {
		Typing  *bool `json:"typing"`
		Timeout int64 `json:"timeout"` // ms
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	if body.Typing == nil {
		return nil, matrix.Errorf(matrix.MissingParam, "typing is missing")
	}
	timeout := time.Duration(min(body.Timeout, time.Hour.Milliseconds())) * time.Millisecond
	return edge.Empty{}, a.Ephemeral.SetTyping(r.Context(), r.User, room, *body.Typing, timeout)
}
