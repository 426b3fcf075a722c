package clientapi

import (
	"net/url"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestTyping(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		alice := start(t, st, withRooms(t))
		bob, carol := alice.new("bob"), alice.new("carol")
		room := alice.room()
		bob.join(room)
		token := bob.sync("").text("next_batch")
		path := v3 + "rooms/" + url.PathEscape(room) + "/typing/"
		alice.want(200, `{}`, "PUT", path+"@alice:a.test", `{"typing":true,"timeout":60000}`)
		bob.want(200, `{"user_ids":["@alice:a.test"]}`[1:], "GET", v3+"sync?timeout=0&since="+token, "")
		alice.want(200, `{}`, "PUT", path+"@alice:a.test", `{"typing":false}`)
		bob.want(200, `"user_ids":[]`, "GET", v3+"sync?timeout=0&since="+token, "")
		alice.want(403, `M_FORBIDDEN`, "PUT", path+"@bob:a.test", `{"typing":true}`)
		carol.want(403, `M_FORBIDDEN`, "PUT", path+"@carol:a.test", `{"typing":true}`)
		alice.want(400, `M_MISSING_PARAM`, "PUT", path+"@alice:a.test", `{}`)
		alice.want(400, `M_BAD_JSON`, "PUT", path+"@alice:a.test", `{"typing":"yes"}`)
	})
}

func TestReceipts(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		alice := start(t, st, withRooms(t))
		bob, carol := alice.new("bob"), alice.new("carol")
		room := alice.room()
		bob.join(room)
		first, second := alice.say(room, "1"), alice.say(room, "2")
		token, mine := alice.sync("").text("next_batch"), bob.sync("").text("next_batch")
		path := v3 + "rooms/" + url.PathEscape(room) + "/"
		bob.want(200, `{}`, "POST", path+"receipt/m.read/"+first, `{}`)
		bob.want(200, `{}`, "POST", path+"receipt/m.read/"+second, `{"thread_id":"main"}`)
		bob.want(200, `{}`, "POST", path+"receipt/m.read.private/"+second, "")
		bob.want(200, `{}`, "POST", path+"read_markers", `{"m.fully_read":"`+second+`"}`)
		bob.want(400, `M_INVALID_PARAM`, "POST", path+"receipt/m.other/"+first, `{}`)
		bob.want(400, `M_INVALID_PARAM`, "POST", path+"receipt/m.read/"+first, `{"thread_id":7}`)
		bob.want(400, `M_INVALID_PARAM`, "POST", path+"receipt/m.read/"+first, `{"thread_id":""}`)
		bob.want(400, `M_INVALID_PARAM`, "POST", path+"receipt/m.fully_read/"+first, `{"thread_id":"main"}`)
		bob.want(404, `M_NOT_FOUND`, "POST", path+"receipt/m.read/$none", `{}`)
		bob.want(404, `M_NOT_FOUND`, "POST", path+"read_markers", `{"m.read":"$none"}`)
		carol.want(403, `M_FORBIDDEN`, "POST", path+"receipt/m.read/"+first, `{}`)

		receipts := func(a answer) (public, threaded, private bool) {
			list, _ := a.at("rooms", "join", room, "ephemeral", "events").([]any)
			for _, e := range list {
				m, _ := e.(map[string]any)
				if m["type"] != "m.receipt" {
					continue
				}
				public = public || answer(m).at("content", first, "m.read", "@bob:a.test", "ts") != nil
				threaded = threaded || answer(m).at("content", second, "m.read", "@bob:a.test", "thread_id") == "main"
				private = private || answer(m).at("content", second, "m.read.private") != nil
			}
			return public, threaded, private
		}
		if public, threaded, private := receipts(alice.sync(token)); !public || !threaded || private {
			t.Errorf("alice sees %v %v %v", public, threaded, private)
		}
		if public, threaded, private := receipts(bob.sync(mine)); !public || !threaded || !private {
			t.Errorf("bob sees %v %v %v", public, threaded, private)
		}
		bob.want(200, `"m.fully_read"`, "GET", v3+"sync?timeout=0&since="+mine, "")
	})
}

func TestPresence(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		alice := start(t, st, withRooms(t))
		bob, carol := alice.new("bob"), alice.new("carol")
		bob.join(alice.room())
		token := bob.sync("").text("next_batch")
		path := v3 + "presence/@alice:a.test/status"
		alice.want(200, `{}`, "PUT", path, `{"presence":"unavailable","status_msg":"at tea"}`)
		bob.want(200, `"status_msg":"at tea"`, "GET", path, "")
		bob.want(200, `"m.presence"`, "GET", v3+"sync?timeout=0&set_presence=offline&since="+token, "")
		bob.want(403, `M_FORBIDDEN`, "PUT", path, `{"presence":"online"}`)
		carol.want(403, `M_FORBIDDEN`, "GET", path, "")
		alice.want(400, `M_INVALID_PARAM`, "PUT", path, `{"presence":"away"}`)
		alice.want(400, `M_MISSING_PARAM`, "PUT", path, `{}`)
		alice.want(400, `M_INVALID_PARAM`, "GET", v3+"sync?set_presence=asleep", "")
		alice.want(400, `M_INVALID_PARAM`, "GET", v3+"presence/alice/status", "")
	})
}
