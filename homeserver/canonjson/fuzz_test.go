package canonjson

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"maunium.net/go/mautrix/crypto/canonicaljson"
)

func seeds(f *testing.F) {
	for _, tt := range refused {
		if len(tt.in) < 1000 {
			f.Add([]byte(tt.in))
		}
	}
	for _, s := range []string{
		`{"b":{"d":1,"c":[]},"a\u0062":"\u65e5","é":1,"a\n":2}`, `{"a":-0,"b":1e10,"c":[1.5,true,false,null]}`,
		`{"a":{"b":[{"d":1,"c":2},{}]},"Z":"😀\ud83d\ude00\u0000"}`, ` [ 1 , 2 ] `, `{"\u0000":1,"\t":2,"\"":3,"\\":4,"":5}`,
	} {
		f.Add([]byte(s))
	}
}

// FuzzCanonical checks that the canonical form means the same to encoding/json,
// is its own canonical form by both ways through the code, and that Valid,
// Relaxed and Members agree with it.
func FuzzCanonical(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := Canonical(in)
		if err != nil {
			if valid := Valid(in); valid == nil && !strings.Contains(err.Error(), "number") {
				t.Fatalf("%q is valid, but: %v", in, err)
			}
			return
		}
		if err := Valid(in); err != nil {
			t.Fatalf("Valid: %v", err)
		}
		var before, after any
		if err := json.Unmarshal(in, &before); err != nil {
			t.Fatalf("encoding/json refuses what we take: %v", err)
		}
		if err := json.Unmarshal(out, &after); err != nil {
			t.Fatalf("encoding/json refuses %q: %v", out, err)
		}
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("%q became %q", in, out)
		}
		if scan(out, 0, 0) != len(out) {
			t.Fatalf("%q is not canonical to scan", out)
		}
		e := encoder{src: out}
		if err := e.document(); err != nil || !bytes.Equal(e.dst, out) {
			t.Fatalf("%q is not canonical to encoder: %v", out, err)
		}
		if relaxed, err := Relaxed(out); err != nil || !bytes.Equal(relaxed, out) {
			t.Fatalf("Relaxed changed %q to %q: %v", out, relaxed, err)
		}
		members, err := Members(nil, in, Whole)
		if IsObject(out) != (err == nil) {
			t.Fatalf("Members: %v", err)
		}
		if err == nil && !bytes.Equal(Object(nil, members, nil), out) {
			t.Fatalf("Members gave %q, want %q", Object(nil, members, nil), out)
		}
	})
}

// FuzzRelaxed checks that the relaxed form is its own relaxed form and takes
// whatever Canonical takes.
func FuzzRelaxed(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := Relaxed(in)
		if err != nil {
			if strict, err := Enforced(in); err == nil {
				t.Fatalf("Enforced took %q as %q", in, strict)
			}
			return
		}
		again, err := Relaxed(out)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("%q became %q, then %q: %v", in, out, again, err)
		}
	})
}

// FuzzFields checks that the readers neither panic nor loop on any bytes, and
// that they find every member of a canonical object again.
func FuzzFields(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		for k, v := range Fields(in) {
			Key(k)
			Text(v)
			Int(v)
			for range Elements(v) {
			}
		}
		for range Elements(in) {
		}
		members, err := Members(nil, in, Whole)
		if err != nil {
			return
		}
		i := 0
		for k, v := range Fields(Object(nil, members, nil)) {
			if i >= len(members) || !bytes.Equal(members[i].Key, k) || !bytes.Equal(members[i].Value, v) {
				t.Fatalf("member %d: %s=%s", i, k, v)
			}
			i++
		}
		if i != len(members) {
			t.Fatalf("%d of %d members", i, len(members))
		}
	})
}

// TestOracle compares with another implementation where that one is right: it
// checks neither numbers nor duplicate keys.
func TestOracle(t *testing.T) {
	for _, in := range []string{
		`{ "z" : [ 1 , { "y" : "\u65e5\n" , "x" : -5 } ] , "a" : { } , "é" : "<&>\/" }`,
		`{"type":"m.room.member","sender":"@a:b","content":{"membership":"join","displayname":"A \u0022x\u0022"},"depth":12}`,
		`[{"b":1,"a":[true,false,null,"\ud83d\ude00"]},"\t",""]`,
	} {
		want := json.RawMessage(in)
		if err := canonicaljson.Canonicalize(&want); err != nil {
			t.Fatal(err)
		}
		if got, err := Canonical([]byte(in)); err != nil || string(got) != string(want) {
			t.Errorf("got  %s, %v\nwant %s", got, err, want)
		}
	}
}

func benchmarkInput(canonical bool) []byte {
	in := []byte(`{"type":"m.room.message","sender":"@alice:example.org","content":{"msgtype":"m.text","body":"Hello, this is a quite typical message of a typical length, with a bit of text & more.","m.mentions":{"user_ids":["@bob:example.org"]}},"depth":5,"origin_server_ts":1700000000004,"prev_events":["$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg"]}`)
	if canonical {
		in, _ = Canonical(in)
	}
	return in
}

func BenchmarkCanonical(b *testing.B) {
	for _, canonical := range []bool{true, false} {
		b.Run(map[bool]string{true: "already", false: "unsorted"}[canonical], func(b *testing.B) {
			in := benchmarkInput(canonical)
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Canonical(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
