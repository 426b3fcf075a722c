package clientapi

import (
	"context"
	"encoding/json"
	"net/url"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/registrations"
)

var appserviceRoutes = []route{
	{"pingAppservice", "POST /_matrix/client/v1/appservice/{appserviceId}/ping", guests, (*API).pingAppservice},
	{"", "POST /_matrix/client/unstable/fi.mau.msc2659/appservice/{appserviceId}/ping", guests, (*API).pingAppservice},
}

// Appservices asks appservices something on behalf of a client. Who calls them
// stands above this package and sets the fields; all of them are nil on a server
// without appservices.
type Appservices struct {
	// Ping calls an appservice and tells how long that took. The errors are
	// those of the operation.
	Ping func(ctx context.Context, reg *registrations.Registration, txn string) (time.Duration, error)

	// NoBatches refuses the past of rooms that appservices bring.
	NoBatches bool

	// Protocols describes all third-party networks, Protocol one of them.
	Protocols func(ctx context.Context) (map[string]json.RawMessage, error)
	Protocol  func(ctx context.Context, name string) (json.RawMessage, error)

	// Locations and Users search one network.
	Locations func(ctx context.Context, protocol string, fields url.Values) ([]json.RawMessage, error)
	Users     func(ctx context.Context, protocol string, fields url.Values) ([]json.RawMessage, error)

	// LocationsOf and UsersOf tell for what on a network something of Matrix
	// stands.
	LocationsOf func(ctx context.Context, alias matrix.RoomAlias) ([]json.RawMessage, error)
	UsersOf     func(ctx context.Context, user matrix.UserID) ([]json.RawMessage, error)
}

// pingAppservice lets an appservice find out whether the server can reach it.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#post_matrixclientv1appserviceappserviceidping
func (a *API) pingAppservice(r *request) (any, error) {
	if r.Appservice == nil || r.Appservice.ID != r.PathValue("appserviceId") {
		return nil, matrix.Errorf(matrix.Forbidden, "only the appservice itself may do this")
	}
	var body struct {
		Txn string `json:"transaction_id"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	if a.Appservices.Ping == nil {
		return nil, matrix.Errorf(matrix.URLNotSet, "this server calls no appservices")
	}
	took, err := a.Appservices.Ping(r.Context(), r.Appservice, body.Txn)
	if err != nil {
		return nil, err
	}
	return map[string]int64{"duration_ms": took.Milliseconds()}, nil
}
