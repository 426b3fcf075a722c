package calltest

import "testing"

func TestParseURI(t *testing.T) {
	for _, tt := range []struct {
		in, address, transport string // no address: it must be refused
		turn, secure           bool
	}{
		{"turn:turn.example.org?transport=udp", "turn.example.org:3478", "udp", true, false},
		{"turn:192.0.2.1:80?transport=tcp", "192.0.2.1:80", "tcp", true, false},
		{"turns:turn.example.org:443?transport=tcp", "turn.example.org:443", "tcp", true, true},
		{"turns:turn.example.org", "turn.example.org:5349", "tcp", true, true},
		{"turn:[2001:db8::1]", "[2001:db8::1]:3478", "udp", true, false},
		{"stun:[2001:db8::1]:99", "[2001:db8::1]:99", "udp", false, false},
		{"http://example.org", "", "", false, false},
		{"turn:", "", "", false, false},
		{"turn:a:99999", "", "", false, false},
		{"turn:a?transport=sctp", "", "", false, false},
		{"stun:a?transport=udp", "", "", false, false},
		{"turn:[::1", "", "", false, false},
		{"turn:a/b", "", "", false, false},
	} {
		u, err := parseURI(tt.in)
		if tt.address == "" {
			if err == nil {
				t.Errorf("%q was taken as %+v", tt.in, u)
			}
			continue
		}
		if err != nil || u.address() != tt.address || u.transport != tt.transport || u.turn != tt.turn || u.secure != tt.secure {
			t.Errorf("%q: %+v, %v", tt.in, u, err)
		}
	}
}

// FuzzParseURI checks that what is taken can be written and read again as the
// same.
func FuzzParseURI(f *testing.F) {
	for _, s := range []string{"turn:a.example:3478?transport=udp", "turns:[::1]:5349", "stun:192.0.2.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := parseURI(s)
		if err != nil {
			return
		}
		scheme := map[[2]bool]string{{true, true}: "turns:", {true, false}: "turn:", {false, true}: "stuns:", {false, false}: "stun:"}[[2]bool{u.turn, u.secure}]
		text := scheme + u.address()
		if u.turn {
			text += "?transport=" + u.transport
		}
		again, err := parseURI(text)
		again.text = u.text
		if err != nil || again != u {
			t.Errorf("%q is %+v, but %q is %+v, %v", s, u, text, again, err)
		}
	})
}
