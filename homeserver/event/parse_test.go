package event

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// rehash gives the members of an event the content hash that they have.
func rehash(t testing.TB, raw string) string {
	t.Helper()
	members, err := canonjson.Members(nil, []byte(raw), canonjson.Any)
	if err != nil {
		t.Fatal(err)
	}
	sum := contentHash(members)
	for i := range members {
		if string(members[i].Key) == "hashes" {
			members[i].Value = []byte(`{"sha256":"` + signing.EncodeBase64(sum[:]) + `"}`)
		}
	}
	return string(canonjson.Object(nil, members, nil))
}

// good is an event of versions 4 to 12, with a placeholder for its content hash.
const good = `{"auth_events":["$a"],"content":{"a":1},"depth":5,"hashes":{"sha256":"x"},"origin_server_ts":7,"prev_events":["$p"],` +
	`"room_id":"!r:b","sender":"@u:b","signatures":{},"state_key":"k","type":"m.x"}`

// good1 is an event of versions 1 and 2.
const good1 = `{"auth_events":[["$a:b",{"sha256":"x"}]],"content":{"a":1},"depth":5,"event_id":"$e:b","hashes":{"sha256":"x"},"origin_server_ts":7,` +
	`"prev_events":[["$p:b",{"sha256":"x"}],["$q:b",{}]],"room_id":"!r:b","sender":"@u:b","signatures":{},"type":"m.x"}`

func TestParse(t *testing.T) {
	want, err := Parse(version(t, "11"), []byte(rehash(t, good)))
	if err != nil || want.HashMismatch {
		t.Fatal(err)
	}
	spaced := strings.NewReplacer(`,`, " ,\n", `:`, ` : `, `"content"`, `"c\u006fntent"`).Replace(rehash(t, good))
	spaced = strings.NewReplacer(`!r : b`, `!r:b`, `@u : b`, `@u\u003ab`).Replace(spaced)
	tests := []struct{ name, raw string }{
		{"other form", spaced},
		{"unsigned", strings.Replace(rehash(t, good), `{"auth`, `{"unsigned":{"age":1.5e3},"auth`, 1)},
		{"padded hash", strings.Replace(rehash(t, good), `"},"origin`, `="},"origin`, 1)},
	}
	for _, tt := range tests[:1] {
		got, err := Parse(version(t, "11"), []byte(tt.raw))
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		same(t, tt.name, got, want)
	}
	if got, err := Parse(version(t, "11"), []byte(tests[2].raw)); err != nil || got.HashMismatch {
		t.Errorf("%s: %+v, %v", tests[2].name, got, err)
	}
	if _, err := Parse(version(t, "11"), []byte(tests[1].raw)); err == nil {
		t.Error("a float in unsigned was taken")
	}

	v1, err := Parse(version(t, "1"), []byte(rehash(t, good1)))
	if err != nil {
		t.Fatal(err)
	}
	if v1.ID != "$e:b" || v1.HashMismatch || len(v1.AuthEvents) != 1 || len(v1.PrevEvents) != 2 || v1.PrevEvents[1] != "$q:b" {
		t.Errorf("version 1: %+v", v1)
	}
}

func TestParseRefuses(t *testing.T) {
	many := func(n int) string { return `["$x"` + strings.Repeat(`,"$x"`, n-1) + `]` }
	tests := []struct{ name, version, old, new string }{
		{"array", "11", good, `[]`},
		{"cut", "11", `"type":"m.x"}`, `"type"`},
		{"duplicate key", "11", `"depth":5`, `"depth":5,"depth":6`},
		{"duplicate key by an escape", "11", `"depth":5`, `"depth":5,"\u0064epth":6`},
		{"duplicate key in the content", "11", `{"a":1}`, `{"a":1,"a":1}`},
		{"float", "11", `{"a":1}`, `{"a":1.5}`},
		{"float that is an integer", "11", `{"a":1}`, `{"a":1e3}`},
		{"large integer", "6", `{"a":1}`, `{"a":9007199254740993}`},
		{"invalid UTF-8", "11", `"m.x"`, "\"\xff\""},
		{"lone surrogate", "11", `"m.x"`, `"\ud800"`},
		{"no type", "11", `"type":"m.x"`, `"typ":"m.x"`},
		{"type in capitals", "11", `"type":"m.x"`, `"Type":"m.x"`},
		{"empty type", "11", `"m.x"`, `""`},
		{"type no string", "11", `"m.x"`, `1`},
		{"long type", "11", `"m.x"`, `"` + strings.Repeat("x", 256) + `"`},
		{"state key no string", "11", `"k"`, `null`},
		{"long state key", "11", `"k"`, `"` + strings.Repeat("x", 256) + `"`},
		{"NUL in the state key", "11", `"k"`, `"\u0000"`},
		{"no sender", "11", `"sender":"@u:b",`, ``},
		{"sender no user", "11", `"@u:b"`, `"u:b"`},
		{"sender without a server", "11", `"@u:b"`, `"@u"`},
		{"sender with a bad server", "11", `"@u:b"`, `"@u:b c"`},
		{"long sender", "11", `"@u:b"`, `"@` + strings.Repeat("u", 253) + `:b"`},
		{"no room", "11", `"room_id":"!r:b",`, ``},
		{"no room in version 12", "12", `"room_id":"!r:b",`, ``},
		{"room no room", "11", `"!r:b"`, `"#r:b"`},
		{"room no string", "11", `"!r:b"`, `["!r:b"]`},
		{"long room", "11", `"!r:b"`, `"!` + strings.Repeat("r", 255) + `"`},
		{"no content", "11", `"content":{"a":1},`, ``},
		{"content no object", "11", `{"a":1}`, `[]`},
		{"content null", "11", `{"a":1}`, `null`},
		{"no depth", "11", `"depth":5,`, ``},
		{"depth no integer", "11", `"depth":5`, `"depth":"5"`},
		{"depth negative", "11", `"depth":5`, `"depth":-1`},
		{"depth too large", "4", `"depth":5`, `"depth":9223372036854775808`},
		{"no time", "11", `"origin_server_ts":7,`, ``},
		{"time no integer", "11", `"origin_server_ts":7`, `"origin_server_ts":true`},
		{"time a float", "4", `"origin_server_ts":7`, `"origin_server_ts":7.5`},
		{"no hashes", "11", `"hashes":{"sha256":"x"},`, ``},
		{"hashes no object", "11", `{"sha256":"x"}`, `"x"`},
		{"no sha256", "11", `{"sha256":"x"}`, `{"md5":"x"}`},
		{"hash no string", "11", `{"sha256":"x"}`, `{"sha256":1}`},
		{"hash no base64", "11", `{"sha256":"x"}`, `{"sha256":"!"}`},
		{"no signatures", "11", `"signatures":{},`, ``},
		{"signatures no object", "11", `"signatures":{}`, `"signatures":[]`},
		{"no prev_events", "11", `"prev_events":["$p"],`, ``},
		{"prev_events no array", "11", `["$p"]`, `"$p"`},
		{"prev_events of numbers", "11", `["$p"]`, `["$p",1]`},
		{"prev_events of numbers first", "11", `["$p"]`, `[1,"$p"]`},
		{"prev_events of numbers between", "11", `["$p"]`, `["$p",1,"$p"]`},
		{"prev_events of pairs", "11", `["$p"]`, `[["$p",{"sha256":"x"}]]`},
		{"prev_events no event", "11", `["$p"]`, `["p"]`},
		{"prev_events empty ID", "11", `["$p"]`, `[""]`},
		{"21 prev_events", "11", `["$p"]`, many(21)},
		{"no auth_events", "11", `"auth_events":["$a"],`, ``},
		{"auth_events no array", "11", `["$a"]`, `{}`},
		{"11 auth_events", "11", `["$a"]`, many(11)},
		{"too large", "11", `{"a":1}`, `{"a":"` + strings.Repeat("x", MaxSize) + `"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw := strings.Replace(good, tt.old, tt.new, 1)
			if raw == good {
				t.Fatalf("%s is not in the event", tt.old)
			}
			p, err := Parse(version(t, tt.version), []byte(raw))
			var e *matrix.Error
			if !errors.As(err, &e) || e.Code != matrix.BadJSON && e.Code != matrix.TooLarge {
				t.Fatalf("got %+v and %v", p, err)
			}
		})
	}
	for name, change := range map[string][2]string{
		"no ID":             {`"event_id":"$e:b",`, ``},
		"ID no string":      {`"$e:b"`, `1`},
		"ID no event":       {`"$e:b"`, `"e:b"`},
		"plain IDs":         {`["$a:b",{"sha256":"x"}]`, `"$a:b"`},
		"pair of one":       {`["$a:b",{"sha256":"x"}]`, `["$a:b"]`},
		"triple":            {`["$a:b",{"sha256":"x"}]`, `["$a:b",{"sha256":"x"},1]`},
		"pair of strings":   {`["$a:b",{"sha256":"x"}]`, `["$a:b","x"]`},
		"pair with no ID":   {`["$a:b",{"sha256":"x"}]`, `[{},{}]`},
		"pair with empty":   {`["$a:b",{"sha256":"x"}]`, `["",{}]`},
		"content no object": {`{"a":1}`, `1`},
	} {
		if p, err := Parse(version(t, "2"), []byte(strings.Replace(good1, change[0], change[1], 1))); err == nil {
			t.Errorf("version 2, %s: %+v", name, p)
		}
	}
}

// TestParseTakes checks oddities that rooms hold and that must not be refused.
func TestParseTakes(t *testing.T) {
	many := func(n int) string { return `["$x"` + strings.Repeat(`,"$x"`, n-1) + `]` }
	tests := []struct{ name, version, old, new string }{
		{"as is", "11", ``, ``},
		{"no references", "11", `["$p"]`, `[]`},
		{"20 prev_events", "11", `["$p"]`, many(20)},
		{"10 auth_events", "11", `["$a"]`, many(10)},
		{"reference with an escape", "11", `["$p"]`, `["$p\n"]`},
		{"historical sender", "11", `"@u:b"`, `"@É \"\n:b"`},
		{"sender without a localpart", "11", `"@u:b"`, `"@:b"`},
		{"long state key", "11", `"k"`, `"` + strings.Repeat("x", 255) + `"`},
		{"long type", "11", `"m.x"`, `"` + strings.Repeat("x", 255) + `"`},
		{"large depth", "5", `"depth":5`, `"depth":9223372036854775807`},
		{"large depth in version 6", "6", `"depth":5`, `"depth":9007199254740991`},
		{"floats in version 5", "5", `{"a":1}`, `{"a":1.5,"b":1e100,"c":9007199254740993}`},
		{"minus zero", "11", `{"a":1}`, `{"a":-0}`},
		{"unknown keys", "11", `"depth":5`, `"Depth":"x","depth":5,"depth ":{}`},
		{"other hashes", "11", `{"sha256":"x"}`, `{"sha256":"x","sha3":"y"}`},
		{"room without a server", "11", `"!r:b"`, `"!r"`},
		{"redacts that is no redaction", "11", `"room_id"`, `"redacts":null,"room_id"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw := strings.Replace(good, tt.old, tt.new, 1)
			members, err := canonjson.Members(nil, []byte(raw), canonjson.Any)
			if err != nil {
				t.Fatal(err)
			}
			raw = rehash(t, string(canonjson.Object(nil, members, nil)))
			if tt.name == "other hashes" {
				raw = strings.Replace(raw, `{"sha256":`, `{"other":"y","sha256":`, 1)
			}
			p, err := Parse(version(t, tt.version), []byte(raw))
			if err != nil {
				t.Fatal(err)
			}
			if p.HashMismatch {
				t.Error("the hash does not match")
			}
		})
	}
}

// TestHashMismatch checks that changed content is redacted, whatever the change.
func TestHashMismatch(t *testing.T) {
	for _, v := range matrix.Versions() {
		d := fit(v, message())
		d.StateKey, d.Type = state("@alice:example.org"), TypeMember
		d.Content = []byte(`{"membership":"join","displayname":"Alice"}`)
		p := build(t, v, d)
		for name, change := range map[string][2]string{
			"value":       {`"Alice"`, `"Mallory"`},
			"removed":     {`"displayname":"Alice",`, ``},
			"added":       {`{"displayname"`, `{"avatar_url":"x","displayname"`},
			"unknown key": {`,"type":`, `,"time":1,"type":`},
			"other case":  {`,"type":`, `,"typE":"m.room.power_levels","type":`},
		} {
			raw := strings.Replace(string(p.JSON), change[0], change[1], 1)
			if raw == string(p.JSON) {
				t.Fatalf("%s is not in %s", change[0], raw)
			}
			q, err := Parse(v, []byte(raw))
			if err != nil {
				t.Fatal(err)
			}
			if !q.HashMismatch || q.ID != p.ID || q.Membership() != Join || string(q.Content) != `{"membership":"join"}` || q.Type != TypeMember {
				t.Errorf("version %s, %s: %+v", v.ID, name, q)
			}
			if err := q.VerifySignature("example.org", "ed25519:1", testKey(t).Public()); err != nil {
				t.Errorf("version %s, %s: %v", v.ID, name, err)
			}
		}
		// A change to what survives makes another event, whose signature is wrong.
		q, err := Parse(v, []byte(strings.Replace(string(p.JSON), `"join"`, `"ban"`, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if !q.HashMismatch || !v.EventIDInEvent && q.ID == p.ID {
			t.Errorf("version %s: the changed event is %s", v.ID, q.ID)
		}
		if err := q.VerifySignature("example.org", "ed25519:1", testKey(t).Public()); !errors.Is(err, signing.ErrWrong) {
			t.Errorf("version %s: %v", v.ID, err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, bad := range []string{"", "{}", "[]", `{"content":[]}`, `{"type":1}`, `{"type":"m.x","depth":"1"}`, `{"prev_events":[1],"type":"m.x"}`} {
		if p, err := Load(version(t, "11"), "$x", []byte(bad)); err == nil {
			t.Errorf("Load(%s) = %+v", bad, p)
		}
	}
}

// FuzzParse checks of every accepted event that its JSON is canonical and comes
// back as the same event, that the store gives the same event, and that
// redaction keeps the ID and is done once.
func FuzzParse(f *testing.F) {
	f.Add(11, []byte(rehash(f, good)))
	f.Add(5, []byte(good))
	f.Add(1, []byte(rehash(f, good1)))
	for _, v := range []int{3, 6, 9, 12} {
		rv := version(f, fmt.Sprint(v))
		for _, typ := range []string{TypeMember, TypeCreate, TypePowerLevels, TypeRedaction, TypeAliases, TypeJoinRules} {
			d := fit(rv, Draft{Room: "!r:b", Type: typ, Sender: "@a:b", StateKey: state(""), Redacts: "$x",
				Content: []byte(`{"membership":"join","third_party_invite":{"signed":{"a":1},"b":2},"users":{"@a:b":1},"invite":1,"aliases":[],"allow":[]}`)})
			f.Add(v, build(f, rv, d).JSON)
		}
	}
	f.Fuzz(func(t *testing.T, n int, raw []byte) {
		v, ok := matrix.Version(fmt.Sprint(n))
		if !ok {
			return
		}
		p, err := Parse(v, raw)
		if err != nil {
			return
		}
		if c, err := canonjson.Encode(p.JSON, numbers(v)); err != nil || string(c) != string(p.JSON) {
			t.Fatalf("not canonical: %s", p.JSON)
		}
		again, err := Parse(v, p.JSON)
		if err != nil {
			t.Fatalf("%s: %v", p.JSON, err)
		}
		same(t, "parsed again", again, p)
		stored, err := Load(v, p.ID, p.JSON)
		if err != nil {
			t.Fatalf("%s: %v", p.JSON, err)
		}
		stored.HashMismatch = p.HashMismatch
		same(t, "loaded", stored, p)
		r, err := p.Redacted()
		if err != nil {
			t.Fatal(err)
		}
		rr, err := r.Redacted()
		if err != nil {
			t.Fatal(err)
		}
		same(t, "redacted twice", rr, r)
		if r.ReferenceHash() != p.ReferenceHash() {
			t.Fatal("redaction changes the ID")
		}
		if err := canonjson.Valid(p.Client(nil, nil)); err != nil {
			t.Fatalf("%s: %v", p.Client(nil, nil), err)
		}
		if err := canonjson.Valid(p.StrippedState(nil)); err != nil {
			t.Fatalf("%s: %v", p.StrippedState(nil), err)
		}
	})
}

// FuzzBuild checks that whatever a client sends becomes an event that another
// server takes, or an error that the client may see.
func FuzzBuild(f *testing.F) {
	f.Add("m.room.message", "", false, []byte(`{"body":"x"}`))
	f.Add("m.room.member", "@a:b", true, []byte(`{"membership":"join"}`))
	f.Add("m.room.redaction", "", false, []byte(` {"redacts":"$x","a":1.5}`))
	f.Fuzz(func(t *testing.T, typ, stateKey string, isState bool, content []byte) {
		d := Draft{Room: "!r", Type: typ, Sender: "@a:b", Content: content, PrevEvents: []matrix.EventID{"$p"}, Depth: 1}
		if isState {
			d.StateKey = &stateKey
		}
		v := version(t, "12")
		p, err := Build(v, d, "b", testKey(t))
		if err != nil {
			var e *matrix.Error
			if !errors.As(err, &e) {
				t.Fatalf("the client may not see %v", err)
			}
			return
		}
		q, err := Parse(v, p.JSON)
		if err != nil {
			t.Fatalf("%s: %v", p.JSON, err)
		}
		same(t, "parsed", q, p)
		if err := q.VerifySignature("b", "ed25519:1", testKey(t).Public()); err != nil {
			t.Fatal(err)
		}
	})
}
