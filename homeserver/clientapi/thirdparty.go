package clientapi

import (
	"encoding/json"

	"switchboard/homeserver/edge"

	"switchboard/homeserver/matrix"
)

var thirdPartyRoutes = []route{
	{"getProtocols", "GET /_matrix/client/v3/thirdparty/protocols", users, (*API).getProtocols},
	{"getProtocolMetadata", "GET /_matrix/client/v3/thirdparty/protocol/{protocol}", users, (*API).getProtocolMetadata},
	{"queryLocationByProtocol", "GET /_matrix/client/v3/thirdparty/location/{protocol}", users, (*API).queryLocationByProtocol},
	{"queryUserByProtocol", "GET /_matrix/client/v3/thirdparty/user/{protocol}", users, (*API).queryUserByProtocol},
	{"queryLocationByAlias", "GET /_matrix/client/v3/thirdparty/location", users, (*API).queryLocationByAlias},
	{"queryUserByID", "GET /_matrix/client/v3/thirdparty/user", users, (*API).queryUserByID},
}

// noNetwork answers where no appservice serves any third-party network.
func noNetwork() error {
	return matrix.Errorf(matrix.NotFound, "no appservice serves this network")
}

// getProtocols describes the third-party networks that can be reached.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocols
func (a *API) getProtocols(r *request) (any, error) {
	if a.Appservices.Protocols == nil {
		return edge.Empty{}, nil
	}
	return a.Appservices.Protocols(r.Context())
}

// getProtocolMetadata describes one third-party network.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocolprotocol
func (a *API) getProtocolMetadata(r *request) (any, error) {
	if a.Appservices.Protocol == nil {
		return nil, noNetwork()
	}
	return a.Appservices.Protocol(r.Context(), r.PathValue("protocol"))
}

// queryLocationByProtocol finds the rooms of a place on a network.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartylocationprotocol
func (a *API) queryLocationByProtocol(r *request) (any, error) {
	if a.Appservices.Locations == nil {
		return nil, noNetwork()
	}
	return a.Appservices.Locations(r.Context(), r.PathValue("protocol"), fields(r))
}

// queryUserByProtocol finds the Matrix users of people on a network.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuserprotocol
func (a *API) queryUserByProtocol(r *request) (any, error) {
	if a.Appservices.Users == nil {
		return nil, noNetwork()
	}
	return a.Appservices.Users(r.Context(), r.PathValue("protocol"), fields(r))
}

// fields are the query of a request, without what is meant for this server.
func fields(r *request) map[string][]string {
	q := r.URL.Query()
	for _, ours := range []string{"access_token", "user_id", "device_id", "org.matrix.msc3202.device_id"} {
		q.Del(ours)
	}
	return q
}

// queryLocationByAlias finds the places on networks that an alias stands for.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartylocation
func (a *API) queryLocationByAlias(r *request) (any, error) {
	alias, err := matrix.ParseRoomAlias(r.URL.Query().Get("alias"))
	if err != nil {
		return nil, err
	}
	if a.Appservices.LocationsOf == nil {
		return []json.RawMessage{}, nil
	}
	return a.Appservices.LocationsOf(r.Context(), alias)
}

// queryUserByID finds the people on networks that a user stands for.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuser
func (a *API) queryUserByID(r *request) (any, error) {
	user, err := matrix.ParseUserID(r.URL.Query().Get("userid"))
	if err != nil {
		return nil, err
	}
	if a.Appservices.UsersOf == nil {
		return []json.RawMessage{}, nil
	}
	return a.Appservices.UsersOf(r.Context(), user)
}
