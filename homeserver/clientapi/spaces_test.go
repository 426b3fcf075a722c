package clientapi

import (
	"fmt"
	"strings"
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

// TestSpaceBanned: who is banned from a room that everybody else may join is not
// shown it, unless they can read it anyway.
func TestSpaceBanned(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob, eve := s.new("bob"), s.new("eve")
		room, space := s.create(`{"preset":"public_chat"}`), s.create(`{"preset":"public_chat","creation_content":{"type":"m.space"}}`)
		s.want(200, "event_id", "PUT", space+"/state/m.space.child/"+id(room), `{"via":["a.test"]}`)
		hierarchy := func(room string) string { return strings.Replace(room, "/v3/", "/v1/", 1) + "/hierarchy" }
		shown := func(as *server, n int) {
			t.Helper()
			if list, _ := as.want(200, "rooms", "GET", hierarchy(space), "").at("rooms").([]any); len(list) != n {
				t.Errorf("%s is shown %v, want %d rooms", as.user, list, n)
			}
		}
		s.want(200, "{}", "POST", room+"/ban", fmt.Sprintf(`{"user_id":%q}`, bob.user))
		shown(bob, 1)
		shown(eve, 2)
		bob.want(403, "M_FORBIDDEN", "GET", hierarchy(room), "")
		s.want(200, "event_id", "PUT", room+"/state/m.room.history_visibility", `{"history_visibility":"world_readable"}`)
		shown(bob, 2)
		s.want(200, "{}", "POST", space+"/ban", fmt.Sprintf(`{"user_id":%q}`, bob.user))
		bob.want(403, "M_FORBIDDEN", "GET", hierarchy(space), "")
	})
}
