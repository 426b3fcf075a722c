package eventauth

import (
	"errors"
	"slices"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
)

// The parts of which FuzzCheck makes events. A content after the last one is the
// fuzzer's own.
var (
	people  = []string{creator, alice, bob, carol, "@none:c"}
	creates = []string{`{}`, `{"m.federate":false}`, `{"additional_creators":["@alice:a"]}`, `{"predecessor":{}}`}
	kinds   = []struct {
		typ      string
		keys     []string // nil: no state
		contents []string
	}{
		{event.TypeMember, people, []string{
			`{"membership":"join"}`, `{"membership":"leave"}`, `{"membership":"ban"}`, `{"membership":"invite"}`, `{"membership":"knock"}`, `{}`,
			`{"membership":"join","join_authorised_via_users_server":"@bob:b"}`, `{"membership":["join"]}`,
			`{"membership":"invite","third_party_invite":{"signed":{"mxid":"@bob:b","token":"t","signatures":{"x":{"ed25519:0":"x"}}}}}`,
		}},
		{event.TypePowerLevels, []string{""}, []string{
			`{}`, `{"users":{"@alice:a":50,"@creator:a":100}}`, `{"users":{"@alice:a":"50"},"ban":0}`, `{"users_default":50,"invite":60}`,
			`{"events":{"m.room.topic":7},"events_default":3,"state_default":-1}`, `{"kick":1.5}`, `{"notifications":{"room":60}}`, `{"users":[],"ban":null}`,
		}},
		{event.TypeJoinRules, []string{""}, []string{
			`{"join_rule":"public"}`, `{"join_rule":"invite"}`, `{"join_rule":"knock"}`, `{"join_rule":"restricted"}`, `{"join_rule":"knock_restricted"}`, `{"join_rule":1}`,
		}},
		{event.TypeThirdPartyInvite, []string{"t", ""}, []string{`{"public_key":"x"}`, `{"public_keys":[{"public_key":"x"},1]}`}},
		{event.TypeAliases, []string{"a", "b", ""}, []string{`{"aliases":[]}`}},
		{"m.room.topic", []string{"", alice, bob}, []string{`{}`}},
		{event.TypeRedaction, nil, []string{`{"redacts":"$other:a"}`}},
		{"m.room.message", nil, []string{`{}`}},
		{event.TypeCreate, []string{""}, []string{`{"creator":"@creator:a"}`}},
	}
)

// scripted makes an event of four bytes.
func scripted(b []byte, content string) st {
	at := func(i, n int) int { return int(b[i]) % n }
	kind := kinds[at(0, len(kinds))]
	s := st{sender: people[at(1, len(people))], typ: kind.typ, noKey: kind.keys == nil, content: content, redacts: "$other:a"}
	if !s.noKey {
		s.key = kind.keys[at(2, len(kind.keys))]
	}
	if i := at(3, len(kind.contents)+1); i < len(kind.contents) {
		s.content = kind.contents[i]
	}
	return s
}

// FuzzCheck has any event meet any state. The rules decide, always in the same
// way, by nothing but the events that an event must name as its auth events, and
// as if these had been redacted where redaction leaves all that rules look at.
func FuzzCheck(f *testing.F) {
	for v := range byte(12) {
		f.Add(v, v, []byte{0, 1, 1, 0, 2, 0, 0, 0, 0, 2, 2, 8}, `{"membership":"join"}`)
		f.Add(v, byte(0), []byte{1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 0, 8}, `{"users":{"@alice:a":50}}`)
		f.Add(v, byte(3), []byte{3, 0, 0, 0, 2, 0, 0, 3, 0, 2, 2, 0, 0, 0, 3, 6}, `{}`)
	}
	f.Fuzz(func(t *testing.T, version, create byte, script []byte, content string) {
		if len(script) < 4 || len(script) > 100 {
			return
		}
		v := matrix.Versions()[int(version)%len(matrix.Versions())]
		w := newWorld(t, v.ID, creates[int(create)%len(creates)])
		var last st
		for b := range slices.Chunk(script[:len(script)&^3], 4) {
			if last.typ != "" && !last.noKey && last.typ != event.TypeCreate {
				if p, err := w.build(last); err == nil {
					w.state[Key{last.typ, last.key}] = p
				}
			}
			last = scripted(b, content)
		}
		if len(script)%4 == 1 { // one that comes right after the creation
			last.prev = []matrix.EventID{w.create.ID}
		}
		e, err := w.build(last)
		if err != nil {
			return
		}
		want := verdict(t, e, w.state)
		if again := verdict(t, e, w.state); again != want {
			t.Fatalf("rule %q, then rule %q", want, again)
		}
		named, redacted := Set{}, Set{}
		for _, k := range append(selection(v, e.Type, e.Sender, e.StateKey, e.Content), Key{event.TypeCreate, ""}) {
			if p := w.state[k]; p != nil {
				named[k] = p
			}
		}
		if got := verdict(t, e, named); got != want {
			t.Fatalf("rule %q, with only the auth events rule %q: %s", want, got, e.JSON)
		}
		for k, p := range w.state {
			if redacted[k] = p; survives(p) {
				if redacted[k], err = p.Redacted(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := verdict(t, e, redacted); got != want {
			t.Fatalf("rule %q, with a redacted state rule %q: %s", want, got, e.JSON)
		}
	})
}

// verdict is the rule that rejects an event, "" if none does.
func verdict(t *testing.T, e *event.PDU, s State) string {
	t.Helper()
	err := Check(e, s)
	var rule *Error
	if err != nil && (!errors.As(err, &rule) || rule.Rule == "") {
		t.Fatalf("%v names no rule", err)
	}
	if err == nil {
		return ""
	}
	return rule.Rule
}

// survives tells whether redaction leaves of a state event all that rules look at.
func survives(p *event.PDU) bool {
	switch p.Type {
	case event.TypeThirdPartyInvite:
		return false
	case event.TypeCreate:
		return p.Version.UpdatedRedaction || p.ContentValue("m.federate") == nil
	case event.TypePowerLevels:
		return p.ContentValue("notifications") == nil && (p.Version.UpdatedRedaction || p.ContentValue("invite") == nil)
	}
	return true
}
