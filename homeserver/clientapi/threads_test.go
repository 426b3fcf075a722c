package clientapi

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// related is a content with a body that refers to an event.
func related(body, rel, to, more string) string {
	return fmt.Sprintf(`{"msgtype":"m.text","body":%q,"m.relates_to":{"rel_type":%q,"event_id":%q}%s}`, body, rel, to, more)
}

// post sends a text and gives its event's ID, plain.
func (s *server) post(room, body, rel, to, more string) string {
	s.t.Helper()
	content := fmt.Sprintf(`{"msgtype":"m.text","body":%q}`, body)
	if rel != "" {
		content = related(body, rel, to, more)
	}
	id, _ := url.PathUnescape(s.said(room, url.PathEscape(body), content))
	return id
}

func (s *server) redact(room, event string) {
	s.t.Helper()
	s.want(200, "event_id", "PUT", room+"/redact/"+url.PathEscape(event)+"/"+url.PathEscape(event), `{}`)
}

// children is what refers to an event, as every endpoint must tell it.
func (s *server) children(room, event string) answer {
	s.t.Helper()
	e := s.want(200, "event_id", "GET", room+"/event/"+url.PathEscape(event), "")
	c, _ := e.at("unsigned", "m.relations").(map[string]any)
	around := s.want(200, "event", "GET", room+"/context/"+url.PathEscape(event), "")
	if a, b := fmt.Sprint(stripAge(c)), fmt.Sprint(stripAge(around.at("event", "unsigned", "m.relations"))); a != b && len(c) > 0 {
		s.t.Errorf("relations of %s: %s by itself, %s in its context", event, a, b)
	}
	return answer(c)
}

// stripAge takes out of a JSON value what changes with time.
func stripAge(v any) any {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "age")
		for _, x := range v {
			stripAge(x)
		}
	case []any:
		for _, x := range v {
			stripAge(x)
		}
	}
	return v
}

func TestChildren(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob, eve := s.new("bob"), s.new("eve")
		room := s.create(`{"preset":"public_chat"}`)
		for _, u := range []*server{bob, eve} {
			u.want(200, "room_id", "POST", room+"/join", "{}")
		}
		const edit = `,"m.new_content":{"msgtype":"m.text","body":"new"}`
		root := s.post(room, "root", "", "", "")
		if c := s.children(room, root); len(c) != 0 {
			t.Errorf("nothing refers to it, but %v", c)
		}
		first := s.post(room, "edit1", "m.replace", root, edit)
		time.Sleep(2 * time.Millisecond) // of two edits of one moment, their IDs decide
		second := s.post(room, "edit2", "m.replace", root, edit)
		s.post(room, "nothing new", "m.replace", root, "")
		bob.post(room, "not his", "m.replace", root, edit)
		s.post(room, "edit of an edit", "m.replace", second, edit)
		if c := s.children(room, root); c.text("m.replace", "event_id") != second || c.text("m.replace", "content", "body") != "edit2" || len(c) != 1 {
			t.Errorf("edits: %v", c)
		}
		if c := s.children(room, second); len(c) != 0 {
			t.Errorf("an edit of an edit: %v", c)
		}
		s.redact(room, second)
		if c := s.children(room, root); c.text("m.replace", "event_id") != first {
			t.Errorf("the edit before is not the newest again: %v", c)
		}

		one, two := bob.post(room, "one", "m.reference", root, ""), eve.post(room, "two", "m.reference", root, "")
		if c := s.children(room, root); fmt.Sprint(c.at("m.reference", "chunk")) != fmt.Sprint([]any{map[string]any{"event_id": one}, map[string]any{"event_id": two}}) {
			t.Errorf("references: %v", c)
		}

		bob.post(room, "t1", "m.thread", root, "")
		latest := bob.post(room, "t2", "m.thread", root, "")
		bob.post(room, "t2 mended", "m.replace", latest, edit)
		c := s.children(room, root)
		if c.at("m.thread", "count") != 2.0 || c.at("m.thread", "current_user_participated") != true || c.text("m.thread", "latest_event", "event_id") != latest ||
			answer(c.at("m.thread", "latest_event").(map[string]any)).text("unsigned", "m.relations", "m.replace", "content", "body") != "t2 mended" {
			t.Errorf("thread: %v", c)
		}
		if c := eve.children(room, root); c.at("m.thread", "current_user_participated") != false {
			t.Errorf("eve wrote nothing: %v", c)
		}
		eve.post(room, "t3", "m.thread", root, "")
		if c := eve.children(room, root); c.at("m.thread", "current_user_participated") != true || c.at("m.thread", "count") != 3.0 {
			t.Errorf("eve wrote: %v", c)
		}
		s.ignore(eve)
		if c := s.children(room, root); c.at("m.thread", "count") != 2.0 || c.text("m.thread", "latest_event", "event_id") != latest ||
			len(c.at("m.reference", "chunk").([]any)) != 1 {
			t.Errorf("eve is ignored: %v", c)
		}

		s.redact(room, root)
		if c := s.children(room, root); c.at("m.replace") != nil || c.at("m.thread", "count") != 2.0 {
			t.Errorf("the root is redacted: %v", c)
		}
		s.want(400, `"errcode":"M_UNKNOWN"`, "PUT", room+"/send/m.room.message/n1", related("nested", "m.thread", latest, ""))

		sync := s.want(200, "next_batch", "GET", v3+"sync", "")
		raw := fmt.Sprint(sync.at("rooms", "join", id(room), "timeline", "events"))
		if !strings.Contains(raw, "m.relations") {
			t.Error("a first sync tells of no relations")
		}
	})
}

// ignore makes the user ignore another one.
func (s *server) ignore(other *server) {
	s.t.Helper()
	s.want(200, "{}", "PUT", v3+"user/"+url.PathEscape(string(s.user))+"/account_data/m.ignored_user_list", fmt.Sprintf(`{"ignored_users":{%q:{}}}`, other.user))
}

// TestChildrenUnseen: who may not see a child is not shown it with its parent.
func TestChildrenUnseen(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"preset":"public_chat"}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		root, quiet := s.post(room, "root", "", "", ""), s.post(room, "quiet", "", "", "")
		seen := s.post(room, "seen", "m.thread", root, "")
		s.post(room, "newest", "m.thread", quiet, "")
		bob.want(200, "{}", "POST", room+"/leave", "{}")
		s.post(room, "secret root", "m.thread", s.post(room, "secret", "", "", ""), "")
		s.post(room, "secret", "m.thread", root, "")
		s.post(room, "secret edit", "m.replace", root, `,"m.new_content":{"body":"x"}`)
		s.post(room, "secret reference", "m.reference", root, "")
		c := bob.children(room, root)
		if c.text("m.thread", "latest_event", "event_id") != seen || c.at("m.thread", "count") != 1.0 || len(c) != 1 {
			t.Errorf("bob, who has left, sees %v", c)
		}
		if got := fmt.Sprint(bob.want(200, "chunk", "GET", thread(room), "")); strings.Contains(got, "secret") || !strings.Contains(got, "seen") {
			t.Errorf("bob, who has left, is told of the thread: %s", got)
		}
		if got := bodies(bob.want(200, "chunk", "GET", thread(room), "").at("chunk")); got != "quiet root" {
			t.Errorf("threads in the order of what bob, who has left, may see: %q", got)
		}
	})
}

// thread is the path of the threads of a room.
func thread(room string) string { return strings.Replace(room, "/v3/", "/v1/", 1) + "/threads" }

func TestThreads(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob, eve := s.new("bob"), s.new("eve")
		room := s.create(`{"preset":"public_chat"}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		list := func(as *server, query string) string {
			t.Helper()
			return bodies(as.want(200, "chunk", "GET", thread(room)+query, "").at("chunk"))
		}
		if got := list(s, ""); got != "" {
			t.Errorf("threads of a room without any: %q", got)
		}
		roots := map[string]string{}
		for _, name := range []string{"a", "b", "c", "d"} {
			who := s
			if name == "d" {
				who = bob
			}
			roots[name] = who.post(room, name, "", "", "")
		}
		var newest string
		for _, name := range []string{"a", "b", "c", "d", "a"} {
			newest = bob.post(room, "reply"+name+fmt.Sprint(len(newest)), "m.thread", roots[name], "")
		}
		for query, want := range map[string]string{"": "a d c b", "?include=all&limit=2": "a d", "?limit=4": "a d c b"} {
			if got := list(s, query); got != want {
				t.Errorf("%s: got %q, want %q", query, got, want)
			}
		}
		if got := list(s, "?include=participated"); got != "a c b" {
			t.Errorf("threads of one's own: %q", got)
		}
		s.post(room, "me too", "m.thread", roots["d"], "")
		if got := list(s, "?include=participated"); got != "d a c b" {
			t.Errorf("threads in which one wrote: %q", got)
		}
		var got []string
		from := ""
		for range 6 {
			a := s.want(200, "chunk", "GET", thread(room)+"?limit=1"+from, "")
			got = append(got, bodies(a.at("chunk")))
			if a.text("next_batch") == "" {
				break
			}
			from = "&from=" + a.text("next_batch")
		}
		if strings.Join(got, " ") != "d a c b" {
			t.Errorf("pages: %q", got)
		}
		bob.redact(room, newest) // a falls back to its first reply
		if got := list(s, ""); got != "d c b a" {
			t.Errorf("after a redaction: %q", got)
		}
		bob.ignore(s)
		if got := list(bob, ""); got != "d" { // the others' content is hidden, but they are told of
			t.Errorf("of an ignored user: %q", got)
		}
		if n := len(bob.want(200, "chunk", "GET", thread(room), "").at("chunk").([]any)); n != 4 {
			t.Errorf("%d threads where the user of three roots is ignored", n)
		}
		eve.want(200, "room_id", "POST", room+"/join", "{}")
		eve.post(room, "spam", "m.thread", eve.post(room, "e", "", "", ""), "")
		if got := list(s, "?limit=1"); got != "e" {
			t.Errorf("the newest thread: %q", got)
		}
		eve.post(room, "more spam", "m.thread", roots["b"], "")
		s.ignore(eve)
		if got := list(s, "?limit=2") + " " + list(s, "?limit=2&from="+s.want(200, "chunk", "GET", thread(room)+"?limit=2", "").text("next_batch")); got != "d c b a" {
			t.Errorf("where one ignores all who wrote in a thread: %q", got)
		}
		for _, bad := range []string{"?include=x", "?limit=0", "?limit=x", "?from=x"} {
			s.want(400, "M_INVALID_PARAM", "GET", thread(room)+bad, "")
		}
		s.new("mallory").want(403, "M_FORBIDDEN", "GET", thread(room), "")
	})
}

func TestAnnotateTwice(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"preset":"public_chat"}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		root := s.post(room, "root", "", "", "")
		react := func(txn, key string) (string, string) {
			return room + "/send/m.reaction/" + txn, fmt.Sprintf(`{"m.relates_to":{"rel_type":"m.annotation","event_id":%q,"key":%q}}`, root, key)
		}
		path, content := react("1", "👍")
		first := s.want(200, "event_id", "PUT", path, content).text("event_id")
		s.want(200, first, "PUT", path, content) // the same request
		path, content = react("2", "👍")
		s.want(400, "M_DUPLICATE_ANNOTATION", "PUT", path, content)
		bob.want(200, "event_id", "PUT", path, content)
		s.redact(room, first)
		s.want(200, "event_id", "PUT", path, content)
		path, content = react("3", "👎")
		s.want(200, "event_id", "PUT", path, content)
	})
}
