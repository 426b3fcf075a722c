package clientapi

import (
	"fmt"
	"testing"
	"time"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestLogin(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st, func(a *API) { a.PublicURL = "https://m.a.test" }).nobody()
		login := func(status int, want, body string) answer {
			t.Helper()
			return s.want(status, want, "POST", v3+"login", body)
		}
		s.want(200, `{"flows":[{"type":"m.login.password"},{"type":"m.login.application_service"}]}`, "GET", v3+"login", "")
		for _, user := range []string{"alice", "@alice:a.test", "ALICE", "@Alice:a.test"} {
			body := fmt.Sprintf(`{"type":"m.login.password","identifier":{"type":"m.id.user","user":%q},"password":%q}`, user, password)
			login(200, `"user_id":"@alice:a.test"`, body)
		}
		a := login(200, `"well_known":{"m.homeserver":{"base_url":"https://m.a.test"}}`,
			`{"type":"m.login.password","user":"alice","password":"`+password+`","device_id":"D","initial_device_display_name":"phone"}`)
		if a["device_id"] != "D" || a["refresh_token"] != nil {
			t.Errorf("got %v", a)
		}
		first := s.with("", a.text("access_token"), "")
		first.want(200, `"display_name":"phone","last_seen_ip":"192.0.2.1"`, "GET", v3+"devices/D", "")
		login(200, `"device_id":"D"`, `{"type":"m.login.password","user":"alice","password":"`+password+`","device_id":"D"}`)
		first.want(401, "M_UNKNOWN_TOKEN", "GET", v3+"account/whoami", "") // the device has a new session

		for _, tt := range []struct {
			status     int
			want, body string
		}{
			{403, "M_FORBIDDEN", `{"type":"m.login.password","user":"alice","password":"wrong"}`},
			{403, "M_FORBIDDEN", `{"type":"m.login.password","user":"alice"}`},
			{403, "M_FORBIDDEN", `{"type":"m.login.password","user":"nobody","password":"wrong"}`},
			{403, "M_FORBIDDEN", `{"type":"m.login.password","user":"@alice:b.test","password":"` + password + `"}`},
			{403, "M_FORBIDDEN", `{"type":"m.login.password","identifier":{"type":"m.id.thirdparty","medium":"email","address":"a@a.test"},"password":"x"}`},
			{400, "M_INVALID_PARAM", `{"type":"m.login.password","identifier":{"type":"x"},"password":"x"}`},
			{400, "M_MISSING_PARAM", `{"type":"m.login.password","password":"x"}`},
			{400, "M_UNKNOWN", `{"type":"m.login.magic"}`},
			{400, "M_UNKNOWN", `{}`},
			{400, "M_UNKNOWN", `{"type":"m.login.token","token":"x"}`}, // turned off
			{400, "M_BAD_JSON", `{"type":1}`},
			{400, "M_BAD_JSON", `[]`},
			{400, "M_NOT_JSON", `{`},
			{403, "M_FORBIDDEN", `{"type":"m.login.password","user":"a\u0000b","password":"x\u0000"}`},
			{400, "M_INVALID_PARAM", `{"type":"m.login.password","user":"alice","password":"` + password + `","device_id":"\u0000"}`},
		} {
			login(tt.status, tt.want, tt.body)
		}
	})
}

func TestLogout(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		second, third := s.as("alice"), s.as("alice")
		s.want(200, `{}`, "POST", v3+"logout", "")
		s.want(401, "M_UNKNOWN_TOKEN", "POST", v3+"logout", "")
		s.nobody().want(401, "M_MISSING_TOKEN", "POST", v3+"logout", "")
		second.want(404, "M_NOT_FOUND", "GET", v3+"devices/"+string(s.device), "")
		second.want(200, `{}`, "POST", v3+"logout/all", "{}")
		third.want(401, "M_UNKNOWN_TOKEN", "GET", v3+"account/whoami", "")
		s.appservice("irc").want(403, "M_FORBIDDEN", "POST", v3+"logout", "")
	})
}

func TestRefresh(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		login := func() (access *server, refresh string) {
			t.Helper()
			a := s.nobody().want(200, `"expires_in_ms":3600000`, "POST", v3+"login",
				`{"type":"m.login.password","user":"alice","password":"`+password+`","refresh_token":true}`)
			return s.with("", a.text("access_token"), ""), a.text("refresh_token")
		}
		renew := func(refresh string) (*server, string) {
			t.Helper()
			a := s.nobody().want(200, `"expires_in_ms":3600000`, "POST", v3+"refresh", fmt.Sprintf(`{"refresh_token":%q}`, refresh))
			return s.with("", a.text("access_token"), ""), a.text("refresh_token")
		}
		old, oldRefresh := login()
		old.want(200, "alice", "GET", v3+"account/whoami", "")
		lost, lostRefresh := renew(oldRefresh)
		next, _ := renew(oldRefresh) // the first answer was lost
		old.want(200, "alice", "GET", v3+"account/whoami", "")
		lost.want(401, "M_UNKNOWN_TOKEN", "GET", v3+"account/whoami", "")
		s.nobody().want(401, "M_UNKNOWN_TOKEN", "POST", v3+"refresh", fmt.Sprintf(`{"refresh_token":%q}`, lostRefresh))
		next.want(200, "alice", "GET", v3+"account/whoami", "")
		old.want(401, "M_UNKNOWN_TOKEN", "GET", v3+"account/whoami", "") // the new one has been used
		s.nobody().want(401, "M_UNKNOWN_TOKEN", "POST", v3+"refresh", fmt.Sprintf(`{"refresh_token":%q}`, oldRefresh))

		// To use the new refresh token ends the old pair, too.
		old, oldRefresh = login()
		_, nextRefresh := renew(oldRefresh)
		renew(nextRefresh)
		old.want(401, "M_UNKNOWN_TOKEN", "GET", v3+"account/whoami", "")

		s.nobody().want(400, "M_MISSING_PARAM", "POST", v3+"refresh", `{}`)
		s.nobody().want(401, "M_UNKNOWN_TOKEN", "POST", v3+"refresh", `{"refresh_token":"x"}`)
	})
}

func TestExpiredToken(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st, func(a *API) { a.Accounts.Config.TokenLifetime = time.Nanosecond })
		a := s.nobody().want(200, "refresh_token", "POST", v3+"login", `{"type":"m.login.password","user":"alice","password":"`+password+`","refresh_token":true}`)
		s.with("", a.text("access_token"), "").want(401, `"soft_logout":true`, "GET", v3+"account/whoami", "")
		s.nobody().want(200, "access_token", "POST", v3+"refresh", fmt.Sprintf(`{"refresh_token":%q}`, a.text("refresh_token")))
	})
}

func TestLoginToken(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		const path = "/_matrix/client/v1/login/get_token"
		start(t, st).want(404, "M_UNRECOGNIZED", "POST", path, `{}`)
		s := prepare(t, st, func(a *API) { a.Accounts.Config.LoginTokens = true }).as("alice")
		s.want(200, `{"type":"m.login.token","get_login_token":true}`[1:], "GET", v3+"login", "")
		s.want(401, "flows", "POST", path, `{}`)
		a := s.want(200, `"expires_in_ms":120000`, "POST", path, `{`+pass("alice", password)+`}`)
		body := fmt.Sprintf(`{"type":"m.login.token","token":%q}`, a.text("login_token"))
		s.nobody().want(200, `"user_id":"@alice:a.test"`, "POST", v3+"login", body)
		s.nobody().want(403, "M_FORBIDDEN", "POST", v3+"login", body)
	})
}

func TestLoginAppservice(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		as := s.appservice("irc")
		body := func(user string) string {
			return fmt.Sprintf(`{"type":"m.login.application_service","identifier":{"type":"m.id.user","user":%q}}`, user)
		}
		as.want(200, "@irc_x:a.test", "POST", v3+"register", `{"type":"m.login.application_service","username":"irc_x","inhibit_login":true}`)
		as.want(200, "access_token", "POST", v3+"login", body("irc_x"))
		as.want(400, "M_EXCLUSIVE", "POST", v3+"login", body("alice"))
		as.want(403, "M_FORBIDDEN", "POST", v3+"login", body("irc_unknown"))
		s.want(401, "M_UNKNOWN_TOKEN", "POST", v3+"login", body("irc_x"))
		s.nobody().want(401, "M_MISSING_TOKEN", "POST", v3+"login", body("irc_x"))
	})
}

// Masquerading: an appservice acts as its users and their devices.
func TestIdentityAssertion(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		as := s.appservice("irc")
		const who = v3 + "account/whoami"
		as.want(200, `{"user_id":"@ircbot:a.test","is_guest":false}`, "GET", who, "")
		as.want(403, "M_FORBIDDEN", "GET", who+"?user_id=@irc_x:a.test", "") // not registered
		as.want(200, "", "POST", v3+"register", `{"type":"m.login.application_service","username":"irc_x","inhibit_login":true}`)
		as.want(200, `{"user_id":"@irc_x:a.test","is_guest":false}`, "GET", who+"?user_id=@irc_x:a.test", "")
		as.want(403, "M_FORBIDDEN", "GET", who+"?user_id=@alice:a.test", "")
		as.want(403, "M_FORBIDDEN", "GET", who+"?user_id=@irc_x:b.test", "")
		as.want(400, "M_UNKNOWN_DEVICE", "GET", who+"?user_id=@irc_x:a.test&device_id=D", "")
		as.want(201, `{}`, "PUT", v3+"devices/D?user_id=@irc_x:a.test", `{"display_name":"bridge"}`)
		as.want(200, `{}`, "PUT", v3+"devices/D?user_id=@irc_x:a.test", `{"display_name":"bridge 2"}`)
		as.want(200, `"device_id":"D"`, "GET", who+"?user_id=@irc_x:a.test&device_id=D", "")
		as.want(200, `"device_id":"D"`, "GET", who+"?user_id=@irc_x:a.test&org.matrix.msc3202.device_id=D", "")
		as.want(400, "M_UNKNOWN_DEVICE", "GET", who+"?device_id=D", "")        // of the sender
		as.want(200, `{}`, "DELETE", v3+"devices/D?user_id=@irc_x:a.test", "") // no confirmation
		as.want(400, "M_UNKNOWN_DEVICE", "GET", who+"?user_id=@irc_x:a.test&device_id=D", "")
		s.want(200, "@alice:a.test", "GET", who+"?user_id=@irc_x:a.test&device_id=none", "") // others cannot
		if err := s.api.Accounts.Deactivate(t.Context(), "@irc_x:a.test", false); err != nil {
			t.Fatal(err)
		}
		as.want(403, "M_USER_DEACTIVATED", "GET", who+"?user_id=@irc_x:a.test", "")
	})
}

func TestLockedUser(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		s.want(200, "alice", "GET", v3+"account/whoami", "")
		if err := s.api.Accounts.SetLocked(t.Context(), s.user, true); err != nil {
			t.Fatal(err)
		}
		s.want(401, `{"errcode":"M_USER_LOCKED","error":"this account has been locked","soft_logout":true}`, "GET", v3+"account/whoami", "")
		s.nobody().want(401, "M_USER_LOCKED", "POST", v3+"login", `{"type":"m.login.password","user":"alice","password":"`+password+`"}`)
		s.want(200, `{}`, "POST", v3+"logout", "")
		s.want(401, "M_UNKNOWN_TOKEN", "GET", v3+"account/whoami", "")
	})
}
