package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"switchboard/voip/calltest"
)

const relayAtHome = `voip:
  provider: builtin
  turn:
    host: 127.0.0.1
    udp: ["127.0.0.1:0"]
    tcp: ["127.0.0.1:0"]
    tls: []
    external_ips: ["127.0.0.1"]
    stun_servers: []
    user_quota: 1
`

// TestDoctorCalls examines the calls of a server that does not run, of one whose
// relay works, and of one that has none.
func TestDoctorCalls(t *testing.T) {
	t.Chdir(t.TempDir())
	write := func(text string) {
		if err := os.WriteFile("switchboard.yaml", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(relayAtHome)
	if status, _, errs := command(t, "", "doctor", "calls"); status != 1 || !strings.Contains(errs, "the server does not run") {
		t.Errorf("status %d, %s", status, errs)
	}
	s := serve(t)
	out := mustCommand(t, "doctor", "calls")
	for _, want := range []string{"ok       turn:127.0.0.1:", "?transport=udp: STUN, allocation, permission and data work", "?transport=tcp: STUN, allocation", "-> ", "0 problems"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	var report calltest.Report
	if err := json.Unmarshal([]byte(mustCommand(t, "doctor", "calls", "--json")), &report); err != nil || report.Count(calltest.Good) < 4 || report.Count(calltest.Problem) != 0 {
		t.Errorf("%v in %+v", err, report)
	}
	s.stop()
	write(relayAtHome + fmt.Sprintf("    one_port: %d\n", freePort(t)))
	s = serve(t)
	if out := mustCommand(t, "doctor", "calls"); !strings.Contains(out, "all calls share UDP port") || !strings.Contains(out, "?transport=tcp: STUN, allocation, permission and data work") {
		t.Errorf("with one port: %s", out)
	}
	s.stop()
	write("voip: {provider: off}\n")
	s = serve(t)
	if status, out, errs := command(t, "", "doctor", "calls"); status != 1 || !strings.Contains(out, "problem  relay: there is none") || !strings.Contains(errs, "1 problem") {
		t.Errorf("without a relay: status %d, %s, %s", status, out, errs)
	}
	s.stop()
}

// TestCallTestLink makes links, which are good once.
func TestCallTestLink(t *testing.T) {
	t.Chdir(t.TempDir())
	link := strings.TrimSpace(mustCommand(t, "calltest", "link", "--lifetime", "1h"))
	page, token, ok := strings.Cut(link, "#link=")
	if !ok || page != "http://127.0.0.1:8008/calltest" || len(token) < 20 {
		t.Fatalf("the link is %q", link)
	}
	s := serve(t)
	for _, want := range []int{200, 403} {
		if status, v := s.ask("POST", "/calltest/session", "", map[string]any{"link": token}); status != want {
			t.Errorf("%d %v, want %d", status, v, want)
		}
	}
	if status, v := s.ask("POST", "/calltest/session", "a foreign token", map[string]any{}); status != 401 {
		t.Errorf("a foreign token: %d %v", status, v)
	}
}
