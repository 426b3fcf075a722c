package clientapi

import (
	"fmt"
	"net/url"
	"slices"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestMutualRooms(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob, eve := s.new("bob"), s.new("eve")
		var shared []string
		for i := range 4 {
			room := s.create(`{"preset":"public_chat"}`)
			if i > 0 {
				bob.want(200, "room_id", "POST", room+"/join", "{}")
			}
			if i > 1 {
				shared = append(shared, id(room))
			} else if i > 0 {
				bob.want(200, "{}", "POST", room+"/leave", "{}")
			}
		}
		slices.Sort(shared)
		path := func(user any) string {
			return "/_matrix/client/v1/mutual_rooms?user_id=" + url.QueryEscape(fmt.Sprint(user))
		}
		want := fmt.Sprintf(`{"joined":[%q,%q],"count":2}`, shared[0], shared[1])
		s.want(200, want, "GET", path(bob.user), "")
		bob.want(200, want, "GET", path(s.user), "")
		bob.want(200, `{"joined":[],"count":2}`, "GET", path(s.user)+"&from=500", "")
		for _, none := range []any{eve.user, "@nobody:a.test", "@x:elsewhere.test"} {
			s.want(200, `{"joined":[],"count":0}`, "GET", path(none), "")
		}
		s.want(400, "M_INVALID_PARAM", "GET", path(s.user), "")
		s.want(400, "M_INVALID_PARAM", "GET", path("bob"), "")
		s.want(400, "M_INVALID_PARAM", "GET", path(bob.user)+"&from=x", "")
		s.want(400, "M_MISSING_PARAM", "GET", "/_matrix/client/v1/mutual_rooms", "")
		s.nobody().want(401, "M_MISSING_TOKEN", "GET", path(bob.user), "")
		// Element asks at the path from before, and only where this says that it may.
		s.want(200, `"uk.half-shot.msc2666.query_mutual_rooms":true`, "GET", "/_matrix/client/versions", "")
		s.want(200, want, "GET", "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms?user_id="+url.QueryEscape(fmt.Sprint(bob.user)), "")
	})
}
