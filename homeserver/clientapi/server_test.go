package clientapi

import (
	"testing"

	"switchboard/homeserver/account"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestServer(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st, func(a *API) { a.DefaultRoomVersion = "11" })
		s.nobody().want(200, `"v1.19"`, "GET", "/_matrix/client/versions", "")
		for _, feature := range []string{"org.matrix.msc3827.stable", "org.matrix.msc3981"} { // Element does without where they are not told
			s.nobody().want(200, `"`+feature+`":true`, "GET", "/_matrix/client/versions", "")
		}
		s.want(200, `"default":"11"`, "GET", v3+"capabilities", "")
		a := s.want(200, `"m.change_password":{"enabled":true}`, "GET", v3+"capabilities", "")
		if a.at("capabilities", "m.room_versions", "available", "12") != "stable" || a.at("capabilities", "m.3pid_changes", "enabled") != false {
			t.Errorf("got %v", a)
		}
		s.nobody().want(401, "M_MISSING_TOKEN", "GET", v3+"capabilities", "")
		for _, name := range []string{"client", "server", "support", "policy_server"} {
			s.nobody().want(404, "M_NOT_FOUND", "GET", "/.well-known/matrix/"+name, "")
		}
		s.api.PublicURL, s.api.Delegate, s.api.PolicyServerKey = "https://m.a.test", "m.a.test:443", "6yhHGKhCiXTSEN2ksjV7kX_N6rBQZ3Xb-M7LlC6NS-s"
		s.api.Support = Support{Contacts: []Contact{{MatrixID: "@root:a.test", Role: "m.role.admin"}}, Page: "https://a.test/help"}
		s.nobody().want(200, `{"m.homeserver":{"base_url":"https://m.a.test"}}`, "GET", "/.well-known/matrix/client", "")
		s.nobody().want(200, `{"m.server":"m.a.test:443"}`, "GET", "/.well-known/matrix/server", "")
		s.nobody().want(200, `{"public_keys":{"ed25519":"6yhHGKhCiXTSEN2ksjV7kX_N6rBQZ3Xb-M7LlC6NS-s"}}`, "GET", "/.well-known/matrix/policy_server", "")
		s.nobody().want(200, `{"contacts":[{"matrix_id":"@root:a.test","role":"m.role.admin"}],"support_page":"https://a.test/help"}`, "GET", "/.well-known/matrix/support", "")
	})
}

func TestAdmin(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		if _, err := s.api.Accounts.CreateUser(t.Context(), account.NewUser{Localpart: "root2", Password: password, Admin: true}); err != nil {
			t.Fatal(err)
		}
		const v1 = "/_matrix/client/v1/admin/"
		for _, path := range []string{v1 + "lock/@nobody:a.test", v1 + "suspend/@nobody:a.test", v3 + "admin/whois/@nobody:a.test"} {
			s.want(403, "M_FORBIDDEN", "GET", path, "") // before anything is looked up
		}
		s.want(200, `"user_id":"@alice:a.test"`, "GET", v3+"admin/whois/@alice:a.test", "")
		if err := s.api.Accounts.SetAdmin(t.Context(), s.user, true); err != nil {
			t.Fatal(err)
		}
		bob.want(200, "bob", "GET", v3+"account/whoami", "")
		if err := s.api.Accounts.Run(canceled(t)); err != nil { // writes where bob was seen
			t.Error(err)
		}
		s.want(200, `"ip":"192.0.2.1"`, "GET", v3+"admin/whois/@bob:a.test", "")
		s.want(404, "M_NOT_FOUND", "GET", v3+"admin/whois/@nobody:a.test", "")
		for _, kind := range []string{"lock", "suspend"} {
			flag := kind + "ed"
			path := v1 + kind + "/"
			s.want(200, `{"`+flag+`":false}`, "GET", path+"@bob:a.test", "")
			s.want(200, `{"`+flag+`":true}`, "PUT", path+"@bob:a.test", `{"`+flag+`":true}`)
			s.want(200, `{"`+flag+`":true}`, "GET", path+"@bob:a.test", "")
			if kind == "lock" {
				bob.want(401, "M_USER_LOCKED", "GET", v3+"account/whoami", "")
			}
			s.want(200, `{"`+flag+`":false}`, "PUT", path+"@bob:a.test", `{"`+flag+`":false}`)
			bob.want(200, "bob", "GET", v3+"account/whoami", "")
			s.want(403, "M_FORBIDDEN", "PUT", path+"@alice:a.test", `{"`+flag+`":true}`)
			s.want(403, "M_FORBIDDEN", "PUT", path+"@root2:a.test", `{"`+flag+`":true}`)
			s.want(404, "M_NOT_FOUND", "PUT", path+"@nobody:a.test", `{"`+flag+`":true}`)
			s.want(400, "M_INVALID_PARAM", "PUT", path+"@bob:b.test", `{"`+flag+`":true}`)
			s.want(400, "M_MISSING_PARAM", "PUT", path+"@bob:a.test", `{}`)
		}
	})
}
