package clientapi

import (
	"encoding/json"
	"fmt"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestOpenIDToken(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		raw, err := json.Marshal(s.want(200, `"token_type":"Bearer"`, "POST", v3+"user/@alice:a.test/openid/request_token", "{}"))
		if err != nil {
			t.Fatal(err)
		}
		var token struct {
			Token  string            `json:"access_token"`
			Server matrix.ServerName `json:"matrix_server_name"`
			Life   int               `json:"expires_in"`
		}
		if err := json.Unmarshal(raw, &token); err != nil || token.Server != "a.test" || token.Life <= 0 {
			t.Errorf("%s, %v", raw, err)
		}
		if user, err := s.api.Accounts.OpenIDUser(t.Context(), token.Token); err != nil || user != s.user {
			t.Errorf("the token is of %s, %v", user, err)
		}
		s.want(403, `"errcode":"M_FORBIDDEN"`, "POST", v3+"user/@bob:a.test/openid/request_token", "{}")
		if err := s.api.Accounts.Deactivate(t.Context(), s.user, false); err != nil {
			t.Fatal(err)
		}
		if user, err := s.api.Accounts.OpenIDUser(t.Context(), token.Token); err == nil {
			t.Errorf("the token is of %s, whose account is deactivated", user)
		}
	})
}

func TestEventByTimestamp(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		id, err := s.api.Rooms.Create(t.Context(), room.Creation{Creator: s.user, Preset: "public_chat"})
		if err != nil {
			t.Fatal(err)
		}
		e, err := s.api.Rooms.Send(t.Context(), room.Sending{User: s.user, Room: id, Type: "m.room.message", Content: json.RawMessage(`{}`), At: 4_000_000_000_000})
		if err != nil {
			t.Fatal(err)
		}
		path := "/_matrix/client/v1/rooms/" + string(id) + "/timestamp_to_event?"
		found := fmt.Sprintf(`{"event_id":%q,"origin_server_ts":4000000000000}`, e)
		s.want(200, found, "GET", path+"dir=f&ts=3999999999999", "")
		s.want(200, found, "GET", path+"dir=b&ts=4000000000001", "")
		s.want(404, `"errcode":"M_NOT_FOUND"`, "GET", path+"dir=f&ts=4000000000001", "")
		s.want(404, `"errcode":"M_NOT_FOUND"`, "GET", path+"dir=b&ts=1", "")
		s.want(400, `"errcode":"M_MISSING_PARAM"`, "GET", path+"dir=b", "")
		s.want(400, `"errcode":"M_INVALID_PARAM"`, "GET", path+"dir=b&ts=now", "")
		s.want(400, `"errcode":"M_INVALID_PARAM"`, "GET", path+"dir=x&ts=1", "")
		s.new("bob").want(403, `"errcode":"M_FORBIDDEN"`, "GET", path+"dir=b&ts=4000000000000", "")
	})
}
