package packed

import (
	"bytes"
	"strings"
	"testing"
)

const room = "!iBqFJOCMQhjZPKVnAS:example.org"

var alice = Known{room, "@alice:example.org"}

// member is an event as servers send it.
var member = `{"auth_events":["$1pzbPGMDrFJ3OQpVvTwDQLm9Jz3vRVFnW3Kx2z0vYRE","$Ba7cPGMDrFJ3OQpVvTwDQLm9Jz3vRVFnW3Kx2z0vYRE"],` +
	`"content":{"avatar_url":"mxc://example.org/SEsfnsuifSDFSSEF","displayname":"Alice Margatroid","membership":"join"},"depth":12345,` +
	`"hashes":{"sha256":"thishashcoversallfieldsincasethisisredactedA"},"origin_server_ts":1404838188000,` +
	`"prev_events":["$0pzbPGMDrFJ3OQpVvTwDQLm9Jz3vRVFnW3Kx2z0vYRE"],"room_id":"` + room + `","sender":"@alice:example.org",` +
	`"signatures":{"example.org":{"ed25519:a_KeyX":"` + strings.Repeat("AbCd", 21) + `Ag"}},"state_key":"@alice:example.org","type":"m.room.member"}`

func TestRoundTrip(t *testing.T) {
	tests := []struct {
		name, in string
		most     int // bytes of the packed form
		known    Known
	}{
		{"nothing", "", 1, alice},
		{"empty object", "{}", 2, alice},
		{"a member", member, 300, alice},
		{"another room", strings.Replace(member, room, "!other:example.org", 1), 320, alice},
		{"control characters", "{\"a\":\"\x01\"}", 10, alice},
		{"broken UTF-8", "{\"a\":\"\xff\xc0\"}", 10, alice},
		{"base64 with bits at its end", `"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB"`, 46, alice},
		{"numbers", `[0,-1,1234,00001234,-98765.43210e12345,99999999999999999999,184467440737095516150]`, 82, alice},
		{"escapes", `{"sender":"@a\"b:c\\","state_key":"@a\"b:c\\"}`, 40, Known{"", `@a"b:c\`}},
		{"two senders", `{"sender":"@a:b","sender":"@c:d","x":"@a:b","y":"b"}`, 52, Known{Sender: "@a:b"}},
		{"a sender without a server", `{"sender":"@a","x":"@a","y":""}`, 31, Known{Sender: "@a"}},
		{"an unfinished string", `{"sender":"@a:b\`, 20, Known{}},
		{"the longest number", `[999999999999999999]`, 13, alice},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			short := Append(nil, []byte(tt.in), tt.known)
			if len(short) > tt.most {
				t.Errorf("%d bytes became %d, want at most %d: %q", len(tt.in), len(short), tt.most, short)
			}
			got, err := Expand([]byte("before "), short, tt.known)
			if err != nil || string(got) != "before "+tt.in {
				t.Errorf("%q came back as %q, %v", tt.in, got, err)
			}
		})
	}
}

// TestForm holds the form to what was written before: databases have it.
func TestForm(t *testing.T) {
	const in = `{"auth_events":["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],"content":{"body":"é"},"depth":1000,"sender":"@a:b","state_key":"@a:b","x":"b"}`
	want := "\x08\x01\x20" + strings.Repeat("\x00", 32) + "\x18é\x07\x1b\x03\xe8\x07,\x07\x4f\x05\x07\x50\x05\x07\x60x\x07\x5f\x06\x07\x1d"
	if got := Append(nil, []byte(in), Known{room, "@a:b"}); string(got) != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if phrases[len(phrases)-1].text != "false" || len(phrases) != 101 {
		t.Errorf("there are %d phrases; new ones belong at the end, and into this test", len(phrases))
	}
}

func TestMalformed(t *testing.T) {
	for _, in := range []string{"\x01", "\x01\x05ab", "\x02\xff", "\x03", "\x07\xff\x7f", "a\x00b"} {
		if got, err := Expand(nil, []byte(in), alice); err == nil {
			t.Errorf("%q was expanded to %q", in, got)
		}
	}
}

// FuzzRoundTrip checks that every text comes back as it was.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte(member), room, "@alice:example.org")
	f.Add([]byte(`{"sender":"@a:b","b":["b","@a:b",1234567]}`), "b", "@a:b")
	f.Add([]byte("\x00"), "", "")
	f.Fuzz(func(t *testing.T, in []byte, room, sender string) {
		k := Known{room, sender}
		got, err := Expand(nil, Append(nil, in, k), k)
		if err != nil || !bytes.Equal(got, in) {
			t.Fatalf("%q came back as %q, %v", in, got, err)
		}
	})
}

// FuzzExpand checks that no bytes do harm.
func FuzzExpand(f *testing.F) {
	f.Add(Append(nil, []byte(member), alice))
	f.Add([]byte("\x05\x07\x06"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if got, err := Expand(nil, in, alice); err != nil && got != nil {
			t.Fatalf("%q was expanded to %q and %v", in, got, err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	in := []byte(member)
	buf := Append(nil, in, alice)
	b.ReportMetric(float64(len(buf)), "bytes")
	for b.Loop() {
		buf = Append(buf[:0], in, alice)
	}
}

func BenchmarkExpand(b *testing.B) {
	in := Append(nil, []byte(member), alice)
	var buf []byte
	for b.Loop() {
		buf, _ = Expand(buf[:0], in, alice)
	}
}
