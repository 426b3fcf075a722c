package clientapi

import (
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

var upgradeRoutes = []route{
	{"upgradeRoom", "POST /_matrix/client/v3/rooms/{roomId}/upgrade", users, (*API).upgradeRoom},
}

// upgradeRoom replaces a room by one of another version.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidupgrade
func (a *API) upgradeRoom(r *request) (any, error) {
	if err := r.active(); err != nil {
		return nil, err
	}
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	var u room.Upgrade
	if err := r.JSON(&u); err != nil {
		return nil, err
	}
	u.Room, u.User = id, r.User
	replacement, err := a.Rooms.Upgrade(r.Context(), u)
	if err != nil {
		return nil, err
	}
	return map[string]matrix.RoomID{"replacement_room": replacement}, nil
}
