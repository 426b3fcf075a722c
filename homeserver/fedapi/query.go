package fedapi

import (
	"encoding/json"

	"switchboard/homeserver/directory"
	"switchboard/homeserver/matrix"
)

var queryRoutes = []route{
	{"queryProfile", "GET /_matrix/federation/v1/query/profile", servers, small, (*API).queryProfile},
	{"queryRoomDirectory", "GET /_matrix/federation/v1/query/directory", servers, small, (*API).queryRoomDirectory},
	{"queryInfo", "GET /_matrix/federation/v1/query/{queryType}", servers, small, (*API).queryInfo},
	{"getPublicRooms", "GET /_matrix/federation/v1/publicRooms", servers, small, (*API).getPublicRooms},
	{"queryPublicRooms", "POST /_matrix/federation/v1/publicRooms", servers, small, (*API).queryPublicRooms},
	{"getSpaceHierarchy", "GET /_matrix/federation/v1/hierarchy/{roomId}", servers, small, (*API).getSpaceHierarchy},
}

// queryProfile tells what a user of this server tells about itself.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile
func (a *API) queryProfile(r *request) (any, error) {
	user, err := r.user("user_id")
	if err != nil {
		return nil, err
	}
	if user.Server() != a.ServerName {
		return nil, matrix.Errorf(matrix.InvalidParam, "%s is a user of another server", user)
	}
	p, err := a.Accounts.Profile(r.Context(), user)
	if err != nil {
		return nil, err
	}
	field := r.URL.Query().Get("field")
	if field == "" {
		return p, nil
	}
	out := map[string]json.RawMessage{}
	if v, ok := p[field]; ok {
		out[field] = v
	}
	return out, nil
}

// queryRoomDirectory finds the room that an alias of this server stands for.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory
func (a *API) queryRoomDirectory(r *request) (any, error) {
	name := r.URL.Query().Get("room_alias")
	if name == "" {
		return nil, matrix.Errorf(matrix.MissingParam, "room_alias is missing")
	}
	alias, err := matrix.ParseRoomAlias(name)
	if err != nil {
		return nil, err
	}
	if alias.Server() != a.ServerName {
		return nil, matrix.Errorf(matrix.InvalidParam, "%s is a name of another server", alias)
	}
	id, _, err := a.Directory.Resolve(r.Context(), alias)
	if err != nil {
		return nil, err
	}
	hosts, err := a.Federation.Hosts(r.Context(), id)
	if err != nil {
		return nil, err
	}
	return map[string]any{"room_id": id, "servers": hosts}, nil
}

// queryInfo answers questions of types that nobody defined.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryquerytype
func (a *API) queryInfo(*request) (any, error) {
	return nil, matrix.Errorf(matrix.Unrecognized, "unrecognized type of query")
}

// getPublicRooms gives a part of the list of public rooms.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1publicrooms
func (a *API) getPublicRooms(r *request) (any, error) {
	limit, err := r.Number("limit", 0, 1<<20)
	if err != nil {
		return nil, err
	}
	all, err := r.Flag("include_all_networks")
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	return a.Directory.PublicRooms(r.Context(), directory.Query{
		Limit: limit, Since: q.Get("since"), AllNetworks: all, Network: q.Get("third_party_instance_id"),
	})
}

// queryPublicRooms searches the list of public rooms.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1publicrooms
func (a *API) queryPublicRooms(r *request) (any, error) {
	var q directory.Query
	if err := r.JSON(&q); err != nil {
		return nil, err
	}
	return a.Directory.PublicRooms(r.Context(), q)
}

// getSpaceHierarchy shows the rooms of a space.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid
func (a *API) getSpaceHierarchy(r *request) (any, error) {
	room, err := r.Room()
	if err != nil {
		return nil, err
	}
	suggested, err := r.Flag("suggested_only")
	if err != nil {
		return nil, err
	}
	return a.Federation.Hierarchy(r.Context(), r.origin, room, suggested)
}
