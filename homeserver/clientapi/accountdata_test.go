package clientapi

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestAccountData(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		const mine, hers = v3 + "user/@alice:a.test/account_data/", v3 + "user/@bob:a.test/account_data/"
		s := start(t, st)
		rung := s.bell.Listen("@alice:a.test")

		s.want(404, `M_NOT_FOUND`, "GET", mine+"org.x", "")
		s.want(200, `{}`, "PUT", mine+"org.x", `{"b":1,"a":2}`)
		s.want(200, `{"b":1,"a":2}`, "GET", mine+"org.x", "")
		s.want(403, `M_FORBIDDEN`, "PUT", hers+"org.x", `{}`)
		s.want(403, `M_FORBIDDEN`, "GET", hers+"org.x", "")
		s.want(400, `M_NOT_JSON`, "PUT", mine+"org.x", `{`)
		s.want(400, `M_BAD_JSON`, "PUT", mine+"org.x", `[]`)
		s.want(405, `M_BAD_JSON`, "PUT", mine+"m.fully_read", `{}`)
		s.want(405, `M_BAD_JSON`, "PUT", mine+"m.push_rules", `{}`)
		s.want(405, `M_UNRECOGNIZED`, "DELETE", mine+"org.x", "")
		s.want(400, `M_INVALID_PARAM`, "PUT", mine+"a%00b", `{}`)
		s.want(400, `M_INVALID_PARAM`, "PUT", mine+strings.Repeat("a", 256), `{}`)
		s.want(200, `{}`, "PUT", mine+"org.y", `{"text":"\u0000 \ud83d\ude00"}`)
		s.want(200, `{"text":"\u0000 \ud83d\ude00"}`, "GET", mine+"org.y", "")

		select {
		case <-rung:
		default:
			t.Error("no sync was woken")
		}
	})
}

// TestAccountDataBounds fills what a user may store, with settings of their own, of
// rooms, and tags.
func TestAccountDataBounds(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		const mine, room = v3 + "user/@alice:a.test/account_data/", v3 + "user/@alice:a.test/rooms/!r:a.test/"
		of := func(size int) string { return `{"x":"` + strings.Repeat("x", size-len(`{"x":""}`)) + `"}` }
		s.want(413, "M_TOO_LARGE", "PUT", mine+"org.x", of(1<<20+1))
		s.want(413, "M_TOO_LARGE", "PUT", room+"account_data/org.x", of(1<<20+1))
		s.want(413, "M_TOO_LARGE", "PUT", room+"tags/u.x", of(1<<20))
		large := `{"actions":[],"conditions":[{"kind":"x","x":"` + strings.Repeat("x", 600_000) + `"}]}`
		s.want(200, `{}`, "PUT", v3+"pushrules/global/override/one", large)
		s.want(413, "M_TOO_LARGE", "PUT", v3+"pushrules/global/override/two", large)
		s.want(404, "M_NOT_FOUND", "GET", v3+"pushrules/global/override/two", "")
		s.want(200, `{}`, "PUT", v3+"pushrules/global/override/one/enabled", `{"enabled":true}`)
		s.want(200, `{}`, "DELETE", v3+"pushrules/global/override/one", "")
		s.want(404, "M_NOT_FOUND", "GET", mine+"org.x", "")
		s.want(200, `{"tags":{}}`, "GET", room+"tags", "")
		err := st.Update(t.Context(), func(tx *store.Tx) (err error) {
			for i := 0; i < 63 && err == nil; i++ {
				_, err = tx.PutAccountData(t.Context(), store.AccountData{User: s.user, Type: fmt.Sprint("org.x", i), Content: json.RawMessage(of(1 << 20))})
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		const full = "M_RESOURCE_LIMIT_EXCEEDED"
		for want, support := range map[string]Support{
			"https://a.test/":      {},
			"https://a.test/help":  {Page: "https://a.test/help", Contacts: []Contact{{Email: "root@a.test"}}},
			"mailto:root@a.test":   {Contacts: []Contact{{Email: "root@a.test"}}},
			"matrix:u/root:a.test": {Contacts: []Contact{{MatrixID: "@root:a.test"}}},
		} {
			s.api.Support = support
			if got := s.want(403, full, "PUT", mine+"org.one", of(1<<20)).text("admin_contact"); got != want {
				t.Errorf("help is at %s, want %s", got, want)
			}
		}
		s.want(403, full, "PUT", room+"account_data/org.one", of(1<<20))
		s.want(403, full, "PUT", room+"tags/u.x", of(1<<20-100))
		rule := v3 + "pushrules/global/override/large"
		s.want(200, `{}`, "PUT", rule, `{"actions":[]}`)
		s.want(403, full, "PUT", rule, `{"actions":[],"conditions":[{"kind":"x","x":"`+strings.Repeat("x", 1<<20-8000)+`"}]}`)
		s.want(200, `{}`, "DELETE", rule, "")
		s.want(404, "M_NOT_FOUND", "GET", mine+"org.one", "")
		s.want(200, `{}`, "PUT", mine+"org.x1", of(1<<20)) // in its own place
		s.want(200, `{}`, "PUT", mine+"org.small", `{}`)
		s.new("bob").want(200, `{}`, "PUT", strings.Replace(mine, "alice", "bob", 1)+"org.one", of(1<<20))
		s.want(200, `{}`, "DELETE", "/_matrix/client/unstable/org.matrix.msc3391/user/@alice:a.test/account_data/org.x1", "")
		s.want(200, `{}`, "PUT", mine+"org.one", of(1<<20))
	})
}

func TestAccountDataPerRoom(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		const path = v3 + "user/@alice:a.test/rooms/!r:a.test/account_data/"
		s := start(t, st)
		s.want(404, `M_NOT_FOUND`, "GET", path+"org.x", "")
		s.want(200, `{}`, "PUT", path+"org.x", `{"a":1}`)
		s.want(200, `{"a":1}`, "GET", path+"org.x", "")
		s.want(404, `M_NOT_FOUND`, "GET", v3+"user/@alice:a.test/account_data/org.x", "")
		s.want(405, `M_BAD_JSON`, "PUT", path+"m.fully_read", `{}`)
		s.want(400, `M_INVALID_PARAM`, "PUT", v3+"user/@alice:a.test/rooms/r:a.test/account_data/org.x", `{}`)
		s.want(400, `M_INVALID_PARAM`, "GET", v3+"user/@alice:a.test/rooms/r:a.test/account_data/org.x", "")
		s.new("bob").want(403, `M_FORBIDDEN`, "GET", path+"org.x", "")
	})
}

// TestDeletedAccountData: what is deleted is gone, and clients are told so once.
func TestDeletedAccountData(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		const unstable = "/_matrix/client/unstable/org.matrix.msc3391/"
		room := s.create(`{}`)
		for i, own := range []string{"user/@alice:a.test/account_data/", "user/@alice:a.test/rooms/" + url.PathEscape(id(room)) + "/account_data/"} {
			gone := fmt.Sprint("org.gone", i)
			told := func(since string) (string, bool) {
				w := s.do("GET", v3+"sync?since="+since, "").Body.String()
				return answer(s.want(200, "next_batch", "GET", v3+"sync?since="+since, "")).text("next_batch"), strings.Contains(w, fmt.Sprintf(`{"type":%q,"content":{}}`, gone))
			}
			s.want(200, `{}`, "PUT", v3+own+gone, `{"a":1}`)
			since, _ := told("")
			s.want(200, `{}`, "DELETE", unstable+own+gone, "")
			s.want(404, `M_NOT_FOUND`, "GET", v3+own+gone, "")
			since, was := told(since)
			_, again := told(since)
			if _, first := told(""); !was || again || first {
				t.Errorf("%s: told of the deletion %v, once more %v, and to who comes new %v", own, was, again, first)
			}
			s.want(200, `{}`, "DELETE", unstable+own+gone, "")
			s.want(200, `{}`, "DELETE", unstable+own+"org.never", "")
			if _, again := told(since); again {
				t.Errorf("%s: told of what was gone already", own)
			}
			s.want(200, `{}`, "PUT", v3+own+gone, `{}`) // not deleted: empty
			s.want(200, `{}`, "GET", v3+own+gone, "")
			if _, first := told(""); !first {
				t.Errorf("%s: what is empty is not told", own)
			}
			s.want(405, `M_BAD_JSON`, "DELETE", unstable+own+"m.push_rules", "")
			s.new(fmt.Sprint("bob", i)).want(403, `M_FORBIDDEN`, "DELETE", unstable+own+gone, "")
		}
	})
}

func TestTags(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		const room = v3 + "user/@alice:a.test/rooms/!r:a.test/"
		s := start(t, st)
		s.want(200, `{"tags":{}}`, "GET", room+"tags", "")
		rung := s.bell.Listen("@alice:a.test")
		s.want(200, `{}`, "PUT", room+"tags/m.favourite", `{"order":0.5}`)
		s.want(200, `{}`, "PUT", room+"tags/u.Work", `{}`)
		s.want(200, `{"tags":{"m.favourite":{"order":0.5},"u.Work":{}}}`, "GET", room+"tags", "")
		s.want(200, `{"tags":{"m.favourite":{"order":0.5},"u.Work":{}}}`, "GET", room+"account_data/m.tag", "")
		s.want(200, `{}`, "DELETE", room+"tags/m.favourite", "")
		s.want(200, `{}`, "DELETE", room+"tags/none", "")
		s.want(200, `{"tags":{"u.Work":{}}}`, "GET", room+"tags", "")
		s.want(400, "M_BAD_JSON", "PUT", room+"tags/u.x", `[]`)
		s.want(400, "M_INVALID_PARAM", "PUT", room+"tags/"+strings.Repeat("u", 256), `{}`)
		s.want(400, "M_INVALID_PARAM", "PUT", v3+"user/@alice:a.test/rooms/r/tags/u.x", `{}`)
		s.want(403, "M_FORBIDDEN", "GET", v3+"user/@bob:a.test/rooms/!r:a.test/tags", "")
		select {
		case <-rung:
		default:
			t.Error("no sync was woken")
		}
		// What a client wrote there that is no tag does no harm.
		s.want(200, `{}`, "PUT", room+"account_data/m.tag", `{"tags":[1]}`)
		s.want(200, `{"tags":{}}`, "GET", room+"tags", "")
	})
}

func TestFilter(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		const path = v3 + "user/@alice:a.test/filter"
		s := start(t, st)
		s.want(200, `{"filter_id":"1"}`, "POST", path, `{"room":{"timeline":{"limit":10}}}`)
		s.want(200, `{"filter_id":"2"}`, "POST", path, `{}`)
		s.want(200, `{"filter_id":"1"}`, "POST", path, `{"room":{"timeline":{"limit":10}}}`)
		s.want(200, `{"room":{"timeline":{"limit":10}}}`, "GET", path+"/1", "")
		s.want(404, "M_NOT_FOUND", "GET", path+"/3", "")
		s.want(404, "M_NOT_FOUND", "GET", path+"/x", "")
		s.want(400, "M_BAD_JSON", "POST", path, `{"room":{"timeline":{"limit":"ten"}}}`)
		s.want(400, "M_", "POST", path, `{"room":{"rooms":["no room"]}}`)
		s.want(400, "M_NOT_JSON", "POST", path, `{`)
		bob := s.new("bob")
		bob.want(403, "M_FORBIDDEN", "GET", path+"/1", "")
		bob.want(404, "M_NOT_FOUND", "GET", v3+"user/@bob:a.test/filter/1", "")
	})
}

func TestPushers(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		const path = v3 + "pushers"
		pusher := func(key, rest string) string {
			return fmt.Sprintf(`{"app_display_name":"App","app_id":"org.app","data":{"url":"https://p.test/_matrix/push/v1/notify"},"device_display_name":"phone","kind":"http","lang":"en","pushkey":%q%s}`, key, rest)
		}
		s.want(200, `{"pushers":[]}`, "GET", path, "")
		s.want(200, `{}`, "POST", path+"/set", pusher("k", ""))
		s.want(200, `{"pushers":[{"app_id":"org.app","pushkey":"k","kind":"http","app_display_name":"App","device_display_name":"phone","lang":"en","data":{"url":"https://p.test/_matrix/push/v1/notify"}}]}`, "GET", path, "")
		bob := s.new("bob")
		bob.want(200, `{}`, "POST", path+"/set", pusher("k", `,"append":true`))
		s.want(200, `"pushkey":"k"`, "GET", path, "")
		bob.want(200, `{}`, "POST", path+"/set", pusher("k", ``))
		s.want(200, `{"pushers":[]}`, "GET", path, "")
		bob.want(200, `{}`, "POST", path+"/set", `{"app_id":"org.app","pushkey":"k","kind":null}`)
		bob.want(200, `{"pushers":[]}`, "GET", path, "")

		for _, tt := range []struct{ want, old, new string }{
			{"M_MISSING_PARAM", `"lang":"en"`, `"lang":""`},
			{"M_INVALID_PARAM", `"kind":"http"`, `"kind":"smoke"`},
			{"M_MISSING_PARAM", `"url":`, `"uri":`},
			{"M_INVALID_PARAM", `https://p.test/_matrix/push/v1/notify`, `file:///_matrix/push/v1/notify`},
			{"M_INVALID_PARAM", `/_matrix/push/v1/notify`, `/other`},
			{"M_INVALID_PARAM", `"org.app"`, `"` + strings.Repeat("a", 65) + `"`},
			{"M_INVALID_PARAM", `"App"`, `"\u0000"`},
			{"M_BAD_JSON", `"App"`, `1`},
		} {
			s.want(400, tt.want, "POST", path+"/set", strings.Replace(pusher("k", ""), tt.old, tt.new, 1))
		}

		// Another device's pushers go with it when the password changes.
		other := s.as("alice")
		other.want(200, `{}`, "POST", path+"/set", pusher("other", ""))
		s.want(200, `{}`, "POST", path+"/set", pusher("mine", ""))
		s.want(200, `{}`, "POST", v3+"account/password", `{`+pass("alice", password)+`,"new_password":"`+password+`"}`)
		if list := s.want(200, `"pushkey":"mine"`, "GET", path, "").at("pushers").([]any); len(list) != 1 {
			t.Errorf("got %v", list)
		}

		for i := range 99 {
			s.want(200, `{}`, "POST", path+"/set", pusher(fmt.Sprint(i), ""))
		}
		s.want(400, `you have 100 pushers`, "POST", path+"/set", pusher("one more", ""))
		s.want(200, `{}`, "POST", path+"/set", pusher("mine", ""))
	})
}

func TestPushRules(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		const rules = v3 + "pushrules/"
		s.want(200, `"global":{`, "GET", rules, "")
		s.want(200, `"override":[`, "GET", rules+"global/", "")
		s.want(200, `"rule_id":".m.rule.master"`, "GET", v3+"pushrules", "")
		s.want(200, `"rule_id":".m.rule.master"`, "GET", rules+"global", "")
		rung := s.bell.Listen("@alice:a.test")
		s.want(200, `{}`, "PUT", rules+"global/room/!r:a.test", `{"actions":["notify"]}`)
		select {
		case <-rung:
		default:
			t.Error("no sync was woken")
		}
		s.want(200, `"actions":["notify"]`, "GET", rules+"global/room/!r:a.test", "")
		s.want(200, `!r:a.test`, "GET", v3+"user/@alice:a.test/account_data/m.push_rules", "")
		s.want(200, `{"enabled":true}`, "GET", rules+"global/room/!r:a.test/enabled", "")
		s.want(200, `{}`, "PUT", rules+"global/room/!r:a.test/enabled", `{"enabled":false}`)
		s.want(200, `{"enabled":false}`, "GET", rules+"global/room/!r:a.test/enabled", "")
		s.want(200, `{}`, "PUT", rules+"global/room/!r:a.test/actions", `{"actions":[]}`)
		s.want(200, `{"actions":[]}`, "GET", rules+"global/room/!r:a.test/actions", "")
		s.want(200, `{}`, "PUT", rules+"global/content/word", `{"pattern":"w","actions":["notify"]}`)
		s.want(200, `{}`, "PUT", rules+"global/content/first?before=word", `{"pattern":"f","actions":["notify"]}`)
		s.want(400, "M_UNKNOWN", "PUT", rules+"global/content/x?after=none", `{"pattern":"f","actions":["notify"]}`)
		s.want(200, `{}`, "DELETE", rules+"global/room/!r:a.test", "")
		s.want(404, "M_NOT_FOUND", "GET", rules+"global/room/!r:a.test", "")
		s.want(404, "M_NOT_FOUND", "DELETE", rules+"global/room/!r:a.test", "")
		s.want(404, "M_NOT_FOUND", "PUT", rules+"global/room/!r:a.test/enabled", `{"enabled":true}`)
		s.want(400, "M_MISSING_PARAM", "PUT", rules+"global/override/.m.rule.master/enabled", `{}`)
		s.want(400, "M_INVALID_PARAM", "GET", rules+"global/nothing/x", "")
		s.want(400, "M_INVALID_PARAM", "PUT", rules+"global/room/.x", `{"actions":[]}`)
		s.want(400, "M_INVALID_PARAM", "DELETE", rules+"global/override/.m.rule.master", "")
		s.want(400, "M_BAD_JSON", "PUT", rules+"global/room/!r:a.test", `{"actions":[],"conditions":1}`)
		s.want(404, "M_UNRECOGNIZED", "GET", rules+"device/room/x", "")
	})
}
