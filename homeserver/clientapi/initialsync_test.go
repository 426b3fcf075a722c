package clientapi

import (
	"net/url"
	"strings"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// chunk are the types of the events in an answer, with the bodies of messages.
func chunk(list any) string {
	events, _ := list.([]any)
	var types []string
	for _, e := range events {
		a := answer(e.(map[string]any))
		typ := strings.TrimPrefix(a.text("type"), "m.room.")
		if body := a.text("content", "body"); body != "" {
			typ = body
		}
		if strings.Contains(a.text("type"), "room") && a.text("room_id") == "" {
			typ += " in no room"
		}
		types = append(types, typ)
	}
	return strings.Join(types, " ")
}

// TestPeek looks into a room as the specification describes it: by the room's
// initialSync, and then by its events.
func TestPeek(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st, func(a *API) { a.Accounts.Config.Guests = true })
		guest, bob := s.guest(), s.new("bob")
		room := s.create(`{"preset":"public_chat","visibility":"public","initial_state":[{"type":"m.room.history_visibility","content":{"history_visibility":"world_readable"}}]}`)
		text := func(body string) string {
			return s.want(200, "event_id", "POST", room+"/send/m.room.message", `{"msgtype":"m.text","body":"`+body+`"}`).text("event_id")
		}
		one := text("one")
		events := v3 + "events?room_id=" + url.QueryEscape(id(room))
		for _, as := range []*server{guest, bob} {
			a := as.want(200, "state", "GET", room+"/initialSync?limit=1", "")
			if got := chunk(a.at("messages", "chunk")); got != "one" && got != "two" {
				t.Errorf("messages: %s", got)
			}
			if a.text("visibility") != "public" || a.text("membership") != "" || a.text("room_id") != id(room) || !strings.Contains(chunk(a.at("state")), "create") {
				t.Errorf("the room is %v", a)
			}
			if earlier := as.want(200, "chunk", "GET", room+"/messages?dir=b&limit=50&from="+a.text("messages", "start"), ""); !strings.HasSuffix(chunk(earlier.at("chunk")), "history_visibility") {
				t.Errorf("what came before: %v", earlier)
			}
			from := "&from=" + a.text("messages", "end")
			as.want(200, `"chunk":[]`, "GET", events+from, "")
			text("two")
			next := as.want(200, "chunk", "GET", events+from, "")
			if got := chunk(next.at("chunk")); got != "two" {
				t.Errorf("news: %s", got)
			}
			as.want(200, `"chunk":[]`, "GET", events+"&from="+next.text("end"), "")
			as.want(200, `"body":"one"`, "GET", v3+"events/"+url.PathEscape(one), "")
		}
		waiting := make(chan answer)
		end := guest.want(200, "end", "GET", events, "").text("end")
		go func() { waiting <- guest.want(200, "chunk", "GET", events+"&timeout=300000&from="+end, "") }()
		text("three")
		if got := chunk((<-waiting).at("chunk")); got != "three" {
			t.Errorf("the wait ended with %s", got)
		}
		s.want(200, "event_id", "PUT", room+"/state/m.room.history_visibility", `{"history_visibility":"joined"}`)
		four := text("four")
		guest.want(403, "M_FORBIDDEN", "GET", events, "")
		guest.want(403, "M_FORBIDDEN", "GET", room+"/initialSync", "")
		guest.want(404, "M_NOT_FOUND", "GET", v3+"events/"+url.PathEscape(four), "")
		guest.want(404, "M_NOT_FOUND", "GET", v3+"events/$none", "")
		s.nobody().want(401, "M_MISSING_TOKEN", "GET", events, "")
		s.want(400, "M_INVALID_PARAM", "GET", v3+"events?room_id=x", "")
		s.want(400, "M_INVALID_PARAM", "GET", v3+"events?from=x", "")
		s.want(400, "M_INVALID_PARAM", "GET", v3+"events?timeout=x", "")
	})
}

// TestInitialSync is a client of before /sync.
func TestInitialSync(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		in, left, asked := s.create(`{"preset":"public_chat"}`), s.create(`{"preset":"public_chat"}`), s.create(`{"invite":["@bob:a.test"]}`)
		bob.want(200, "", "POST", in+"/join", "")
		bob.want(200, "", "POST", left+"/join", "")
		bob.want(200, "", "POST", left+"/leave", "")
		bob.want(200, "{}", "PUT", v3+"user/@bob:a.test/account_data/org.x", `{"a":1}`)
		bob.want(200, "{}", "PUT", v3+"user/@bob:a.test/rooms/"+id(in)+"/tags/u.tea", `{}`)
		s.want(200, "", "POST", in+"/send/m.room.message", `{"msgtype":"m.text","body":"one"}`)

		memberships := func(a answer) map[string]answer {
			rooms := map[string]answer{}
			for _, r := range a.at("rooms").([]any) {
				rooms[answer(r.(map[string]any)).text("room_id")] = r.(map[string]any)
			}
			return rooms
		}
		a := bob.want(200, `"org.x"`, "GET", v3+"initialSync?limit=1", "")
		rooms := memberships(a)
		if len(rooms) != 2 || rooms[id(in)].text("membership") != "join" || rooms[id(asked)].text("invite", "content", "membership") != "invite" {
			t.Errorf("rooms: %v", rooms)
		}
		if got := chunk(rooms[id(in)].at("messages", "chunk")); got != "one" || chunk(rooms[id(in)].at("account_data")) != "m.tag" {
			t.Errorf("the room's messages: %s, and its account data %v", got, rooms[id(in)].at("account_data"))
		}
		if rooms := memberships(bob.want(200, "rooms", "GET", v3+"initialSync?archived=true", "")); rooms[id(left)].text("membership") != "leave" || len(rooms) != 3 {
			t.Errorf("with those that were left: %v", rooms)
		}
		bob.want(400, "M_INVALID_PARAM", "GET", v3+"initialSync?archived=x", "")

		s.want(200, "", "POST", in+"/send/m.room.message", `{"msgtype":"m.text","body":"two"}`)
		s.want(200, "", "POST", left+"/invite", `{"user_id":"@bob:a.test"}`)
		bob.want(200, "{}", "PUT", v3+"sendToDevice/org.y/1", `{"messages":{"@bob:a.test":{"*":{}}}}`)
		events := v3 + "events?from=" + a.text("end")
		if got := chunk(bob.want(200, "chunk", "GET", events, "").at("chunk")); got != "two member" {
			t.Errorf("news: %s", got)
		}
		bob.want(200, "org.y", "GET", v3+"sync", "") // /events has no device: the message still waits
	})
}
