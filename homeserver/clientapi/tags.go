package clientapi

import (
	"switchboard/homeserver/edge"
	"switchboard/homeserver/matrix"
)

var tagRoutes = []route{
	{"getRoomTags", "GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags", users, (*API).getRoomTags},
	{"setRoomTag", "PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}", users, (*API).setRoomTag},
	{"deleteRoomTag", "DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}", users, (*API).deleteRoomTag},
}

// ownRoom is the room of a path that must name the user who asks.
func (r *request) ownRoom() (matrix.RoomID, error) {
	if err := r.self(); err != nil {
		return "", err
	}
	return r.Room()
}

// getRoomTags lists the tags that the user has put on a room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidtags
func (a *API) getRoomTags(r *request) (any, error) {
	room, err := r.ownRoom()
	if err != nil {
		return nil, err
	}
	tags, err := a.Accounts.Tags(r.Context(), r.User, room)
	if err != nil {
		return nil, err
	}
	return map[string]any{"tags": tags}, nil
}

// setRoomTag puts a tag on a room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidtagstag
func (a *API) setRoomTag(r *request) (any, error) {
	room, err := r.ownRoom()
	if err != nil {
		return nil, err
	}
	content, err := r.Object()
	if err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Accounts.SetTag(r.Context(), r.User, room, r.PathValue("tag"), content)
}

// deleteRoomTag takes a tag away from a room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3useruseridroomsroomidtagstag
func (a *API) deleteRoomTag(r *request) (any, error) {
	room, err := r.ownRoom()
	if err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Accounts.SetTag(r.Context(), r.User, room, r.PathValue("tag"), nil)
}
