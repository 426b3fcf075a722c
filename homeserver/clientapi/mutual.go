package clientapi

import (
	"cmp"
	"net/url"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

var mutualRoutes = []route{
	{"getMutualRooms", "GET /_matrix/client/v1/mutual_rooms", users, (*API).getMutualRooms},
	{"", "GET /_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms", users, (*API).getMutualRoomsBefore},
}

// getMutualRooms lists the rooms that the user shares with another.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mutual_rooms
func (a *API) getMutualRooms(r *request) (any, error) {
	q := r.URL.Query()
	return a.mutualRooms(r, q, q.Get("from"))
}

// getMutualRoomsBefore is getMutualRooms under its first name. Clients that ask
// there page by "from" or, as matrix-js-sdk, by the name that this had before.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/2666
func (a *API) getMutualRoomsBefore(r *request) (any, error) {
	q := r.URL.Query()
	part, err := a.mutualRooms(r, q, cmp.Or(q.Get("from"), q.Get("batch_token")))
	if err != nil {
		return nil, err
	}
	return struct {
		*room.SharedRooms
		Next string `json:"next_batch_token,omitempty"`
	}{part, part.Next}, nil
}

func (a *API) mutualRooms(r *request, q url.Values, from string) (*room.SharedRooms, error) {
	if !q.Has("user_id") {
		return nil, matrix.Errorf(matrix.MissingParam, "user_id is missing")
	}
	other, err := matrix.ParseUserID(q.Get("user_id"))
	if err != nil {
		return nil, err
	}
	if other == r.User {
		return nil, matrix.Errorf(matrix.InvalidParam, "user_id must be somebody else's")
	}
	return a.Rooms.SharedRooms(r.Context(), r.User, other, from)
}
