package clientapi

import (
	"crypto/ed25519"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"switchboard/homeserver/clientsync"
	"switchboard/homeserver/directory"
	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/room"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// withRooms gives an API rooms, keys, syncs and what is ephemeral.
func withRooms(t *testing.T) func(*API) {
	return func(a *API) {
		st, bell := a.Accounts.Store, a.Accounts.Bell
		key, err := signing.Generate()
		if err != nil {
			t.Fatal(err)
		}
		a.Rooms = &room.Service{Store: st, Bell: bell, ServerName: a.ServerName, Key: key}
		a.Keys = &e2ee.Service{Store: st, Bell: bell, ServerName: a.ServerName}
		a.Ephemeral = &ephemeral.Service{Store: st, Bell: bell}
		a.Directory = &directory.Service{Store: st, Rooms: a.Rooms, ServerName: a.ServerName, Registrations: a.Accounts.Appservices}
		a.Sync = &clientsync.Service{Store: st, Rooms: a.Rooms, Unread: a.Sync.Unread, Bell: bell, Keys: a.Keys, Ephemeral: a.Ephemeral, Stopping: make(chan struct{})}
	}
}

// room makes a public room and gives its ID.
func (s *server) room() string {
	s.t.Helper()
	return s.want(200, `"room_id"`, "POST", v3+"createRoom", `{"preset":"public_chat"}`).text("room_id")
}

// join joins a room.
func (s *server) join(room string) {
	s.t.Helper()
	s.want(200, `"room_id"`, "POST", v3+"rooms/"+url.PathEscape(room)+"/join", `{}`)
}

// say sends a message to a room and gives its ID.
func (s *server) say(room, txn string) string {
	s.t.Helper()
	return s.want(200, `"event_id"`, "PUT", v3+"rooms/"+url.PathEscape(room)+"/send/m.room.message/"+txn, `{"msgtype":"m.text","body":"hello"}`).text("event_id")
}

// sync gives what is new behind a token, "" for all.
func (s *server) sync(since string) answer {
	s.t.Helper()
	return s.want(200, `"next_batch"`, "GET", v3+"sync?timeout=0&since="+since, "")
}

// list is at for a list, joined by blanks.
func (a answer) list(keys ...string) string {
	l, _ := a.at(keys...).([]any)
	return strings.Trim(fmt.Sprint(l), "[]")
}

// seed is a signing key that is always the same for a word.
func seed(word string) signing.Key {
	return signing.Key{ID: word, Private: ed25519.NewKeyFromSeed([]byte((word + strings.Repeat("-", 32))[:32]))}
}

func (s *server) deviceKeys() string {
	return fmt.Sprintf(`{"user_id":%q,"device_id":%q,"algorithms":["m.olm.v1.curve25519-aes-sha2"],"keys":{"ed25519:%s":%q}}`,
		s.user, s.device, s.device, signing.EncodeBase64(seed(string(s.device)).Public()))
}

func TestEncryption(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		alice := start(t, st, withRooms(t))
		bob, carol := alice.new("bob"), alice.new("carol")
		before := alice.sync("").text("next_batch")

		alice.want(200, `{"one_time_key_counts":{"signed_curve25519":2}}`, "POST", v3+"keys/upload",
			`{"device_keys":`+alice.deviceKeys()+`,"one_time_keys":{"signed_curve25519:A":{"key":"a","signatures":{}},"signed_curve25519:B":{"key":"b","signatures":{}}},
			"fallback_keys":{"signed_curve25519:F":{"key":"f","fallback":true,"signatures":{}}}}`)
		bob.want(200, `{"one_time_key_counts":{"signed_curve25519":0}}`, "POST", v3+"keys/upload", `{"device_keys":`+bob.deviceKeys()+`}`)
		bob.want(400, `M_INVALID_PARAM`, "POST", v3+"keys/upload", `{"device_keys":`+alice.deviceKeys()+`}`)
		bob.want(400, `M_BAD_JSON`, "POST", v3+"keys/upload", `{"one_time_keys":[]}`)
		a := alice.sync(before)
		if a.list("device_lists", "changed") != "@alice:a.test" || a.at("device_one_time_keys_count", "signed_curve25519") != 2.0 || a.list("device_unused_fallback_key_types") != "signed_curve25519" {
			t.Errorf("got %v", a)
		}

		room := alice.room()
		token := alice.sync("").text("next_batch")
		bob.join(room)
		a = alice.sync(token)
		if a.list("device_lists", "changed") != "@bob:a.test" {
			t.Errorf("got %v", a)
		}
		bob.want(200, `"@alice:a.test":{"`+string(alice.device)+`":{"algorithms"`, "POST", v3+"keys/query", `{"device_keys":{"@alice:a.test":[]}}`)
		bob.want(400, `M_MISSING_PARAM`, "POST", v3+"keys/query", `{}`)
		bob.want(400, `M_INVALID_PARAM`, "POST", v3+"keys/query", `{"device_keys":{"alice":[]}}`)

		claim := `{"one_time_keys":{"@alice:a.test":{"` + string(alice.device) + `":"signed_curve25519"}}}`
		for _, key := range []string{"A", "B", "F", "F"} {
			bob.want(200, `"signed_curve25519:`+key+`"`, "POST", v3+"keys/claim", claim)
		}
		bob.want(400, `M_MISSING_PARAM`, "POST", v3+"keys/claim", `{}`)
		if a = alice.sync(token); a.at("device_one_time_keys_count", "signed_curve25519") != 0.0 || a.list("device_unused_fallback_key_types") != "" {
			t.Errorf("got %v", a)
		}

		// Changes between two tokens, of those who share a room.
		token = alice.sync("").text("next_batch")
		bob.want(200, `{}`, "POST", v3+"rooms/"+url.PathEscape(room)+"/leave", `{}`)
		carol.want(200, `{"one_time_key_counts":{"signed_curve25519":0}}`, "POST", v3+"keys/upload", `{"device_keys":`+carol.deviceKeys()+`}`)
		to := alice.sync(token)
		if to.list("device_lists", "left") != "@bob:a.test" || to.list("device_lists", "changed") != "" {
			t.Errorf("got %v", to)
		}
		alice.want(200, `{"changed":[],"left":["@bob:a.test"]}`, "GET", v3+"keys/changes?from="+token+"&to="+to.text("next_batch"), "")
		alice.want(400, `M_MISSING_PARAM`, "GET", v3+"keys/changes?from="+token, "")
		alice.want(400, `M_INVALID_PARAM`, "GET", v3+"keys/changes?to=s1_1&from=yesterday", "")

		// A device that logs out takes its keys along, and others learn of it.
		bob.join(room)
		token = alice.sync("").text("next_batch")
		bob.want(200, `{}`, "POST", v3+"logout", `{}`)
		if a = alice.sync(token); a.list("device_lists", "changed") != "@bob:a.test" {
			t.Errorf("got %v", a)
		}
		alice.want(200, `"@bob:a.test":{}`, "POST", v3+"keys/query", `{"device_keys":{"@bob:a.test":[]}}`)
	})
}

func TestSendToDevice(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		alice := start(t, st, withRooms(t))
		bob := alice.new("bob")
		path := v3 + "sendToDevice/m.test/"
		alice.want(200, `{}`, "PUT", path+"1", `{"messages":{"@bob:a.test":{"*":{"n":1}}}}`)
		alice.want(200, `{}`, "PUT", path+"1", `{"messages":{"@bob:a.test":{"*":{"n":2}}}}`)
		alice.want(400, `M_MISSING_PARAM`, "PUT", path+"2", `{}`)
		alice.want(400, `M_BAD_JSON`, "PUT", path+"2", `{"messages":{"@bob:a.test":{"*":1}}}`)
		alice.want(400, `M_INVALID_PARAM`, "PUT", path+"%00", `{"messages":{}}`)
		bob.nobody().want(401, `M_MISSING_TOKEN`, "PUT", path+"2", `{}`)
		bob.want(200, `"to_device":{"events":[{"type":"m.test","sender":"@alice:a.test","content":{"n":1}}]}`, "GET", v3+"sync?timeout=0", "")
	})
}

func TestCrossSigning(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		alice := start(t, st, withRooms(t))
		path := v3 + "keys/device_signing/upload"
		keys := func(word string) string {
			master, self := signing.EncodeBase64(seed(word).Public()), signing.EncodeBase64(seed(word+" self").Public())
			selfKey, err := signing.SignJSON(fmt.Appendf(nil, `{"user_id":"@alice:a.test","usage":["self_signing"],"keys":{"ed25519:%s":%q}}`, self, self),
				"@alice:a.test", signing.Key{ID: "ed25519:" + master, Private: seed(word).Private})
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf(`"master_key":{"user_id":"@alice:a.test","usage":["master"],"keys":{"ed25519:%s":%q}},"self_signing_key":%s`, master, master, selfKey)
		}
		alice.want(400, `M_MISSING_PARAM`, "POST", path, `{`+keys("first")[strings.Index(keys("first"), `"self_signing_key"`):]+`}`)
		alice.want(200, `{}`, "POST", path, `{`+keys("first")+`}`)
		alice.want(200, `{}`, "POST", path, `{`+keys("first")+`}`)
		alice.want(200, `{}`, "POST", "/_matrix/client/unstable/keys/device_signing/upload", `{`+keys("first")+`}`)
		alice.want(200, `{"failures":{}}`, "POST", "/_matrix/client/unstable/keys/signatures/upload", `{}`)
		alice.want(200, `"org.matrix.e2e_cross_signing":true`, "GET", "/_matrix/client/versions", "")
		session := alice.want(401, `"m.login.password"`, "POST", path, `{`+keys("second")+`}`).text("session")
		alice.want(200, `{}`, "POST", path, `{"auth":{"type":"m.login.password","session":"`+session+`","identifier":{"type":"m.id.user","user":"alice"},"password":"`+password+`"},`+keys("second")+`}`)
		alice.want(200, signing.EncodeBase64(seed("second").Public()), "POST", v3+"keys/query", `{"device_keys":{"@alice:a.test":[]}}`)

		alice.want(200, `"one_time_key_counts"`, "POST", v3+"keys/upload", `{"device_keys":`+alice.deviceKeys()+`}`)
		self := seed("second self")
		self.ID = "ed25519:" + signing.EncodeBase64(self.Public())
		signed, err := signing.SignJSON([]byte(alice.deviceKeys()), "@alice:a.test", self)
		if err != nil {
			t.Fatal(err)
		}
		path = v3 + "keys/signatures/upload"
		alice.want(200, `{"failures":{}}`, "POST", path, fmt.Sprintf(`{"@alice:a.test":{%q:%s}}`, alice.device, signed))
		alice.want(200, `"errcode":"M_NOT_FOUND"`, "POST", path, fmt.Sprintf(`{"@alice:a.test":{"other":%s}}`, signed))
		alice.want(400, `M_BAD_JSON`, "POST", path, `{"@alice:a.test":[]}`)
		alice.want(200, self.ID, "POST", v3+"keys/query", `{"device_keys":{"@alice:a.test":[]}}`)
	})
}

func TestKeyBackup(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st, withRooms(t))
		path := v3 + "room_keys/"
		s.want(404, `M_NOT_FOUND`, "GET", path+"version", "")
		s.want(400, `M_MISSING_PARAM`, "POST", path+"version", `{"algorithm":"x"}`)
		v := s.want(200, `"version"`, "POST", path+"version", `{"algorithm":"x","auth_data":{"a":1}}`).text("version")
		q := "?version=" + v
		s.want(200, `{"algorithm":"x","auth_data":{"a":1},"count":0,"etag":"0","version":"`+v+`"}`, "GET", path+"version", "")
		s.want(404, `M_NOT_FOUND`, "GET", path+"version/none", "")
		s.want(200, `{}`, "PUT", path+"version/"+v, `{"algorithm":"x","auth_data":{"a":2},"version":"`+v+`"}`)
		s.want(400, `M_INVALID_PARAM`, "PUT", path+"version/"+v, `{"algorithm":"x","auth_data":{"a":2},"version":"other"}`)
		s.want(400, `M_INVALID_PARAM`, "PUT", path+"version/"+v, `{"algorithm":"y","auth_data":{"a":2}}`)
		s.want(200, `"auth_data":{"a":2}`, "GET", path+"version/"+v, "")

		const key = `{"first_message_index":0,"forwarded_count":0,"is_verified":true,"session_data":{"c":"x"}}`
		s.want(200, `{"count":1,"etag":"1"}`, "PUT", path+"keys/!a:x/s1"+q, key)
		s.want(200, `{"count":2,"etag":"2"}`, "PUT", path+"keys/!a:x"+q, `{"sessions":{"s2":`+key+`}}`)
		s.want(200, `{"count":3,"etag":"3"}`, "PUT", path+"keys"+q, `{"rooms":{"!b:x":{"sessions":{"s3":`+key+`}}}}`)
		s.want(400, `M_BAD_JSON`, "PUT", path+"keys"+q, `{}`)
		s.want(400, `M_BAD_JSON`, "PUT", path+"keys/!a:x/s1"+q, `{"session_data":7}`)
		s.want(400, `M_MISSING_PARAM`, "PUT", path+"keys", `{"rooms":{}}`)
		s.want(403, `"current_version":"`+v+`"`, "PUT", path+"keys?version=0", `{"rooms":{}}`)
		s.want(200, key, "GET", path+"keys/!a:x/s1"+q, "")
		s.want(404, `M_NOT_FOUND`, "GET", path+"keys/!a:x/none"+q, "")
		s.want(404, `M_NOT_FOUND`, "GET", path+"keys/!a:x/s1?version=999", "")
		s.want(200, `{"sessions":{"s1":`+key+`,"s2":`+key+`}}`, "GET", path+"keys/!a:x"+q, "")
		s.want(200, `{"sessions":{}}`, "GET", path+"keys/!none:x"+q, "")
		s.want(200, `{"rooms":{"!a:x":{"sessions":{"s1":`+key+`,"s2":`+key+`}},"!b:x":{"sessions":{"s3":`+key+`}}}}`, "GET", path+"keys"+q, "")
		s.want(200, `{"count":2,"etag":"4"}`, "DELETE", path+"keys/!a:x/s1"+q, "")
		s.want(200, `{"count":1,"etag":"5"}`, "DELETE", path+"keys/!a:x"+q, "")
		s.want(200, `{"count":0,"etag":"6"}`, "DELETE", path+"keys"+q, "")
		s.want(200, `{"rooms":{}}`, "GET", path+"keys"+q, "")
		s.want(400, `M_MISSING_PARAM`, "DELETE", path+"keys", "")
		s.want(200, `{}`, "DELETE", path+"version/"+v, "")
		s.want(404, `M_NOT_FOUND`, "DELETE", path+"version/"+v, "")
	})
}

// device of an appservice that names none.
func TestKeysNeedADevice(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st, withRooms(t)).appservice("irc")
		s.want(400, `M_MISSING_PARAM`, "POST", v3+"keys/upload", `{}`)
		s.want(200, `{}`, "PUT", v3+"sendToDevice/m.test/1", `{"messages":{}}`)
	})
}
