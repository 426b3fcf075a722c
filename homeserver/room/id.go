package room

import (
	"crypto/rand"

	"switchboard/homeserver/matrix"
)

// newRoomID makes the ID of a room whose version does not derive it.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#room-ids
func newRoomID(server matrix.ServerName) matrix.RoomID {
	return matrix.RoomID("!" + rand.Text()[:18] + ":" + string(server))
}

// newEventID makes the ID of a local event that brings none.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#event-ids
func newEventID(server matrix.ServerName) matrix.EventID {
	return matrix.EventID("$" + rand.Text() + ":" + string(server))
}
