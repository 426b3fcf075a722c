package clientapi

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// said sends a message and gives its ID, escaped for a path.
func (s *server) said(room, txn, content string) string {
	s.t.Helper()
	return url.PathEscape(s.want(200, "event_id", "PUT", room+"/send/m.room.message/"+txn, content).text("event_id"))
}

// bodies are the texts of the events in a list of an answer.
func bodies(list any) string {
	var words []string
	events, _ := list.([]any)
	for _, e := range events {
		if body := answer(e.(map[string]any)).text("content", "body"); body != "" {
			words = append(words, body)
		}
	}
	return strings.Join(words, " ")
}

func TestSend(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"preset":"public_chat"}`)
		send := room + "/send/m.room.message/"
		for body, want := range map[string]string{
			``: "M_NOT_JSON", `{`: "M_NOT_JSON", `[]`: "M_BAD_JSON", `5`: "M_BAD_JSON", `null`: "M_BAD_JSON", `{"a":1}{`: "M_NOT_JSON", `{"n":1.5}`: "M_BAD_JSON",
			`{"n":9007199254740992}`: "M_BAD_JSON", `{"n":1e3}`: "M_BAD_JSON", `{"a":1,"a":2}`: "M_NOT_JSON", `{"a":"\ud800"}`: "M_NOT_JSON", "{\"a\":\"\xff\"}": "M_NOT_JSON",
			strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000): "M_",
		} {
			s.want(400, want, "PUT", send+"bad", body)
		}
		s.want(413, "M_TOO_LARGE", "PUT", send+"large", `{"body":"`+strings.Repeat("x", 66_000)+`"}`)
		s.want(413, "M_TOO_LARGE", "PUT", room+"/send/"+strings.Repeat("x", 256)+"/1", `{}`)
		s.want(400, "M_INVALID_PARAM", "PUT", v3+"rooms/no/send/m.room.message/1", `{}`)
		s.want(403, "M_FORBIDDEN", "PUT", v3+"rooms/!no:a.test/send/m.room.message/1", `{}`)
		bob.want(403, "M_FORBIDDEN", "PUT", send+"1", `{}`)
		s.want(403, "M_FORBIDDEN", "PUT", room+"/send/m.room.create/1", `{}`)
		for _, bad := range []string{"a%00b", "a%ffb"} {
			for _, path := range []string{"/send/" + bad + "/1", "/send/m.x/" + bad, "/state/" + bad + "/", "/state/m.x/" + bad} {
				if w := s.do("PUT", room+path, `{"a":1}`); w.Code/100 != 4 {
					t.Errorf("%s: %d %s", path, w.Code, w.Body)
				}
				if w := s.do("GET", room+path, ""); w.Code/100 != 4 {
					t.Errorf("GET %s: %d %s", path, w.Code, w.Body)
				}
			}
		}
		// What a content holds is its sender's business.
		for i, content := range []string{`{"body":"\u0000"}`, `{"m.relates_to":{"rel_type":"a\u0000","event_id":"$\u0000"}}`, `{"m.relates_to":5}`, `{"m.relates_to":{"rel_type":[],"event_id":{}}}`,
			`{"m.relates_to":{"rel_type":"` + noise(5000) + `","event_id":"` + noise(5000) + `"}}`, `{"m.mentions":"x"}`, `{"membership":"join"}`} {
			s.want(200, "event_id", "PUT", send+fmt.Sprint("odd", i), content)
		}

		first := s.said(room, "1", `{"body":"a"}`)
		if again := s.said(room, "1", `{"body":"b"}`); again != first {
			t.Error("a repeated transaction made another event")
		}
		if other := s.as("alice").said(room, "1", `{"body":"c"}`); other == first {
			t.Error("another device's transaction is taken for a repeated one")
		}
		if other := s.want(200, "event_id", "PUT", room+"/send/m.other/1", `{"body":"a"}`).text("event_id"); url.PathEscape(other) == first {
			t.Error("another type's transaction is taken for a repeated one")
		}
		encoded := s.said(room, "a%2Fb%20c", `{"body":"d"}`)
		if s.said(room, "a%2Fb%20c", `{"body":"d"}`) != encoded {
			t.Error("an encoded transaction ID is not known again")
		}
		s.want(200, "event_id", "POST", room+"/send/m.room.message", `{"body":"without"}`)
		e := s.want(200, "event_id", "PUT", room+"/send/org.example%2Fx/1", `{"body":"typed"}`).text("event_id")
		s.want(200, `"type":"org.example/x"`, "GET", room+"/event/"+url.PathEscape(e), "")
	})
}

func TestStateRoutes(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob, eve := s.new("bob"), s.new("eve")
		room := s.create(`{"preset":"public_chat"}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		for _, path := range []string{"/state/m.room.topic", "/state/m.room.topic/"} {
			topic := strings.Count(path, "/")
			s.want(200, "event_id", "PUT", room+path, fmt.Sprintf(`{"topic":"%d"}`, topic))
			for _, read := range []string{"/state/m.room.topic", "/state/m.room.topic/"} {
				s.want(200, fmt.Sprintf(`{"topic":"%d"}`, topic), "GET", room+read, "")
			}
		}
		for _, key := range []string{"k", "a%2Fb", "%E2%98%83", "a%20b", "@alice:a.test", "a+b", "%2e%2e", "a%2F"} {
			s.want(200, "event_id", "PUT", room+"/state/x/"+key, `{"key":"`+key+`"}`)
			s.want(200, `{"key":"`+key+`"}`, "GET", room+"/state/x/"+key, "")
		}
		s.want(200, `"state_key":"☃"`, "GET", room+"/state/x/%E2%98%83?format=event", "")
		s.want(200, `"room_id"`, "GET", room+"/state/m.room.topic?format=event", "")
		s.want(400, "M_INVALID_PARAM", "GET", room+"/state/m.room.topic?format=xml", "")
		s.want(404, "M_NOT_FOUND", "GET", room+"/state/m.room.topic/other", "")
		s.want(404, "M_NOT_FOUND", "GET", room+"/state/m.none", "")
		bob.want(403, "M_FORBIDDEN", "PUT", room+"/state/m.room.topic", `{"topic":"x"}`)
		bob.want(403, "M_FORBIDDEN", "PUT", room+"/state/x/@alice:a.test", `{}`)
		s.want(403, "M_FORBIDDEN", "PUT", room+"/state/m.room.create", `{}`)
		s.want(400, "M_NOT_JSON", "PUT", room+"/state/x", ``)
		s.want(400, "M_BAD_JSON", "PUT", room+"/state/x", `[]`)
		s.want(413, "M_TOO_LARGE", "PUT", room+"/state/x/"+strings.Repeat("k", 256), `{}`)
		if w := s.do("PUT", room+"/state/m.room.power_levels", `{"users":{"@bob:a.test":"100"}}`); w.Code/100 != 4 {
			t.Errorf("power levels as strings: %d %s", w.Code, w.Body)
		}
		one := s.want(200, "event_id", "PUT", room+"/state/y", `{"a":1,"b":2}`)
		if again := s.want(200, "event_id", "PUT", room+"/state/y", `{ "b":2, "a":1 }`); again.text("event_id") != one.text("event_id") {
			t.Error("the same state was sent again")
		}
		for _, read := range []string{"/state", "/state/m.room.topic", "/members", "/joined_members", "/messages?dir=b"} {
			eve.want(403, "M_FORBIDDEN", "GET", room+read, "")
			s.want(403, "M_FORBIDDEN", "GET", v3+"rooms/!no:a.test"+read, "")
			s.want(400, "M_INVALID_PARAM", "GET", v3+"rooms/no"+read, "")
		}
		// Who has left reads what was there.
		bob.want(200, `{}`, "POST", room+"/leave", "")
		s.want(200, "event_id", "PUT", room+"/state/m.room.topic", `{"topic":"secret"}`)
		s.want(200, "event_id", "PUT", room+"/state/new", `{}`)
		bob.want(200, `{"topic":"3"}`, "GET", room+"/state/m.room.topic", "")
		bob.want(404, "M_NOT_FOUND", "GET", room+"/state/new", "")
		if w := bob.do("GET", room+"/state", ""); strings.Contains(w.Body.String(), "secret") || !strings.Contains(w.Body.String(), `"membership":"leave"`) {
			t.Errorf("left: %s", w.Body)
		}
		bob.want(403, "M_FORBIDDEN", "GET", room+"/joined_members", "")
		one = bob.want(200, "events_before", "GET", room+"/context/"+url.PathEscape(one.text("event_id")), "").at("event").(map[string]any)
		event := url.PathEscape(one.text("event_id"))
		bob.want(200, `{}`, "POST", room+"/forget", "")
		for _, read := range []string{"/state", "/members", "/messages?dir=b"} {
			bob.want(403, "M_FORBIDDEN", "GET", room+read, "")
		}
		for _, read := range []string{room + "/event/", room + "/context/", strings.Replace(room, "/v3/", "/v1/", 1) + "/relations/"} {
			bob.want(404, "M_NOT_FOUND", "GET", read+event, "")
		}
		s.want(200, "event_id", "PUT", room+"/state/m.room.history_visibility", `{"history_visibility":"world_readable"}`)
		bob.want(200, "event_id", "GET", room+"/event/"+event, "")
	})
}

func TestMembers(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob, carol, dave := s.new("bob"), s.new("carol"), s.new("dave")
		room := s.create(`{"preset":"public_chat"}`)
		for _, u := range []*server{bob, carol} {
			u.want(200, "room_id", "POST", room+"/join", "{}")
		}
		then := s.want(200, "next_batch", "GET", v3+"sync", "").text("next_batch")
		bob.want(200, `{}`, "POST", room+"/leave", "")
		s.want(200, `{}`, "POST", room+"/ban", `{"user_id":"@dave:a.test"}`)
		members := func(who *server, query string) string {
			t.Helper()
			list, _ := who.want(200, "chunk", "GET", room+"/members"+query, "").at("chunk").([]any)
			var words []string
			for _, m := range list {
				e := answer(m.(map[string]any))
				words = append(words, e.text("state_key")[1:2]+":"+e.text("content", "membership"))
			}
			return strings.Join(words, " ")
		}
		for query, want := range map[string]string{
			"":                                     "a:join c:join b:leave d:ban",
			"?membership=join":                     "a:join c:join",
			"?not_membership=join":                 "b:leave d:ban",
			"?membership=ban&not_membership=leave": "a:join c:join d:ban", // the one or the other
			"?membership=invite":                   "",
			"?at=" + then:                          "a:join b:join c:join",
			"?at=" + then + "&membership=leave":    "",
		} {
			if got := members(s, query); got != want {
				t.Errorf("%s: got %q, want %q", query, got, want)
			}
		}
		if got := members(bob, "?at="+s.want(200, "next_batch", "GET", v3+"sync", "").text("next_batch")); got != "a:join c:join b:leave" {
			t.Errorf("who has left sees %q", got)
		}
		s.want(400, "M_INVALID_PARAM", "GET", room+"/members?at=x", "")
		dave.want(403, "M_FORBIDDEN", "GET", room+"/members", "")
		s.want(200, `{}`, "PUT", v3+"profile/@alice:a.test/displayname", `{"displayname":"Al"}`)
		s.want(200, `{"joined":{"@alice:a.test":{"display_name":"Al","avatar_url":null},"@carol:a.test":{"display_name":"carol","avatar_url":null}}}`, "GET", room+"/joined_members", "")
	})
}

func TestMessagesRoute(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		room := s.create(`{"preset":"public_chat"}`)
		for i := range 5 {
			s.said(room, fmt.Sprint(i), fmt.Sprintf(`{"body":"%d"}`, i))
		}
		filter := "&filter=" + url.QueryEscape(`{"types":["m.room.message"]}`)
		page := s.want(200, "end", "GET", room+"/messages?dir=b&limit=2"+filter, "")
		if got := bodies(page.at("chunk")); got != "4 3" {
			t.Errorf("got %q", got)
		}
		page = s.want(200, "chunk", "GET", room+"/messages?dir=b&limit=10&from="+page.text("end")+filter, "")
		if got := bodies(page.at("chunk")); got != "2 1 0" || page.text("end") != "" {
			t.Errorf("got %q, then %q", got, page.text("end"))
		}
		page = s.want(200, "chunk", "GET", room+"/messages?dir=f&limit=3"+filter, "")
		if got := bodies(page.at("chunk")); got != "0 1 2" {
			t.Errorf("got %q", got)
		}
		for _, bad := range []string{"dir=x", "dir=b&limit=x", "dir=b&limit=-1", "dir=b&from=x", "dir=b&to=x", "dir=b&from=", "dir=b&from=t", "dir=b&filter=x", "dir=b&filter=[]", "dir=b&filter=%7B%22types%22:5%7D"} {
			if bad == "dir=b&from=" {
				continue // as if it were not there
			}
			if w := s.do("GET", room+"/messages?"+bad, ""); w.Code != 400 {
				t.Errorf("%s: %d %s", bad, w.Code, w.Body)
			}
		}
		if w := s.do("GET", room+"/messages?dir=b&limit=0", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"chunk":[]`) {
			t.Errorf("limit 0: %d %s", w.Code, w.Body)
		}
	})
}

func TestEventAndContext(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob, eve := s.new("bob"), s.new("eve")
		room := s.create(`{"initial_state":[{"type":"m.room.history_visibility","content":{"history_visibility":"joined"}}],"preset":"public_chat"}`)
		other := s.create(`{"preset":"public_chat"}`)
		before := s.said(room, "0", `{"body":"before"}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		var ids []string
		for i := range 5 {
			ids = append(ids, s.said(room, fmt.Sprint("e", i), fmt.Sprintf(`{"body":"%d"}`, i)))
		}
		s.want(200, `"body":"2"`, "GET", room+"/event/"+ids[2], "")
		for _, op := range []string{"/event/", "/context/"} {
			bob.want(200, `"body":"2"`, "GET", room+op+ids[2], "")
			bob.want(404, "M_NOT_FOUND", "GET", room+op+before, "")
			eve.want(404, "M_NOT_FOUND", "GET", room+op+ids[2], "")
			s.want(404, "M_NOT_FOUND", "GET", other+op+ids[2], "")
			s.want(404, "M_NOT_FOUND", "GET", room+op+"$no", "")
			s.want(404, "M_NOT_FOUND", "GET", v3+"rooms/!no:a.test"+op+ids[2], "")
			s.want(400, "M_INVALID_PARAM", "GET", room+op+"no", "")
		}
		tests := []struct{ query, before, after string }{
			{"", "1 0", "3 4"},
			{"?limit=2", "1", "3"},
			{"?limit=0", "", ""},
			{"?limit=3", "1 0", "3"},
			{"?filter=" + url.QueryEscape(`{"senders":["@bob:a.test"]}`), "", ""},
		}
		for _, tt := range tests {
			a := bob.want(200, "event", "GET", room+"/context/"+ids[2]+tt.query, "")
			if b, f := bodies(a.at("events_before")), bodies(a.at("events_after")); b != tt.before || f != tt.after {
				t.Errorf("%s: got %q and %q, want %q and %q", tt.query, b, f, tt.before, tt.after)
			}
			if a.text("start") == "" || a.text("end") == "" || a.at("state") == nil || a.text("event", "content", "body") != "2" {
				t.Errorf("%s: %v", tt.query, a)
			}
		}
		a := bob.want(200, "event", "GET", room+"/context/"+ids[2]+"?limit=2", "")
		more := bob.want(200, "chunk", "GET", room+"/messages?dir=f&from="+a.text("end"), "")
		if got := bodies(more.at("chunk")); got != "4" {
			t.Errorf("behind the context comes %q", got)
		}
		more = bob.want(200, "chunk", "GET", room+"/messages?dir=b&from="+a.text("start"), "")
		if got := bodies(more.at("chunk")); got != "0" {
			t.Errorf("before the context comes %q", got)
		}
		s.want(400, "M_INVALID_PARAM", "GET", room+"/context/"+ids[2]+"?limit=x", "")
		s.want(400, "M_NOT_JSON", "GET", room+"/context/"+ids[2]+"?filter=x", "")
	})
}

func TestRedactRoute(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		for _, version := range []string{"10", "11", "12"} {
			room := s.create(`{"preset":"public_chat","room_version":"` + version + `"}`)
			bob.want(200, "room_id", "POST", room+"/join", "{}")
			mine, hers := bob.said(room, "1", `{"body":"mine"}`), s.said(room, "1", `{"body":"hers"}`)
			bob.want(403, "M_FORBIDDEN", "PUT", room+"/redact/"+hers+"/1", `{}`)
			bob.want(404, "M_NOT_FOUND", "PUT", room+"/redact/$no/1", `{}`)
			bob.want(400, "M_INVALID_PARAM", "PUT", room+"/redact/no/1", `{}`)
			bob.want(400, "M_BAD_JSON", "PUT", room+"/redact/"+mine+"/1", `{"reason":5}`)
			bob.want(400, "M_NOT_JSON", "PUT", room+"/redact/"+mine+"/1", `{`)
			r := bob.want(200, "event_id", "PUT", room+"/redact/"+mine+"/1", `{"reason":"oops"}`)
			if again := bob.want(200, "event_id", "PUT", room+"/redact/"+mine+"/1", `{}`); again.text("event_id") != r.text("event_id") {
				t.Error("a repeated redaction made another event")
			}
			e := s.want(200, "redacted_because", "GET", room+"/event/"+mine, "")
			if e.text("content", "body") != "" || e.text("unsigned", "redacted_because", "content", "reason") != "oops" {
				t.Errorf("version %s: %v", version, e)
			}
			target, _ := url.PathUnescape(mine)
			e = s.want(200, "redacts", "GET", room+"/event/"+url.PathEscape(r.text("event_id")), "")
			if e.text("redacts") != target || e.text("content", "redacts") != target {
				t.Errorf("version %s: the redaction is %v", version, e)
			}
			s.want(200, "event_id", "PUT", room+"/redact/"+hers+"/2", ``)
			// Redactions by /send, which take their content in every room version.
			third := bob.want(200, "event_id", "PUT", room+"/send/m.room.message/3", `{"body":"third"}`).text("event_id")
			bob.want(200, "event_id", "PUT", room+"/send/m.room.redaction/3", `{"redacts":"`+third+`"}`)
			if e := s.want(200, "redacted_because", "GET", room+"/event/"+url.PathEscape(third), ""); e.text("content", "body") != "" {
				t.Errorf("version %s: not redacted by /send: %v", version, e)
			}
		}
	})
}

func TestAppserviceTimestamp(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		as := s.appservice("irc")
		as.want(200, "user_id", "POST", v3+"register", `{"type":"m.login.application_service","username":"irc_x"}`)
		const who = "user_id=@irc_x:a.test"
		room := v3 + "rooms/" + as.want(200, "room_id", "POST", v3+"createRoom?"+who, `{"preset":"public_chat"}`).text("room_id")
		ts := func(e answer) any {
			return as.want(200, "origin_server_ts", "GET", room+"/event/"+url.PathEscape(e.text("event_id"))+"?"+who, "").at("origin_server_ts")
		}
		for _, path := range []string{"/send/m.room.message/1", "/state/m.room.topic", "/state/m.room.member/@irc_x:a.test"} {
			if got := ts(as.want(200, "event_id", "PUT", room+path+"?ts=1234&"+who, `{"membership":"join","topic":"x","displayname":"n"}`)); got != 1234.0 {
				t.Errorf("%s: %v", path, got)
			}
		}
		for _, bad := range []string{"x", "-1", "1.5", "9007199254740992"} {
			as.want(400, "M_INVALID_PARAM", "PUT", room+"/send/m.room.message/2?ts="+bad+"&"+who, `{}`)
		}
		s.want(200, "room_id", "POST", room+"/join", "{}")
		if got := ts(s.want(200, "event_id", "PUT", room+"/send/m.room.message/1?ts=1234", `{}`)); got == 1234.0 {
			t.Error("anybody may choose the time of events")
		}
		as.want(403, "M_FORBIDDEN", "PUT", room+"/send/m.room.message/3?user_id=@alice:a.test", `{}`)
		as.want(200, "@irc_x:a.test", "GET", room+"/joined_members", "") // its sender is not in the room, but a user of its own
	})
}

func TestSyncRoute(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		room := s.create(`{}`)
		a := s.want(200, "next_batch", "GET", v3+"sync", "")
		if a.at("rooms", "join", id(room)) == nil {
			t.Errorf("no room: %v", a)
		}
		for _, bad := range []string{"since=x", "timeout=x", "timeout=-1", "full_state=x", "use_state_after=2", "filter=%7B", "filter=%7B%22room%22:5%7D", "set_presence=dancing"} {
			if w := s.do("GET", v3+"sync?"+bad, ""); w.Code != 400 {
				t.Errorf("%s: %d %s", bad, w.Code, w.Body)
			}
		}
		s.want(404, "M_NOT_FOUND", "GET", v3+"sync?filter=999", "")
		f := s.want(200, "filter_id", "POST", v3+"user/@alice:a.test/filter", `{"room":{"rooms":[]}}`).text("filter_id")
		if a := s.want(200, "next_batch", "GET", v3+"sync?filter="+f, ""); a.at("rooms") != nil {
			t.Errorf("a stored filter is not used: %v", a)
		}
		s.want(200, `"state_after"`, "GET", v3+"sync?use_state_after=true", "")
		s.want(200, "next_batch", "GET", "/_matrix/client/r0/sync?timeout=0&since="+a.text("next_batch"), "")
		s.want(200, "next_batch", "GET", v3+"sync?set_presence=offline&full_state=true&timeout=100000000&since="+a.text("next_batch"), "")
	})
}

// noise is a text that does not compress.
func noise(n int) string {
	b := make([]byte, n/2)
	rand.Read(b)
	return hex.EncodeToString(b)
}
