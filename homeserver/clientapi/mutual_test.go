package clientapi

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"switchboard/homeserver/room"
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
		path := func(user any) string {
			return "/_matrix/client/v1/mutual_rooms?user_id=" + url.QueryEscape(fmt.Sprint(user))
		}
		want := fmt.Sprintf(`{"joined":[%q,%q],"count":2}`, shared[0], shared[1])
		s.want(200, want, "GET", path(bob.user), "")
		bob.want(200, want, "GET", path(s.user), "")
		bob.want(200, `{"joined":[],"count":2}`, "GET", path(s.user)+"&from=500000", "")
		for _, none := range []any{eve.user, "@nobody:a.test", "@x:elsewhere.test"} {
			s.want(200, `{"joined":[],"count":0}`, "GET", path(none), "")
		}
		s.want(400, "M_INVALID_PARAM", "GET", path(s.user), "")
		s.want(400, "M_INVALID_PARAM", "GET", path("bob"), "")
		for _, from := range []string{"x", "-1", "0", "99999999999999999999"} {
			s.want(400, "M_INVALID_PARAM", "GET", path(bob.user)+"&from="+from, "")
		}
		s.want(400, "M_MISSING_PARAM", "GET", "/_matrix/client/v1/mutual_rooms", "")
		s.nobody().want(401, "M_MISSING_TOKEN", "GET", path(bob.user), "")
		// Element asks at the path from before, and only where this says that it may.
		s.want(200, `"uk.half-shot.msc2666.query_mutual_rooms":true`, "GET", "/_matrix/client/versions", "")
		s.want(200, want, "GET", "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms?user_id="+url.QueryEscape(fmt.Sprint(bob.user)), "")
	})
}

// TestMutualRoomsPaged goes through more rooms than fit in an answer, at both
// paths, by each of the names that clients know; rooms that are left meanwhile hide
// no others.
func TestMutualRoomsPaged(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		const rooms = 102
		var group errgroup.Group
		group.SetLimit(32)
		for range rooms {
			group.Go(func() error {
				id, err := s.api.Rooms.Create(t.Context(), room.Creation{Creator: s.user, Preset: "public_chat"})
				if err != nil {
					return err
				}
				return s.api.Rooms.Join(t.Context(), room.Change{Room: id, Actor: bob.user})
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		const before = "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms"
		for _, c := range []struct{ path, next, from string }{
			{"/_matrix/client/v1/mutual_rooms", "next_batch", "from"}, {before, "next_batch", "from"}, {before, "next_batch_token", "batch_token"},
		} {
			path := c.path + "?user_id=" + url.QueryEscape(string(bob.user))
			first := s.want(200, fmt.Sprintf(`"count":%d`, rooms), "GET", path, "")
			second := s.want(200, fmt.Sprintf(`"count":%d`, rooms), "GET", path+"&"+c.from+"="+first.text(c.next), "")
			if all := slices.Concat(first.at("joined").([]any), second.at("joined").([]any)); len(all) != rooms || second.at(c.next) != nil {
				t.Errorf("%s by %s: %d rooms, then %v", c.path, c.from, len(all), second.at(c.next))
			}
			if c.path != before && (first.at("next_batch_token") != nil || !strings.Contains(s.do("GET", path+"&batch_token="+first.text(c.next), "").Body.String(), `"next_batch":`)) {
				t.Error("the old names are known at the new path")
			}
		}
		path := before + "?user_id=" + url.QueryEscape(string(bob.user))
		first := s.want(200, "next_batch", "GET", path, "")
		bob.want(200, `{}`, "POST", v3+"rooms/"+first.at("joined").([]any)[0].(string)+"/leave", `{}`)
		second := s.want(200, "joined", "GET", path+"&from="+first.text("next_batch"), "")
		if n := len(second.at("joined").([]any)); n != 2 {
			t.Errorf("%d rooms are left, want 2", n)
		}
	})
}
