package clientapi

import (
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestUpgradeRoom(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		id := s.want(200, "room_id", "POST", "/_matrix/client/v3/createRoom", `{"preset":"public_chat","room_version":"11"}`).text("room_id")
		path := "/_matrix/client/v3/rooms/" + id
		bob.want(200, "room_id", "POST", path+"/join", "")

		bob.want(403, "M_FORBIDDEN", "POST", path+"/upgrade", `{"new_version":"12"}`)
		s.want(400, "M_UNSUPPORTED_ROOM_VERSION", "POST", path+"/upgrade", `{"new_version":"99"}`)
		s.want(400, "M_MISSING_PARAM", "POST", path+"/upgrade", `{}`)
		s.want(400, "M_BAD_JSON", "POST", path+"/upgrade", `{"new_version":12}`)
		s.want(400, "M_NOT_JSON", "POST", path+"/upgrade", `{`)
		s.nobody().want(401, "M_MISSING_TOKEN", "POST", path+"/upgrade", `{"new_version":"12"}`)
		s.want(404, "M_NOT_FOUND", "GET", path+"/state/m.room.tombstone", "")

		next := s.want(200, "replacement_room", "POST", path+"/upgrade", `{"new_version":"12","additional_creators":["@bob:a.test"]}`).text("replacement_room")
		s.want(200, `{"body":"This room has been replaced","replacement_room":"`+next+`"}`, "GET", path+"/state/m.room.tombstone", "")
		s.want(200, `{"additional_creators":["@bob:a.test"],"predecessor":{"room_id":"`+id+`"},"room_version":"12"}`, "GET",
			"/_matrix/client/v3/rooms/"+next+"/state/m.room.create", "")
		bob.want(403, "M_FORBIDDEN", "PUT", path+"/send/m.room.message/1", `{"msgtype":"m.text","body":"x"}`)
		bob.want(200, "room_id", "POST", "/_matrix/client/v3/rooms/"+next+"/join", "")
		bob.want(200, "event_id", "PUT", "/_matrix/client/v3/rooms/"+next+"/send/m.room.message/1", `{"msgtype":"m.text","body":"x"}`)
	})
}
