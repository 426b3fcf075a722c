package clientapi

import (
	"fmt"
	"strings"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestDevices(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		other := s.as("alice")
		bob := s.new("bob")
		path := v3 + "devices/" + string(other.device)
		s.want(200, fmt.Sprintf(`"device_id":%q`, other.device), "GET", v3+"devices", "")
		s.want(200, `{}`, "PUT", path, `{"display_name":"tablet"}`)
		s.want(200, `{}`, "PUT", path, `{}`)
		s.want(200, `"display_name":"tablet"`, "GET", path, "")
		s.want(400, "M_INVALID_PARAM", "PUT", path, `{"display_name":"`+strings.Repeat("x", 300)+`"}`)
		s.want(400, "M_INVALID_PARAM", "PUT", path, `{"display_name":"a\u0000"}`)
		s.want(400, "M_BAD_JSON", "PUT", path, `{"display_name":{}}`)
		s.want(404, "M_NOT_FOUND", "GET", v3+"devices/none", "")
		s.want(404, "M_NOT_FOUND", "PUT", v3+"devices/none", `{"display_name":"x"}`) // people make devices by logging in
		bob.want(404, "M_NOT_FOUND", "GET", path, "")

		a := s.want(401, `"session":"`, "DELETE", path, "")
		s.want(401, `"errcode":"M_FORBIDDEN"`, "DELETE", path, `{`+pass("alice", "wrong")+`}`)
		s.want(403, "M_FORBIDDEN", "DELETE", path, `{`+pass("bob", password)+`}`)
		s.want(403, "M_FORBIDDEN", "DELETE", v3+"devices/"+string(s.device), // the session is for the other device
			fmt.Sprintf(`{"auth":{"type":"m.login.password","user":"alice","password":%q,"session":%q}}`, password, a.text("session")))
		bob.want(403, "M_FORBIDDEN", "DELETE", path, fmt.Sprintf(`{"auth":{"type":"m.login.password","user":"bob","password":%q,"session":%q}}`, password, a.text("session")))
		other.want(200, "alice", "GET", v3+"account/whoami", "")
		s.want(200, `{}`, "DELETE", path, fmt.Sprintf(`{"auth":{"type":"m.login.password","user":"Alice","password":%q,"session":%q}}`, password, a.text("session")))
		other.want(401, "M_UNKNOWN_TOKEN", "GET", v3+"account/whoami", "")
		s.want(404, "M_NOT_FOUND", "GET", path, "")
		s.want(200, `{}`, "DELETE", path, `{`+pass("alice", password)+`}`) // it is gone
	})
}

func TestDeleteDevices(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		a, b := s.as("alice"), s.as("alice")
		const path = v3 + "delete_devices"
		list := fmt.Sprintf(`"devices":[%q,%q,"none"]`, a.device, b.device)
		session := s.want(401, "flows", "POST", path, `{`+list+`}`).text("session")
		again := fmt.Sprintf(`"devices":["none",%q,%q]`, b.device, a.device) // the order does not matter
		s.want(200, `{}`, "POST", path, fmt.Sprintf(`{"auth":{"type":"m.login.password","user":"alice","password":%q,"session":%q},%s}`, password, session, again))
		a.want(401, "M_UNKNOWN_TOKEN", "GET", v3+"account/whoami", "")
		b.want(401, "M_UNKNOWN_TOKEN", "GET", v3+"account/whoami", "")
		s.want(200, "alice", "GET", v3+"account/whoami", "")
		s.want(400, "M_MISSING_PARAM", "POST", path, `{}`)
		s.want(400, "M_BAD_JSON", "POST", path, `{"devices":"x"}`)
		s.want(400, "M_INVALID_PARAM", "POST", path, `{"devices":[`+strings.Repeat(`"x",`, 1000)+`"x"]}`)
	})
}
