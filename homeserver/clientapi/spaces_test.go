package clientapi

import (
	"testing"

	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestSpaceHierarchy(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		id, err := s.api.Rooms.Create(t.Context(), room.Creation{Creator: s.user, Preset: "private_chat"})
		if err != nil {
			t.Fatal(err)
		}
		path := "/_matrix/client/v1/rooms/" + string(id) + "/hierarchy"
		s.want(200, `"children_state":[]`, "GET", path, "")
		s.want(200, `"room_id":"`+string(id)+`"`, "GET", path+"?limit=1&max_depth=3&suggested_only=true", "")
		s.want(400, "M_INVALID_PARAM", "GET", path+"?from=nowhere", "")
		for _, limit := range []string{"some", "-1", "0"} {
			s.want(400, "M_INVALID_PARAM", "GET", path+"?limit="+limit, "")
		}
		s.new("bob").want(403, "M_FORBIDDEN", "GET", path, "")
	})
}
