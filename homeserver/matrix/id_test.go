package matrix

import (
	"errors"
	"strings"
	"testing"
)

func TestParseServerName(t *testing.T) {
	for _, good := range []string{
		// The examples of the specification.
		"matrix.org", "matrix.org:8888", "1.2.3.4", "1.2.3.4:1234", "[1234:5678::abcd]", "[1234:5678::abcd]:5678",

		"a", "localhost", "EXAMPLE.org", "a-b.c", "[::]", "[::ffff:1.2.3.4]:1", "a:0", "a:00001", "a:65535", strings.Repeat("a", 230) + ":8448",
	} {
		if got, err := ParseServerName(good); err != nil || string(got) != good {
			t.Errorf("ParseServerName(%q) = %q, %v", good, got, err)
		}
	}
	for _, bad := range []string{
		"", ":", ":80", "a:", "a:x", "a:-1", "a:+1", "a:65536", "a:000001", "a:1:2", "a b", "a_b", "é", "a/b", "a@b", "a\x00", "a\n", "a?",
		"[", "[]", "[]:1", "[::1", "::1", "[::1]x", "[::1]:", "[::1%eth0]", "[1.2.3.4]", "[a]", "[::1]]", strings.Repeat("a", 255),
	} {
		if got, err := ParseServerName(bad); err == nil {
			t.Errorf("ParseServerName(%q) = %q", bad, got)
		}
	}
}

func TestParseUserID(t *testing.T) {
	tests := []struct{ name, in, local, server string }{ // server "" means that in is refused
		{"plain", "@alice:example.org", "alice", "example.org"},
		{"port", "@alice:example.org:8448", "alice", "example.org:8448"},
		{"IPv6", "@alice:[::1]:8448", "alice", "[::1]:8448"},
		{"historical capitals", "@Alice!:example.org", "Alice!", "example.org"},
		{"historical Unicode", "@é \n@:example.org", "é \n@", "example.org"},
		{"historical empty", "@:example.org", "", "example.org"},
		{"longest", "@" + strings.Repeat("a", 242) + ":example.org", strings.Repeat("a", 242), "example.org"},
		{"too long", "@" + strings.Repeat("a", 243) + ":example.org", "", ""},
		{"no server", "@alice", "", ""},
		{"empty server", "@alice:", "", ""},
		{"bad server", "@alice:exa mple", "", ""},
		{"other sigil", "#alice:example.org", "", ""},
		{"no sigil", "alice:example.org", "", ""},
		{"empty", "", "", ""},
		{"sigil", "@", "", ""},
		{"NUL", "@a\x00:example.org", "", ""},
		{"invalid UTF-8", "@\xff:example.org", "", ""},
		{"surrogate in UTF-8", "@\xed\xa0\x80:example.org", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u, err := ParseUserID(tt.in)
			if tt.server == "" {
				var e *Error
				if !errors.As(err, &e) || e.Code != InvalidParam {
					t.Fatalf("ParseUserID(%q) = %q, %v, want M_INVALID_PARAM", tt.in, u, err)
				}
				return
			}
			if err != nil || u.Localpart() != tt.local || string(u.Server()) != tt.server {
				t.Errorf("got %q and %q, %v", u.Localpart(), u.Server(), err)
			}
			if again := NewUserID(u.Localpart(), u.Server()); again != u {
				t.Errorf("joined again: %q", again)
			}
		})
	}
}

func TestParseOthers(t *testing.T) {
	parse := map[string]func(string) (string, error){
		"room":  func(s string) (string, error) { r, err := ParseRoomID(s); return string(r), err },
		"event": func(s string) (string, error) { e, err := ParseEventID(s); return string(e), err },
		"alias": func(s string) (string, error) { a, err := ParseRoomAlias(s); return string(a), err },
	}
	tests := []struct {
		kind, in string
		ok       bool
	}{
		{"room", "!abc:example.org", true}, {"room", "!Nhcu5BS-UMnFX7hBVfVSoXiD7OgH6iRT-xyIuqDnpYQ", true}, {"room", "!é:a", true},
		{"room", "!", false}, {"room", "", false}, {"room", "#a:b", false}, {"room", "!a\x00:b", false}, {"room", "!\xff", false},
		{"room", "!" + strings.Repeat("a", 254), true}, {"room", "!" + strings.Repeat("a", 255), false},
		{"event", "$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg", true}, {"event", "$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk", true},
		{"event", "$a:b", true}, {"event", "$", false}, {"event", "", false}, {"event", "a", false}, {"event", "$" + strings.Repeat("a", 255), false},
		{"alias", "#room:example.org", true}, {"alias", "#é room/#!:example.org:1", true}, {"alias", "#:example.org", false},
		{"alias", "#room", false}, {"alias", "room:example.org", false}, {"alias", "#room:", false}, {"alias", "#a\x00:b", false},
		{"alias", "#" + strings.Repeat("a", 250) + ":b.cd", false},
	}
	for _, tt := range tests {
		got, err := parse[tt.kind](tt.in)
		if (err == nil) != tt.ok || tt.ok && got != tt.in {
			t.Errorf("%s %q: %q, %v", tt.kind, tt.in, got, err)
		}
	}
	if a := RoomAlias("#x:y:1"); a.Localpart() != "x" || a.Server() != "y:1" {
		t.Errorf("alias parts %q and %q", a.Localpart(), a.Server())
	}
	if r := RoomID("!x"); r.Server() != "" || RoomID("!x:y").Server() != "y" || EventID("$x").Server() != "" || EventID("$x:y").Server() != "y" {
		t.Error("wrong servers")
	}
	if UserID("").Localpart() != "" || UserID("").Server() != "" {
		t.Error("the empty user has parts")
	}
}

func TestValidLocalpart(t *testing.T) {
	for local, want := range map[string]bool{
		"alice": true, "a.b_c=d-e/f+9": true, strings.Repeat("a", 242): true,
		"": false, "Alice": false, "a b": false, "é": false, "a:b": false, "a!": false, "a\x00": false, strings.Repeat("a", 243): false,
	} {
		if got := ValidLocalpart(local, "example.org"); got != want {
			t.Errorf("ValidLocalpart(%q) = %v", local, got)
		}
	}
}

// FuzzParseUserID checks that the parts of an accepted ID make up that ID again,
// so no byte is lost or moved between user and server.
func FuzzParseUserID(f *testing.F) {
	for _, s := range []string{"@alice:example.org", "@:a", "@a:b:c", "alice", "@a:[::1]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseUserID(s)
		if err != nil {
			return
		}
		if again := NewUserID(u.Localpart(), u.Server()); string(again) != s {
			t.Errorf("%q came back as %q", s, again)
		}
		if _, err := ParseServerName(string(u.Server())); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	})
}
