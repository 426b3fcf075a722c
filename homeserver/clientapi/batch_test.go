package clientapi

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// batchPath is the operation for a room's path.
func batchPath(room string) string {
	return "/_matrix/client/unstable/com.beeper.backfill/rooms/" + id(room) + "/batch_send"
}

// batchOf is the body of a batch: how it goes in, and the IDs' names.
func batchOf(how string, names ...string) string {
	var events []string
	for i, name := range names {
		events = append(events, fmt.Sprintf(`{"type":"m.room.message","sender":"@irc_x:a.test","event_id":"$%s:irc.test",
			"origin_server_ts":%d,"content":{"msgtype":"m.text","body":%q}}`, name, 1000+i, name))
	}
	return "{" + how + `"events":[` + strings.Join(events, ",") + "]}"
}

// portal is a room that an appservice made, in which alice is.
func (s *server) portal(as *server) string {
	s.t.Helper()
	as.want(200, "user_id", "POST", v3+"register", `{"type":"m.login.application_service","username":"irc_x"}`)
	room := v3 + "rooms/" + as.want(200, "room_id", "POST", v3+"createRoom", `{"invite":["@alice:a.test"]}`).text("room_id")
	s.want(200, "room_id", "POST", room+"/join", "{}")
	return room
}

func TestBatchSend(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		as := s.appservice("irc")
		room := s.portal(as)
		s.want(403, "M_FORBIDDEN", "POST", batchPath(room), batchOf("", "a"))
		as.want(400, "M_BAD_JSON", "POST", batchPath(room), `{"events":{}}`)
		as.want(403, "M_FORBIDDEN", "POST", batchPath(v3+"rooms/!unknown:a.test"), batchOf("", "a"))
		s.want(200, `"com.beeper.batch_sending":true`, "GET", "/_matrix/client/versions", "")
		s.api.Appservices.NoBatches = true
		s.want(200, `"com.beeper.batch_sending":false`, "GET", "/_matrix/client/versions", "")
		as.want(404, "M_UNRECOGNIZED", "POST", batchPath(room), batchOf("", "a"))
	})
}

// TestBatchSync looks at what a client is told of batches, and of what it is
// notified.
func TestBatchSync(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		as := s.appservice("irc")
		room := s.portal(as)
		s.said(room, "now", `{"msgtype":"m.text","body":"now"}`)
		since := s.want(200, "next_batch", "GET", v3+"sync", "").text("next_batch")
		sync := func(from string) answer {
			t.Helper()
			a := s.want(200, "next_batch", "GET", v3+"sync?since="+url.QueryEscape(from), "")
			joined, _ := a.at("rooms", "join", id(room)).(map[string]any)
			return joined
		}

		as.want(200, `{"event_ids":["$old0:irc.test","$old1:irc.test"]}`, "POST", batchPath(room), batchOf("", "old0", "old1"))
		if a := sync(since); a != nil {
			t.Errorf("a live client is told of the past: %v", a)
		}
		as.want(200, "event_ids", "POST", batchPath(room), batchOf(`"forward":true,`, "quiet"))
		a := sync(since)
		if got := bodies(a.at("timeline", "events")); got != "quiet" || a.at("unread_notifications", "notification_count") != 0.0 {
			t.Errorf("after a quiet batch: %s, %v", got, a)
		}
		if n := s.want(200, "notifications", "GET", v3+"notifications", ""); len(n.at("notifications").([]any)) != 0 {
			t.Errorf("notified of a quiet batch: %v", n)
		}
		var names []string
		for i := range 15 {
			names = append(names, fmt.Sprint("loud", i))
		}
		as.want(200, "event_ids", "POST", batchPath(room), batchOf(`"forward":true,"send_notification":true,`, names...))
		a = sync(since)
		if got := bodies(a.at("timeline", "events")); !strings.HasSuffix(got, "loud13 loud14") || a.at("timeline", "limited") != true || a.at("unread_notifications", "notification_count") != 15.0 {
			t.Errorf("after a loud batch: %s, %v", got, a.at("unread_notifications"))
		}
		as.want(200, "event_ids", "POST", batchPath(room), batchOf(`"forward":true,"mark_read_by":"@alice:a.test",`, "read"))
		if n := sync(since).at("unread_notifications", "notification_count"); n != 0.0 {
			t.Errorf("%v are unread", n)
		}
		page := s.want(200, "chunk", "GET", room+"/messages?dir=f&limit=100", "")
		if got, want := bodies(page.at("chunk")), "old0 old1 now quiet "+strings.Join(names, " ")+" read"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		slid := s.slide("", `{"lists":{"all":{"ranges":[[0,9]],"timeline_limit":3,"required_state":[["m.room.create",""]]}}}`).of(room)
		if got := bodies(slid.at("timeline")); got != "loud13 loud14 read" {
			t.Errorf("sliding sync shows %s", got)
		}
	})
}

// TestBatchRelations relates to what a batch brought, and redacts it.
func TestBatchRelations(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		as := s.appservice("irc")
		room := s.portal(as)
		as.want(200, "event_ids", "POST", batchPath(room), batchOf("", "root", "other"))
		root := url.PathEscape("$root:irc.test")
		const relation = `{"msgtype":"m.text","body":"%s","m.relates_to":{"rel_type":"m.thread","event_id":"$root:irc.test"}}`
		s.said(room, "1", fmt.Sprintf(relation, "answer"))
		as.want(200, "event_ids", "POST", batchPath(room), `{"forward":true,"events":[{"type":"m.room.message","sender":"@irc_x:a.test","content":`+fmt.Sprintf(relation, "more")+`}]}`)
		e := s.want(200, "m.relations", "GET", room+"/event/"+root, "")
		if n := e.at("unsigned", "m.relations", "m.thread", "count"); n != 2.0 {
			t.Errorf("%v are in the thread", n)
		}
		list := s.want(200, "chunk", "GET", strings.Replace(room, "/v3/", "/v1/", 1)+"/relations/"+root, "")
		if got := bodies(list.at("chunk")); got != "more answer" {
			t.Errorf("related: %s", got)
		}
		s.want(200, "events_after", "GET", room+"/context/"+root, "")
		s.want(200, "{}", "POST", room+"/receipt/m.read/"+root, "{}")
		as.want(200, "event_id", "PUT", room+"/redact/"+root+"/1", "{}")
		if e := s.want(200, "redacted_because", "GET", room+"/event/"+root, ""); e.text("content", "body") != "" {
			t.Errorf("not redacted: %v", e)
		}
	})
}
