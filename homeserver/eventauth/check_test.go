package eventauth

import (
	"strings"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
)

// The room versions by what they know.
const (
	old       = "1 2 3 4 5 6 7 8 9"
	before7   = "1 2 3 4 5 6"
	from7     = "7 8 9 10 11 12"
	before8   = "1 2 3 4 5 6 7"
	from8     = "8 9 10 11 12"
	from10    = "10 11 12"
	before12  = "1 2 3 4 5 6 7 8 9 10 11"
	before11  = "1 2 3 4 5 6 7 8 9 10"
	aliasOnes = "1 2 3 4 5"
	from6     = "6 7 8 9 10 11 12"
)

func TestCreate(t *testing.T) {
	create := func(content string) st {
		return st{sender: creator, typ: event.TypeCreate, content: content, prev: []matrix.EventID{}}
	}
	tests := []struct {
		name, versions string
		event          st
		rule           string
	}{
		{"as it should be", "1 2 3 4 5 6 7 8 9 10 11 12", create(`{"creator":"@creator:a","room_version":"10"}`), ""},
		{"empty", "11 12", create(`{}`), ""},
		{"previous events", "1 10 11 12", st{sender: creator, typ: event.TypeCreate, content: `{"creator":"@creator:a"}`, prev: []matrix.EventID{"$a"}}, "1.1"},
		{"room of another server", before12, st{sender: bob, typ: event.TypeCreate, content: `{"creator":"@bob:b"}`, prev: []matrix.EventID{}}, "1.2"},
		{"room ID", "12", st{sender: creator, typ: event.TypeCreate, content: `{}`, prev: []matrix.EventID{}, room: "!r:a"}, "1.2"},
		{"unknown room version", "1 10 11 12", create(`{"creator":"@creator:a","room_version":"0"}`), "1.3"},
		{"room version of the wrong type", "1 10 11 12", create(`{"creator":"@creator:a","room_version":12}`), "1.3"},
		{"no creator", before11, create(`{}`), "v1:1.4"},
		{"additional creators", "12", create(`{"additional_creators":["@alice:a","@É:b:1"]}`), ""},
		{"no additional creators", "12", create(`{"additional_creators":[]}`), ""},
		{"additional creators are no list", "12", create(`{"additional_creators":"@alice:a"}`), "1.4"},
		{"additional creators are null", "12", create(`{"additional_creators":null}`), "1.4"},
		{"additional creators are an object", "12", create(`{"additional_creators":{}}`), "1.4"},
		{"additional creator is no string", "12", create(`{"additional_creators":["@alice:a",1]}`), "1.4"},
		{"additional creator is no user", "12", create(`{"additional_creators":["alice:a"]}`), "1.4"},
		{"additional creator without a server", "12", create(`{"additional_creators":["@alice"]}`), "1.4"},
		{"additional creator with a bad server", "12", create(`{"additional_creators":["@alice:a b"]}`), "1.4"},
		{"additional creator too long", "12", create(`{"additional_creators":["@` + strings.Repeat("a", 254) + `:a"]}`), "1.4"},
		{"additional creators mean nothing before", "11", create(`{"additional_creators":1}`), ""},
	}
	for _, tt := range tests {
		for _, version := range strings.Fields(tt.versions) {
			t.Run(tt.name+" "+version, func(t *testing.T) {
				w := newWorld(t, version, "")
				w.room = "!r:a"
				if w.v.RoomIDFromCreate {
					w.room = ""
				}
				w.want(tt.rule, tt.event)
			})
		}
	}
}

// TestRoom checks rules 2 and 4.
func TestRoom(t *testing.T) {
	for _, v := range matrix.Versions() {
		w := newWorld(t, v.ID, "", member(bob, event.Join))
		want := "3.4"
		if v.RoomIDFromCreate {
			want = "2"
		}
		wantRule(t, want, Check(w.event(message(bob)), Set{}))
	}
	w := newWorld(t, "12", "", member(bob, event.Join))
	other := newWorld(t, "12", `{"x":1}`, member(bob, event.Join))
	wantRule(t, "2", Check(w.event(message(bob)), other.state))
	wantRule(t, "2", Check(w.event(st{sender: bob, typ: event.TypeMember, key: bob, content: `{"membership":"leave"}`}), other.state))

	for _, v := range matrix.Versions() {
		public := rule("public")
		for content, rule := range map[string]string{`{"m.federate":false}`: "4", `{"m.federate":true}`: "", `{}`: ""} {
			w := newWorld(t, v.ID, content, member(bob, event.Join), member(alice, event.Join), public)
			w.want(rule, message(bob))
			w.want(rule, member(carol, event.Join))
			w.want("", message(alice))
		}
	}
}

func TestJoin(t *testing.T) {
	restricted := st{sender: bob, typ: event.TypeMember, key: bob,
		content: `{"membership":"join","join_authorised_via_users_server":"@alice:a"}`, server: "a"}
	allowedBy := func(user, server string) st {
		e := restricted
		e.content = `{"membership":"join","join_authorised_via_users_server":"` + user + `"}`
		e.server = server
		return e
	}
	run(t, []row{
		{"no state key", "", nil, st{sender: bob, typ: event.TypeMember, noKey: true, content: `{"membership":"join"}`}, "5.1"},
		{"no membership", "", nil, st{sender: bob, typ: event.TypeMember, key: bob, content: `{"displayname":"x"}`}, "5.1"},
		{"membership of the wrong type", "", nil, st{sender: bob, typ: event.TypeMember, key: bob, content: `{"membership":1}`}, "5.8"},
		{"unknown membership", "", nil, member(bob, "owner"), "5.8"},
		{"empty membership", "", nil, member(bob, ""), "5.8"},
		{"membership in capitals", "", []st{rule("public")}, member(bob, "Join"), "5.8"},

		{"for another", "", []st{rule("public"), member(alice, event.Join)}, change(alice, bob, event.Join), "5.3.2"},
		{"banned", "", []st{rule("public"), member(bob, event.Ban)}, member(bob, event.Join), "5.3.3"},

		{"invite rule, not invited", "", []st{rule("invite")}, member(bob, event.Join), "5.3.4"},
		{"invite rule, left", "", []st{rule("invite"), member(bob, event.Leave)}, member(bob, event.Join), "5.3.4"},
		{"invite rule, invited", "", []st{rule("invite"), change(creator, bob, event.Invite)}, member(bob, event.Join), ""},
		{"invite rule, joined", "", []st{rule("invite"), member(bob, event.Join)}, member(bob, event.Join), ""},
		{"no rule, not invited", "", nil, member(bob, event.Join), "5.3.4"},
		{"no rule, invited", "", []st{change(creator, bob, event.Invite)}, member(bob, event.Join), ""},
		{"rule without a value, invited", "", []st{{sender: creator, typ: event.TypeJoinRules, content: `{}`}, change(creator, bob, event.Invite)}, member(bob, event.Join), ""},
		{"rule of the wrong type, invited", "", []st{{sender: creator, typ: event.TypeJoinRules, content: `{"join_rule":["public"]}`}, change(creator, bob, event.Invite)}, member(bob, event.Join), "5.3.7"},
		{"knock rule, not invited", from7, []st{rule("knock")}, member(bob, event.Join), "5.3.4"},
		{"knock rule, knocking", from7, []st{rule("knock"), member(bob, event.Knock)}, member(bob, event.Join), "5.3.4"},
		{"knock rule, invited", from7, []st{rule("knock"), change(creator, bob, event.Invite)}, member(bob, event.Join), ""},
		{"knock rule before it was known", before7, []st{rule("knock"), change(creator, bob, event.Invite)}, member(bob, event.Join), "5.3.7"},
		{"public", "", []st{rule("public")}, member(bob, event.Join), ""},
		{"public, left", "", []st{rule("public"), member(bob, event.Leave)}, member(bob, event.Join), ""},
		{"private", "", []st{rule("private"), change(creator, bob, event.Invite)}, member(bob, event.Join), "5.3.7"},

		{"restricted, invited", from8, []st{rule("restricted"), change(creator, bob, event.Invite)}, member(bob, event.Join), ""},
		{"restricted, joined", from8, []st{rule("restricted"), member(bob, event.Join)}, member(bob, event.Join), ""},
		{"restricted, authorised", from8, []st{rule("restricted"), member(alice, event.Join)}, restricted, ""},
		{"restricted, not authorised", from8, []st{rule("restricted")}, member(bob, event.Join), "5.3.5.2"},
		{"restricted, authorised by an absent user", from8, []st{rule("restricted")}, restricted, "5.3.5.2"},
		{"restricted, authorised by an invited user", from8, []st{rule("restricted"), change(creator, alice, event.Invite)}, restricted, "5.3.5.2"},
		{"restricted, authorised by a powerless user", from8, []st{rule("restricted"), member(alice, event.Join), levels(`{"invite":50}`)}, restricted, "5.3.5.2"},
		{"restricted, authorised by a mighty user", from8, []st{rule("restricted"), member(alice, event.Join), levels(`{"invite":50,"users":{"@alice:a":50}}`)}, restricted, ""},
		{"restricted, banned", from8, []st{rule("restricted"), member(alice, event.Join), member(bob, event.Ban)}, restricted, "5.3.3"},
		{"restricted, not signed", from8, []st{rule("restricted"), member(alice, event.Join)}, allowedBy(alice, "b"), "5.2.1"},
		{"restricted, signed by another server", from8, []st{rule("restricted"), member(carol, event.Join)}, allowedBy(carol, "a"), "5.2.1"},
		{"restricted, authorised by nobody", from8, []st{rule("restricted"), member(alice, event.Join)}, allowedBy("alice:a", "a"), "5.2.1"},
		{"authorised without need, not signed", from8, []st{rule("public"), member(alice, event.Join)}, allowedBy(alice, "b"), "5.2.1"},
		{"authorised without need", from8, []st{rule("public"), member(alice, event.Join)}, restricted, ""},
		{"restricted before it was known", before8, []st{rule("restricted"), member(alice, event.Join)}, restricted, "5.3.7"},
		{"restricted before it was known, invited", before8, []st{rule("restricted"), change(creator, bob, event.Invite)}, member(bob, event.Join), "5.3.7"},
		{"knock_restricted, authorised", from10, []st{rule("knock_restricted"), member(alice, event.Join)}, restricted, ""},
		{"knock_restricted, invited", from10, []st{rule("knock_restricted"), change(creator, bob, event.Invite)}, member(bob, event.Join), ""},
		{"knock_restricted, not authorised", from10, []st{rule("knock_restricted")}, member(bob, event.Join), "5.3.5.2"},
		{"knock_restricted before it was known", old, []st{rule("knock_restricted"), change(creator, bob, event.Invite)}, member(bob, event.Join), "5.3.7"},
		{"leave with an authorisation that is not signed", from8, []st{member(bob, event.Join)},
			st{sender: bob, typ: event.TypeMember, key: bob, content: `{"membership":"leave","join_authorised_via_users_server":"@alice:a"}`}, "5.2.1"},
	})
	t.Run("the creator comes first", func(t *testing.T) {
		for _, v := range matrix.Versions() {
			w := newWorld(t, v.ID, "")
			delete(w.state, Key{event.TypeMember, creator})
			first := member(creator, event.Join)
			w.want("5.3.4", first)
			first.prev = []matrix.EventID{w.create.ID}
			w.want("", first)
			first.prev = []matrix.EventID{w.create.ID, "$x:a"}
			w.want("5.3.4", first)
			other := member(alice, event.Join)
			other.prev = []matrix.EventID{w.create.ID}
			w.want("5.3.4", other)
		}
	})
}

func TestInvite(t *testing.T) {
	run(t, []row{
		{"by a stranger", "", nil, change(bob, carol, event.Invite), "5.4.2"},
		{"by somebody invited", "", []st{change(creator, bob, event.Invite)}, change(bob, carol, event.Invite), "5.4.2"},
		{"of a member", "", []st{member(bob, event.Join)}, change(creator, bob, event.Invite), "5.4.3"},
		{"of somebody banned", "", []st{member(bob, event.Ban)}, change(creator, bob, event.Invite), "5.4.3"},
		{"of oneself", "", []st{member(bob, event.Join)}, change(bob, bob, event.Invite), "5.4.3"},
		{"by a member", "", []st{member(bob, event.Join)}, change(bob, carol, event.Invite), ""},
		{"again", "", []st{member(bob, event.Join), change(bob, carol, event.Invite)}, change(bob, carol, event.Invite), ""},
		{"of somebody who knocks", from7, []st{member(bob, event.Knock)}, change(creator, bob, event.Invite), ""},
		{"of somebody who left", "", []st{member(bob, event.Leave)}, change(creator, bob, event.Invite), ""},
		{"powerless", "", []st{member(bob, event.Join), levels(`{"invite":1}`)}, change(bob, carol, event.Invite), "5.4.5"},
		{"just mighty enough", "", []st{member(bob, event.Join), levels(`{"invite":1,"users":{"@bob:b":1}}`)}, change(bob, carol, event.Invite), ""},
		{"by default", "", []st{member(bob, event.Join), levels(`{"users_default":-1}`)}, change(bob, carol, event.Invite), "5.4.5"},
	})
}

func TestLeave(t *testing.T) {
	mods := levels(`{"users":{"@alice:a":50,"@bob:b":50,"@carol:c":49}}`)
	run(t, []row{
		{"a member", "", []st{member(bob, event.Join)}, member(bob, event.Leave), ""},
		{"an invite", "", []st{change(creator, bob, event.Invite)}, member(bob, event.Leave), ""},
		{"a knock", from7, []st{member(bob, event.Knock)}, member(bob, event.Leave), ""},
		{"a knock before it was known", before7, []st{member(bob, event.Knock)}, member(bob, event.Leave), "5.5.1"},
		{"a stranger", "", nil, member(bob, event.Leave), "5.5.1"},
		{"twice", "", []st{member(bob, event.Leave)}, member(bob, event.Leave), "5.5.1"},
		{"banned", "", []st{member(bob, event.Ban)}, member(bob, event.Leave), "5.5.1"},

		{"kick by a stranger", "", []st{member(bob, event.Join)}, change(carol, bob, event.Leave), "5.5.2"},
		{"kick", "", []st{mods, member(alice, event.Join), member(carol, event.Join)}, change(alice, carol, event.Leave), ""},
		{"kick of an equal", "", []st{mods, member(alice, event.Join), member(bob, event.Join)}, change(alice, bob, event.Leave), "5.5.5"},
		{"kick by the powerless", "", []st{mods, member(carol, event.Join), member("@x:x", event.Join)}, change(carol, "@x:x", event.Leave), "5.5.5"},
		{"kick with a lower kick level", "", []st{levels(`{"kick":10,"users":{"@bob:b":10}}`), member(bob, event.Join), member(carol, event.Join)}, change(bob, carol, event.Leave), ""},
		{"withdrawal of an invite", "", []st{mods, member(alice, event.Join), change(creator, carol, event.Invite)}, change(alice, carol, event.Leave), ""},
		{"kick of who is not there", "", []st{mods, member(alice, event.Join)}, change(alice, "@x:x", event.Leave), ""},

		{"unban", "", []st{mods, member(alice, event.Join), member(carol, event.Ban)}, change(alice, carol, event.Leave), ""},
		{"unban below the ban level", "", []st{levels(`{"ban":60,"users":{"@alice:a":55}}`), member(alice, event.Join), member(carol, event.Ban)}, change(alice, carol, event.Leave), "5.5.3"},
		{"unban below the kick level", "", []st{levels(`{"kick":60,"users":{"@alice:a":55}}`), member(alice, event.Join), member(carol, event.Ban)}, change(alice, carol, event.Leave), "5.5.5"},
		{"unban of an equal", "", []st{mods, member(alice, event.Join), member(bob, event.Ban)}, change(alice, bob, event.Leave), "5.5.5"},
	})
}

func TestBan(t *testing.T) {
	mods := levels(`{"users":{"@alice:a":50,"@bob:b":50,"@carol:c":49}}`)
	run(t, []row{
		{"by a stranger", "", []st{member(bob, event.Join)}, change(carol, bob, event.Ban), "5.6.1"},
		{"ban", "", []st{mods, member(alice, event.Join), member(carol, event.Join)}, change(alice, carol, event.Ban), ""},
		{"of who is not there", "", []st{mods, member(alice, event.Join)}, change(alice, "@x:x", event.Ban), ""},
		{"again", "", []st{mods, member(alice, event.Join), member(carol, event.Ban)}, change(alice, carol, event.Ban), ""},
		{"of an equal", "", []st{mods, member(alice, event.Join), member(bob, event.Join)}, change(alice, bob, event.Ban), "5.6.3"},
		{"of oneself", "", []st{mods, member(alice, event.Join)}, change(alice, alice, event.Ban), "5.6.3"},
		{"by the powerless", "", []st{mods, member(carol, event.Join)}, change(carol, "@x:x", event.Ban), "5.6.3"},
		{"by default level", "", []st{member(bob, event.Join)}, change(bob, carol, event.Ban), "5.6.3"},
	})
}

func TestKnock(t *testing.T) {
	run(t, []row{
		{"before it was known", before7, []st{rule("knock")}, member(bob, event.Knock), "5.8"},
		{"no rule", from7, nil, member(bob, event.Knock), "5.7.1"},
		{"public", from7, []st{rule("public")}, member(bob, event.Knock), "5.7.1"},
		{"restricted", from8, []st{rule("restricted")}, member(bob, event.Knock), "5.7.1"},
		{"knock_restricted before it was known", "7 8 9", []st{rule("knock_restricted")}, member(bob, event.Knock), "5.7.1"},
		{"knock_restricted", from10, []st{rule("knock_restricted")}, member(bob, event.Knock), ""},
		{"knock", from7, []st{rule("knock")}, member(bob, event.Knock), ""},
		{"after leaving", from7, []st{rule("knock"), member(bob, event.Leave)}, member(bob, event.Knock), ""},
		{"again", from7, []st{rule("knock"), member(bob, event.Knock)}, member(bob, event.Knock), ""},
		{"for another", from7, []st{rule("knock")}, change(creator, bob, event.Knock), "5.7.2"},
		{"banned", from7, []st{rule("knock"), member(bob, event.Ban)}, member(bob, event.Knock), "5.7.4"},
		{"invited", from7, []st{rule("knock"), change(creator, bob, event.Invite)}, member(bob, event.Knock), "5.7.4"},
		{"joined", from7, []st{rule("knock"), member(bob, event.Join)}, member(bob, event.Knock), "5.7.4"},
	})
}

// TestSend checks rules 6 to 9 and 11.
func TestSend(t *testing.T) {
	topic := func(sender string) st { return st{sender: sender, typ: "m.room.topic", content: `{}`} }
	invite := func(sender string) st {
		return st{sender: sender, typ: event.TypeThirdPartyInvite, key: "token", content: `{}`}
	}
	own := func(sender, key string) st { return st{sender: sender, typ: "m.x", key: key, content: `{}`} }
	run(t, []row{
		{"by a stranger", "", nil, message(bob), "6"},
		{"by somebody invited", "", []st{change(creator, bob, event.Invite)}, message(bob), "6"},
		{"by somebody who left", "", []st{member(bob, event.Leave)}, message(bob), "6"},
		{"by somebody banned", "", []st{member(bob, event.Ban)}, message(bob), "6"},
		{"third-party invite by a stranger", "", nil, invite(bob), "6"},
		{"by a member", "", []st{member(bob, event.Join)}, message(bob), ""},

		{"third-party invite", "", []st{member(bob, event.Join)}, invite(bob), ""},
		{"third-party invite by the powerless", "", []st{member(bob, event.Join), levels(`{"invite":1}`)}, invite(bob), "7.1"},
		{"third-party invite is not subject to the type's level", "", []st{member(bob, event.Join), levels(`{"events":{"m.room.third_party_invite":100}}`)}, invite(bob), ""},

		{"state by default", "", []st{member(bob, event.Join)}, topic(bob), "8"},
		{"state by the creator", "", nil, topic(creator), ""},
		{"state by default with levels", "", []st{member(bob, event.Join), levels(`{"users":{"@bob:b":49}}`)}, topic(bob), "8"},
		{"state by the mighty", "", []st{member(bob, event.Join), levels(`{"users":{"@bob:b":50}}`)}, topic(bob), ""},
		{"state_default", "", []st{member(bob, event.Join), levels(`{"state_default":0}`)}, topic(bob), ""},
		{"events_default", "", []st{member(bob, event.Join), levels(`{"events_default":1}`)}, message(bob), "8"},
		{"events_default is not for state", "", []st{member(bob, event.Join), levels(`{"events_default":0,"state_default":1}`)}, topic(bob), "8"},
		{"type's level", "", []st{member(bob, event.Join), levels(`{"events":{"m.room.topic":0,"m.room.message":10}}`)}, topic(bob), ""},
		{"type's level for a message", "", []st{member(bob, event.Join), levels(`{"events":{"m.room.topic":0,"m.room.message":10}}`)}, message(bob), "8"},
		{"users_default", "", []st{member(bob, event.Join), levels(`{"users_default":50}`)}, topic(bob), ""},
		{"type in other capitals", "", []st{member(bob, event.Join), levels(`{"events":{"M.room.topic":0}}`)}, topic(bob), "8"},

		{"own state", "", []st{member(bob, event.Join), levels(`{"state_default":0}`)}, own(bob, bob), ""},
		{"another's state", "", []st{member(bob, event.Join), levels(`{"state_default":0}`)}, own(bob, alice), "9"},
		{"another's state by the creator", "", nil, own(creator, alice), "9"},
		{"state key with @ only", "", []st{member(bob, event.Join), levels(`{"state_default":0}`)}, own(bob, "@"), "9"},
		{"state key with @ inside", "", []st{member(bob, event.Join), levels(`{"state_default":0}`)}, own(bob, "_@alice:a"), ""},
		{"below the level and another's state", "", []st{member(bob, event.Join)}, own(bob, alice), "8"},
	})
}

func TestAliases(t *testing.T) {
	aliases := func(sender, key string) st {
		return st{sender: sender, typ: event.TypeAliases, key: key, content: `{}`}
	}
	run(t, []row{
		{"own server", aliasOnes, nil, aliases(bob, "b"), ""},
		{"other server", aliasOnes, []st{member(bob, event.Join)}, aliases(bob, "a"), "v1:4.2"},
		{"no state key", aliasOnes, []st{member(bob, event.Join)}, st{sender: bob, typ: event.TypeAliases, noKey: true, content: `{}`}, "v1:4.1"},
		{"no longer special, stranger", from6, nil, aliases(bob, "b"), "6"},
		{"no longer special, member", from6, []st{member(bob, event.Join)}, aliases(bob, "b"), "8"},
	})
}

func TestRedaction(t *testing.T) {
	redaction := func(sender string, of matrix.EventID) st {
		return st{sender: sender, typ: event.TypeRedaction, noKey: true, redacts: of, content: `{}`}
	}
	run(t, []row{
		{"own server's", "1 2", []st{member(bob, event.Join)}, redaction(bob, "$x:b"), ""},
		{"other server's", "1 2", []st{member(bob, event.Join)}, redaction(bob, "$x:a"), "v1:11.3"},
		{"nothing", "1 2", []st{member(bob, event.Join)}, redaction(bob, ""), "v1:11.3"},
		{"other server's by the mighty", "1 2", []st{member(bob, event.Join), levels(`{"users":{"@bob:b":50}}`)}, redaction(bob, "$x:a"), ""},
		{"other server's with redact level 0", "1 2", []st{member(bob, event.Join), levels(`{"redact":0}`)}, redaction(bob, "$x:a"), ""},
		{"no rule", "3 4 5 6 7 8 9 10 11 12", []st{member(bob, event.Join), levels(`{"redact":100}`)}, redaction(bob, "$x"), ""},
		{"type's level", "3 4 5 6 7 8 9 10 11 12", []st{member(bob, event.Join), levels(`{"events":{"m.room.redaction":1}}`)}, redaction(bob, "$x"), "8"},
	})
}
