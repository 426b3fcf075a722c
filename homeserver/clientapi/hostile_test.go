package clientapi

import (
	"fmt"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// What no database stores is the client's mistake, wherever it stands.
func TestUnstorableText(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		as := s.appservice("irc")
		for _, bad := range []string{"a%00b", "a%ffb"} {
			for _, path := range []string{
				"devices/" + bad, "user/@alice:a.test/account_data/" + bad, "user/@alice:a.test/rooms/!r:a.test/account_data/" + bad,
				"user/@alice:a.test/rooms/!" + bad + "/tags", "profile/@" + bad + ":a.test", "profile/@alice:a.test/" + bad,
				"user/@alice:a.test/filter/" + bad, "pushrules/global/room/" + bad, "admin/whois/@" + bad,
			} {
				for _, method := range []string{"GET", "PUT", "DELETE"} {
					body := fmt.Sprintf(`{%s}`, pass("alice", password))
					if w := s.do(method, v3+path, body); w.Code < 400 || w.Code >= 500 {
						t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
					}
				}
			}
			for _, query := range []string{"?user_id=@irc_" + bad + ":a.test", "?device_id=" + bad, "?user_id=" + bad} {
				if w := as.do("GET", v3+"account/whoami"+query, ""); w.Code < 400 || w.Code >= 500 {
					t.Errorf("%s: %d %s", query, w.Code, w.Body)
				}
			}
		}
		for _, body := range []string{
			`{"auth":{"session":"a\u0000","type":"m.login.dummy"},"password":"` + password + `"}`,
			`{"auth":{"token":"a\u0000","type":"m.login.registration_token"},"password":"` + password + `"}`,
			`{"type":"m.login.application_service","username":"irc_\u0000"}`,
			`{"auth":{"type":"m.login.dummy"},"password":"` + password + `","initial_device_display_name":"\u0000"}`,
		} {
			for _, who := range []*server{s, as} {
				if w := who.do("POST", v3+"register", body); w.Code < 400 || w.Code >= 500 {
					t.Errorf("%s: %d %s", body, w.Code, w.Body)
				}
			}
		}
	})
}
