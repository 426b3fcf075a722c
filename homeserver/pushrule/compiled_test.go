package pushrule

import (
	"encoding/json"
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
)

const alice = matrix.UserID("@alice:example.com")

// event reads an event as the client-server API has it.
func event(t testing.TB, text string) *Event {
	t.Helper()
	var w struct {
		ID       matrix.EventID  `json:"event_id"`
		Room     matrix.RoomID   `json:"room_id"`
		Type     string          `json:"type"`
		Sender   matrix.UserID   `json:"sender"`
		StateKey *string         `json:"state_key"`
		TS       int64           `json:"origin_server_ts"`
		Content  json.RawMessage `json:"content"`
	}
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return NewEvent(Fields{ID: w.ID, Room: w.Room, Type: w.Type, Sender: w.Sender, StateKey: w.StateKey, OriginServerTS: w.TS, Content: w.Content})
}

func message(content string) string {
	return `{"type":"m.room.message","sender":"@bob:example.com","room_id":"!r:example.com","event_id":"$e","origin_server_ts":7,"content":` + content + `}`
}

func TestDefaultRules(t *testing.T) {
	const bob = `"sender":"@bob:example.com","room_id":"!r:example.com","content":`
	yes := func(string) bool { return true }
	tests := []struct {
		name, event string
		room        RoomInfo
		rule        string
		want        Actions
	}{
		{"message in a group", message(`{"msgtype":"m.text","body":"hi"}`), RoomInfo{Members: 3}, ".m.rule.message", Actions{Notify: true}},
		{"message of two", message(`{"msgtype":"m.text","body":"hi"}`), RoomInfo{Members: 2}, ".m.rule.room_one_to_one", Actions{Notify: true, Sound: "default"}},
		{"own message", strings.ReplaceAll(message(`{"body":"hi"}`), "@bob", "@alice"), RoomInfo{Members: 2}, "", Actions{}},
		{"notice", message(`{"msgtype":"m.notice","body":"hi"}`), RoomInfo{Members: 2}, ".m.rule.suppress_notices", Actions{}},
		{"edit", message(`{"body":"* hi","m.relates_to":{"rel_type":"m.replace","event_id":"$x"}}`), RoomInfo{Members: 2}, ".m.rule.suppress_edits", Actions{}},
		{"mention in an edit", message(`{"body":"* hi","m.mentions":{"user_ids":["@alice:example.com"]},"m.relates_to":{"rel_type":"m.replace","event_id":"$x"}}`), RoomInfo{}, ".m.rule.is_user_mention", Actions{Notify: true, Highlight: true, Sound: "default"}},
		{"mention", message(`{"body":"x","m.mentions":{"user_ids":[1,"@carol:example.com","@alice:example.com"]}}`), RoomInfo{Members: 9}, ".m.rule.is_user_mention", Actions{Notify: true, Highlight: true, Sound: "default"}},
		{"mention in other case", message(`{"body":"x","m.mentions":{"user_ids":["@Alice:example.com"]}}`), RoomInfo{Members: 9}, ".m.rule.message", Actions{Notify: true}},
		{"room mention", message(`{"body":"x","m.mentions":{"room":true}}`), RoomInfo{Members: 9, SenderMayNotify: yes}, ".m.rule.is_room_mention", Actions{Notify: true, Highlight: true}},
		{"room mention without power", message(`{"body":"x","m.mentions":{"room":true}}`), RoomInfo{Members: 9}, ".m.rule.message", Actions{Notify: true}},
		{"room mention as text", message(`{"body":"x","m.mentions":{"room":"true"}}`), RoomInfo{Members: 9, SenderMayNotify: yes}, ".m.rule.message", Actions{Notify: true}},
		{"invite", `{"type":"m.room.member","state_key":"@alice:example.com",` + bob + `{"membership":"invite"}}`, RoomInfo{Members: 1}, ".m.rule.invite_for_me", Actions{Notify: true, Sound: "default"}},
		{"invite for another", `{"type":"m.room.member","state_key":"@carol:example.com",` + bob + `{"membership":"invite"}}`, RoomInfo{Members: 1}, ".m.rule.member_event", Actions{}},
		{"tombstone", `{"type":"m.room.tombstone","state_key":"",` + bob + `{"body":"moved"}}`, RoomInfo{}, ".m.rule.tombstone", Actions{Notify: true, Highlight: true}},
		{"tombstone that is no state", `{"type":"m.room.tombstone",` + bob + `{"body":"moved"}}`, RoomInfo{}, "", Actions{}},
		{"reaction", `{"type":"m.reaction",` + bob + `{}}`, RoomInfo{Members: 2}, ".m.rule.reaction", Actions{}},
		{"server ACL", `{"type":"m.room.server_acl","state_key":"",` + bob + `{}}`, RoomInfo{}, ".m.rule.room.server_acl", Actions{}},
		{"call", `{"type":"m.call.invite",` + bob + `{}}`, RoomInfo{Members: 2}, ".m.rule.call", Actions{Notify: true, Sound: "ring"}},
		{"encrypted of two", `{"type":"m.room.encrypted",` + bob + `{}}`, RoomInfo{Members: 2}, ".m.rule.encrypted_room_one_to_one", Actions{Notify: true, Sound: "default"}},
		{"encrypted", `{"type":"m.room.encrypted",` + bob + `{}}`, RoomInfo{Members: 5}, ".m.rule.encrypted", Actions{Notify: true}},
		{"topic", `{"type":"m.room.topic","state_key":"",` + bob + `{"topic":"x"}}`, RoomInfo{Members: 5}, "", Actions{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := event(t, tt.event)
			got := Default(alice).Compile().Match(e, tt.room)
			if got.Rule != tt.rule || got.Notify != tt.want.Notify || got.Highlight != tt.want.Highlight || got.Sound != tt.want.Sound {
				t.Errorf("got %+v, want %s %+v", got, tt.rule, tt.want)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	const create = `{"type":"m.room.create","sender":"@bob:example.com","state_key":"","room_id":"!r:x","origin_server_ts":5,"content":
		{"m.federate":true,"n":-3,"big":9007199254740993,"f":1.5,"nothing":null,"m\\foo":"back","a":{"b":[1,"x",{"c":1},null,true]},"body":"An EXAMPLE event."}}`
	room := RoomInfo{Members: 10, DisplayName: "example", SenderMayNotify: func(k string) bool { return k == "room" }}
	tests := []struct {
		condition string
		want      bool
	}{
		{`{"kind":"event_match","key":"content.body","pattern":"ex*ple"}`, true},
		{`{"kind":"event_match","key":"type","pattern":"M.room.*"}`, true},
		{`{"kind":"event_match","key":"type","pattern":"room"}`, false},
		{`{"kind":"event_match","key":"content.n","pattern":"*"}`, false},
		{`{"kind":"event_match","key":"content.absent","pattern":"*"}`, false},
		{`{"kind":"event_match","key":"content.m\\\\foo","pattern":"BACK"}`, true},
		{`{"kind":"event_match","key":"content","pattern":"*"}`, false},
		{`{"kind":"event_match","key":"state_key","pattern":""}`, true},
		{`{"kind":"event_match","key":"event_id","pattern":"*"}`, false},
		{`{"kind":"event_property_is","key":"content.m\\.federate","value":true}`, true},
		{`{"kind":"event_property_is","key":"content.m.federate","value":true}`, false},
		{`{"kind":"event_property_is","key":"content.m\\.federate","value":"true"}`, false},
		{`{"kind":"event_property_is","key":"content.m\\.federate","value":1}`, false},
		{`{"kind":"event_property_is","key":"content.n","value":-3}`, true},
		{`{"kind":"event_property_is","key":"origin_server_ts","value":5}`, true},
		{`{"kind":"event_property_is","key":"content.nothing","value":null}`, true},
		{`{"kind":"event_property_is","key":"content.absent","value":null}`, false},
		{`{"kind":"event_property_is","key":"content.body","value":"an example event."}`, false},
		{`{"kind":"event_property_is","key":"content.body","value":"An EXAMPLE event."}`, true},
		{`{"kind":"event_property_contains","key":"content.a.b","value":"x"}`, true},
		{`{"kind":"event_property_contains","key":"content.a.b","value":null}`, true},
		{`{"kind":"event_property_contains","key":"content.a.b","value":1}`, true},
		{`{"kind":"event_property_contains","key":"content.a.b","value":false}`, false},
		{`{"kind":"event_property_contains","key":"content.body","value":"x"}`, false},
		{`{"kind":"contains_display_name"}`, true},
		{`{"kind":"room_member_count","is":"10"}`, true},
		{`{"kind":"room_member_count","is":"==10"}`, true},
		{`{"kind":"room_member_count","is":"<10"}`, false},
		{`{"kind":"room_member_count","is":"<=10"}`, true},
		{`{"kind":"room_member_count","is":">9"}`, true},
		{`{"kind":"room_member_count","is":">=11"}`, false},
		{`{"kind":"sender_notification_permission","key":"room"}`, true},
		{`{"kind":"sender_notification_permission","key":"other"}`, false},
		{`{"kind":"org.example.unknown"}`, false},
	}
	e := event(t, create)
	for _, tt := range tests {
		rs := Default(alice)
		if err := rs.Put(Override, "mine", json.RawMessage(`{"actions":["notify"],"conditions":[`+tt.condition+`]}`), "", ""); err != nil {
			t.Errorf("%s: %v", tt.condition, err)
			continue
		}
		if got := rs.Compile().Match(e, room).Rule == "mine"; got != tt.want {
			t.Errorf("%s: got %v", tt.condition, got)
		}
	}
}

// TestPriority puts a matching rule into every kind and takes them away from
// the top.
func TestPriority(t *testing.T) {
	rs := Default(alice)
	put := func(k Kind, id, body string) {
		t.Helper()
		if err := rs.Put(k, id, json.RawMessage(body), "", ""); err != nil {
			t.Fatal(err)
		}
	}
	put(Underride, "under", `{"actions":["notify"]}`)
	put(Sender, "@bob:example.com", `{"actions":[]}`)
	put(Room, "!r:example.com", `{"actions":[]}`)
	put(Content, "word", `{"actions":[],"pattern":"tea"}`)
	put(Override, "over", `{"actions":[{"set_tweak":"sound","value":"x"}],"conditions":[]}`)
	if err := rs.Enable(Override, masterRule, true); err != nil {
		t.Fatal(err)
	}
	e := event(t, message(`{"body":"time for tea","msgtype":"m.notice"}`))
	order := []struct {
		kind Kind
		id   string
	}{
		{Override, masterRule}, {Override, "over"}, {Override, ".m.rule.suppress_notices"}, {Content, "word"},
		{Room, "!r:example.com"}, {Sender, "@bob:example.com"}, {Underride, "under"}, {Underride, ".m.rule.message"},
	}
	for _, o := range order {
		got := rs.Compile().Match(e, RoomInfo{Members: 5})
		if got.Kind != o.kind || got.Rule != o.id {
			t.Errorf("got %s %s, want %s %s", got.Kind, got.Rule, o.kind, o.id)
		}
		if err := rs.Enable(o.kind, o.id, false); err != nil {
			t.Fatal(err)
		}
	}
	if got := rs.Compile().Match(e, RoomInfo{Members: 5}); got.Rule != "" {
		t.Errorf("with all rules off %s matched", got.Rule)
	}
}

func TestTweaks(t *testing.T) {
	rs := Default(alice)
	err := rs.Put(Content, "c", json.RawMessage(`{"pattern":"x","actions":["dont_notify","notify","coalesce",{"set_tweak":"highlight"},{"set_tweak":"light","value":[1]},{"set_tweak":"sound","value":"bell"}]}`), "", "")
	if err != nil {
		t.Fatal(err)
	}
	a := rs.Compile().Match(event(t, message(`{"body":"x"}`)), RoomInfo{})
	if want := `["notify",{"set_tweak":"highlight"},{"set_tweak":"light","value":[1]},{"set_tweak":"sound","value":"bell"}]`; string(a.List) != want {
		t.Errorf("got %s, want %s", a.List, want)
	}
	got, _ := json.Marshal(a.Tweaks())
	if want := `{"highlight":true,"light":[1],"sound":"bell"}`; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if !a.Highlight || a.Sound != "bell" {
		t.Errorf("got %+v", a)
	}
}

// FuzzLookup compares finding a property in the bytes with decoding them.
func FuzzLookup(f *testing.F) {
	f.Add(`{"a":{"b":"x\u0041","a":[1,{"b":2},"]"]},"b":-0}`, "a", "b")
	f.Add(` { "a" : { "b" : 1.5 } , "c":[ ] } `, "a", "b")
	f.Add(`{"a":tru`, "a", "")
	f.Fuzz(func(t *testing.T, doc, first, second string) {
		path := []string{first, second}
		got := lookup([]byte(doc), path) // must not panic, whatever doc is
		var v any
		d := json.NewDecoder(strings.NewReader(doc))
		d.UseNumber()
		if !json.Valid([]byte(doc)) || d.Decode(&v) != nil {
			return
		}
		for _, p := range path {
			m, _ := v.(map[string]any)
			var ok bool
			if v, ok = m[p]; !ok {
				v = got
			}
		}
		if same, ok := v.(value); ok {
			if same.kind != absent {
				t.Errorf("%q has %+v in %s", path, same, doc)
			}
			return
		}
		want, _ := json.Marshal(v)
		compareValue(t, got, want)
	})
}

// compareValue checks a value that was found against the same one encoded anew.
func compareValue(t *testing.T, got value, doc []byte) {
	t.Helper()
	want := parse(doc)
	if got.kind != want.kind || got.truth != want.truth || got.number != want.number || got.text != want.text || len(got.items) != len(want.items) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func BenchmarkMatch(b *testing.B) {
	keywords := Default(alice)
	for _, w := range []string{"switchboard", "mat*x"} {
		if err := keywords.Put(Content, w, json.RawMessage(`{"actions":["notify"],"pattern":"`+w+`"}`), "", ""); err != nil {
			b.Fatal(err)
		}
	}
	e := event(b, message(`{"msgtype":"m.text","body":"Good morning, I have a question about the agenda of tomorrow: who takes the notes?","m.mentions":{}}`))
	for _, c := range []struct {
		name  string
		rules *Compiled
	}{{"default", DefaultCompiled(alice)}, {"keywords", keywords.Compile()}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !c.rules.Match(e, RoomInfo{Members: 1000}).Notify {
					b.Fatal("no match")
				}
			}
		})
	}
}

func BenchmarkNewEvent(b *testing.B) {
	f := Fields{Room: "!r:example.com", Type: "m.room.message", Sender: "@bob:example.com",
		Content: json.RawMessage(`{"msgtype":"m.text","body":"Good morning, I have a question about the agenda of tomorrow: who takes the notes?","m.mentions":{"user_ids":["@alice:example.com"]}}`)}
	b.ReportAllocs()
	for b.Loop() {
		NewEvent(f)
	}
}

// TestMatchAllocates keeps matching free of garbage: it runs once for every
// local member of a room and event.
func TestMatchAllocates(t *testing.T) {
	c, e := DefaultCompiled(alice), event(t, message(`{"msgtype":"m.text","body":"Hello"}`))
	if n := testing.AllocsPerRun(100, func() { c.Match(e, RoomInfo{Members: 3}) }); n != 0 {
		t.Errorf("a match allocates %v times", n)
	}
}
