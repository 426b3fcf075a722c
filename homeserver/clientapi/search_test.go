package clientapi

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// seek searches with parameters beside the term, as JSON, and gives what was found.
func (s *server) seek(term, more, next string) answer {
	s.t.Helper()
	path := v3 + "search"
	if next != "" {
		path += "?next_batch=" + url.QueryEscape(next)
	}
	a := s.want(200, "search_categories", "POST", path, fmt.Sprintf(`{"search_categories":{"room_events":{"search_term":%q%s}}}`, term, more))
	found, _ := a.at("search_categories", "room_events").(map[string]any)
	return found
}

// texts are the bodies of results, those that were replaced as they are now, and
// names and topics.
func (a answer) texts() string {
	var list []string
	results, _ := a.at("results").([]any)
	for _, r := range results {
		e := answer(r.(map[string]any))
		text := e.text("result", "content", "body") + e.text("result", "content", "name") + e.text("result", "content", "topic")
		if changed := e.text("result", "unsigned", "m.relations", "m.replace", "content", "m.new_content", "body"); changed != "" {
			text = changed
		}
		list = append(list, text)
	}
	return strings.Join(list, "|")
}

// wantFound searches, the newest first, and compares the texts.
func (s *server) wantFound(want, term, more string) answer {
	s.t.Helper()
	a := s.seek(term, `,"order_by":"recent"`+more, "")
	if got := a.texts(); got != want {
		s.t.Errorf("%s finds by %q%s\n%q, want\n%q", s.user, term, more, got, want)
	}
	if n, _ := a.at("count").(float64); int(n) != strings.Count(want, "|")+min(1, len(want)) {
		s.t.Errorf("%q%s: count %v", term, more, n)
	}
	return a
}

func TestSearch(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"preset":"public_chat","name":"Fox hunt","topic":"about a fox"}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		other := s.create(`{}`)
		secret := s.create(`{"initial_state":[{"type":"m.room.encryption","content":{"algorithm":"m.megolm.v1.aes-sha2"}}]}`)
		s.post(secret, "a fox in an encrypted room", "", "", "")
		s.post(room, "The quick brown FOX", "", "", "")
		bob.post(room, "no foxes here", "", "", "")
		s.post(other, "fox elsewhere", "", "", "")
		s.post(room, "东京的狐狸和東京都", "", "", "")
		s.post(room, "キツネはｶﾀｶﾅ", "", "", "")
		s.post(room, "Füchse äußern sich", "", "", "")
		s.said(room, "url", `{"msgtype":"m.image","body":"fox.jpg","url":"mxc://a.test/x"}`)
		s.want(200, "event_id", "PUT", room+"/send/m.sticker/1", `{"body":"fox sticker"}`)

		in := fmt.Sprintf(`,"filter":{"rooms":[%q]}`, id(room))
		s.wantFound("fox.jpg|fox elsewhere|no foxes here|The quick brown FOX|about a fox|Fox hunt", "fox", "")
		bob.wantFound("fox.jpg|no foxes here|The quick brown FOX|about a fox|Fox hunt", "fox", "")
		s.wantFound("The quick brown FOX", "brown fox", "")
		s.wantFound("The quick brown FOX", "FOX brown", "")
		s.wantFound("", "brown foxes", "")
		s.wantFound("", "ox", "")
		s.wantFound("", "!?", "")
		for term, want := range map[string]string{
			"東京": "东京的狐狸和東京都", "京都": "东京的狐狸和東京都", "狐狸": "东京的狐狸和東京都", "狐": "东京的狐狸和東京都", "京狐": "",
			"カタカナ": "キツネはｶﾀｶﾅ", "ツネ": "キツネはｶﾀｶﾅ", "fuchse AUSSERN": "Füchse äußern sich",
		} {
			s.wantFound(want, term, in)
		}
		s.wantFound("Fox hunt", "fox", `,"keys":["content.name"]`)
		s.wantFound("about a fox|Fox hunt", "fox", `,"keys":["content.name","content.topic"]`)
		s.wantFound("fox.jpg|no foxes here|The quick brown FOX", "fox", in+`,"keys":["content.body"]`)
		s.wantFound("fox elsewhere", "fox", fmt.Sprintf(`,"filter":{"not_rooms":[%q]}`, id(room)))
		s.wantFound("no foxes here", "fox", `,"filter":{"senders":["@bob:a.test"]}`)
		s.wantFound("fox elsewhere", "fox", fmt.Sprintf(`,"filter":{"not_senders":["@bob:a.test"],"rooms":[%q]}`, id(other)))
		s.wantFound("fox.jpg", "fox", `,"filter":{"contains_url":true}`)
		s.wantFound("about a fox", "fox", `,"filter":{"types":["m.room.to*"]}`)
		s.wantFound("", "fox", `,"filter":{"rooms":[]}`)
		s.wantFound("", "fox", `,"filter":{"rooms":["!unknown:a.test"]}`)

		if got := s.seek("fox", in, "").texts(); !strings.HasPrefix(got, "fox.jpg|Fox hunt|") || !strings.HasSuffix(got, "|no foxes here") {
			t.Errorf("by rank: %s", got)
		}
		if got := fmt.Sprint(s.seek("fox brown", in, "").at("highlights")); got != "[brown fox]" {
			t.Errorf("highlights %s", got)
		}
		s.want(200, `{"search_categories":{}}`, "POST", v3+"search", `{"search_categories":{}}`)
		for body, want := range map[string]string{
			`{}`: "M_MISSING_PARAM",
			`{"search_categories":{"room_events":{}}}`:                                                         "M_MISSING_PARAM",
			`{"search_categories":{"room_events":{"search_term":"x","order_by":"size"}}}`:                      "M_INVALID_PARAM",
			`{"search_categories":{"room_events":{"search_term":"x","keys":["content.url"]}}}`:                 "M_INVALID_PARAM",
			`{"search_categories":{"room_events":{"search_term":"x","groupings":{"group_by":[{"key":"x"}]}}}}`: "M_INVALID_PARAM",
			`{"search_categories":{"room_events":{"search_term":"x","event_context":{"before_limit":-1}}}}`:    "M_INVALID_PARAM",
			`{"search_categories":{"room_events":{"search_term":"x","filter":{"senders":["bob"]}}}}`:           "M_INVALID_PARAM",
			`{"search_categories":{"room_events":{"search_term":1}}}`:                                          "M_BAD_JSON",
			`{"search_categories":{"room_events":{"search_term":"x","filter":{"senders":"@bob:a.test"}}}}`:     "M_BAD_JSON",
		} {
			s.want(400, want, "POST", v3+"search", body)
		}
		for _, token := range []string{"x", "e30=", "eyJnIjotMX0", "eyJiIjoieCJ9"} {
			s.want(400, "M_INVALID_PARAM", "POST", v3+"search?next_batch="+token, `{"search_categories":{"room_events":{"search_term":"x"}}}`)
		}
	})
}

// TestSearchVersions: a message is found by the text that it has now, as far as who
// searches may see that.
func TestSearchVersions(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"preset":"public_chat"}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		edit := func(who *server, of, text string) string {
			return who.post(room, "* "+text, "m.replace", of, fmt.Sprintf(`,"m.new_content":{"msgtype":"m.text","body":%q}`, text))
		}
		first := s.post(room, "alpha", "", "", "")
		second := edit(s, first, "beta")
		edit(bob, first, "forged")
		for term, want := range map[string]string{"alpha": "", "beta": "beta", "forged": ""} {
			s.wantFound(want, term, "")
		}
		if got := s.seek("beta", "", "").at("results").([]any)[0].(map[string]any)["result"].(map[string]any)["event_id"]; got != first {
			t.Errorf("found %v, which is not the message that was replaced", got)
		}
		bob.want(200, "{}", "POST", room+"/leave", "{}")
		third := edit(s, first, "gamma")
		s.wantFound("gamma", "gamma", "")
		s.wantFound("", "beta", "")
		bob.wantFound("beta", "beta", "") // what bob still sees
		bob.wantFound("", "gamma", "")
		s.redact(room, third)
		s.wantFound("", "gamma", "")
		s.wantFound("beta", "beta", "")
		s.redact(room, second)
		s.wantFound("alpha", "alpha", "")
		edit(s, first, "delta")
		s.redact(room, first)
		for _, term := range []string{"alpha", "beta", "gamma", "delta"} {
			s.wantFound("", term, "")
		}
		s.wantFound("", "redact", "")
	})
}

func TestSearchIgnored(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"preset":"public_chat","power_level_content_override":{"users":{"@bob:a.test":100}}}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		bob.post(room, "word of bob", "", "", "")
		bob.want(200, "event_id", "PUT", room+"/state/m.room.topic", `{"topic":"","m.topic":{"m.text":[{"mimetype":"text/html","body":"<b>no</b>"},{"body":"rich word"}]}}`)
		s.wantFound("|word of bob", "word", "")
		s.ignore(bob)
		s.seek("word", "", "")
		if got := s.seek("word", "", "").at("count"); got != 1.0 {
			t.Errorf("%v found of who is ignored, want the topic alone", got)
		}
		s.want(200, "{}", "POST", room+"/leave", "{}")
		s.want(200, "{}", "POST", room+"/forget", "{}")
		s.wantFound("", "word", "")
	})
}

func TestSearchPages(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		rooms := []string{s.create(`{"preset":"public_chat"}`), s.create(`{"preset":"public_chat"}`)}
		for _, r := range rooms {
			bob.want(200, "room_id", "POST", r+"/join", "{}")
		}
		var all []string
		for i := range 12 {
			who := []*server{s, bob}[i%3%2]
			text := fmt.Sprintf("word %d%s", i, strings.Repeat(" word", i%4))
			who.post(rooms[i%2], text, "", "", "")
			all = append(all, text)
		}
		slices.Reverse(all)
		pages := func(more, next string) (list []string) {
			for range 20 {
				a := s.seek("word", `,"filter":{"limit":5}`+more, next)
				if a.texts() != "" {
					list = append(list, strings.Split(a.texts(), "|")...)
				}
				if next = a.text("next_batch"); next == "" {
					return list
				}
				s.post(rooms[0], "a word too late for the pages", "", "", "")
			}
			t.Error("the pages have no end")
			return list
		}
		if got := pages(`,"order_by":"recent"`, ""); !slices.Equal(got, all) {
			t.Errorf("recent: %q", got)
		}
		got := pages("", s.seek("word", `,"filter":{"limit":5,"not_senders":["@alice:a.test"]}`, "").text("next_batch"))
		slices.Sort(got)
		if len(slices.Compact(got)) != len(got) {
			t.Errorf("by rank: %q", got)
		}
		for _, key := range []string{"room_id", "sender"} {
			for _, order := range []string{"rank", "recent"} {
				more := fmt.Sprintf(`,"order_by":%q,"groupings":{"group_by":[{"key":%q}]}`, order, key)
				a := s.seek("word", `,"filter":{"limit":6}`+more, "")
				groups, _ := a.at("groups", key).(map[string]any)
				if len(groups) != 2 {
					t.Fatalf("groups by %s: %v", key, groups)
				}
				ids, orders := map[any]bool{}, map[any]bool{}
				for name, g := range groups {
					g := answer(g.(map[string]any))
					orders[g.at("order")] = true
					for _, id := range g.at("results").([]any) {
						ids[id] = true
					}
					for next := g.text("next_batch"); next != ""; {
						a := s.seek("word", `,"filter":{"limit":6}`+more, next)
						for _, r := range a.at("results").([]any) {
							e := answer(r.(map[string]any))
							if id := e.at("result", "event_id"); ids[id] || e.at("result", key) != name {
								t.Errorf("%s %s: the group %s goes on with %v", key, order, name, e.at("result"))
							} else {
								ids[id] = true
							}
						}
						next = a.text("next_batch")
					}
				}
				if n := int(s.seek("word", "", "").at("count").(float64)); len(ids) != n || !orders[1.0] || !orders[2.0] {
					t.Errorf("%s %s: the groups have %d of %d results, orders %v", key, order, len(ids), n, orders)
				}
			}
		}
	})
}

func TestSearchContext(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		bob.want(200, "{}", "PUT", v3+"profile/@bob:a.test/displayname", `{"displayname":"Old Bob"}`)
		room := s.create(`{"preset":"public_chat"}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		for i := range 4 {
			s.post(room, fmt.Sprint("a", i), "", "", "")
		}
		bob.post(room, "needle", "", "", "")
		for i := range 4 {
			s.post(room, fmt.Sprint("b", i), "", "", "")
		}
		bob.want(200, "{}", "PUT", v3+"profile/@bob:a.test/displayname", `{"displayname":"New Bob"}`)
		a := s.seek("needle", `,"include_state":true,"filter":{"lazy_load_members":true},"event_context":{"before_limit":2,"after_limit":0,"include_profile":true}`, "")
		c := answer(a.at("results").([]any)[0].(map[string]any)["context"].(map[string]any))
		if before, after := bodies(c.at("events_before")), bodies(c.at("events_after")); before != "a3 a2" || after != "" {
			t.Errorf("before %q, after %q", before, after)
		}
		if name := c.text("profile_info", "@bob:a.test", "displayname"); name != "Old Bob" {
			t.Errorf("the profile of then is %q", name)
		}
		for dir, want := range map[string]string{"b&limit=2&from=" + c.text("start"): "a1 a0", "f&limit=2&from=" + c.text("end"): "b0 b1"} {
			if got := bodies(s.want(200, "chunk", "GET", room+"/messages?dir="+dir, "").at("chunk")); got != want {
				t.Errorf("on from %s: %q, want %q", dir, got, want)
			}
		}
		state, _ := a.at("state", id(room)).([]any)
		members := 0
		for _, e := range state {
			if answer(e.(map[string]any)).text("type") == "m.room.member" {
				members++
			}
		}
		if len(state) < 5 || members != 2 {
			t.Errorf("%d events of state, %d members", len(state), members)
		}
		if a := s.seek("needle", `,"event_context":{}`, ""); bodies(a.at("results").([]any)[0].(map[string]any)["context"].(map[string]any)["events_after"]) != "b0 b1 b2 b3" {
			t.Errorf("usual surroundings: %v", a)
		}
	})
}
