package clientapi

import (
	"strings"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// TestBlockedInvites are invitations of a user who wants none.
func TestBlockedInvites(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		alice := start(t, st)
		bob := alice.new("bob")
		room := alice.create(`{"preset":"public_chat"}`)
		alice.create(`{"invite":["@bob:a.test"]}`)
		invited := func(want bool) {
			t.Helper()
			for path, what := range map[string]string{"sync": `"invite_state"`, "initialSync": `"invite":{`} {
				if got := strings.Contains(bob.do("GET", v3+path, "").Body.String(), what); got != want {
					t.Errorf("%s has the invitation: %v", path, got)
				}
			}
		}
		invited(true)
		setting := v3 + "user/@bob:a.test/account_data/m.invite_permission_config"
		bob.want(200, `{}`, "PUT", setting, `{"default_action":"block"}`)
		invited(false)
		for _, try := range []struct{ method, path, body string }{
			{"POST", room + "/invite", `{"user_id":"@bob:a.test"}`},
			{"POST", v3 + "createRoom", `{"invite":["@bob:a.test"]}`},
			{"PUT", room + "/state/m.room.member/@bob:a.test", `{"membership":"invite"}`},
		} {
			alice.want(403, "M_INVITE_BLOCKED", try.method, try.path, try.body)
		}
		for _, value := range []string{`{"default_action":"allow"}`, `{"default_action":["block"]}`, `{}`} {
			bob.want(200, `{}`, "PUT", setting, value)
			invited(true)
		}
		once := strings.Replace(setting, "m.invite", "org.matrix.msc4380.invite", 1)
		bob.want(200, `{}`, "PUT", once, `{"default_action":"block"}`)
		invited(false)
		bob.want(200, `{}`, "PUT", once, `{}`)
		alice.want(200, `{}`, "POST", room+"/invite", `{"user_id":"@bob:a.test"}`)
		bob.want(200, `{}`, "PUT", setting, `{"default_action":"block"}`)
		bob.want(200, "room_id", "POST", room+"/join", `{}`) // what came before may still be accepted
	})
}

// TestInviteLimits counts invitations, in whatever way they are made.
func TestInviteLimits(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st, func(a *API) { a.Limits = NewLimits(Rates{Invite: Rate{0.001, 3}}) })
		for _, name := range []string{"bob", "carol", "dave", "eve"} {
			s.new(name)
		}
		room := s.create(`{"invite":["@bob:a.test"]}`)
		s.want(200, "event_id", "PUT", room+"/state/m.room.member/@carol:a.test", `{"membership":"invite"}`)
		s.want(429, `"retry_after_ms":`, "POST", v3+"createRoom", `{"invite":["@bob:a.test","@carol:a.test"]}`)
		s.want(400, "M_INVALID_PARAM", "POST", v3+"createRoom", `{"invite":["@bob:a.test","@carol:a.test","@dave:a.test","@eve:a.test"]}`)
		s.want(200, `{}`, "POST", room+"/invite", `{"user_id":"@dave:a.test"}`)
		s.want(429, "M_LIMIT_EXCEEDED", "POST", room+"/invite", `{"user_id":"@eve:a.test"}`)
		s.want(429, "M_LIMIT_EXCEEDED", "PUT", room+"/state/m.room.member/@eve:a.test", `{"membership":"invite"}`)
		s.want(200, "event_id", "PUT", room+"/state/m.room.member/@dave:a.test", `{"membership":"leave"}`)
		s.create(`{}`)
	})
}
