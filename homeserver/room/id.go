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
