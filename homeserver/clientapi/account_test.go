package clientapi

import (
	"fmt"
	"testing"

	"switchboard/homeserver/account"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

const v3 = "/_matrix/client/v3/"

// pass is auth by password.
func pass(user, password string) string {
	return fmt.Sprintf(`"auth":{"type":"m.login.password","identifier":{"type":"m.id.user","user":%q},"password":%q}`, user, password)
}

func TestWhoami(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		s.want(200, fmt.Sprintf(`{"user_id":"@alice:a.test","device_id":%q,"is_guest":false}`, s.device), "GET", v3+"account/whoami", "")
		s.nobody().want(401, "M_MISSING_TOKEN", "GET", v3+"account/whoami", "")
		s.nobody().want(200, "@alice:a.test", "GET", v3+"account/whoami?access_token="+s.token, "")
		s.with("", "wrong", "").want(401, `{"errcode":"M_UNKNOWN_TOKEN","error":"unknown access token","soft_logout":false}`, "GET", v3+"account/whoami", "")
		s.with("", "wrong\x00\xff", "").want(401, "M_UNKNOWN_TOKEN", "GET", v3+"account/whoami", "")
		s.want(405, "M_UNRECOGNIZED", "POST", v3+"account/whoami", "")
		s.want(404, "M_UNRECOGNIZED", "GET", v3+"account/nothing", "")
	})
}

func TestChangePassword(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		other := s.as("alice")
		const path, next = v3 + "account/password", `"new_password":"battery staple"`
		s.want(401, `"flows":[{"stages":["m.login.password"]}],"params":{},"session":"`, "POST", path, "")
		s.want(401, `"errcode":"M_FORBIDDEN"`, "POST", path, `{`+pass("alice", "wrong")+`,`+next+`}`)
		s.want(400, "M_WEAK_PASSWORD", "POST", path, `{`+pass("alice", password)+`,"new_password":"short"}`)
		s.want(400, "M_MISSING_PARAM", "POST", path, `{`+pass("alice", password)+`}`)
		s.want(200, `{}`, "POST", path, `{`+pass("alice", password)+`,"logout_devices":false,`+next+`}`)
		other.want(200, "alice", "GET", v3+"account/whoami", "")
		s.want(200, `{}`, "POST", path, `{`+pass("@alice:a.test", "battery staple")+`,"new_password":"`+password+`"}`)
		other.want(401, "M_UNKNOWN_TOKEN", "GET", v3+"account/whoami", "")
		s.want(200, "alice", "GET", v3+"account/whoami", "")
		s.appservice("irc").want(403, "M_FORBIDDEN", "POST", path, `{`+next+`}`)
	})
}

func TestDeactivateAccount(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		const path = v3 + "account/deactivate"
		s.want(200, `{}`, "PUT", v3+"profile/@alice:a.test/displayname", `{"displayname":"A"}`)
		s.want(401, "m.login.password", "POST", path, `{}`)
		s.want(401, "M_FORBIDDEN", "POST", path, `{`+pass("alice", "wrong")+`}`)
		s.want(200, `{"id_server_unbind_result":"success"}`, "POST", path, `{`+pass("alice", password)+`,"erase":true}`)
		s.want(401, "M_UNKNOWN_TOKEN", "GET", v3+"account/whoami", "")
		s.nobody().want(403, "M_FORBIDDEN", "POST", v3+"login", `{"type":"m.login.password","user":"alice","password":"`+password+`"}`)
		s.nobody().want(400, "M_USER_IN_USE", "GET", v3+"register/available?username=alice", "")
		s.nobody().want(404, "M_NOT_FOUND", "GET", v3+"profile/@alice:a.test", "")
		if u, _, _ := st.User(t.Context(), "@alice:a.test"); !u.Erased || !u.Deactivated || u.Password != "" {
			t.Errorf("got %+v", u)
		}
	})
}

func TestThreepids(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		start(t, st).want(200, `{"threepids":[]}`, "GET", v3+"account/3pid", "")
	})
}

// An account that cannot log in by password has no way to confirm anything.
func TestNoPassword(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		if _, err := s.api.Accounts.CreateUser(t.Context(), account.NewUser{Localpart: "nopass"}); err != nil {
			t.Fatal(err)
		}
		s.nobody().want(403, "M_FORBIDDEN", "POST", v3+"login", `{"type":"m.login.password","user":"nopass","password":""}`)
		as := s.appservice("irc")
		as.want(200, "irc_x", "POST", v3+"register", `{"type":"m.login.application_service","username":"irc_x"}`)
		as.want(200, `{}`, "GET", v3+"profile/@irc_x:a.test", "")
		a := as.want(200, "access_token", "POST", v3+"login", `{"type":"m.login.application_service","identifier":{"type":"m.id.user","user":"irc_x"}}`)
		puppet := s.with("@irc_x:a.test", a.text("access_token"), "")
		puppet.want(403, "M_FORBIDDEN", "POST", v3+"account/deactivate", `{}`)
		puppet.want(200, `"m.change_password":{"enabled":false}`, "GET", v3+"capabilities", "")
	})
}
