package clientapi

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"switchboard/homeserver/account"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func mode(m account.Mode) func(*API) {
	return func(a *API) { a.Accounts.Config.Mode = m }
}

func TestRegister(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		as := s.appservice("irc")
		s = s.nobody()
		const path = v3 + "register"
		dummy := func(rest string) string {
			return `{"auth":{"type":"m.login.dummy"},"password":"` + password + `"` + rest + `}`
		}

		a := s.want(401, `"flows":[{"stages":["m.login.dummy"]}],"params":{},"session":"`, "POST", path, `{}`)
		a = s.want(200, `"user_id":"@bob:a.test"`, "POST", path,
			fmt.Sprintf(`{"auth":{"type":"m.login.dummy","session":%q},"username":"Bob","password":%q,"device_id":"D","initial_device_display_name":"phone"}`, a.text("session"), password))
		bob := s.with("@bob:a.test", a.text("access_token"), "D")
		bob.want(200, `"device_id":"D"`, "GET", v3+"account/whoami", "")
		bob.want(200, `"global":{`, "GET", v3+"user/@bob:a.test/account_data/m.push_rules", "")
		s.want(200, `{"home_server":"a.test","user_id":"@carol:a.test"}`, "POST", path, dummy(`,"username":"carol","inhibit_login":true`))
		s.as("carol").want(200, "carol", "GET", v3+"account/whoami", "")
		s.want(200, `"refresh_token":"`, "POST", path, dummy(`,"username":"dave","refresh_token":true`))
		if id := s.want(200, "access_token", "POST", path, dummy("")).text("user_id"); !strings.HasSuffix(id, ":a.test") || len(id) < 15 {
			t.Errorf("chosen for us: %q", id)
		}

		for _, tt := range []struct {
			status     int
			want, body string
		}{
			{400, "M_USER_IN_USE", dummy(`,"username":"bob"`)},
			{400, "M_USER_IN_USE", `{"username":"bob"}`}, // before any confirmation
			{400, "M_INVALID_USERNAME", dummy(`,"username":"b!b"`)},
			{400, "M_INVALID_USERNAME", dummy(`,"username":"_bob"`)},
			{400, "M_INVALID_USERNAME", dummy(`,"username":"` + strings.Repeat("a", 250) + `"`)},
			{400, "M_INVALID_USERNAME", dummy(`,"username":"b\u0000b"`)},
			{400, "M_EXCLUSIVE", dummy(`,"username":"irc_bob"`)},
			{400, "M_EXCLUSIVE", dummy(`,"username":"ircbot"`)},
			{400, "M_MISSING_PARAM", `{"auth":{"type":"m.login.dummy"},"username":"eve"}`},
			{400, "M_WEAK_PASSWORD", `{"auth":{"type":"m.login.dummy"},"username":"eve","password":"short"}`},
			{400, "M_INVALID_PARAM", `{"auth":{"type":"m.login.dummy"},"username":"eve","password":"` + strings.Repeat("a", 513) + `"}`},
			{400, "M_INVALID_PARAM", dummy(`,"username":"eve","device_id":"` + strings.Repeat("a", 256) + `"`)},
			{401, `"errcode":"M_UNRECOGNIZED"`, `{"auth":{"type":"m.login.recaptcha"},"username":"eve","password":"` + password + `"}`},
			{401, `"errcode":"M_UNKNOWN"`, `{"auth":{"type":"m.login.dummy","session":"?"},"username":"eve","password":"` + password + `"}`},
			{400, "M_BAD_JSON", `{"auth":1}`},
			{400, "M_BAD_JSON", `{"username":[]}`},
			{400, "M_NOT_JSON", "{\"username\":\"a\x81\"}"},
			{401, "M_MISSING_TOKEN", `{"type":"m.login.application_service","username":"irc_x"}`},
		} {
			s.want(tt.status, tt.want, "POST", path, tt.body)
		}
		s.want(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", path+"?kind=guest", `{}`)
		s.want(403, "M_FORBIDDEN", "POST", path+"?kind=alien", `{}`)

		appservice := func(name string) string {
			return fmt.Sprintf(`{"type":"m.login.application_service","username":%q}`, name)
		}
		as.want(200, `"user_id":"@irc_x:a.test"`, "POST", path, appservice("irc_x"))
		as.want(400, "M_USER_IN_USE", "POST", path, appservice("irc_x"))
		as.want(400, "M_EXCLUSIVE", "POST", path, appservice("zoe"))
		as.want(400, "M_MISSING_PARAM", "POST", path, `{"type":"m.login.application_service"}`)
		as.want(200, `"user_id":"@ircbot:a.test"`, "POST", path, appservice("ircbot"))
	})
}

func TestUsernameAvailable(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st).nobody()
		s.appservice("irc")
		const path = v3 + "register/available"
		s.want(200, `{"available":true}`, "GET", path+"?username=bob", "")
		s.want(400, "M_USER_IN_USE", "GET", path+"?username=alice", "")
		s.want(400, "M_INVALID_USERNAME", "GET", path+"?username=b,b", "")
		s.want(400, "M_INVALID_USERNAME", "GET", path+"?username=%00%ff", "")
		s.want(400, "M_EXCLUSIVE", "GET", path+"?username=irc_1", "")
		s.want(400, "M_MISSING_PARAM", "GET", path, "")
	})
}

func TestRegistrationTokens(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := prepare(t, st, mode(account.Token))
		const valid = "/_matrix/client/v1/register/m.login.registration_token/validity?token="
		made, err := s.api.Accounts.CreateRegistrationToken(t.Context(), account.NewToken{Token: "come.in", Uses: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.api.Accounts.CreateRegistrationToken(t.Context(), account.NewToken{Token: "old", Lifetime: time.Nanosecond}); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []account.NewToken{{Token: "come.in"}, {Token: "a b"}, {Token: strings.Repeat("a", 65)}, {Uses: -1}} {
			if _, err := s.api.Accounts.CreateRegistrationToken(t.Context(), bad); err == nil {
				t.Errorf("%+v was accepted", bad)
			}
		}
		s.want(200, `{"valid":true}`, "GET", valid+"come.in", "")
		s.want(200, `{"valid":false}`, "GET", valid+"go.away", "")
		s.want(200, `{"valid":false}`, "GET", valid+"old", "")
		s.want(200, `{"valid":false}`, "GET", valid+"%00", "")
		s.want(400, "M_MISSING_PARAM", "GET", valid, "")

		body := func(token, name string) string {
			return fmt.Sprintf(`{"auth":{"type":"m.login.registration_token","token":%q},"username":%q,"password":%q}`, token, name, password)
		}
		s.want(401, `"flows":[{"stages":["m.login.registration_token"]}]`, "POST", v3+"register", `{}`)
		s.want(401, `"errcode":"M_FORBIDDEN"`, "POST", v3+"register", body("go.away", "bob"))
		s.want(401, `"errcode":"M_UNRECOGNIZED"`, "POST", v3+"register", `{"auth":{"type":"m.login.dummy"},"password":"`+password+`"}`)
		s.want(200, "@bob:a.test", "POST", v3+"register", body(made.Token, "bob"))
		s.want(200, `{"displayname":"bob"}`, "GET", v3+"profile/@bob:a.test", "")
		s.want(401, `"errcode":"M_FORBIDDEN"`, "POST", v3+"register", body(made.Token, "carol"))
		s.want(200, `{"valid":false}`, "GET", valid+"come.in", "")
		list, err := s.api.Accounts.RegistrationTokens(t.Context())
		if err != nil || len(list) != 2 {
			t.Errorf("got %+v %v", list, err)
		}
		if err := s.api.Accounts.RevokeRegistrationToken(t.Context(), "come.in"); err != nil {
			t.Error(err)
		}
		if err := s.api.Accounts.RevokeRegistrationToken(t.Context(), "come.in"); err == nil {
			t.Error("revoked twice")
		}
	})
}

// Where registration is closed, the operator's first token makes one
// administrator, and then it is closed to everybody.
func TestFirstToken(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := prepare(t, st, mode(account.Closed))
		s.want(403, "M_FORBIDDEN", "POST", v3+"register", `{}`)
		token, err := s.api.Accounts.FirstToken(t.Context())
		if err != nil || token == "" {
			t.Fatalf("got %q %v", token, err)
		}
		if again, err := s.api.Accounts.FirstToken(t.Context()); err != nil || again != token {
			t.Errorf("got %q %v", again, err)
		}
		a := s.want(401, "m.login.registration_token", "POST", v3+"register", `{}`)
		a = s.want(200, "access_token", "POST", v3+"register", fmt.Sprintf(
			`{"auth":{"type":"m.login.registration_token","token":%q,"session":%q},"username":"root","password":%q}`, token, a.text("session"), password))
		s.with("", a.text("access_token"), "").want(200, `"suspend":true`, "GET", v3+"capabilities", "")
		s.want(403, "M_FORBIDDEN", "POST", v3+"register", `{}`)
		s.want(403, "M_FORBIDDEN", "GET", "/_matrix/client/v1/register/m.login.registration_token/validity?token="+token, "")
		if again, err := s.api.Accounts.FirstToken(t.Context()); err != nil || again != "" {
			t.Errorf("got %q %v", again, err)
		}
	})
}

func TestTerms(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := prepare(t, st, mode(account.Token), func(a *API) {
			a.Accounts.Config.Terms = []account.Document{{ID: "privacy_policy", Version: "2", Texts: map[string]account.Text{"en": {Name: "Privacy", URL: "https://a.test/p"}}}}
		})
		if _, err := s.api.Accounts.CreateRegistrationToken(t.Context(), account.NewToken{Token: "t"}); err != nil {
			t.Fatal(err)
		}
		a := s.want(401, `"params":{"m.login.terms":{"policies":{"privacy_policy":{"en":{"name":"Privacy","url":"https://a.test/p"},"version":"2"}}}}`, "POST", v3+"register", `{}`)
		try := func(status int, want, auth string) {
			t.Helper()
			s.want(status, want, "POST", v3+"register", fmt.Sprintf(`{"auth":{"session":%q%s},"username":"bob","password":%q}`, a.text("session"), auth, password))
		}
		try(401, `"errcode":"M_UNRECOGNIZED"`, `,"type":"m.login.terms"`) // not yet
		try(401, `"completed":["m.login.registration_token"]`, `,"type":"m.login.registration_token","token":"t"`)
		try(401, `"completed":["m.login.registration_token"]`, ``)
		try(401, `"completed":["m.login.registration_token"]`, `,"type":"m.login.registration_token","token":"wrong"`) // done already
		try(200, "@bob:a.test", `,"type":"m.login.terms"`)
		try(400, "M_USER_IN_USE", ``)
	})
}

func TestGuest(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := prepare(t, st, func(a *API) { a.Accounts.Config.Guests = true })
		a := s.want(200, "access_token", "POST", v3+"register?kind=guest", `{"initial_device_display_name":"browser","username":"ignored","device_id":"ignored"}`)
		if a.text("device_id") == "ignored" || strings.Contains(a.text("user_id"), "ignored") {
			t.Errorf("got %v", a)
		}
		me := a.text("user_id")
		g := s.with("", a.text("access_token"), "")
		g.want(200, `"is_guest":true`, "GET", v3+"account/whoami", "")
		g.want(200, `{}`, "GET", v3+"profile/"+me, "")
		g.want(200, `"display_name":"browser"`, "GET", v3+"devices", "")
		g.want(403, "M_GUEST_ACCESS_FORBIDDEN", "PUT", v3+"user/"+me+"/account_data/x", `{}`)
		g.want(403, "M_GUEST_ACCESS_FORBIDDEN", "PUT", v3+"profile/"+me+"/avatar_url", `{"avatar_url":"mxc://a/b"}`)
		g.want(200, `{}`, "PUT", v3+"profile/"+me+"/displayname", `{"displayname":"G"}`)
	})
}

func TestSharedSecret(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		const path, secret = "/_synapse/admin/v1/register", "quite secret"
		prepare(t, st).want(404, "M_UNRECOGNIZED", "GET", path, "")
		prepare(t, st).want(404, "M_UNRECOGNIZED", "POST", path, "{}")
		s := prepare(t, st, mode(account.Closed), func(a *API) { a.Accounts.Config.SharedSecret = secret })
		nonce := func() string { return s.want(200, "nonce", "GET", path, "").text("nonce") } // good for a minute
		body := func(nonce, key, name, role string) string {
			h := hmac.New(sha1.New, []byte(key))
			fmt.Fprintf(h, "%s\x00%s\x00%s\x00%s", nonce, name, password, role)
			return fmt.Sprintf(`{"nonce":%q,"username":%q,"password":%q,"admin":%v,"mac":%q,"displayname":"X"}`, nonce, name, password, role == "admin", hex.EncodeToString(h.Sum(nil)))
		}
		a := s.want(200, `"user_id":"@root:a.test"`, "POST", path, body(nonce(), secret, "ROOT", "admin"))
		root := s.with("", a.text("access_token"), "")
		root.want(200, `"suspend":true`, "GET", v3+"capabilities", "")
		root.want(200, `{"displayname":"X"}`, "GET", v3+"profile/@root:a.test", "")
		s.want(400, "M_USER_IN_USE", "POST", path, body(nonce(), secret, "root", "admin"))
		s.want(403, "M_FORBIDDEN", "POST", path, body(nonce(), "other", "eve", "admin"))
		s.want(403, "M_FORBIDDEN", "POST", path, strings.Replace(body(nonce(), secret, "eve", "notadmin"), "false", "true", 1))
		s.want(400, "M_INVALID_USERNAME", "POST", path, body(nonce(), secret, "e,ve", "notadmin"))
		made, other := nonce(), "A"
		if made[10] == 'A' {
			other = "B"
		}
		s.want(400, "M_INVALID_PARAM", "POST", path, body("made up", secret, "eve", "notadmin"))
		s.want(400, "M_INVALID_PARAM", "POST", path, body(made[:10]+other+made[11:], secret, "eve", "notadmin"))
	})
}
