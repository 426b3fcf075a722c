package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

func state(key string) *string { return &key }

// build makes an event of a draft, which must succeed.
func build(t testing.TB, v *matrix.RoomVersion, d Draft) *PDU {
	t.Helper()
	p, err := Build(v, d, d.Sender.Server(), testKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fit makes a draft fit a room version: the create event of version 12 has no
// room, and versions 1 and 2 need hashes.
func fit(v *matrix.RoomVersion, d Draft) Draft {
	if v.RoomIDFromCreate && d.Type == TypeCreate {
		d.Room = ""
	}
	d.Hashes = map[matrix.EventID]string{}
	for _, id := range slices.Concat(d.PrevEvents, d.AuthEvents) {
		d.Hashes[id] = "abase64encodedsha256hashshouldbe43byteslong"
	}
	return d
}

// TestVectors checks the signed events of the specification.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#event-signing
func TestVectors(t *testing.T) {
	tests := []struct{ name, version, signed string }{
		{"minimal", "6",
			`{"auth_events":[],"content":{},"depth":3,"hashes":{"sha256":"5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"},"origin":"domain","origin_server_ts":1000000,"prev_events":[],"room_id":"!x:domain","sender":"@a:domain","signatures":{"domain":{"ed25519:1":"KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"}},"type":"X","unsigned":{"age_ts":1000000}}`},
		{"redactable", "1",
			`{"content":{"body":"Here is the message content"},"event_id":"$0:domain","hashes":{"sha256":"onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g"},"origin":"domain","origin_server_ts":1000000,"type":"m.room.message","room_id":"!r:domain","sender":"@u:domain","signatures":{"domain":{"ed25519:1":"Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA"}},"unsigned":{"age_ts":1000000}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, key := version(t, tt.version), testKey(t)
			members, err := canonjson.Members(nil, []byte(tt.signed), canonjson.Integers)
			if err != nil {
				t.Fatal(err)
			}
			if ok, err := hashMatches(members); !ok || err != nil {
				t.Errorf("content hash: %v, %v", ok, err)
			}
			p, err := Load(v, "$0:domain", canonjson.Object(nil, withoutUnsigned(members), nil))
			if err != nil {
				t.Fatal(err)
			}
			if err := p.VerifySignature("domain", "ed25519:1", key.Public()); err != nil {
				t.Error(err)
			}
			again, err := p.Sign("domain", key)
			if err != nil || !bytes.Equal(again.JSON, p.JSON) {
				t.Errorf("signed again: %s, %v", again.JSON, err)
			}
		})
	}
	p, err := Parse(version(t, "6"), []byte(tests[0].signed))
	if err != nil || p.HashMismatch {
		t.Errorf("Parse: %v", err)
	}
}

// TestRoundTrip builds an event of each kind in each room version, and reads it
// back as another server and as our store would.
func TestRoundTrip(t *testing.T) {
	drafts := map[string]Draft{
		"message": message(),
		"create": {Room: "!r:example.org", Type: TypeCreate, Sender: "@alice:example.org", StateKey: state(""),
			Content: json.RawMessage(`{"creator":"@alice:example.org"}`), OriginServerTS: 1},
		"member": {Room: "!r:example.org", Type: TypeMember, Sender: "@alice:example.org", StateKey: state("@alice:example.org"),
			Content: json.RawMessage(`{"membership":"join","displayname":"Älice \"\n"}`), PrevEvents: []matrix.EventID{"$a:b"}, Depth: 2},
		"redaction": {Room: "!r:example.org", Type: TypeRedaction, Sender: "@alice:example.org", Redacts: "$bad:example.org",
			Content: json.RawMessage(`{"reason":"x","redacts":"$other"}`), PrevEvents: []matrix.EventID{"$a:b"}, Depth: 3},
		"odd": {Room: "!r:example.org", Type: "odd \" type é\n", Sender: "@Old user\":example.org", StateKey: state("\\ \" \t 😀"),
			Content: json.RawMessage(` { "b" : [ { } ] , "a" : "\u00e9" } `), PrevEvents: []matrix.EventID{`$\":b`, "$é"}, AuthEvents: []matrix.EventID{`$x"y`},
			Depth: canonjson.MaxInt, OriginServerTS: -5},
		"no content": {Room: "!r:example.org", Type: "m.x", Sender: "@alice:example.org"},
	}
	for _, v := range matrix.Versions() {
		for name, d := range drafts {
			t.Run(v.ID+" "+name, func(t *testing.T) {
				d := fit(v, d)
				p := build(t, v, d)
				if p.Room == "" || d.Room != "" && p.Room != d.Room || p.Type != d.Type || p.Sender != d.Sender ||
					p.IsState() != (d.StateKey != nil) || p.IsState() && !p.Is(d.Type, *d.StateKey) || p.Redacts != d.Redacts ||
					p.Depth != d.Depth || p.OriginServerTS != d.OriginServerTS ||
					!slices.Equal(p.PrevEvents, d.PrevEvents) || !slices.Equal(p.AuthEvents, d.AuthEvents) {
					t.Errorf("built %+v", p)
				}
				if c, err := canonjson.Canonical(p.JSON); err != nil || !bytes.Equal(c, p.JSON) {
					t.Errorf("JSON is not canonical: %s", p.JSON)
				}
				if err := p.VerifySignature(d.Sender.Server(), "ed25519:1", testKey(t).Public()); err != nil {
					t.Error(err)
				}
				q, err := Parse(v, p.JSON)
				if err != nil {
					t.Fatal(err)
				}
				same(t, "parsed", q, p)
				l, err := Load(v, p.ID, p.JSON)
				if err != nil {
					t.Fatal(err)
				}
				same(t, "loaded", l, p)
				r, err := p.Redacted()
				if err != nil {
					t.Fatal(err)
				}
				if r.ID != p.ID || r.Room != p.Room || r.ReferenceHash() != p.ReferenceHash() {
					t.Errorf("redacted to %s in %s", r.ID, r.Room)
				}
				if err := r.VerifySignature(d.Sender.Server(), "ed25519:1", testKey(t).Public()); err != nil {
					t.Error(err)
				}
				if raw, err := Redact(v, p.JSON); err != nil || !bytes.Equal(raw, r.JSON) {
					t.Errorf("Redact: %s, %v", raw, err)
				}
			})
		}
	}
}

// TestBuild writes down what Build makes.
func TestBuild(t *testing.T) {
	const sha = "abase64encodedsha256hashshouldbe43byteslong"
	d := Draft{Room: "!r:domain", Type: TypeRedaction, Sender: "@a:domain", Redacts: "$z", Content: json.RawMessage(`{"reason":"x"}`),
		PrevEvents: []matrix.EventID{"$p", "$q"}, AuthEvents: []matrix.EventID{"$r"}, Depth: 3, OriginServerTS: 1000000,
		Hashes: map[matrix.EventID]string{"$p": sha, "$q": sha, "$r": sha}}
	plain := d
	plain.Type, plain.Redacts, plain.StateKey = "X", "", state("")
	tests := []struct {
		version string
		draft   Draft
		want    string // without hashes and signatures, ID for the event's ID
	}{
		{"1", d, `{"auth_events":[["$r",{"sha256":"` + sha + `"}]],"content":{"reason":"x"},"depth":3,"event_id":"ID","origin_server_ts":1000000,` +
			`"prev_events":[["$p",{"sha256":"` + sha + `"}],["$q",{"sha256":"` + sha + `"}]],"redacts":"$z","room_id":"!r:domain","sender":"@a:domain","type":"m.room.redaction"}`},
		{"10", d, `{"auth_events":["$r"],"content":{"reason":"x"},"depth":3,"origin_server_ts":1000000,"prev_events":["$p","$q"],` +
			`"redacts":"$z","room_id":"!r:domain","sender":"@a:domain","type":"m.room.redaction"}`},
		{"11", d, `{"auth_events":["$r"],"content":{"reason":"x","redacts":"$z"},"depth":3,"origin_server_ts":1000000,"prev_events":["$p","$q"],` +
			`"room_id":"!r:domain","sender":"@a:domain","type":"m.room.redaction"}`},
		{"10", plain, `{"auth_events":["$r"],"content":{"reason":"x"},"depth":3,"origin_server_ts":1000000,"prev_events":["$p","$q"],` +
			`"room_id":"!r:domain","sender":"@a:domain","state_key":"","type":"X"}`},
		{"12", plain, `{"auth_events":["$r"],"content":{"reason":"x"},"depth":3,"origin_server_ts":1000000,"prev_events":["$p","$q"],` +
			`"room_id":"!r:domain","sender":"@a:domain","state_key":"","type":"X"}`},
	}
	for _, tt := range tests {
		p := build(t, version(t, tt.version), tt.draft)
		got := string(canonjson.Object(nil, p.members(nil), unhashed))
		if want := strings.Replace(tt.want, `"ID"`, `"`+string(p.ID)+`"`, 1); got != want {
			t.Errorf("version %s: got  %s\nwant %s", tt.version, got, want)
		}
	}
}

// same compares two events field by field.
func same(t testing.TB, what string, got, want *PDU) {
	t.Helper()
	if got.ID != want.ID || got.Room != want.Room || got.Type != want.Type || got.Sender != want.Sender ||
		got.IsState() != want.IsState() || got.IsState() && *got.StateKey != *want.StateKey ||
		got.Redacts != want.Redacts || got.Depth != want.Depth || got.OriginServerTS != want.OriginServerTS ||
		!slices.Equal(got.PrevEvents, want.PrevEvents) || !slices.Equal(got.AuthEvents, want.AuthEvents) ||
		!bytes.Equal(got.Content, want.Content) || !bytes.Equal(got.JSON, want.JSON) ||
		got.Membership() != want.Membership() || got.HashMismatch != want.HashMismatch || got.Version != want.Version {
		t.Errorf("%s as %+v\nwant %+v", what, got, want)
	}
}

// TestIDs checks the form of event and room IDs.
func TestIDs(t *testing.T) {
	tests := []struct {
		version  string
		alphabet string
		length   int
	}{
		{"1", "", 43 + 1 + len(":example.org")}, {"2", "", 43 + 1 + len(":example.org")},
		{"3", "+/", 44}, {"4", "-_", 44}, {"11", "-_", 44}, {"12", "-_", 44},
	}
	const alnum = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	for _, tt := range tests {
		v, seen := version(t, tt.version), ""
		for ts := range int64(50) {
			d := fit(v, message())
			d.OriginServerTS = ts
			p := build(t, v, d)
			if p.ID[0] != '$' || len(p.ID) != tt.length {
				t.Errorf("version %s: ID %s", tt.version, p.ID)
			}
			seen += string(p.ID[1:])
		}
		if tt.alphabet == "" {
			continue
		}
		if strings.Trim(seen, alnum+tt.alphabet) != "" || !strings.ContainsAny(seen, tt.alphabet) {
			t.Errorf("version %s: IDs of characters %q", tt.version, strings.Trim(seen, alnum))
		}
	}
	create := build(t, version(t, "12"), Draft{Type: TypeCreate, Sender: "@a:b", StateKey: state("")})
	if string(create.Room) != "!"+string(create.ID[1:]) || strings.Contains(string(create.JSON), "room_id") {
		t.Errorf("create event %s makes room %s: %s", create.ID, create.Room, create.JSON)
	}
}

func TestBuildErrors(t *testing.T) {
	tests := []struct {
		name, content string
		change        func(*Draft)
		want          matrix.Code
	}{
		{"float", `{"a":1.5}`, nil, matrix.BadJSON},
		{"float that is an integer", `{"a":1.0}`, nil, matrix.BadJSON},
		{"exponent", `{"a":1e3}`, nil, matrix.BadJSON},
		{"large integer", `{"a":[9007199254740992]}`, nil, matrix.BadJSON},
		{"small integer", `{"a":-9007199254740992}`, nil, matrix.BadJSON},
		{"duplicate key", `{"a":1,"b":{"c":1,"c":2}}`, nil, matrix.BadJSON},
		{"lone surrogate", `{"a":"\ud800"}`, nil, matrix.BadJSON},
		{"invalid UTF-8", "{\"a\":\"\xff\"}", nil, matrix.BadJSON},
		{"NaN", `{"a":NaN}`, nil, matrix.BadJSON},
		{"array", `[]`, nil, matrix.BadJSON},
		{"null", `null`, nil, matrix.BadJSON},
		{"string", `"a"`, nil, matrix.BadJSON},
		{"cut", `{"a":`, nil, matrix.BadJSON},
		{"too deep", `{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, nil, matrix.BadJSON},
		{"too large", `{"a":"` + strings.Repeat("x", 65000) + `"}`, nil, matrix.TooLarge},
		{"far too large", `{"a":"` + strings.Repeat("x", 1<<20) + `"}`, nil, matrix.TooLarge},
		{"long type", `{}`, func(d *Draft) { d.Type = strings.Repeat("é", 128) }, matrix.TooLarge},
		{"long state key", `{}`, func(d *Draft) { d.StateKey = state(strings.Repeat("x", 256)) }, matrix.TooLarge},
		{"no type", `{}`, func(d *Draft) { d.Type = "" }, matrix.BadJSON},
		{"type not UTF-8", `{}`, func(d *Draft) { d.Type = "a\xff" }, matrix.BadJSON},
		{"state key not UTF-8", `{}`, func(d *Draft) { d.StateKey = state("\xc0\x80") }, matrix.BadJSON},
		{"NUL in the type", `{}`, func(d *Draft) { d.Type = "a\x00" }, matrix.BadJSON},
		{"NUL in the state key", `{}`, func(d *Draft) { d.StateKey = state("a\x00") }, matrix.BadJSON},
		{"no room", `{}`, func(d *Draft) { d.Room = "" }, matrix.BadJSON},
		{"depth", `{}`, func(d *Draft) { d.Depth = -1 }, matrix.BadJSON},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := message()
			d.Content = json.RawMessage(tt.content)
			if tt.change != nil {
				tt.change(&d)
			}
			p, err := Build(version(t, "12"), d, "example.org", testKey(t))
			var e *matrix.Error
			if !errors.As(err, &e) || e.Code != tt.want {
				t.Fatalf("got %v, %v, want %s", p, err, tt.want)
			}
			if status := e.HTTPStatus(); status != 400 && tt.want == matrix.BadJSON || status != 413 && tt.want == matrix.TooLarge {
				t.Errorf("status %d", status)
			}
		})
	}
	old := message()
	old.Content = json.RawMessage(`{"a":1.50,"b":9007199254740993}`)
	if p, err := Build(version(t, "5"), old, "example.org", testKey(t)); err != nil || string(p.Content) != `{"a":1.5,"b":9007199254740993}` {
		t.Errorf("version 5: %v, %v", p, err)
	}
	if p, err := Build(version(t, "1"), message(), "example.org", testKey(t)); err == nil {
		t.Errorf("version 1 without hashes: %s", p.JSON)
	}
}

// TestLargest builds the largest event there may be, and one byte more.
func TestLargest(t *testing.T) {
	v, d := version(t, "11"), message()
	d.Content = json.RawMessage(`{"a":""}`)
	room := MaxSize - len(build(t, v, d).JSON)
	d.Content = json.RawMessage(`{"a":"` + strings.Repeat("x", room) + `"}`)
	p := build(t, v, d)
	if len(p.JSON) != MaxSize {
		t.Fatalf("the event has %d bytes", len(p.JSON))
	}
	raw := append(p.JSON[:len(p.JSON)-1:len(p.JSON)-1], `,"unsigned":{"age":5}}`...)
	if q, err := Parse(v, raw); err != nil || q.ID != p.ID {
		t.Errorf("unsigned counts for the size: %v", err)
	}
	d.Content = json.RawMessage(`{"a":"` + strings.Repeat("x", room+1) + `"}`)
	if _, err := Build(v, d, "example.org", testKey(t)); err == nil {
		t.Error("one byte more was taken")
	}
	if _, err := p.Sign("other.example.org", testKey(t)); err == nil {
		t.Error("one signature more was taken")
	}
}

func TestContentString(t *testing.T) {
	p := build(t, version(t, "12"), Draft{Room: "!r", Type: TypeMember, Sender: "@a:b", StateKey: state("@a:b"),
		Content: json.RawMessage(`{"membership":"ban","n":1,"o":{"membership":"join"},"s":"é\"\n","zz":null}`)})
	for key, want := range map[string]string{"membership": "ban", "n": "", "o": "", "s": "é\"\n", "zz": "", "none": ""} {
		if got := p.ContentString(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if got := p.ContentValue("o"); string(got) != `{"membership":"join"}` {
		t.Errorf("value is %s", got)
	}
	if p.Membership() != Ban {
		t.Errorf("membership is %q", p.Membership())
	}
	if n := testing.AllocsPerRun(10, func() { _ = p.Membership(); _ = p.ContentValue("zz") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	other := build(t, version(t, "12"), Draft{Room: "!r", Type: "m.x", Sender: "@a:b", Content: json.RawMessage(`{"membership":"ban"}`)})
	if other.Membership() != "" || other.Is("m.x", "") || other.IsState() {
		t.Error("an event that is no state has a membership")
	}
}

func TestSignatures(t *testing.T) {
	v := version(t, "12")
	p := build(t, v, message())
	other, err := signing.Generate()
	if err != nil {
		t.Fatal(err)
	}
	both, err := p.Sign("b.example", other)
	if err != nil {
		t.Fatal(err)
	}
	if both.ID != p.ID || !both.SignedBy("b.example") || !both.SignedBy("example.org") || p.SignedBy("b.example") {
		t.Errorf("signed as %s", both.JSON)
	}
	if !bytes.Equal(both.Content, p.Content) || bytes.Equal(both.JSON, p.JSON) {
		t.Errorf("content is %s", both.Content)
	}
	q, err := Parse(v, both.JSON)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "parsed", q, both)
	for server, key := range map[matrix.ServerName]signing.Key{"b.example": other, "example.org": testKey(t)} {
		if err := q.VerifySignature(server, key.ID, key.Public()); err != nil {
			t.Errorf("%s: %v", server, err)
		}
	}
	tests := []struct {
		name, keyID string
		server      matrix.ServerName
		key         signing.Key
		want        error
	}{
		{"other key", "ed25519:1", "example.org", other, signing.ErrWrong},
		{"other server", "ed25519:1", "a.example", testKey(t), signing.ErrUnsigned},
		{"other key ID", "ed25519:2", "example.org", testKey(t), signing.ErrUnsigned},
	}
	for _, tt := range tests {
		if err := q.VerifySignature(tt.server, tt.keyID, tt.key.Public()); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	forged, err := p.AddSignature("b.example", other.ID, "AAAA")
	if err != nil {
		t.Fatal(err)
	}
	if err := forged.VerifySignature("b.example", other.ID, other.Public()); !errors.Is(err, signing.ErrWrong) {
		t.Errorf("forged: %v", err)
	}
}
