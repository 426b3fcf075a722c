package clientapi

import (
	"switchboard/homeserver/federation"
	"switchboard/homeserver/matrix"
)

var spaceRoutes = []route{
	{"getSpaceHierarchy", "GET /_matrix/client/v1/rooms/{roomId}/hierarchy", users, (*API).getSpaceHierarchy},
}

// The sizes of answers of getSpaceHierarchy.
const (
	usualSpace = 50
	mostSpace  = 200
)

// getSpaceHierarchy shows the rooms of a space.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy
func (a *API) getSpaceHierarchy(r *request) (any, error) {
	q := federation.SpaceQuery{From: r.URL.Query().Get("from"), Depth: -1}
	var err error
	if q.Room, err = r.Room(); err != nil {
		return nil, err
	}
	if q.Suggested, err = r.Flag("suggested_only"); err != nil {
		return nil, err
	}
	if q.Limit, err = r.Number("limit", usualSpace, mostSpace); err != nil {
		return nil, err
	}
	if q.Limit == 0 {
		return nil, matrix.Errorf(matrix.InvalidParam, "limit must be greater than zero")
	}
	if r.URL.Query().Has("max_depth") {
		if q.Depth, err = r.Number("max_depth", 0, 100); err != nil {
			return nil, err
		}
	}
	return a.Federation.UserHierarchy(r.Context(), r.User, q)
}
