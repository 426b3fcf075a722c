package clientapi

import (
	"fmt"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notices"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// TestServerNotice sends a notice as programs for Synapse do.
func TestServerNotice(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st, func(a *API) {
			a.Notices = &notices.Service{Store: st, Rooms: a.Rooms, Accounts: a.Accounts, ServerName: a.ServerName, Config: notices.DefaultConfig()}
			a.Rooms.NoticesUser, a.Accounts.Reserved = a.Notices.User(), a.Notices.User()
		})
		admin := s.new("admin")
		if err := s.api.Accounts.SetAdmin(t.Context(), admin.user, true); err != nil {
			t.Fatal(err)
		}
		admin = admin.as("admin")
		const path, body = "/_synapse/admin/v1/send_server_notice", `{"user_id":"@alice:a.test","content":{"msgtype":"m.text","body":"hello"}}`
		s.want(403, "M_FORBIDDEN", "POST", path, body)
		s.nobody().want(401, "M_MISSING_TOKEN", "POST", path, body)
		admin.want(400, "M_MISSING_PARAM", "POST", path, `{"user_id":"@alice:a.test"}`)
		admin.want(404, "M_NOT_FOUND", "POST", path, `{"user_id":"@nobody:a.test","content":{}}`)
		admin.want(200, "event_id", "POST", path, body)
		var id string
		for room := range s.want(200, "@_server:a.test", "GET", "/_matrix/client/v3/sync", "").at("rooms", "invite").(map[string]any) {
			id = room
		}
		s.want(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", "POST", fmt.Sprintf("/_matrix/client/v3/rooms/%s/leave", id), "{}")
		s.want(200, id, "POST", "/_matrix/client/v3/join/"+id, "{}")
		if tag := s.want(200, "hello", "GET", "/_matrix/client/v3/sync", "").at("rooms", "join", id, "account_data"); fmt.Sprint(tag) != `map[events:[map[content:map[tags:map[m.server_notice:map[]]] type:m.tag]]]` {
			t.Errorf("account data of the room: %v", tag)
		}
		first := admin.want(200, "event_id", "PUT", path+"/1", body).text("event_id")
		if again := admin.want(200, "event_id", "PUT", path+"/1", body).text("event_id"); again != first {
			t.Errorf("a repeated notice is %s, the first was %s", again, first)
		}
		if _, err := matrix.ParseEventID(first); err != nil {
			t.Error(err)
		}
	})
}
