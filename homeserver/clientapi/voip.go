package clientapi

import (
	"context"

	"switchboard/homeserver/edge"
	"switchboard/homeserver/matrix"
)

var voipRoutes = []route{
	{"getTurnServer", "GET /_matrix/client/v3/voip/turnServer", users, (*API).getTurnServer},
}

// TURNServer is what a client needs to have its calls relayed.
type TURNServer struct {
	Username string   `json:"username"`
	Password string   `json:"password"`
	URIs     []string `json:"uris"`
	TTL      int64    `json:"ttl"` // seconds
}

// AskTURN gives a user credentials for a TURN server; nil if there is none.
type AskTURN func(ctx context.Context, user matrix.UserID) (*TURNServer, error)

// getTurnServer tells which TURN server relays the user's calls, with fresh
// credentials. The answer is an empty object if none does.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3voipturnserver
func (a *API) getTurnServer(r *request) (any, error) {
	if a.TURN == nil {
		return edge.Empty{}, nil
	}
	server, err := a.TURN(r.Context(), r.User)
	if err != nil {
		return nil, err
	}
	if server == nil {
		return edge.Empty{}, nil
	}
	return server, nil
}
