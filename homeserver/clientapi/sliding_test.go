package clientapi

import (
	"fmt"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"switchboard/homeserver/clientsync"
	"switchboard/homeserver/edge"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

const (
	slidingPath = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
	slidingV4   = "/_matrix/client/v4/sync"
)

// slide asks with the old names and gives the answer.
func (s *server) slide(pos, body string) answer {
	s.t.Helper()
	path := slidingPath
	if pos != "" {
		path += "?pos=" + url.QueryEscape(pos)
	}
	return s.want(200, `"pos"`, "POST", path, body)
}

// of is what an answer tells of a room, by its path; nil for nothing.
func (a answer) of(room string) answer {
	m, _ := a.at("rooms", id(room)).(map[string]any)
	return m
}

// shown are the rooms of an answer.
func (a answer) shown() int {
	m, _ := a.at("rooms").(map[string]any)
	return len(m)
}

// typesOf are the types of events.
func typesOf(list any) string {
	var types []string
	events, _ := list.([]any)
	for _, e := range events {
		a := answer(e.(map[string]any))
		types = append(types, strings.TrimSuffix(a.text("type")+"/"+a.text("state_key"), "/"))
	}
	slices.Sort(types)
	return strings.Join(types, " ")
}

const list20 = `{"lists":{"all":{"ranges":[[0,19]],"timeline_limit":2,"required_state":[["m.room.create",""],["m.room.member","$ME"]]}}}`

func TestSlidingRooms(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		first := s.create(`{"preset":"public_chat","name":"First"}`)
		second := s.create(`{"preset":"public_chat"}`)
		bob.want(200, "room_id", "POST", second+"/join", "{}")
		for i := range 3 {
			s.said(first, fmt.Sprint(i), fmt.Sprintf(`{"msgtype":"m.text","body":"m%d"}`, i))
		}
		a := s.slide("", list20)
		if fmt.Sprint(a.at("lists")) != "map[all:map[count:2]]" {
			t.Errorf("lists: %v", a.at("lists"))
		}
		r := a.of(first)
		if r.at("initial") != true || r.text("name") != "First" || bodies(r.at("timeline")) != "m1 m2" || r.at("limited") != true || r.at("joined_count") != 1.0 ||
			r.text("membership") != "join" || typesOf(r.at("required_state")) != "m.room.create m.room.member/@alice:a.test" || r.text("prev_batch") == "" ||
			r.at("bump_stamp") == nil || r.at("heroes") != nil || r.at("num_live") != nil {
			t.Errorf("first room: %v", r)
		}
		back := s.want(200, "chunk", "GET", first+"/messages?dir=b&limit=1&from="+url.QueryEscape(r.text("prev_batch")), "")
		if bodies(back.at("chunk")) != "m0" {
			t.Errorf("behind prev_batch: %v", back)
		}
		if r := a.of(second); r.at("name") != nil || fmt.Sprint(r.at("heroes")) != "[map[displayname:bob user_id:@bob:a.test]]" {
			t.Errorf("room without a name: %v", r)
		}

		// Nothing new, then one room with news.
		b := s.slide(a.text("pos"), list20)
		if b.shown() != 0 {
			t.Errorf("nothing happened, but: %v", b.at("rooms"))
		}
		bob.said(second, "hi", `{"msgtype":"m.text","body":"hi"}`)
		c := s.slide(b.text("pos"), list20)
		r = c.of(second)
		if c.shown() != 1 || r.at("initial") != nil || bodies(r.at("timeline")) != "hi" || r.at("num_live") != 1.0 || r.at("notification_count") != 1.0 ||
			r.at("limited") != nil || r.at("joined_count") != nil || r.at("required_state") != nil {
			t.Errorf("one message later: %v", c.at("rooms"))
		}
		if again := s.slide(b.text("pos"), list20); bodies(again.of(second).at("timeline")) != "hi" {
			t.Errorf("asked again for the same: %v", again.at("rooms"))
		}
		// The name changes, and what is unread is read.
		s.want(200, "event_id", "PUT", second+"/state/m.room.name", `{"name":"Second"}`)
		s.want(200, "{}", "POST", second+"/receipt/m.read/"+bob.said(second, "ho", `{"msgtype":"m.text","body":"ho"}`), "{}")
		d := s.slide(c.text("pos"), list20)
		if r := d.of(second); r.text("name") != "Second" || r.at("notification_count") != 0.0 || bodies(r.at("timeline")) != "ho" {
			t.Errorf("after a change of name: %v", r)
		}
		s.want(400, `"errcode":"M_UNKNOWN_POS"`, "POST", slidingPath+"?pos="+url.QueryEscape(a.text("pos")), list20)
	})
}

func TestSlidingWindow(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		var rooms []string
		for i := range 6 {
			rooms = append(rooms, s.create(fmt.Sprintf(`{"name":"r%d"}`, i)))
		}
		list := func(first, last int) string {
			return fmt.Sprintf(`{"conn_id":"main","lists":{"all":{"ranges":[[%d,%d]],"timeline_limit":1,"required_state":[]}}}`, first, last)
		}
		names := func(a answer) string {
			var list []string
			for _, r := range rooms {
				if x := a.of(r); x != nil {
					list = append(list, x.text("name")+map[bool]string{true: "!"}[x.at("initial") == true])
				}
			}
			return strings.Join(list, " ")
		}
		a := s.slide("", list(0, 1))
		if got := names(a); got != "r4! r5!" || a.at("lists", "all", "count") != 6.0 {
			t.Errorf("first two: %q of %v", got, a.at("lists"))
		}
		a = s.slide(a.text("pos"), list(0, 3))
		if got := names(a); got != "r2! r3!" {
			t.Errorf("two more: %q", got)
		}
		s.said(rooms[0], "1", `{"msgtype":"m.text","body":"up"}`)
		a = s.slide(a.text("pos"), list(0, 3))
		if got := names(a); got != "r0!" || a.of(rooms[0]).at("num_live") != 1.0 {
			t.Errorf("what came into the window: %q %v", got, a.of(rooms[0]))
		}
		// A subscription shows a room outside of the window, and more of its timeline.
		s.said(rooms[1], "1", `{"msgtype":"m.text","body":"one"}`)
		for i := range 4 {
			for _, r := range rooms[2:] {
				s.said(r, fmt.Sprint("x", i), `{"msgtype":"m.text","body":"x"}`)
			}
		}
		sub := func(limit int) string {
			return fmt.Sprintf(`{"conn_id":"main","room_subscriptions":{%q:{"timeline_limit":%d,"required_state":[["*","*"]]}},"lists":{}}`, id(rooms[1]), limit)
		}
		a = s.slide(a.text("pos"), sub(10))
		if r := a.of(rooms[1]); a.shown() != 1 || !strings.Contains(typesOf(r.at("required_state")), "m.room.power_levels") || bodies(r.at("timeline")) != "one" {
			t.Errorf("subscription: %v", a.at("rooms"))
		}
		a = s.slide(a.text("pos"), sub(50))
		if r := a.of(rooms[1]); r.at("unstable_expanded_timeline") != true || r.at("initial") != nil || !strings.Contains(typesOf(r.at("timeline")), "m.room.create") {
			t.Errorf("more of the timeline: %v", r)
		}
		if a = s.slide(a.text("pos"), sub(50)); a.shown() != 0 {
			t.Errorf("the same again: %v", a.at("rooms"))
		}
	})
}

func TestSlidingMemberships(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"name":"Secret","invite":["@bob:a.test"]}`)
		a := bob.slide("", list20)
		r := a.of(room)
		if r.text("membership") != "invite" || !strings.Contains(typesOf(r.at("invite_state")), "m.room.member/@bob:a.test") || r.at("timeline") != nil || r.at("required_state") != nil {
			t.Errorf("invitation: %v", r)
		}
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		a = bob.slide(a.text("pos"), list20)
		if r := a.of(room); r.text("membership") != "join" || r.at("initial") != true || r.text("name") != "Secret" {
			t.Errorf("joined: %v", r)
		}
		s.want(200, "{}", "POST", room+"/kick", `{"user_id":"@bob:a.test"}`)
		s.said(room, "late", `{"msgtype":"m.text","body":"late"}`)
		a = bob.slide(a.text("pos"), list20)
		if r := a.of(room); r.text("membership") != "leave" || strings.Contains(fmt.Sprint(r), "late") || !strings.Contains(typesOf(r.at("timeline")), "m.room.member") {
			t.Errorf("kicked: %v", r)
		}
		if fresh := bob.slide("", list20); fresh.of(room).text("membership") != "leave" {
			t.Errorf("who was put out is not told by a first sync: %v", fresh)
		}
		// Who left of their own will is told once, and by a first sync nothing.
		other := s.create(`{"preset":"public_chat"}`)
		bob.want(200, "room_id", "POST", other+"/join", "{}")
		a = bob.slide(a.text("pos"), list20)
		bob.want(200, "{}", "POST", other+"/leave", "{}")
		a = bob.slide(a.text("pos"), list20)
		if r := a.of(other); r.text("membership") != "leave" {
			t.Errorf("left: %v", a)
		}
		if fresh := bob.slide("", list20); fresh.of(other) != nil {
			t.Errorf("a first sync tells of what was left: %v", fresh.of(other))
		}
		// A refused invitation.
		third := s.create(`{"invite":["@bob:a.test"]}`)
		a = bob.slide(a.text("pos"), list20)
		bob.want(200, "{}", "POST", third+"/leave", "{}")
		a = bob.slide(a.text("pos"), list20)
		if r := a.of(third); r.text("membership") != "leave" || r.at("timeline") != nil {
			t.Errorf("refused: %v", a)
		}
		// Nobody sees a room that they are not in by asking for it.
		hidden := s.create(`{}`)
		if a := bob.slide("", fmt.Sprintf(`{"room_subscriptions":{%q:{"timeline_limit":10,"required_state":[["*","*"]]}}}`, id(hidden))); a.shown() != 0 {
			t.Errorf("a stranger is shown %v", a.at("rooms"))
		}
	})
}

func TestSlidingFilters(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		rooms := map[string]string{
			"space":  s.create(`{"creation_content":{"type":"m.space"}}`),
			"direct": s.create(`{"preset":"trusted_private_chat"}`),
			"crypt":  s.create(`{"initial_state":[{"type":"m.room.encryption","state_key":"","content":{"algorithm":"m.megolm.v1.aes-sha2"}}]}`),
			"tagged": s.create(`{}`),
			"invite": bob.create(`{"invite":["@alice:a.test"]}`),
		}
		me := v3 + "user/" + url.PathEscape(string(s.user))
		s.want(200, "{}", "PUT", me+"/account_data/m.direct", fmt.Sprintf(`{"@bob:a.test":[%q]}`, id(rooms["direct"])))
		s.want(200, "{}", "PUT", me+"/rooms/"+url.PathEscape(id(rooms["tagged"]))+"/tags/m.favourite", `{"order":0.5}`)
		child := s.want(200, "event_id", "PUT", rooms["space"]+"/state/m.space.child/"+url.PathEscape(id(rooms["crypt"])), `{"via":["a.test"]}`).text("event_id")
		for filter, want := range map[string]string{
			`{}`:                     "crypt direct invite space tagged",
			`{"is_dm":true}`:         "direct",
			`{"is_dm":false}`:        "crypt invite space tagged",
			`{"is_encrypted":true}`:  "crypt",
			`{"is_encrypted":false}`: "direct invite space tagged",
			`{"is_invite":true}`:     "invite",
			`{"is_invite":false,"is_encrypted":true}`:          "crypt",
			`{"room_types":["m.space"]}`:                       "space",
			`{"room_types":[null],"is_invite":false}`:          "crypt direct tagged",
			`{"not_room_types":["m.space"]}`:                   "crypt direct invite tagged",
			`{"tags":["m.favourite"]}`:                         "tagged",
			`{"not_tags":["m.favourite"]}`:                     "crypt direct invite space",
			fmt.Sprintf(`{"spaces":[%q]}`, id(rooms["space"])): "crypt",
			`{"spaces":["!none:a.test"]}`:                      "",
		} {
			a := s.slide("", `{"conn_id":"f","lists":{"l":{"ranges":[[0,99]],"timeline_limit":0,"required_state":[],"filters":`+filter+`}}}`)
			var got []string
			for name, r := range rooms {
				if a.of(r) != nil {
					got = append(got, name)
				}
			}
			slices.Sort(got)
			if strings.Join(got, " ") != want || a.at("lists", "l", "count") != float64(len(got)) {
				t.Errorf("%s: %q, want %q; count %v", filter, got, want, a.at("lists", "l", "count"))
			}
		}
		// The state is the same after this, but the space names the room no more.
		s.want(200, "event_id", "PUT", rooms["space"]+"/redact/"+url.PathEscape(child)+"/1", "{}")
		if a := s.slide("", fmt.Sprintf(`{"conn_id":"f","lists":{"l":{"ranges":[[0,99]],"timeline_limit":0,"required_state":[],"filters":{"spaces":[%q]}}}}`, id(rooms["space"]))); a.shown() != 0 {
			t.Errorf("a room that was taken out of its space is shown: %v", a.at("rooms"))
		}
	})
}

func TestSlidingState(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob, eve := s.new("bob"), s.new("eve")
		room := s.create(`{"preset":"public_chat"}`)
		for _, u := range []*server{bob, eve} {
			u.want(200, "room_id", "POST", room+"/join", "{}")
		}
		bob.said(room, "1", `{"msgtype":"m.text","body":"one"}`)
		body := func(limit int, state string) string {
			return fmt.Sprintf(`{"conn_id":"s","room_subscriptions":{%q:{"timeline_limit":%d,"required_state":%s}}}`, id(room), limit, state)
		}
		a := s.slide("", body(1, `[["m.room.member","$LAZY"],["m.room.topic",""]]`))
		if got := typesOf(a.of(room).at("required_state")); got != "m.room.member/@bob:a.test" {
			t.Errorf("lazily: %q", got)
		}
		s.want(200, "event_id", "PUT", room+"/state/m.room.topic", `{"topic":"new"}`)
		bob.said(room, "2", `{"msgtype":"m.text","body":"two"}`)
		eve.said(room, "3", `{"msgtype":"m.text","body":"three"}`)
		a = s.slide(a.text("pos"), body(5, `[["m.room.member","$LAZY"],["m.room.topic",""]]`))
		if got := typesOf(a.of(room).at("required_state")); !strings.Contains(got, "m.room.member/@eve:a.test") || !strings.Contains(got, "m.room.topic") || strings.Contains(got, "bob") {
			t.Errorf("who is new, and what changed: %q", got)
		}
		bob.want(200, "{}", "PUT", v3+"profile/"+url.PathEscape(string(bob.user))+"/displayname", `{"displayname":"Bobby"}`)
		a = s.slide(a.text("pos"), body(5, `[["m.room.member","$LAZY"],["m.room.topic",""]]`))
		if got := typesOf(a.of(room).at("required_state")); got != "m.room.member/@bob:a.test" {
			t.Errorf("a member changed: %q", got)
		}
		a = s.slide(a.text("pos"), body(5, `[["m.room.member","$LAZY"],["m.room.topic",""],["m.room.power_levels",""],["m.room.create","*"]]`))
		if got := typesOf(a.of(room).at("required_state")); got != "m.room.create m.room.power_levels" {
			t.Errorf("more is wanted than before: %q", got)
		}
		v4 := s.want(200, `"pos"`, "POST", slidingV4, fmt.Sprintf(`{"room_subscriptions":{%q:{"timeline_limit":1,"required_state":{"include":[{}],"exclude":[{"type":"m.room.create"}],"lazy_members":true}}},
			"lists":{"l":{"range":[0,5],"timeline_limit":1,"required_state":{}}}}`, id(room)))
		r := v4.of(room)
		if got := typesOf(r.at("required_state")); strings.Contains(got, "m.room.create") || strings.Contains(got, "@eve") || !strings.Contains(got, "m.room.power_levels") ||
			r.at("timeline_events") == nil || r.at("timeline") != nil || fmt.Sprint(r.at("lists")) != "[l]" || fmt.Sprint(v4.at("lists")) != "map[l:map[count:1]]" {
			t.Errorf("version 4: %v", v4)
		}
		v4 = s.want(200, `"pos"`, "POST", slidingV4, fmt.Sprintf(`{"pos":%q,"timeout":1,"lists":{"l":{"range":[0,5],"timeline_limit":1,"required_state":{}}}}`, v4.text("pos")))
		if v4.shown() != 0 {
			t.Errorf("version 4, nothing new: %v", v4)
		}
	})
}

func TestSlidingExtensions(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"preset":"public_chat"}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		root := s.post(room, "root", "", "", "")
		said := bob.said(room, "hi", `{"msgtype":"m.text","body":"hi"}`)
		bob.want(200, "{}", "POST", room+"/receipt/m.read/"+said, "{}")
		me := v3 + "user/" + url.PathEscape(string(s.user))
		s.want(200, "{}", "PUT", me+"/account_data/my.setting", `{"a":1}`)
		s.want(200, "{}", "PUT", me+"/rooms/"+url.PathEscape(id(room))+"/account_data/my.setting", `{"b":2}`)
		bob.want(200, "{}", "PUT", room+"/typing/"+url.PathEscape(string(bob.user)), `{"typing":true,"timeout":60000}`)
		body := func(device string) string {
			return fmt.Sprintf(`{"lists":{"all":{"ranges":[[0,9]],"timeline_limit":5,"required_state":[]}},"extensions":{"to_device":{"enabled":true%s},"e2ee":{"enabled":true},
				"account_data":{"enabled":true},"receipts":{"enabled":true},"typing":{"enabled":true},"io.element.msc4360.threads":{"enabled":true,"include_roots":true},"unheard.of":{"enabled":true}}}`, device)
		}
		bob.want(200, "{}", "PUT", v3+"sendToDevice/m.test/1", fmt.Sprintf(`{"messages":{%q:{"*":{"n":1}}}}`, s.user))
		a := s.slide("", body(""))
		x := answer(a.at("extensions").(map[string]any))
		if typesOf(x.at("account_data", "global")) != "m.push_rules my.setting" || typesOf(x.at("account_data", "rooms", id(room))) != "my.setting" ||
			!strings.Contains(fmt.Sprint(x.at("receipts", "rooms", id(room))), "m.read:map[@bob:a.test") ||
			fmt.Sprint(x.at("typing", "rooms", id(room), "content", "user_ids")) != "[@bob:a.test]" ||
			x.at("e2ee", "device_one_time_keys_count") == nil || typesOf(x.at("to_device", "events")) != "m.test" || x.at("io.element.msc4360.threads") != nil {
			t.Errorf("extensions: %v", x)
		}
		// The same message comes until the client names the position behind it.
		b := s.slide(a.text("pos"), body(""))
		if typesOf(b.at("extensions", "to_device", "events")) != "m.test" {
			t.Errorf("a message that was not acknowledged: %v", b.at("extensions"))
		}
		since := fmt.Sprintf(`,"since":%q`, x.text("to_device", "next_batch"))
		b = s.slide(b.text("pos"), body(since))
		if x := answer(b.at("extensions").(map[string]any)); x.at("to_device", "events") != nil || x.at("receipts") != nil || x.at("typing") != nil || x.at("account_data", "global") != nil {
			t.Errorf("nothing new: %v", x)
		}
		bob.want(200, "{}", "PUT", room+"/typing/"+url.PathEscape(string(bob.user)), `{"typing":false}`)
		s.want(200, "{}", "POST", room+"/receipt/m.read.private/"+said, "{}")
		bob.post(room, "t1", "m.thread", root, "")
		bob.post(room, "t2", "m.thread", root, "")
		b = s.slide(b.text("pos"), body(since))
		x = answer(b.at("extensions").(map[string]any))
		thread := answer(x.at("io.element.msc4360.threads", "updates", id(room), root).(map[string]any))
		if fmt.Sprint(x.at("typing", "rooms", id(room), "content", "user_ids")) != "[]" || !strings.Contains(fmt.Sprint(x.at("receipts")), "m.read.private:map[@alice:a.test") ||
			thread.text("thread_root", "event_id") != root || thread.at("thread_root", "unsigned", "m.relations", "m.thread", "count") != 2.0 || thread.text("prev_batch") == "" {
			t.Errorf("later: %v", x)
		}
		v1 := strings.Replace(room, "/v3/", "/v1/", 1) + "/relations/" + url.PathEscape(root) + "?from=" + thread.text("prev_batch")
		if got := bodies(s.want(200, "chunk", "GET", v1, "").at("chunk")); got != "t1" {
			t.Errorf("the thread before its newest event: %s", got)
		}
	})
}

// TestSlidingIgnoredThreads: nobody is told of threads by what ignored users write
// there, and gets no root of theirs to see.
func TestSlidingIgnoredThreads(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob, eve := s.new("bob"), s.new("eve")
		room := s.create(`{"preset":"public_chat"}`)
		for _, u := range []*server{bob, eve} {
			u.want(200, "room_id", "POST", room+"/join", "{}")
		}
		hers, his := eve.post(room, "her root", "", "", ""), bob.post(room, "his root", "", "", "")
		s.ignore(eve)
		ask := func(pos string, roots bool) answer {
			return s.slide(pos, fmt.Sprintf(`{"lists":{"all":{"ranges":[[0,9]],"timeline_limit":0,"required_state":[]}},
				"extensions":{"io.element.msc4360.threads":{"enabled":true,"include_roots":%t}}}`, roots))
		}
		threads := func(a answer) map[string]any {
			m, _ := a.at("extensions", "io.element.msc4360.threads", "updates", id(room)).(map[string]any)
			return m
		}
		for _, roots := range []bool{false, true} {
			a := ask("", roots)
			eve.post(room, fmt.Sprint("unheard", roots), "m.thread", his, "")
			a = ask(a.text("pos"), roots)
			if got := threads(a); len(got) > 0 {
				t.Errorf("told of what eve wrote: %v", got)
			}
			bob.post(room, fmt.Sprint("one", roots), "m.thread", his, "")
			bob.post(room, fmt.Sprint("two", roots), "m.thread", hers, "")
			eve.post(room, fmt.Sprint("unheard too", roots), "m.thread", his, "")
			a = ask(a.text("pos"), roots)
			if got := threads(a); len(got) != 2 || strings.Contains(fmt.Sprint(got), "her root") || strings.Contains(fmt.Sprint(got), "unheard") ||
				strings.Contains(fmt.Sprint(got), "prev_batch") || roots != strings.Contains(fmt.Sprint(got), "his root") {
				t.Errorf("what bob wrote: %v", got)
			}
		}
	})
}

// TestSlidingRestart: a loop without rooms goes on over a restart, since its
// position says all; one with rooms begins again.
func TestSlidingRestart(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		const crypto = `{"conn_id":"encryption","extensions":{"to_device":{"enabled":true},"e2ee":{"enabled":true}}}`
		rooms, keys := s.slide("", list20), s.slide("", crypto)
		bob.want(200, "{}", "PUT", v3+"sendToDevice/m.test/1", fmt.Sprintf(`{"messages":{%q:{"*":{"n":1}}}}`, s.user))
		was := s.api.Sync
		s.api.Sync = &clientsync.Service{Store: was.Store, Rooms: was.Rooms, Unread: was.Unread, Bell: was.Bell, Keys: was.Keys, Ephemeral: was.Ephemeral}
		s.want(400, `"errcode":"M_UNKNOWN_POS"`, "POST", slidingPath+"?pos="+url.QueryEscape(rooms.text("pos")), list20)
		if a := s.slide(keys.text("pos"), crypto); typesOf(a.at("extensions", "to_device", "events")) != "m.test" {
			t.Errorf("after a restart: %v", a)
		}
		// A backup was put back, or another server had this name: nothing is lost by what clients remember.
		for _, pos := range []string{"s999999_0.1", "12/s34_5", "x"} {
			s.want(400, `"errcode":"M_UNKNOWN_POS"`, "POST", slidingPath+"?pos="+url.QueryEscape(pos), crypto)
		}
		later := strings.Replace(crypto, `"to_device":{`, `"to_device":{"since":"999999",`, 1)
		for range 2 {
			if a := s.slide("", later); typesOf(a.at("extensions", "to_device", "events")) != "m.test" {
				t.Errorf("with a since token from the future: %v", a)
			}
		}
	})
}

func TestSlidingRefuses(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		for body, code := range map[string]string{
			`{"lists":{"a":{"ranges":[[5,1]]}}}`:                          "M_INVALID_PARAM",
			`{"lists":{"a":{"ranges":[[-1,1]]}}}`:                         "M_INVALID_PARAM",
			`{"lists":{"a":{"ranges":[[0]]}}}`:                            "",
			`{"lists":{"a":{"ranges":[[0,1]],"timeline_limit":-1}}}`:      "M_INVALID_PARAM",
			`{"lists":{"a":{"ranges":[[0,1]],"required_state":[["x"]]}}}`: "",
			`{"lists":{"a":{"ranges":[[0,1]],"required_state":{}}}}`:      "M_BAD_JSON",
			`{"lists":[]}`:                                              "M_BAD_JSON",
			`{"extensions":{"e2ee":1}}`:                                 "M_BAD_JSON",
			`{"conn_id":"` + strings.Repeat("x", 300) + `"}`:            "M_INVALID_PARAM",
			`{"extensions":{"to_device":{"enabled":true,"since":"x"}}}`: "M_INVALID_PARAM",
		} {
			w := s.do("POST", slidingPath, body)
			if w.Code >= 500 || code != "" && (w.Code != 400 || !strings.Contains(w.Body.String(), code)) {
				t.Errorf("%s: %d %s", body, w.Code, w.Body)
			}
		}
		s.want(400, "M_UNKNOWN_POS", "POST", slidingPath+"?pos=x", list20)
		s.want(400, "M_UNKNOWN_POS", "POST", slidingPath+"?pos=s5_0.1", list20)
		s.want(400, "M_INVALID_PARAM", "POST", slidingPath+"?timeout=x", "{}")
		s.nobody().want(401, "M_MISSING_TOKEN", "POST", slidingPath, "{}")
		many := `{"room_subscriptions":{`
		for i := range 1001 {
			many += fmt.Sprintf(`"!%d:a.test":{},`, i)
		}
		s.want(400, "M_INVALID_PARAM", "POST", slidingPath, strings.TrimSuffix(many, ",")+"}}")
	})
}

// TestSlidingSameBody checks that a body which was read before means to each user,
// and at each path, what it did at first.
func TestSlidingSameBody(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"preset":"public_chat","name":"First"}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		body := `{"timeout":-1,"pos":"no","lists":{"all":{"ranges":[[0,19]],"required_state":[["m.room.member","$ME"]]}}}`
		for range 2 {
			for _, who := range []*server{s, bob} {
				if got := typesOf(who.slide("", body).of(room).at("required_state")); got != "m.room.member/"+string(who.user) {
					t.Errorf("%s is told %s", who.user, got)
				}
			}
		}
		pos := s.slide("", body).text("pos")
		bob.said(room, "news", `{"msgtype":"m.text","body":"news"}`)
		for range 2 { // the second time the answer got lost
			if n := s.slide(pos, body).shown(); n != 1 {
				t.Errorf("%d rooms have news", n)
			}
		}
		next := s.slide(pos, body).text("pos")
		if n := s.slide(next, body).shown(); n != 0 {
			t.Errorf("%d rooms have news when nothing has happened", n)
		}
		more := strings.Replace(body, `["m.room.member","$ME"]`, `["m.room.member","$ME"],["m.room.name",""]`, 1)
		if got := typesOf(s.slide(next, more).of(room).at("required_state")); got != "m.room.name" {
			t.Errorf("who wants more is told %s", got)
		}
		s.want(400, "M_INVALID_PARAM", "POST", slidingV4, body)
		s.want(400, "M_BAD_JSON", "POST", slidingPath, `{"lists":1}`)
		s.want(400, "M_BAD_JSON", "POST", slidingPath, `{"lists":1}`)
	})
}

// TestSlidingSince lets a device follow its messages, with bodies that differ only in
// how far it has them.
func TestSlidingSince(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		pos, since := "", "0"
		follow := func() string {
			a := s.slide(pos, `{"extensions":{"to_device":{"enabled":true,"since":"`+since+`"}}}`)
			pos, since = a.text("pos"), a.text("extensions", "to_device", "next_batch")
			return typesOf(a.at("extensions", "to_device", "events"))
		}
		follow()
		for i := range 4 {
			bob.want(200, "{}", "PUT", fmt.Sprint(v3, "sendToDevice/m.test", i, "/1"), fmt.Sprintf(`{"messages":{%q:{"*":{}}}}`, s.user))
			before := since
			for range 2 { // the second time the answer got lost
				since = before
				if got := follow(); got != fmt.Sprint("m.test", i) {
					t.Errorf("message %d: got %q", i, got)
				}
			}
			if got := follow(); got != "" {
				t.Errorf("behind message %d: got %q", i, got)
			}
		}
	})
}

func TestCutSince(t *testing.T) {
	for body, want := range map[string]string{
		``: "", `{}`: "", `{"since":""}`: "", `{"since":"x"}`: "", `{"since":"1x"}`: "", `{"since":1}`: "", `{"since":"1`: "", `{"since": "1"}`: "",
		`{"a":{"since":"12"}}`: "12", `{"a":{"since":"12"},"b":{"since":"12"}}`: "", `{"a":{"since":"12"},"b":{"since": "1"}}`: "",
	} {
		rest, since := cutSince(body)
		if since != want || rest != strings.Replace(body, want, "", 1) {
			t.Errorf("%s: %q and %q, want %q", body, since, rest, want)
		}
	}
}

// BenchmarkWindow reads the body of a request of sliding sync, for the first time and
// again.
func BenchmarkWindow(b *testing.B) {
	body := `{"conn_id":"room-list","lists":{"all_rooms":{"ranges":[[0,19]],"timeline_limit":1,"filters":{"not_room_types":["m.space"]},"required_state":[["m.room.name",""],["m.room.encryption",""],["m.room.member","$LAZY"],["m.room.member","$ME"],["m.room.topic",""],["m.room.avatar",""],["m.room.canonical_alias",""],["m.room.power_levels",""],["org.matrix.msc3401.call.member","*"],["m.room.join_rules",""],["m.room.tombstone",""],["m.room.create",""],["m.room.history_visibility",""],["io.element.functional_members",""],["m.space.parent","*"],["m.space.child","*"]]}},"extensions":{"account_data":{"enabled":true},"receipts":{"enabled":true,"rooms":["*"]},"typing":{"enabled":true},"threads":{"enabled":true}}}`
	for _, again := range []bool{false, true} {
		b.Run(fmt.Sprint("again ", again), func(b *testing.B) {
			b.ReportAllocs()
			a := &API{}
			for b.Loop() {
				if !again {
					a = &API{}
				}
				r := &request{Call: edge.Call{Request: httptest.NewRequest("POST", slidingPath, strings.NewReader(body)), Limit: 1 << 20}}
				if w, err := a.oldWindow(r); err != nil || len(w.Lists) != 1 {
					b.Fatal(err)
				}
			}
		})
	}
}
