package clientapi

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// create makes a room and gives the path under which it lies.
func (s *server) create(body string) string {
	s.t.Helper()
	return v3 + "rooms/" + url.PathEscape(s.want(200, "room_id", "POST", v3+"createRoom", body).text("room_id"))
}

// id is the room ID of a path that create gave.
func id(room string) string {
	s, _ := url.PathUnescape(strings.TrimPrefix(room, v3+"rooms/"))
	return s
}

func TestCreateRoom(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		tests := []struct {
			body string
			code int
			want string
		}{
			{``, 200, "room_id"}, // as clients of before v1.1 do
			{`{}`, 200, "room_id"},
			{`{"preset":null,"invite":null,"name":null}`, 200, "room_id"},
			{`{`, 400, "M_NOT_JSON"},
			{`[]`, 400, "M_BAD_JSON"},
			{`"x"`, 400, "M_BAD_JSON"},
			{"{\"name\":\"\xff\"}", 400, "M_NOT_JSON"},
			{`{"preset":"nonsense"}`, 400, "M_INVALID_PARAM"},
			{`{"preset":5}`, 400, "M_BAD_JSON"},
			{`{"visibility":"nonsense"}`, 400, "M_INVALID_PARAM"},
			{`{"room_version":"9999"}`, 400, "M_UNSUPPORTED_ROOM_VERSION"},
			{`{"room_version":12}`, 400, "M_BAD_JSON"},
			{`{"name":5}`, 400, "M_BAD_JSON"},
			{`{"invite":["bob"]}`, 400, "M_INVALID_PARAM"},
			{`{"invite":"@bob:a.test"}`, 400, "M_BAD_JSON"},
			{`{"invite":["@alice:a.test"]}`, 400, "M_INVALID_ROOM_STATE"},
			{`{"invite_3pid":[{"medium":"email","address":"a@b"}]}`, 403, "M_THREEPID_DENIED"},
			{`{"room_alias_name":"a:b"}`, 400, "M_INVALID_PARAM"},
			{`{"room_alias_name":"a\u0000b"}`, 400, "M_INVALID_PARAM"},
			{`{"room_alias_name":"` + strings.Repeat("x", 300) + `"}`, 400, "M_INVALID_PARAM"},
			{`{"initial_state":[{}]}`, 400, "M_"},
			{`{"initial_state":[{"type":"m.room.topic"}]}`, 400, "M_"},
			{`{"initial_state":[{"type":"m.room.topic","content":5}]}`, 400, "M_BAD_JSON"},
			{`{"initial_state":[{"type":"m.room.topic","content":null}]}`, 400, "M_"},
			{`{"initial_state":[{"type":"m.room.create","content":{}}]}`, 400, "M_"},
			{`{"initial_state":[{"type":"a\u0000","content":{}}]}`, 400, "M_"},
			{`{"initial_state":[{"type":"a","state_key":"\u0000","content":{}}]}`, 400, "M_"},
			{`{"initial_state":[{"type":"a","state_key":5,"content":{}}]}`, 400, "M_BAD_JSON"},
			{`{"initial_state":[{"type":"a","content":{"n":1.5}}]}`, 400, "M_BAD_JSON"},
			{`{"initial_state":[{"type":"a","content":{"a":1,"a":2}}]}`, 400, "M_"},
			{`{"creation_content":[]}`, 400, "M_BAD_JSON"},
			{`{"creation_content":{"additional_creators":["x"]}}`, 400, "M_"},
			{`{"creation_content":{"additional_creators":5}}`, 400, "M_"},
			{`{"creation_content":{"m.federate":false,"room_version":"1","type":"m.space"}}`, 200, "room_id"},
			{`{"power_level_content_override":{"users":{"@alice:a.test":100}}}`, 400, "M_INVALID_ROOM_STATE"}, // version 12
			{`{"power_level_content_override":{"users":{"@alice:a.test":0}},"room_version":"11"}`, 400, "M_INVALID_ROOM_STATE"},
			{`{"power_level_content_override":{"ban":"x"}}`, 400, "M_"},
			{`{"power_level_content_override":5}`, 400, "M_BAD_JSON"},
			{`{"name":"` + strings.Repeat("x", 70_000) + `"}`, 413, "M_TOO_LARGE"},
		}
		for _, tt := range tests {
			s.want(tt.code, tt.want, "POST", v3+"createRoom", tt.body)
		}
		s.nobody().want(401, "M_MISSING_TOKEN", "POST", v3+"createRoom", "{}")
		s.want(200, "room_id", "POST", v3+"createRoom", `{"room_alias_name":"tea"}`)
		bob.want(400, "M_ROOM_IN_USE", "POST", v3+"createRoom", `{"room_alias_name":"tea"}`)
		if rooms, _ := bob.want(200, "joined_rooms", "GET", v3+"joined_rooms", "").at("joined_rooms").([]any); len(rooms) != 0 {
			t.Errorf("a creation that failed left %v", rooms)
		}
	})
}

func TestCreatedState(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"preset":"trusted_private_chat","room_alias_name":"tea","name":"Tea","topic":"Leaves","visibility":"public","is_direct":true,"invite":["@bob:a.test"],
			"creation_content":{"creator":"@eve:a.test","x":1},
			"initial_state":[{"type":"m.room.name","content":{"name":"overwritten"}},{"type":"m.room.history_visibility","content":{"history_visibility":"joined"}},{"type":"x","state_key":"k","content":{"n":1}}],
			"power_level_content_override":{"users_default":5}}`)
		for path, want := range map[string]string{
			"m.room.name": `{"name":"Tea"}`, "m.room.history_visibility/": `{"history_visibility":"joined"}`, "x/k": `{"n":1}`,
			"m.room.canonical_alias": `{"alias":"#tea:a.test"}`, "m.room.join_rules": `{"join_rule":"invite"}`, "m.room.guest_access": `{"guest_access":"can_join"}`,
			"m.room.topic":                `"topic":"Leaves"`,
			"m.room.create":               `{"additional_creators":["@bob:a.test"],"room_version":"12","x":1}`,
			"m.room.member/@bob:a.test":   `{"displayname":"bob","is_direct":true,"membership":"invite"}`,
			"m.room.member/%40bob:a.test": `{"displayname":"bob","is_direct":true,"membership":"invite"}`,
		} {
			s.want(200, want, "GET", room+"/state/"+path, "")
		}
		levels := s.want(200, "users_default", "GET", room+"/state/m.room.power_levels", "")
		if levels.at("users_default") != 5.0 || levels.at("events", "m.room.tombstone") != 150.0 || levels.at("state_default") != 50.0 {
			t.Errorf("power levels %v", levels)
		}
		s.want(200, `{"visibility":"public"}`, "GET", v3+"directory/list/room/"+id(room), "")
		// The invited are creators, too.
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		bob.want(200, "event_id", "PUT", room+"/state/m.room.tombstone", `{"body":"x","replacement_room":"!x:a.test"}`)
	})
}

func TestJoinAndLeave(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob, carol := s.new("bob"), s.new("carol")
		room := s.create(`{"preset":"private_chat"}`)
		bob.want(403, "M_FORBIDDEN", "POST", room+"/join", "{}")
		bob.want(403, "M_FORBIDDEN", "POST", v3+"join/"+id(room), "{}")
		s.want(404, "M_NOT_FOUND", "POST", v3+"rooms/!no:a.test/join", "{}")
		s.want(404, "M_NOT_FOUND", "POST", v3+"join/%23no:a.test", "{}")
		s.want(400, "M_INVALID_PARAM", "POST", v3+"rooms/no/join", "{}")
		s.want(400, "M_INVALID_PARAM", "POST", v3+"join/no", "{}")
		s.want(400, "M_INVALID_PARAM", "POST", v3+"join/%23no", "{}")

		for _, op := range []string{"invite", "kick", "ban", "unban"} {
			s.want(400, "M_NOT_JSON", "POST", room+"/"+op, "{")
			s.want(400, "M_BAD_JSON", "POST", room+"/"+op, `{"user_id":5}`)
			s.want(400, "M_MISSING_PARAM", "POST", room+"/"+op, `{}`)
			s.want(400, "M_INVALID_PARAM", "POST", room+"/"+op, `{"user_id":"bob"}`)
			s.want(400, "M_BAD_JSON", "POST", room+"/"+op, `{"user_id":"@bob:a.test","reason":5}`)
			carol.want(403, "M_FORBIDDEN", "POST", room+"/"+op, `{"user_id":"@bob:a.test"}`)
			if w := carol.do("POST", v3+"rooms/!no:a.test/"+op, `{"user_id":"@bob:a.test"}`); w.Code != 403 && w.Code != 404 {
				t.Errorf("%s in an unknown room: %d", op, w.Code)
			}
		}
		s.want(403, "M_THREEPID_DENIED", "POST", room+"/invite", `{"medium":"email","address":"a@b","id_server":"x","id_access_token":"x"}`)
		s.want(200, `{}`, "POST", room+"/invite", `{"user_id":"@bob:a.test","reason":"come"}`)
		bob.want(200, id(room), "POST", room+"/join", `{"reason":"here I am"}`)
		bob.want(200, id(room), "POST", room+"/join", ``)
		s.want(200, `"reason":"here I am"`, "GET", room+"/state/m.room.member/@bob:a.test", "")
		bob.want(400, "M_BAD_JSON", "POST", room+"/leave", `{"reason":5}`)
		bob.want(403, "M_FORBIDDEN", "POST", room+"/kick", `{"user_id":"@alice:a.test"}`)
		bob.want(200, `{}`, "POST", room+"/leave", `{"reason":"bye"}`)
		bob.want(200, `{}`, "POST", room+"/leave", ``) // again
		carol.want(403, "M_FORBIDDEN", "POST", room+"/leave", ``)
		s.want(404, "M_NOT_FOUND", "POST", v3+"rooms/!no:a.test/leave", "{}")
		s.want(200, `{}`, "POST", room+"/ban", `{"user_id":"@bob:a.test"}`)
		bob.want(403, "M_FORBIDDEN", "POST", room+"/join", "{}")
		s.want(403, "M_FORBIDDEN", "POST", room+"/invite", `{"user_id":"@bob:a.test"}`)
		s.want(200, `{}`, "POST", room+"/unban", `{"user_id":"@bob:a.test"}`)
		s.want(403, "M_FORBIDDEN", "POST", room+"/unban", `{"user_id":"@bob:a.test"}`)
		s.want(400, "M_UNKNOWN", "POST", room+"/forget", "")
		bob.want(200, `{}`, "POST", room+"/forget", "")
		bob.want(200, `{}`, "POST", room+"/forget", "")
		s.want(200, fmt.Sprintf(`{"joined_rooms":[%q]}`, id(room)), "GET", v3+"joined_rooms", "")
		bob.want(200, `{"joined_rooms":[]}`, "GET", v3+"joined_rooms", "")
	})
}

// TestMembershipContent checks that nobody can smuggle into the own membership
// what others decide.
func TestMembershipContent(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"preset":"public_chat"}`)
		bob.want(200, "room_id", "POST", room+"/join", `{"membership":"ban","join_authorised_via_users_server":"@alice:a.test","displayname":5,"x":1}`)
		bob.want(200, `{"displayname":"bob","membership":"join","x":1}`, "GET", room+"/state/m.room.member/@bob:a.test", "")
		for body, want := range map[string]string{
			`{"membership":"banished"}`: "M_", `{"membership":5}`: "M_BAD_JSON", `{}`: "M_BAD_JSON", `{"membership":"invite"}`: "M_FORBIDDEN",
		} {
			if w := bob.do("PUT", room+"/state/m.room.member/@bob:a.test", body); w.Code/100 != 4 || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s: %d %s", body, w.Code, w.Body)
			}
		}
		bob.want(403, "M_FORBIDDEN", "PUT", room+"/state/m.room.member/@alice:a.test", `{"membership":"leave"}`)
		bob.want(400, "M_INVALID_PARAM", "PUT", room+"/state/m.room.member/bob", `{"membership":"join"}`)
		bob.want(400, "M_INVALID_PARAM", "PUT", room+"/state/m.room.member", `{"membership":"join"}`)
		bob.want(200, "event_id", "PUT", room+"/state/m.room.member/@bob:a.test", `{"membership":"leave"}`)
		bob.want(200, `{"joined_rooms":[]}`, "GET", v3+"joined_rooms", "")
	})
}

func TestGuestInRoom(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := prepare(t, st, func(a *API) { a.Accounts.Config.Guests = true }).new("alice")
		g, h := s.guest(), s.guest()
		closed := s.create(`{"preset":"public_chat"}`)
		g.want(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", closed+"/join", "{}")
		g.want(403, "M_GUEST_ACCESS_FORBIDDEN", "PUT", closed+"/state/m.room.member/"+string(g.user), `{"membership":"join"}`)
		room := s.create(`{"preset":"public_chat","initial_state":[{"type":"m.room.guest_access","content":{"guest_access":"can_join"}}]}`)
		g.want(200, "room_id", "POST", room+"/join", "{}")
		h.want(200, "room_id", "POST", room+"/join", "{}")
		g.want(200, "event_id", "PUT", room+"/send/m.room.message/1", `{"body":"hi"}`)
		g.want(403, "M_FORBIDDEN", "PUT", room+"/state/m.room.topic", `{"topic":"x"}`) // not for lack of an account
		g.want(200, "chunk", "GET", room+"/messages?dir=b", "")
		g.want(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", room+"/invite", `{"user_id":"@x:a.test"}`)

		// When the room stops to welcome guests, they are out.
		s.want(200, "event_id", "PUT", room+"/state/m.room.guest_access", `{"guest_access":"forbidden"}`)
		for _, guest := range []*server{g, h} {
			s.want(200, `{"membership":"leave"}`, "GET", room+"/state/m.room.member/"+string(guest.user), "")
			guest.want(200, `{"joined_rooms":[]}`, "GET", v3+"joined_rooms", "")
		}
		s.want(200, `{"displayname":"alice","membership":"join"}`, "GET", room+"/state/m.room.member/@alice:a.test", "")
		g.want(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", room+"/join", "{}")
	})
}

func TestSuspended(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"preset":"public_chat"}`)
		other := s.create(`{"preset":"public_chat"}`)
		hers := s.want(200, "event_id", "PUT", room+"/send/m.room.message/1", `{"body":"hers"}`).text("event_id")
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		bob.want(200, `{}`, "PUT", v3+"directory/room/%23tea:a.test", fmt.Sprintf(`{"room_id":%q}`, id(room)))
		s.want(200, "event_id", "PUT", room+"/state/m.room.power_levels", `{"users":{"@bob:a.test":100}}`)
		mine := bob.want(200, "event_id", "PUT", room+"/send/m.room.message/1", `{"body":"mine"}`).text("event_id")
		if err := s.api.Accounts.SetSuspended(t.Context(), "@bob:a.test", true); err != nil {
			t.Fatal(err)
		}
		bob = bob.as("bob")
		for _, no := range [][3]string{
			{"POST", v3 + "createRoom", `{}`}, {"POST", other + "/join", `{}`}, {"POST", v3 + "join/" + id(other), `{}`}, {"POST", v3 + "knock/" + id(other), `{}`},
			{"POST", room + "/invite", `{"user_id":"@alice:a.test"}`}, {"POST", room + "/kick", `{"user_id":"@alice:a.test"}`},
			{"PUT", room + "/send/m.room.message/2", `{"body":"x"}`}, {"PUT", room + "/state/m.room.topic", `{"topic":"x"}`},
			{"PUT", room + "/redact/" + url.PathEscape(hers) + "/1", `{}`},
			{"PUT", v3 + "directory/room/%23spam:a.test", fmt.Sprintf(`{"room_id":%q}`, id(room))}, {"DELETE", v3 + "directory/room/%23tea:a.test", ``},
			{"PUT", v3 + "directory/list/room/" + id(room), `{}`}, {"PUT", v3 + "presence/@bob:a.test/status", `{"presence":"online","status_msg":"spam"}`},
		} {
			bob.want(403, "M_USER_SUSPENDED", no[0], no[1], no[2])
		}
		bob.want(200, "event_id", "PUT", room+"/redact/"+url.PathEscape(mine)+"/1", `{}`)
		bob.want(200, "chunk", "GET", room+"/messages?dir=b", "")
		bob.want(200, "next_batch", "GET", v3+"sync", "")
		bob.want(200, `{}`, "PUT", v3+"presence/@bob:a.test/status", `{"presence":"offline"}`)
		bob.want(200, `{}`, "POST", room+"/leave", `{}`)
	})
}

func TestRoomSummary(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		const summary = "/_matrix/client/v1/room_summary/"
		public := s.create(`{"preset":"public_chat","name":"Tea","room_alias_name":"tea"}`)
		private := s.create(`{"preset":"private_chat","name":"Secret"}`)
		for _, name := range []string{id(public), "%23tea:a.test"} {
			a := s.nobody().want(200, `"name":"Tea"`, "GET", summary+name, "")
			if a.text("room_id") != id(public) || a.at("num_joined_members") != 1.0 || a.text("membership") != "" || a.text("join_rule") != "public" || a.text("room_version") != "12" {
				t.Errorf("summary %v", a)
			}
		}
		for _, who := range []*server{bob, s.nobody()} {
			who.want(404, "M_NOT_FOUND", "GET", summary+id(private), "")
		}
		s.want(200, `"membership":"join"`, "GET", summary+id(private), "")
		for _, once := range []string{"rooms/%s/summary", "summary/%s"} {
			s.want(200, `"membership":"join"`, "GET", "/_matrix/client/unstable/im.nheko.summary/"+fmt.Sprintf(once, id(private)), "")
		}
		s.want(200, `{}`, "POST", private+"/invite", `{"user_id":"@bob:a.test"}`)
		bob.want(200, `"membership":"invite"`, "GET", summary+id(private), "")
		s.want(404, "M_NOT_FOUND", "GET", summary+"!no:a.test", "")
		s.want(400, "M_INVALID_PARAM", "GET", summary+"no", "")
	})
}

func TestKnockRoute(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		closed := s.create(`{"preset":"private_chat"}`)
		open := s.create(`{"initial_state":[{"type":"m.room.join_rules","content":{"join_rule":"knock"}}]}`)
		bob.want(403, "M_FORBIDDEN", "POST", v3+"knock/"+id(closed), `{}`)
		bob.want(404, "M_NOT_FOUND", "POST", v3+"knock/!no:a.test", `{}`)
		bob.want(404, "M_NOT_FOUND", "POST", v3+"knock/%23no:a.test", `{}`)
		bob.want(200, id(open), "POST", v3+"knock/"+id(open), `{"reason":"please"}`)
		s.want(200, `"reason":"please"`, "GET", open+"/state/m.room.member/@bob:a.test", "")
		s.want(403, "M_FORBIDDEN", "POST", v3+"knock/"+id(open), `{}`) // is in already
		bob.want(200, `{}`, "POST", open+"/leave", `{}`)
	})
}
