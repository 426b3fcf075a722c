package clientsync

import (
	"encoding/json"
	"reflect"
	"testing"

	"switchboard/homeserver/matrix"
)

// TestJSON checks that an answer is written as its tags say, with every field
// set and with none.
func TestJSON(t *testing.T) {
	e := &events{[]json.RawMessage{json.RawMessage(`{"a":"<\"é"}`), json.RawMessage(` { "b" : 1 } `)}}
	u := &unreadCounts{Highlight: 1, Notify: 2}
	full := &joined{Summary: &summary{Heroes: []matrix.UserID{"@\"a:b"}, Joined: 1, Invited: 2}, State: e, StateAfter: e, MSC4222: e,
		Timeline: &timeline{Events: e.Events, Limited: true, PrevBatch: "t1"}, Ephemeral: e, AccountData: e, Unread: u, Threads: map[matrix.EventID]*unreadCounts{"$a": u, "$b": {}}}
	answers := []*Answer{
		{}, {NextBatch: "s1", OneTimeKeys: map[string]int{"x": 1}, FallbackKeys: []string{"x"}, Rooms: &rooms{}},
		{NextBatch: "s1\"", AccountData: e, Presence: &events{}, ToDevice: &events{[]json.RawMessage{}}, DeviceLists: &deviceLists{Changed: []matrix.UserID{"@a:b"}, Left: []matrix.UserID{"@c:d"}},
			OneTimeKeys: map[string]int{}, FallbackKeys: []string{}, Rooms: &rooms{
				Join:   map[matrix.RoomID]*joined{"!a\"": full, "!b": {}, "!c": {Timeline: &timeline{Events: []json.RawMessage{}}}},
				Invite: map[matrix.RoomID]*outside{"!d": {Invite: e}}, Knock: map[matrix.RoomID]*outside{"!e": {Knock: e}}, Leave: map[matrix.RoomID]*joined{"!f": full}}},
	}
	all := reflect.TypeFor[joined]()
	for i := range all.NumField() {
		if reflect.ValueOf(*full).Field(i).IsZero() {
			t.Errorf("%s is not tested", all.Field(i).Name)
		}
	}
	for _, a := range answers {
		got, err := a.JSON()
		if err != nil {
			t.Fatal(err)
		}
		want := text(t, a)
		var g, w any
		if err := json.Unmarshal(got, &g); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		if err := json.Unmarshal([]byte(want), &w); err != nil {
			t.Fatal(err)
		}
		// Where there are no events json.Marshal says null, which is never sent.
		if !reflect.DeepEqual(denull(g), denull(w)) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// denull makes lists of null, as an empty list of events is in Go.
func denull(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	for k, e := range m {
		if e == nil && k == "events" {
			m[k] = []any{}
		} else {
			m[k] = denull(e)
		}
	}
	return m
}
