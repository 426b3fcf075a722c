package eventauth

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// TestThirdPartyInvite checks rule 5.4.1.
func TestThirdPartyInvite(t *testing.T) {
	identity, err := signing.Generate()
	if err != nil {
		t.Fatal(err)
	}
	public := signing.EncodeBase64(identity.Public())
	urlSafe := strings.NewReplacer("+", "-", "/", "_").Replace(public)
	signed := func(content string) string {
		s, err := signing.SignJSON([]byte(content), "identity.example", identity)
		if err != nil {
			t.Fatal(err)
		}
		return string(s)
	}
	right := signed(`{"mxid":"@carol:c","token":"t"}`)
	invite := func(third string) st {
		return st{sender: bob, typ: event.TypeMember, key: carol, content: `{"membership":"invite","third_party_invite":` + third + `}`}
	}
	offer := func(content string) st {
		return st{sender: bob, typ: event.TypeThirdPartyInvite, key: "t", content: content}
	}
	one := offer(fmt.Sprintf(`{"public_key":%q}`, public))
	other := offer(`{"public_key":"l8Hft5qXKn1vfHrg3p4+W8gELQVo8N13JkluMfmn2sQ"}`)
	tests := []struct {
		name  string
		state []st
		third string
		rule  string
	}{
		{"right", []st{one}, `{"signed":` + right + `}`, ""},
		{"the sender need not be in the room", []st{one, member(bob, event.Leave)}, `{"signed":` + right + `}`, ""},
		{"key in the list", []st{offer(fmt.Sprintf(`{"public_key":"x","public_keys":[{"public_key":"AAAA"},{"public_key":%q}]}`, public))}, `{"signed":` + right + `}`, ""},
		{"key in the other alphabet", []st{offer(fmt.Sprintf(`{"public_key":%q}`, urlSafe))}, `{"signed":` + right + `}`, ""},
		{"banned", []st{one, member(carol, event.Ban)}, `{"signed":` + right + `}`, "5.4.1.1"},
		{"not signed", []st{one}, `{"display_name":"x"}`, "5.4.1.2"},
		{"no object", []st{one}, `"signed"`, "5.4.1.2"},
		{"null", []st{one}, `null`, "5.4.1.2"},
		{"no mxid", []st{one}, `{"signed":` + signed(`{"token":"t"}`) + `}`, "5.4.1.3"},
		{"no token", []st{one}, `{"signed":` + signed(`{"mxid":"@carol:c"}`) + `}`, "5.4.1.3"},
		{"signed is no object", []st{one}, `{"signed":1}`, "5.4.1.3"},
		{"other user", []st{one}, `{"signed":` + signed(`{"mxid":"@alice:a","token":"t"}`) + `}`, "5.4.1.4"},
		{"mxid no string", []st{one}, `{"signed":` + signed(`{"mxid":1,"token":"t"}`) + `}`, "5.4.1.4"},
		{"other token", []st{one}, `{"signed":` + signed(`{"mxid":"@carol:c","token":"u"}`) + `}`, "5.4.1.5"},
		{"nothing offered", nil, `{"signed":` + right + `}`, "5.4.1.5"},
		{"offered by another", []st{as(alice, one)}, `{"signed":` + right + `}`, "5.4.1.6"},
		{"other key", []st{other}, `{"signed":` + right + `}`, "5.4.1.8"},
		{"no key", []st{offer(`{}`)}, `{"signed":` + right + `}`, "5.4.1.8"},
		{"no signature", []st{one}, `{"signed":{"mxid":"@carol:c","token":"t"}}`, "5.4.1.8"},
		{"changed", []st{one}, `{"signed":` + strings.Replace(right, `{"mxid"`, `{"a":1,"mxid"`, 1) + `}`, "5.4.1.8"},
		{"many keys", []st{offer(`{"public_key":"` + public + `","public_keys":[` + strings.Repeat(`{"public_key":"`+public+`"},`, 900) + `{}]}`)},
			`{"signed":` + strings.Replace(right, `"signatures":{`, `"signatures":{"a":{"ed25519:a":"AAAA"},`, 1) + `}`, "5.4.1.8"},
	}
	for _, tt := range tests {
		for _, v := range []string{"1", "6", "10", "11", "12"} {
			t.Run(tt.name+" "+v, func(t *testing.T) {
				newWorld(t, v, "", append([]st{member(bob, event.Join)}, tt.state...)...).want(tt.rule, invite(tt.third))
			})
		}
	}
}

func TestSelection(t *testing.T) {
	pl, jr := Key{event.TypePowerLevels, ""}, Key{event.TypeJoinRules, ""}
	of := func(user string) Key { return Key{event.TypeMember, user} }
	tests := []struct {
		name  string
		draft st
		want  []Key
	}{
		{"message", message(bob), []Key{pl, of(bob)}},
		{"state", rule("public"), []Key{pl, of(creator)}},
		{"join", member(bob, event.Join), []Key{pl, of(bob), jr}},
		{"leave", member(bob, event.Leave), []Key{pl, of(bob)}},
		{"kick", change(alice, bob, event.Leave), []Key{pl, of(alice), of(bob)}},
		{"ban", change(alice, bob, event.Ban), []Key{pl, of(alice), of(bob)}},
		{"invite", change(alice, bob, event.Invite), []Key{pl, of(alice), of(bob), jr}},
		{"knock", member(bob, event.Knock), []Key{pl, of(bob), jr}},
		{"third-party invite", st{sender: alice, typ: event.TypeMember, key: bob, content: ` {"third_party_invite" : {"signed":{"token":"t\u0041"}}, "membership":"invite"}`},
			[]Key{pl, of(alice), of(bob), jr, {event.TypeThirdPartyInvite, "tA"}}},
		{"third-party invite without a token", st{sender: alice, typ: event.TypeMember, key: bob, content: `{"third_party_invite":{},"membership":"invite"}`},
			[]Key{pl, of(alice), of(bob), jr}},
		{"join by invite of a third party", st{sender: bob, typ: event.TypeMember, key: bob, content: `{"third_party_invite":{"signed":{"token":"t"}},"membership":"join"}`},
			[]Key{pl, of(bob), jr}},
		{"restricted join", st{sender: bob, typ: event.TypeMember, key: bob, content: `{"membership":"join","join_authorised_via_users_server":"@alice:a"}`},
			[]Key{pl, of(bob), jr, of(alice)}},
		{"restricted leave", st{sender: bob, typ: event.TypeMember, key: bob, content: `{"membership":"leave","join_authorised_via_users_server":"@alice:a"}`},
			[]Key{pl, of(bob)}},
		{"no JSON", st{sender: bob, typ: event.TypeMember, key: bob, content: `{`}, []Key{pl, of(bob)}},
		{"member without a state key", st{sender: bob, typ: event.TypeMember, noKey: true, content: `{"membership":"join"}`}, []Key{pl, of(bob)}},
		{"member type in a message", st{sender: bob, typ: "m.x", key: carol, content: `{"membership":"join"}`}, []Key{pl, of(bob)}},
	}
	for _, v := range matrix.Versions() {
		for _, tt := range tests {
			d := event.Draft{Type: tt.draft.typ, Sender: matrix.UserID(tt.draft.sender), Content: []byte(tt.draft.content)}
			if !tt.draft.noKey {
				d.StateKey = &tt.draft.key
			}
			want := slices.Clone(tt.want)
			if !v.RoomIDFromCreate {
				want = slices.Insert(want, 0, Key{event.TypeCreate, ""})
			}
			if tt.name == "restricted join" && !v.RestrictedRule {
				want = want[:len(want)-1]
			}
			if got := Selection(v, d); !slices.Equal(got, want) {
				t.Errorf("version %s, %s: %v, want %v", v.ID, tt.name, got, want)
			}
		}
		if got := Selection(v, event.Draft{Type: event.TypeCreate, Sender: creator}); got != nil {
			t.Errorf("version %s: create event selects %v", v.ID, got)
		}
	}
}

// TestCheckSelection checks rule 3.
func TestCheckSelection(t *testing.T) {
	for _, v := range matrix.Versions() {
		t.Run(v.ID, func(t *testing.T) {
			w := newWorld(t, v.ID, "", member(bob, event.Join), rule("public"), levels(`{}`))
			at := func(typ, key string) *event.PDU { return w.state.Event(typ, key) }
			base := []*event.PDU{at(event.TypePowerLevels, ""), at(event.TypeMember, bob)}
			if !v.RoomIDFromCreate {
				base = append(base, w.create)
			}
			with := func(more ...*event.PDU) []*event.PDU { return append(slices.Clone(base), more...) }
			e := w.event(message(bob))

			wantRule(t, "", CheckSelection(e, base))
			wantRule(t, "3.1", CheckSelection(e, with(base[0])))
			wantRule(t, "3.1", CheckSelection(e, with(w.event(levels(`{"ban":1}`)))))
			wantRule(t, "3.2", CheckSelection(e, with(at(event.TypeJoinRules, ""))))
			wantRule(t, "3.2", CheckSelection(e, with(at(event.TypeMember, creator))))
			wantRule(t, "3.2", CheckSelection(e, with(w.event(message(bob)))))
			wantRule(t, "3.2", CheckSelection(e, with(w.event(st{sender: creator, typ: event.TypePowerLevels, key: "x", content: `{}`}))))
			leave := w.event(member(carol, event.Leave))
			wantRule(t, "3.2", CheckSelection(leave, base))
			wantRule(t, "", CheckSelection(w.create, nil))
			if v.RoomIDFromCreate {
				wantRule(t, "3.2", CheckSelection(e, with(w.create)))
				wantRule(t, "", CheckSelection(e, nil))
			} else {
				wantRule(t, "3.4", CheckSelection(e, base[:2]))
				wantRule(t, "3.4", CheckSelection(e, nil))
			}
			foreign := levels(`{}`)
			foreign.room = "!other:a"
			wantRule(t, "3.5", CheckSelection(e, append([]*event.PDU{w.event(foreign)}, base[1:]...)))
		})
	}
}
