package jitsi

import (
	"fmt"
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
)

// check looks at a Jitsi server and gives what is wrong, and whether it is the
// text that is wanted: "" for nothing.
func (m *meet) check(v *Verifier, want string) []Finding {
	m.t.Helper()
	c := Checker{Config: Config{Domain: m.domain}, HTTP: m.http, Verifier: v, PublicURL: "https://matrix.test", TURN: "turn.test", Secrets: []string{"old", "shared"}}
	var wrong []string
	all := c.Run(m.t.Context())
	for _, f := range all {
		if !f.Well {
			wrong = append(wrong, f.String())
		}
	}
	if got := strings.Join(wrong, "\n"); (want == "") != (got == "") || !strings.Contains(got, want) {
		m.t.Errorf("wrong is %q, want %q", got, want)
	}
	return all
}

// TestCheck looks at Jitsi servers that are set up well, and in each way badly.
func TestCheck(t *testing.T) {
	h := newHost(t, "")
	for _, c := range []struct {
		name string
		set  func(*meet)
		want string
	}{
		{"well", func(*meet) {}, ""},
		{"too old", func(m *meet) { m.version = 6602 }, "stable-7882"},
		{"another program", func(m *meet) { m.version = -1 }, "not the start page of Jitsi Meet"},
		{"no configuration", func(m *meet) { delete(m.files, "/config.js") }, "config.js cannot be read"},
		{"a configuration as Debian has it", func(m *meet) {
			m.files["/config.js"] = "var config = {\n    hosts: {\n        // XMPP domain.\n        domain: '" + xmppHost + "',\n"
		}, ""},
		{"not announced", func(m *meet) { delete(m.files, WellKnownPath) }, "not told to prove"},
		{"announced otherwise", func(m *meet) { m.files[WellKnownPath] = `{"auth":"magic"}` }, "does not say"},
		{"not for browsers", func(m *meet) { m.noCORS = true }, "Access-Control-Allow-Origin"},
		{"open to all", func(m *meet) { m.anybody = true }, "AUTH_TYPE=matrix"},
		{"asks nobody", func(m *meet) { m.uvsURL = "https://127.0.0.1:1" }, "MATRIX_UVS_URL=https://matrix.test/_switchboard/jitsi"},
		{"asks with a wrong secret", func(m *meet) { m.secret = "x" }, "MATRIX_UVS_AUTH_TOKEN"},
		{"no relay", func(m *meet) { m.turn = "" }, "TURN_HOST"},
		{"another TURN server", func(m *meet) { m.turn = "other.test" }, ""},
		{"a wrong secret of the TURN server", func(m *meet) { m.password = "x" }, "voip.turn.shared_secrets"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMeet(t, h)
			c.set(m)
			m.check(h.verifier, c.want)
		})
	}
	t.Run("from outside", func(t *testing.T) { newMeet(t, h).check(nil, "while the server runs") })
	t.Run("absent", func(t *testing.T) {
		m := newMeet(t, h)
		m.domain = "127.0.0.1:1"
		m.check(h.verifier, "does not answer")
	})
	t.Run("none", func(t *testing.T) {
		m := newMeet(t, h)
		m.domain = ""
		m.check(h.verifier, "jitsi.domain")
	})
	t.Run("Prosody", func(t *testing.T) {
		m := newMeet(t, h)
		withProsody(t, m)
		if said := fmt.Sprint(m.check(h.verifier, "")); !strings.Contains(said, "turn:turn.test:3478?transport=udp") {
			t.Errorf("the check found no relay: %s", said)
		}
	})
	if len(h.verifier.probes.token) != 0 {
		t.Error("a probe is left")
	}
}

// TestProbe lets the probe of a check into its own room alone.
func TestProbe(t *testing.T) {
	h := newHost(t, "")
	p, end := h.verifier.probes.begin(h.name)
	ask := func(id matrix.RoomID, server matrix.ServerName, want string) {
		t.Helper()
		body := fmt.Sprintf(`{"token":%q,"room_id":%q,"matrix_server_name":%q}`, p.Token, id, server)
		if _, got := h.ask("/verify/user_in_room", h.verifier.Token, body); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	ask(p.Room, p.Server, `"room_membership":true`)
	ask("!other:a.test", p.Server, `"room_membership":false`)
	ask(p.Room, "a.test", `"user":false`)
	end()
	ask(p.Room, p.Server, `"user":false`)
}
