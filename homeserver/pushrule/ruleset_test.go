package pushrule

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
)

// TestDefaultGolden compares the default rules with the specification's text.
func TestDefaultGolden(t *testing.T) {
	golden, err := os.ReadFile("testdata/default.json")
	if err != nil {
		t.Fatal(err)
	}
	golden = bytes.ReplaceAll(golden, []byte("[the user's Matrix ID]"), []byte(alice))
	got, err := json.Marshal(Default(alice))
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if err := errors.Join(json.Unmarshal(golden, &a), json.Unmarshal(got, &b)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("got %s, want %s", got, golden)
	}
}

// ids lists the user's own rules of a kind in order.
func ids(rs *Ruleset, k Kind) string {
	var l []string
	for _, r := range rs.Rules(k) {
		if !r.Default {
			l = append(l, r.ID)
		}
	}
	return strings.Join(l, " ")
}

func TestPutOrder(t *testing.T) {
	steps := []struct {
		id, before, after string
		want              string // the order, or an errcode
	}{
		{"a", "", "", "a"},
		{"b", "", "", "b a"},
		{"c", "a", "", "b c a"},
		{"d", "", "a", "b c a d"},
		{"e", "", "b", "b e c a d"},
		{"f", "a", "b", "b e c f a d"}, // before wins
		{"d", "", "", "b e c f a d"},   // an old rule stays
		{"d", "b", "", "d b e c f a"},
		{"b", "b", "", "d b e c f a"},
		{"g", "nothere", "", "M_UNKNOWN"},
		{"g", "", "nothere", "M_UNKNOWN"},
		{"g", ".m.rule.master", "", "M_UNKNOWN"},
		{"g", "", ".m.rule.suppress_notices", "M_UNKNOWN"},
		{".mine", "", "", "M_INVALID_PARAM"},
		{"a/b", "", "", "M_INVALID_PARAM"},
		{`a\b`, "", "", "M_INVALID_PARAM"},
		{"", "", "", "M_INVALID_PARAM"},
	}
	for _, k := range []Kind{Override, Sender} {
		rs := Default(alice)
		for _, s := range steps {
			err := rs.Put(k, s.id, json.RawMessage(`{"actions":["notify"]}`), s.before, s.after)
			got := ids(rs, k)
			if err != nil {
				got = code(t, err, 400)
			}
			if got != s.want {
				t.Errorf("%s: put %q before %q after %q: got %s, want %s", k, s.id, s.before, s.after, got, s.want)
			}
		}
		if k == Override && rs.Rules(k)[0].ID != masterRule {
			t.Errorf("first is %s", rs.Rules(k)[0].ID)
		}
	}
}

// code is the errcode of an error that must have the status.
func code(t *testing.T, err error, status int) string {
	t.Helper()
	var e *matrix.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no answer for a client", err)
	}
	if e.HTTPStatus() != status {
		t.Errorf("%v has the status %d, want %d", err, e.HTTPStatus(), status)
	}
	return string(e.Code)
}

func TestPutRefuses(t *testing.T) {
	tests := []struct {
		kind Kind
		body string
		want string
	}{
		{Content, `{"actions":[]}`, "M_MISSING_PARAM"},
		{Content, `{"actions":[],"pattern":"` + strings.Repeat("x", maxPattern+1) + `"}`, "M_INVALID_PARAM"},
		{Room, `{}`, "M_MISSING_PARAM"},
		{Room, `{"actions":null}`, "M_MISSING_PARAM"},
		{Room, `{"actions":"notify"}`, "M_INVALID_PARAM"},
		{Room, `{"actions":["shout"]}`, "M_INVALID_PARAM"},
		{Room, `{"actions":[{"sound":"x"}]}`, "M_INVALID_PARAM"},
		{Room, `[]`, "M_BAD_JSON"},
		{Content, `{"actions":[],"pattern":7}`, "M_BAD_JSON"},
		{Override, `{"actions":[],"conditions":{}}`, "M_BAD_JSON"},
		{Override, `{"actions":[],"conditions":[{}]}`, "M_INVALID_PARAM"},
		{Override, `{"actions":[],"conditions":["x"]}`, "M_INVALID_PARAM"},
		{Override, `{"actions":[],"conditions":[{"kind":"event_match","key":"type"}]}`, "M_MISSING_PARAM"},
		{Override, `{"actions":[],"conditions":[{"kind":"event_property_is","key":"type"}]}`, "M_MISSING_PARAM"},
		{Override, `{"actions":[],"conditions":[{"kind":"event_property_is","key":"type","value":{}}]}`, "M_INVALID_PARAM"},
		{Underride, `{"actions":[],"conditions":[{"kind":"room_member_count","is":"=2"}]}`, "M_INVALID_PARAM"},
		{Underride, `{"actions":[],"conditions":[{"kind":"room_member_count"}]}`, "M_MISSING_PARAM"},
		{Underride, `{"actions":[],"conditions":[{"kind":"sender_notification_permission"}]}`, "M_MISSING_PARAM"},
	}
	for _, tt := range tests {
		err := Default(alice).Put(tt.kind, "mine", json.RawMessage(tt.body), "", "")
		if err == nil {
			t.Errorf("%s %s: no error", tt.kind, tt.body)
			continue
		}
		if got := code(t, err, 400); got != tt.want {
			t.Errorf("%s %s: got %v, want %s", tt.kind, tt.body, err, tt.want)
		}
	}
}

func TestEdit(t *testing.T) {
	rs := Default(alice)
	before := rs.Compile()
	if err := rs.Put(Room, "!r:example.com", json.RawMessage(`{"actions":["dont_notify"]}`), "", ""); err != nil {
		t.Fatal(err)
	}
	if err := rs.SetActions(Underride, ".m.rule.message", json.RawMessage(`["notify",{"set_tweak":"highlight"}]`)); err != nil {
		t.Fatal(err)
	}
	e := event(t, strings.ReplaceAll(message(`{"body":"x"}`), "!r:", "!other:"))
	if a := before.Match(e, RoomInfo{Members: 3}); a.Highlight {
		t.Error("an edit changed what was compiled before")
	}
	if a := rs.Compile().Match(e, RoomInfo{Members: 3}); !a.Highlight || !a.Notify {
		t.Errorf("got %+v", a)
	}
	r, err := rs.Rule(Room, "!r:example.com")
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(r)
	if want := `{"rule_id":"!r:example.com","default":false,"enabled":true,"actions":[]}`; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// A disabled rule that is replaced stays disabled.
	if err := rs.Enable(Room, "!r:example.com", false); err != nil {
		t.Fatal(err)
	}
	if err := rs.Put(Room, "!r:example.com", json.RawMessage(`{"actions":["notify"]}`), "", ""); err != nil {
		t.Fatal(err)
	}
	if r, _ := rs.Rule(Room, "!r:example.com"); r.Enabled || len(r.Actions) != 1 {
		t.Errorf("got %+v", r)
	}
	for _, err := range []error{
		rs.Delete(Room, "!none:x"), rs.Enable(Sender, "!r:example.com", true), rs.SetActions(Content, "x", json.RawMessage(`[]`)),
	} {
		if code(t, err, 404) != "M_NOT_FOUND" {
			t.Errorf("got %v", err)
		}
	}
	if err := rs.Delete(Override, ".m.rule.tombstone"); code(t, err, 400) != "M_INVALID_PARAM" {
		t.Errorf("got %v", err)
	}
	if err := rs.Delete(Room, "!r:example.com"); err != nil || ids(rs, Room) != "" {
		t.Errorf("%v, left %q", err, ids(rs, Room))
	}
}

func TestParse(t *testing.T) {
	rs := Default(alice)
	for _, err := range []error{
		rs.Put(Override, "a", json.RawMessage(`{"actions":["notify"],"conditions":[{"kind":"org.x","more":[1]}]}`), "", ""),
		rs.Put(Override, "b", json.RawMessage(`{"actions":[]}`), "", ""),
		rs.Put(Content, "c", json.RawMessage(`{"actions":[],"pattern":""}`), "", ""),
		rs.Enable(Override, ".m.rule.suppress_notices", false),
		rs.SetActions(Underride, ".m.rule.call", json.RawMessage(`[]`)),
		rs.Enable(Content, "c", false),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	first, err := json.Marshal(rs)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse(alice, first)
	if err != nil {
		t.Fatal(err)
	}
	if second, _ := json.Marshal(back); !bytes.Equal(first, second) {
		t.Errorf("got %s, want %s", second, first)
	}
	if !reflect.DeepEqual(rs.Compile(), back.Compile()) {
		t.Error("what was read back compiles to something else")
	}

	// Rules of an older server are gone, new ones have come.
	old, err := Parse(alice, []byte(`{"global":{"content":[{"rule_id":".m.rule.contains_user_name","default":true,"enabled":true,"pattern":"alice","actions":["notify"]}],
		"override":[{"rule_id":".m.rule.master","default":true,"enabled":true,"conditions":[],"actions":["dont_notify"]}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := Default(alice)
	if err := want.Enable(Override, masterRule, true); err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(old)
	if b, _ := json.Marshal(want); !bytes.Equal(a, b) {
		t.Errorf("got %s, want %s", a, b)
	}
	if _, err := Parse(alice, []byte(`{`)); err == nil {
		t.Error("no error for broken JSON")
	}
}

func TestCopyRoom(t *testing.T) {
	const from, to = matrix.RoomID("!old:x"), matrix.RoomID("!new")
	rs := Default(alice)
	for _, err := range []error{
		rs.Put(Room, string(from), json.RawMessage(`{"actions":[]}`), "", ""),
		rs.Put(Override, "mute", json.RawMessage(`{"actions":[],"conditions":[{"kind":"event_match","key":"room_id","pattern":"!old:x"},{"kind":"org.x"}]}`), "", ""),
		rs.Put(Override, "other", json.RawMessage(`{"actions":[],"conditions":[{"kind":"event_match","key":"room_id","pattern":"!older:x"}]}`), "", ""),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !rs.CopyRoom(from, to) || rs.CopyRoom(from, to) {
		t.Error("it copies once")
	}
	if got := ids(rs, Room) + ", " + ids(rs, Override); got != "!new !old:x, other !new mute" {
		t.Errorf("got %s", got)
	}
	r, err := rs.Rule(Override, string(to))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(r.Conditions[0]), `{"key":"room_id","kind":"event_match","pattern":"!new"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if Default(alice).CopyRoom(from, to) {
		t.Error("copied from no rules")
	}
}
