package clientapi

import (
	"fmt"
	"net/url"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// TestDehydratedDevice is what a client does that goes away, and one that comes
// later.
func TestDehydratedDevice(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		const path, id = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device", "a+b/c"
		const key = "MCowBQYDK2VuAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
		body := fmt.Sprintf(`{"device_id":%q,"device_data":{"algorithm":"x","more":[1]},"initial_device_display_name":"Dried",
			"device_keys":{"user_id":"@alice:a.test","device_id":%q,"dehydrated":true,"algorithms":[],"keys":{"curve25519:%s":%q},"signatures":{}},
			"one_time_keys":{"signed_curve25519:1":{"key":"k","signatures":{}}}}`, id, id, id, key)
		s.want(404, "M_NOT_FOUND", "GET", path, "")
		s.want(404, "M_NOT_FOUND", "DELETE", path, "{}")
		s.nobody().want(401, "M_MISSING_TOKEN", "GET", path, "")
		s.want(200, `{"device_id":"a+b/c"}`, "PUT", path, body)
		s.want(200, `{"device_id":"a+b/c","device_data":{"algorithm":"x","more":[1]}}`, "GET", path, "")
		bob.want(404, "M_NOT_FOUND", "GET", path, "")
		bob.want(200, `"dehydrated":true`, "POST", "/_matrix/client/v3/keys/query", `{"device_keys":{"@alice:a.test":[]}}`)
		bob.want(200, `"signed_curve25519:1"`, "POST", "/_matrix/client/v3/keys/claim", fmt.Sprintf(`{"one_time_keys":{"@alice:a.test":{%q:"signed_curve25519"}}}`, id))
		bob.want(200, "{}", "PUT", "/_matrix/client/v3/sendToDevice/m.room.encrypted/1", fmt.Sprintf(`{"messages":{"@alice:a.test":{%q:{"hello":1}}}}`, id))
		events := path + "/" + url.PathEscape(id) + "/events"
		next := s.want(200, `"events":[{"type":"m.room.encrypted","sender":"@bob:a.test","content":{"hello":1}}]`, "POST", events, "{}").text("next_batch")
		s.want(200, `"events":[]`, "POST", events, fmt.Sprintf(`{"next_batch":%q}`, next))
		s.want(200, `"content":{"hello":1}`, "POST", events, "")
		s.want(200, `"content":{"hello":1}`, "GET", events, "")
		s.want(200, `"events":[]`, "GET", events+"?next_batch="+next, "")
		s.want(400, "M_INVALID_PARAM", "POST", events, `{"next_batch":"x"}`)
		s.want(403, "M_FORBIDDEN", "POST", path+"/"+string(s.device)+"/events", "{}")
		bob.want(403, "M_FORBIDDEN", "POST", events, "{}")
		s.want(200, `{"device_id":"a+b/c"}`, "DELETE", path, "{}")
		s.want(200, `{"device_id":"a+b/c"}`, "PUT", path, body)
		s.want(200, "{}", "POST", "/_matrix/client/v3/logout/all", "{}")
		s.as("alice").want(404, "M_NOT_FOUND", "GET", path, "")
	})
}
