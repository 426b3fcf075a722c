package clientapi

import (
	"fmt"
	"strings"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// TestNotifications lists what bob was notified of in two rooms, read or not.
func TestNotifications(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		one, two := s.create(`{"preset":"public_chat"}`), s.create(`{"preset":"public_chat"}`)
		s.said(one, "early", `{"body":"early"}`)
		for _, room := range []string{one, two} {
			bob.want(200, "room_id", "POST", room+"/join", "{}")
		}
		var last string
		for i := range 3 {
			s.said(one, fmt.Sprint(i), fmt.Sprintf(`{"msgtype":"m.text","body":"one%d"}`, i))
			last = s.said(two, fmt.Sprint(i), fmt.Sprintf(`{"msgtype":"m.text","body":"two%d"}`, i))
		}
		bob.said(one, "own", `{"msgtype":"m.text","body":"own"}`)
		s.said(one, "ping", `{"msgtype":"m.text","body":"ping","m.mentions":{"user_ids":["@bob:a.test"]}}`)
		gone := s.said(two, "gone", `{"msgtype":"m.text","body":"gone"}`)
		s.want(200, "event_id", "PUT", two+"/redact/"+gone+"/1", `{}`)
		bob.want(200, "{}", "POST", two+"/receipt/m.read/"+last, "{}")
		list := func(query string) (texts, read string, next string) {
			t.Helper()
			a := bob.want(200, "notifications", "GET", v3+"notifications"+query, "")
			for _, x := range a.at("notifications").([]any) {
				n := answer(x.(map[string]any))
				texts += n.text("event", "content", "body") + " "
				read += fmt.Sprint(n.at("read"))[:1]
				if n.at("ts") == 0.0 || n.at("actions") == nil || n.text("room_id") == "" || n.at("event", "room_id") != nil {
					t.Errorf("notification %v", n)
				}
			}
			return strings.TrimSpace(texts), read, a.text("next_token")
		}
		const all = "ping two2 one2 two1 one1 two0 one0"
		if texts, read, next := list(""); texts != all || read != "ftftftf" || next != "" {
			t.Errorf("notifications %q, read %s, next %q", texts, read, next)
		}
		if texts, _, _ := list("?only=highlight"); texts != "ping" {
			t.Errorf("highlights %q", texts)
		}
		var pages []string
		from := ""
		for range 9 {
			texts, _, next := list("?limit=2" + from)
			if pages = append(pages, texts); next == "" {
				break
			}
			from = "&from=" + next
		}
		if got := strings.TrimSpace(strings.Join(pages, " ")); got != all {
			t.Errorf("page by page: %q", got)
		}
		bob.want(400, "M_INVALID_PARAM", "GET", v3+"notifications?from=x", "")
		s.nobody().want(401, "M_MISSING_TOKEN", "GET", v3+"notifications", "")
	})
}
