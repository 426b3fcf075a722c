package clientsync

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

func TestTimelineFilters(t *testing.T) {
	tests := []struct{ filter, want string }{
		{`{}`, "topic:a one image bob's"},
		{`{"types":["m.room.message"]}`, "one image bob's"},
		{`{"types":["m.room.*"],"not_types":["*.message"]}`, "topic:a"},
		{`{"types":["m.*.t*c"]}`, "topic:a"},
		{`{"types":[]}`, ""},
		{`{"types":["*"],"not_types":["*"]}`, ""},
		{`{"not_types":["m.room.topic"]}`, "one image bob's"},
		{`{"senders":["@bob:a.test"]}`, "bob's"},
		{`{"senders":[]}`, ""},
		{`{"not_senders":["@bob:a.test"]}`, "topic:a one image"},
		{`{"senders":["@bob:a.test"],"not_senders":["@bob:a.test"]}`, ""},
		{`{"contains_url":true}`, "image"},
		{`{"contains_url":false}`, "topic:a one bob's"},
		{`{"rooms":["!else:a.test"]}`, ""},
		{`{"not_rooms":["!else:a.test"]}`, "topic:a one image bob's"},
		{`{"limit":2}`, "… image bob's"},
		{`{"limit":0}`, "…"},
		{`{"limit":1,"senders":["@alice:a.test"]}`, "… image"},
		{`{"limit":100000}`, "topic:a one image bob's"},
		{`{"unknown":1}`, "topic:a one image bob's"},
	}
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		since := w.client(alice, "").sync().NextBatch
		w.topic(id, "a")
		w.say(alice, id, "one")
		w.send(alice, id, `{"msgtype":"m.image","body":"image","url":"mxc://a.test/x"}`)
		w.say(bob, id, "bob's")
		for _, tt := range tests {
			c := w.client(alice, `{"room":{"timeline":`+tt.filter+`}}`)
			c.since = since
			got := w.timeline(c.sync().in(id))
			if got != tt.want && (tt.want != "" || got != "(none)") {
				t.Errorf("%s: got %q, want %q", tt.filter, got, tt.want)
			}
		}
	})
}

func TestStateAndRoomFilters(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		other := w.create(room.Creation{})
		state := func(filter string) string {
			a := w.client(alice, `{"room":{"timeline":{"limit":0},"state":`+filter+`}}`).sync()
			return w.stated(a.in(id).State)
		}
		w.want("types", state(`{"types":["m.room.create"]}`), "create")
		w.want("not types", state(`{"not_types":["m.room.*"]}`), "")
		w.want("senders", state(`{"senders":["@bob:a.test"]}`), "@bob:join")
		w.want("lazy, but no members", state(`{"lazy_load_members":true,"not_types":["m.room.member"]}`), "create history_visibility join_rules power_levels")

		for _, tt := range []struct {
			filter       string
			first, other bool
		}{
			{fmt.Sprintf(`{"rooms":[%q]}`, id), true, false},
			{fmt.Sprintf(`{"not_rooms":[%q]}`, id), false, true},
			{fmt.Sprintf(`{"rooms":[%q],"not_rooms":[%q]}`, id, id), false, false},
			{`{"rooms":[]}`, false, false},
		} {
			c := w.client(alice, `{"room":`+tt.filter+`}`)
			a := c.sync()
			if (a.in(id).Timeline != nil) != tt.first || (a.in(other).Timeline != nil) != tt.other {
				t.Errorf("%s: %s", tt.filter, text(t, a.Rooms))
			}
			w.say(alice, id, "x")
			if got := c.sync().in(id).Timeline != nil; got != tt.first {
				t.Errorf("%s: told of the room: %v", tt.filter, got)
			}
		}
	})
}

func TestBadFilters(t *testing.T) {
	tests := []struct {
		filter string
		code   matrix.Code
	}{
		{`{`, matrix.NotJSON},
		{`{"room":5}`, matrix.BadJSON},
		{`{"room":{"timeline":{"limit":-1}}}`, matrix.InvalidParam},
		{`{"room":{"timeline":{"limit":"5"}}}`, matrix.BadJSON},
		{`{"room":{"timeline":{"limit":1.5}}}`, matrix.BadJSON},
		{`{"room":{"rooms":["x"]}}`, matrix.InvalidParam},
		{`{"room":{"state":{"not_rooms":["x"]}}}`, matrix.InvalidParam},
		{`{"presence":{"senders":["alice"]}}`, matrix.InvalidParam},
		{`{"event_format":"html"}`, matrix.InvalidParam},
		{`{"event_fields":"content"}`, matrix.BadJSON},
		{`{"event_fields":[5]}`, matrix.BadJSON},
		{`[]`, matrix.BadJSON},
	}
	for _, tt := range tests {
		_, err := ParseFilter([]byte(tt.filter))
		w := &world{TB: t}
		w.refused(err, tt.code)
	}
	for _, good := range []string{"", "{}", "null", `{"room":null,"event_fields":null}`, `{"x":{"y":1}}`} {
		if f, err := ParseFilter([]byte(good)); err != nil || !f.EventFields.all() {
			t.Errorf("%q: %v", good, err)
		}
	}
}

func TestLazyMembers(t *testing.T) {
	each(t, func(w *world) {
		name := "Tea"
		id := w.create(room.Creation{Name: &name}, bob, carol)
		for i := range 12 {
			w.say(bob, id, fmt.Sprint("b", i))
		}
		for _, redundant := range []bool{false, true} {
			c := w.client(alice, fmt.Sprintf(`{"room":{"state":{"lazy_load_members":true,"include_redundant_members":%v}}}`, redundant))
			w.want("initial", w.stated(c.sync().in(id).State), "@alice:join @bob:join create history_visibility join_rules name power_levels")
			w.say(carol, id, "hi")
			w.want("a new sender", w.stated(c.sync().in(id).State), "@carol:join")
			w.say(carol, id, "again")
			want := ""
			if redundant {
				want = "@carol:join"
			}
			w.want("known", w.stated(c.sync().in(id).State), want)
			w.newUser("dave" + fmt.Sprint(redundant))
			dave := matrix.UserID("@dave" + fmt.Sprint(redundant) + ":a.test")
			w.join(dave, id)
			w.say(dave, id, "hello")
			w.want("in the timeline", w.stated(c.sync().in(id).State), "")
			for i := range 12 {
				w.say(bob, id, fmt.Sprint("c", redundant, i))
			}
			w.join(alice, id)
		}
	})
}

// TestLazyGap checks that membership changes in a gap are told, whoever spoke.
func TestLazyGap(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		c := w.client(alice, `{"room":{"timeline":{"limit":2},"state":{"lazy_load_members":true}}}`)
		c.sync()
		w.join(carol, id)
		w.leave(bob, id)
		for i := range 4 {
			w.say(alice, id, fmt.Sprint(i))
		}
		j := c.sync().in(id)
		got := w.stated(j.State)
		if !strings.Contains(got, "@bob:leave") || !strings.Contains(got, "@carol:join") {
			t.Errorf("state %q", got)
		}
	})
}

// TestLazyHeroes checks that the members who name a room are told of.
func TestLazyHeroes(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		w.say(alice, id, "hi")
		c := w.client(alice, `{"room":{"timeline":{"limit":1},"state":{"lazy_load_members":true}}}`)
		a := c.sync()
		w.want("heroes", text(t, a.in(id).Summary.Heroes), `["@bob:a.test"]`)
		w.want("state", w.stated(a.in(id).State), "@alice:join @bob:join create history_visibility join_rules power_levels")
	})
}

// TestLazySendersBehindAFilter checks that a sender whose join the filter keeps
// out of the timeline is told of.
func TestLazySendersBehindAFilter(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{})
		c := w.client(alice, `{"room":{"timeline":{"types":["m.room.message"]},"state":{"lazy_load_members":true}}}`)
		c.sync()
		w.say(alice, id, "first")
		w.join(bob, id)
		w.say(bob, id, "hi")
		j := c.sync().in(id)
		w.want("timeline", w.timeline(j), "first hi")
		if got := w.stated(j.State); !strings.Contains(got, "@bob:join") {
			t.Errorf("state %q", got)
		}
		p, err := w.Rooms.Messages(w.ctx(), room.Reader{User: alice}, room.Page{Room: id, Forward: true, Limit: 10,
			Filter: &EventFilter{Types: []string{"m.room.message"}, LazyMembers: true}})
		w.ok(err)
		w.want("messages", w.words(p.Chunk), "first hi")
		w.want("members", w.words(p.State), "@alice:join @bob:join")
	})
}

func TestEventFields(t *testing.T) {
	const e = `{"content":{"a.b":1,"body":"x","m.relates_to":{"event_id":"$e","rel_type":"r"},"m\\n":2},"event_id":"$i","sender":"@a:b","type":"t","unsigned":{"age":1}}`
	tests := []struct{ fields, want string }{
		{`[]`, `{}`},
		{`["type"]`, `{"type":"t"}`},
		{`["content.body"]`, `{"content":{"body":"x"}}`},
		{`["content.a\\.b"]`, `{"content":{"a.b":1}}`},
		{`["content.a.b"]`, `{"content":{}}`},
		{`["content.m\\\\n"]`, `{"content":{"m\\n":2}}`},
		{`["content.m\\n"]`, `{"content":{"m\\n":2}}`}, // another escape is itself
		{`["content.m\\.relates_to.rel_type","content.body","type"]`, `{"content":{"body":"x","m.relates_to":{"rel_type":"r"}},"type":"t"}`},
		{`["content.body","content"]`, `{"content":{"a.b":1,"body":"x","m.relates_to":{"event_id":"$e","rel_type":"r"},"m\\n":2}}`},
		{`["content","content.body"]`, `{"content":{"a.b":1,"body":"x","m.relates_to":{"event_id":"$e","rel_type":"r"},"m\\n":2}}`},
		{`["sender.x"]`, `{}`},
		{`["","..","no"]`, `{}`},
		{`null`, e},
	}
	for _, tt := range tests {
		var f fields
		if err := json.Unmarshal([]byte(tt.fields), &f); err != nil {
			t.Fatal(err)
		}
		if got := string(f.pick(nil, []byte(e))); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.fields, got, tt.want)
		}
	}
	each(t, func(w *world) {
		id := w.create(room.Creation{})
		w.say(alice, id, "hi")
		c := w.client(alice, `{"event_fields":["type","content.body"],"room":{"timeline":{"limit":1}}}`)
		j := c.sync().in(id)
		w.want("timeline", text(t, j.Timeline.Events), `[{"content":{"body":"hi"},"type":"m.room.message"}]`)
		for _, raw := range j.State.Events {
			if contains(string(raw), "sender") {
				t.Errorf("state %s", raw)
			}
		}
	})
}

// FuzzEventFields checks that what is picked is JSON and that picking again
// changes nothing.
func FuzzEventFields(f *testing.F) {
	f.Add(`content.body`, `{"content":{"body":"x"},"type":"t"}`)
	f.Add(`a\.b.c\\`, `{"a.b":{"c\\":[1,{"x":2}]}}`)
	f.Fuzz(func(t *testing.T, path, event string) {
		raw, err := json.Marshal([]string{path})
		if err != nil || !json.Valid([]byte(event)) {
			t.Skip()
		}
		var compact map[string]any
		if json.Unmarshal([]byte(event), &compact) != nil {
			t.Skip()
		}
		canonical, err := json.Marshal(compact)
		if err != nil {
			t.Skip()
		}
		var tree fields
		if err := json.Unmarshal(raw, &tree); err != nil {
			t.Fatal(err)
		}
		once := tree.pick(nil, canonical)
		if !json.Valid(once) {
			t.Fatalf("%q of %s is %s", path, canonical, once)
		}
		if twice := tree.pick(nil, once); string(twice) != string(once) {
			t.Errorf("%q of %s is %s, and of that %s", path, canonical, once, twice)
		}
	})
}

// FuzzGlob checks the matching of types with patterns against a plain one.
func FuzzGlob(f *testing.F) {
	f.Add("m.*.t*c", "m.room.topic")
	f.Add("a*a", "a")
	f.Add("**", "")
	f.Add("*b*", "abc")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 12 || len(s) > 20 {
			t.Skip()
		}
		if got, want := glob(pattern, s), plainGlob(pattern, s); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, s, got, want)
		}
	})
}

func plainGlob(pattern, s string) bool {
	switch {
	case pattern == "":
		return s == ""
	case pattern[0] == '*':
		return plainGlob(pattern[1:], s) || s != "" && plainGlob(pattern, s[1:])
	}
	return s != "" && s[0] == pattern[0] && plainGlob(pattern[1:], s[1:])
}

// TestLostAnswer checks that members are told again where the answer that told
// of them was lost.
func TestLostAnswer(t *testing.T) {
	each(t, func(w *world) {
		name := "Tea"
		id := w.create(room.Creation{Name: &name}, bob, carol)
		for i := range 12 {
			w.say(alice, id, fmt.Sprint(i))
		}
		c := w.client(alice, `{"room":{"timeline":{"limit":5},"state":{"lazy_load_members":true}}}`)
		since := c.sync().NextBatch
		w.say(bob, id, "lost")
		w.want("lost", w.stated(c.sync().in(id).State), "@bob:join")
		c.since = since
		for i := range 5 {
			w.say(carol, id, fmt.Sprint(i))
		}
		w.want("without bob", w.stated(c.sync().in(id).State), "@carol:join")
		w.say(bob, id, "again")
		w.want("told again", w.stated(c.sync().in(id).State), "@bob:join")
		c.since = ""
		w.want("from the start", w.stated(c.sync().in(id).State), "@alice:join @bob:join @carol:join create history_visibility join_rules name power_levels")
	})
}

// TestEventFormat checks that a client may ask for events as servers exchange them.
func TestEventFormat(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		sent := w.say(bob, id, "hi")
		gone := w.say(bob, id, "secret")
		_, err := w.Rooms.Send(w.ctx(), room.Sending{User: bob, Room: id, Type: "m.room.redaction", Redacts: gone, Content: json.RawMessage(`{}`)})
		w.ok(err)
		e, err := w.Store.Event(w.ctx(), sent)
		w.ok(err)
		j := w.client(alice, `{"event_format":"federation","room":{"timeline":{"limit":3}}}`).sync().in(id)
		if got := j.Timeline.Events; len(got) != 3 || string(got[0]) != string(e.PDU.JSON) || contains(string(got[1]), "secret") {
			t.Errorf("timeline: %s", got)
		}
		for _, raw := range append(j.Timeline.Events, j.State.Events...) {
			if !contains(string(raw), `"auth_events":`) || !contains(string(raw), `"signatures":`) {
				t.Errorf("no PDU: %s", raw)
			}
		}
		j = w.client(alice, `{"event_format":"federation","event_fields":["type","depth"],"room":{"timeline":{"limit":1}}}`).sync().in(id)
		if got := string(j.Timeline.Events[0]); !contains(got, `"depth":`) || contains(got, "sender") {
			t.Errorf("fields of a PDU: %s", got)
		}
	})
}

// TestReadElsewhere checks that a client that wants no receipts is told when its
// user has read a room with another one.
func TestReadElsewhere(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		c := w.client(bob, `{"room":{"ephemeral":{"types":[]}}}`)
		c.sync()
		said := w.say(alice, id, "hi")
		w.want("unread", text(t, c.sync().in(id).Unread), `{"highlight_count":0,"notification_count":1}`)
		w.mark(alice, id, ephemeral.Read, said)
		w.want("somebody else reads", text(t, c.sync().Rooms), "null")
		w.mark(bob, id, ephemeral.ReadPrivate, said)
		w.want("read", text(t, c.sync().in(id).Unread), `{"highlight_count":0,"notification_count":0}`)
		w.want("nothing new", text(t, c.sync().Rooms), "null")
	})
}
