package clientapi

import (
	"switchboard/homeserver/edge"
	"switchboard/homeserver/matrix"
)

var presenceRoutes = []route{
	{"setPresence", "PUT /_matrix/client/v3/presence/{userId}/status", users, (*API).setPresence},
	{"getPresence", "GET /_matrix/client/v3/presence/{userId}/status", users, (*API).getPresence},
}

// setPresence says whether the user is there.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3presenceuseridstatus
func (a *API) setPresence(r *request) (any, error) {
	if err := r.self(); err != nil {
		return nil, err
	}
	var body struct {
		Presence string  `json:"presence"`
		Message  *string `json:"status_msg"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	if body.Presence == "" {
		return nil, matrix.Errorf(matrix.MissingParam, "presence is missing")
	}
	if body.Message != nil && *body.Message != "" {
		if err := r.active(); err != nil {
			return nil, err
		}
	}
	return edge.Empty{}, a.Ephemeral.SetPresence(r.Context(), r.User, r.Device, body.Presence, body.Message)
}

// getPresence tells whether a user is there.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3presenceuseridstatus
func (a *API) getPresence(r *request) (any, error) {
	user, err := matrix.ParseUserID(r.PathValue("userId"))
	if err != nil {
		return nil, err
	}
	return a.Ephemeral.Presence(r.Context(), r.User, user)
}
