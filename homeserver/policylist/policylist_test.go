package policylist

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"switchboard/homeserver/matrix"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		typ, content string
		want         Rule
		ok           bool
	}{
		{"m.policy.rule.user", `{"entity":"@a:b","recommendation":"m.ban","reason":"spam"}`, Rule{User, "@a:b"}, true},
		{"m.policy.rule.server", `{"entity":"*.Evil.example","recommendation":"m.ban"}`, Rule{Server, "*.evil.example"}, true},
		{"m.policy.rule.room", `{"entity":"#a:b","recommendation":"m.ban","reason":""}`, Rule{Room, "#a:b"}, true},
		{"m.room.rule.user", `{"entity":"@a:b","recommendation":"org.matrix.mjolnir.ban"}`, Rule{User, "@a:b"}, true},
		{"m.policy.rule.user", `{"entity":"@a:b","recommendation":"m.mute"}`, Rule{}, false},
		{"m.policy.rule.user", `{"entity":"","recommendation":"m.ban"}`, Rule{}, false},
		{"m.policy.rule.user", `{"entity":["@a:b"],"recommendation":"m.ban"}`, Rule{}, false},
		{"m.policy.rule.user", `{}`, Rule{}, false},
		{"m.policy.rule.planet", `{"entity":"@a:b","recommendation":"m.ban"}`, Rule{}, false},
	} {
		if got, ok := Parse(tt.typ, json.RawMessage(tt.content)); got != tt.want || ok != tt.ok {
			t.Errorf("%s %s: %v %v", tt.typ, tt.content, got, ok)
		}
	}
}

func TestRules(t *testing.T) {
	r := New(slices.Values([]Rule{
		{User, "@spam:good.example"}, {User, "@spam*:*"}, {User, "@?:short.example"}, {Server, "evil.example"}, {Server, "*.evil.example"},
		{Room, "!bad:a.test"}, {Room, "#bad*:a.test"},
	}))
	for _, tt := range []struct {
		what string
		got  bool
		want bool
	}{
		{"user", r.BansUser("@spam:good.example"), true},
		{"user by a glob", r.BansUser("@spammer:other.example"), true},
		{"user by one character", r.BansUser("@a:short.example"), true},
		{"user by two", r.BansUser("@ab:short.example"), false},
		{"user of a server", r.BansUser("@alice:evil.example"), true},
		{"user of a server with a port", r.BansUser("@alice:EVIL.example:8448"), true},
		{"another user", r.BansUser("@alice:good.example"), false},
		{"server", r.BansServer("deep.sub.evil.example"), true},
		{"another server", r.BansServer("notevil.example"), false},
		{"room", r.BansRoom("!bad:a.test"), true},
		{"another room", r.BansRoom("!bad:b.test"), false},
		{"alias", r.BansAlias("#badder:a.test"), true},
		{"user in the rules of rooms", r.BansRoom("@spam:good.example"), false},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v", tt.what, tt.got)
		}
	}
	if (&Rules{}).BansUser("@a:b") {
		t.Error("no rules ban somebody")
	}
}

// FuzzRules compares with matching one rule after the other.
func FuzzRules(f *testing.F) {
	f.Add("@spam*:evil.example", "*?", "@spam1:evil.example")
	f.Fuzz(func(t *testing.T, a, b, entity string) {
		want := matrix.Glob(a, entity) || matrix.Glob(b, entity)
		if got := New(slices.Values([]Rule{{Room, a}, {Room, b}})).BansRoom(matrix.RoomID(entity)); got != want {
			t.Errorf("%q, %q on %q: %v", a, b, entity, got)
		}
	})
}

// BenchmarkRules looks for somebody who is on no list among 10,000 rules.
func BenchmarkRules(b *testing.B) {
	var list []Rule
	for i := range 3000 {
		list = append(list, Rule{User, fmt.Sprintf("@spam%d:matrix.example", i)}, Rule{User, fmt.Sprintf("@*:evil%d.example", i)},
			Rule{Server, fmt.Sprintf("*.evil%d.example", i)})
	}
	for i := range 1000 {
		list = append(list, Rule{User, fmt.Sprintf("@bot%d*:big.example", i)})
	}
	r := New(slices.Values(list))
	for _, user := range []matrix.UserID{"@alice:good.example", "@alice:big.example"} {
		b.Run(string(user), func(b *testing.B) {
			for b.Loop() {
				if r.BansUser(user) {
					b.Fatal("banned")
				}
			}
		})
	}
}
