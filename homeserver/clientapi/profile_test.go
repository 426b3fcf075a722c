package clientapi

import (
	"context"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestProfile(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		const mine = v3 + "profile/@alice:a.test"
		s := start(t, st)
		s.want(200, `{"displayname":"alice"}`, "GET", mine, "")
		s.want(200, `{}`, "DELETE", mine+"/displayname", "")
		s.want(200, `{}`, "GET", mine, "")
		s.want(200, "{}", "GET", mine+"/displayname", "")
		s.want(200, `{}`, "PUT", mine+"/displayname", `{"displayname":"Alice A"}`)
		s.want(200, `{}`, "PUT", mine+"/avatar_url", `{"avatar_url":"mxc://a.test/x"}`)
		s.want(200, `{}`, "PUT", strings.Replace(mine, "/v3/", "/unstable/uk.tcpip.msc4133/", 1)+"/m.tz", `{"m.tz":"Europe/Berlin"}`)
		s.want(200, `{}`, "PUT", mine+"/org.x", `{"org.x":{"a":[1,null]},"other":1}`)
		s.nobody().want(200, `{"avatar_url":"mxc://a.test/x","displayname":"Alice A","m.tz":"Europe/Berlin","org.x":{"a":[1,null]}}`, "GET", mine, "")
		s.nobody().want(200, `{"org.x":{"a":[1,null]}}`, "GET", mine+"/org.x", "")
		s.want(200, `{}`, "DELETE", mine+"/org.x", "")
		s.want(200, `{}`, "DELETE", mine+"/org.x", "")
		s.want(200, `{}`, "PUT", mine+"/avatar_url", `{"avatar_url":""}`) // none
		s.want(200, `{}`, "PUT", mine+"/m.tz", `{"m.tz":null}`)
		s.want(200, `{"displayname":"Alice A","m.tz":null}`, "GET", mine, "")

		s.want(200, `{}`, "PATCH", mine, `{"displayname":"Alice","com.beeper.bridge.service":"irc","org.y":[]}`)
		s.want(200, `{"com.beeper.bridge.service":"irc","displayname":"Alice","m.tz":null,"org.y":[]}`, "GET", mine, "")
		s.want(400, "M_INVALID_PARAM", "PATCH", mine, `{"displayname":"Nobody","Bad Key":1}`)
		s.want(400, "M_BAD_JSON", "PATCH", mine, `[]`)
		s.want(200, `{"displayname":"Alice"}`, "GET", mine+"/displayname", "")
		s.want(403, "M_FORBIDDEN", "PATCH", v3+"profile/@bob:a.test", `{"displayname":"B"}`)

		s.want(404, "M_NOT_FOUND", "GET", v3+"profile/@nobody:a.test", "")
		s.want(400, "M_INVALID_PARAM", "GET", v3+"profile/nobody", "")
		s.want(403, "M_FORBIDDEN", "PUT", v3+"profile/@bob:a.test/displayname", `{"displayname":"B"}`)
		s.want(403, "M_FORBIDDEN", "DELETE", v3+"profile/@bob:a.test/displayname", "")
		s.nobody().want(401, "M_MISSING_TOKEN", "PUT", mine+"/displayname", `{"displayname":"B"}`)
		s.want(400, "M_MISSING_PARAM", "PUT", mine+"/displayname", `{"name":"B"}`)
		s.want(400, "M_BAD_JSON", "PUT", mine+"/displayname", `{"displayname":1}`)
		s.want(400, "M_INVALID_PARAM", "PUT", mine+"/displayname", `{"displayname":"`+strings.Repeat("x", 257)+`"}`)
		s.want(400, "M_INVALID_PARAM", "PUT", mine+"/displayname", `{"displayname":"\u0000"}`)
		s.want(400, "M_NOT_JSON", "PUT", mine+"/displayname", `{`)
		s.want(400, "M_INVALID_PARAM", "PUT", mine+"/Bad%20Key", `{"Bad Key":1}`)
		long := strings.Repeat("k", 256)
		s.want(400, "M_KEY_TOO_LARGE", "PUT", mine+"/"+long, `{"`+long+`":1}`)
		s.want(200, `{}`, "PUT", mine+"/org.big", `{"org.big":"`+strings.Repeat("x", 40<<10)+`"}`)
		s.want(400, "M_PROFILE_TOO_LARGE", "PUT", mine+"/org.big2", `{"org.big2":"`+strings.Repeat("x", 30<<10)+`"}`)
		s.want(200, `{}`, "PUT", mine+"/org.big", `{"org.big":"`+strings.Repeat("y", 50<<10)+`"}`) // in place of the old one
	})
}

// A new name goes into the rooms of the user, and a deactivated user leaves.
func TestProfileInRooms(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.want(200, "room_id", "POST", v3+"createRoom", `{"preset":"public_chat"}`).text("room_id")
		bob.want(200, room, "POST", v3+"join/"+room, `{}`)
		member := v3 + "rooms/" + room + "/state/m.room.member/@alice:a.test"
		s.want(200, `{}`, "PUT", v3+"profile/@alice:a.test/displayname", `{"displayname":"Alice"}`)
		bob.want(200, `"displayname":"Alice"`, "GET", member, "")
		s.want(200, `{}`, "DELETE", v3+"profile/@alice:a.test/displayname", "")
		if a := bob.want(200, `"membership":"join"`, "GET", member, ""); a["displayname"] != nil {
			t.Errorf("got %v", a)
		}
		s.want(200, `success`, "POST", v3+"account/deactivate", `{`+pass("alice", password)+`}`)
		bob.want(200, `"membership":"leave"`, "GET", member, "")
	})
}

func TestSuspendedProfile(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		if err := s.api.Accounts.SetSuspended(t.Context(), s.user, true); err != nil {
			t.Fatal(err)
		}
		s.want(403, "M_USER_SUSPENDED", "PUT", v3+"profile/@alice:a.test/displayname", `{"displayname":"A"}`)
		s.want(200, "alice", "GET", v3+"account/whoami", "")
	})
}

// TestProfileInAllRooms has a client leave when its new name is in the first of its
// rooms: the others get it, too.
func TestProfileInAllRooms(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		rooms := make([]string, 20)
		for i := range rooms {
			rooms[i] = s.room()
		}
		ctx, leave := context.WithCancel(t.Context())
		first := s.api.Rooms.Bell.Listen(store.LogBell)
		go func() {
			<-first
			leave()
		}()
		r := httptest.NewRequestWithContext(ctx, "PUT", v3+"profile/@alice:a.test/displayname", strings.NewReader(`{"displayname":"Al"}`))
		r.Header.Set("Authorization", "Bearer "+s.token)
		s.handler.ServeHTTP(httptest.NewRecorder(), r)
		for _, room := range rooms {
			s.want(200, `{"displayname":"Al","membership":"join"}`, "GET", v3+"rooms/"+url.PathEscape(room)+"/state/m.room.member/@alice:a.test", "")
		}
	})
}
