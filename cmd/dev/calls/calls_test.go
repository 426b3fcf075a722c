package calls

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"switchboard/cmd/dev/chromium"
	"switchboard/cmd/dev/instance"
)

// phone makes what the browsers run: page/phone.js with its library.
func phone(t *testing.T) string {
	t.Helper()
	if os.Getenv("SWITCHBOARD_TEST_CALLS") == "" {
		t.Skip("SWITCHBOARD_TEST_CALLS is not set, as \"make calls\" sets it")
	}
	file := filepath.Join(t.TempDir(), "phone.js")
	cmd := exec.Command("page/node_modules/.bin/esbuild", "page/phone.js", "--bundle", "--format=iife", "--define:global=globalThis", "--log-level=error", "--outfile="+file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("bundle the page: %v\n%s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// page opens a page of the server in a browser, which is started by a command in
// front of it and has a camera and a microphone.
func (s *server) page(t *testing.T, before []string, path string) *chromium.Page {
	t.Helper()
	return chromium.Start(t, before, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required",
		"--allow-loopback-in-peer-connection", "--ignore-certificate-errors-spki-list="+s.fingerprint).Open(s.url + path)
}

// person is somebody with a browser.
type person struct {
	*chromium.Page
	t    testing.TB
	name string
	urls []string // of the TURN servers
}

// person logs in. Policy is which paths calls may take: "relay", "all" or
// "direct".
func (s *server) person(t *testing.T, before []string, script, name, policy string) *person {
	t.Helper()
	p := &person{Page: s.page(t, before, "/_matrix/client/versions"), t: t, name: name}
	p.Eval(script+"\ntrue", nil)
	p.Eval(fmt.Sprintf("phone.login(%q, %q, %q)", name, password, policy), &p.urls)
	return p
}

// report is what a browser tells of its call.
type report struct {
	State, Reason string
	Ended         bool
	Trouble       []string
	Path          struct{ Local, RelayProtocol, URL, Remote string }
	Audio, Video  struct {
		Packets, Energy, Frames, Width float64
	}
}

// flows tells whether sound is heard and pictures are seen, and on which path.
func (r report) flows() bool {
	return r.State == "connected" && r.Path.Local != "" && r.Audio.Packets > 100 && r.Audio.Energy > 0 && r.Video.Packets > 100 && r.Video.Frames > 30 && r.Video.Width > 0
}

// await asks for reports until one is as wanted.
func (p *person) await(what string, ok func(report) bool) report {
	p.t.Helper()
	for end := time.Now().Add(chromium.Patience); ; time.Sleep(200 * time.Millisecond) {
		var r report
		p.Eval("phone.report()", &r)
		if ok(r) {
			return r
		}
		if time.Now().After(end) {
			p.t.Fatalf("%s does not see that %s, but %+v\nthe console of the page:\n%s", p.name, what, r, p.Console())
		}
	}
}

// meet makes a room of two.
func meet(alice, bob *person) (room string) {
	alice.t.Helper()
	alice.Eval(`phone.room("@bob:calls.test")`, &room)
	bob.Eval(fmt.Sprintf("phone.join(%q)", room), nil)
	for end := time.Now().Add(chromium.Patience); ; time.Sleep(100 * time.Millisecond) {
		var here, there int
		alice.Eval(fmt.Sprintf("phone.members(%q)", room), &here)
		bob.Eval(fmt.Sprintf("phone.members(%q)", room), &there)
		if here == 2 && there == 2 {
			return room
		}
		if time.Now().After(end) {
			alice.t.Fatalf("alice and bob do not see each other in the room")
		}
	}
}

// talk lets alice call bob, waits until both hear and see the other by relays
// that they reach by a protocol, and ends the call.
func talk(t *testing.T, alice, bob *person, protocol string) {
	t.Helper()
	alice.Eval(fmt.Sprintf("phone.dial(%q)", meet(alice, bob)), nil)
	for _, p := range []*person{alice, bob} {
		r := p.await("the call goes on", report.flows)
		if r.Path.Local != "relay" || r.Path.RelayProtocol != protocol {
			t.Errorf("the call of %s takes another path: %+v", p.name, r.Path)
		}
		t.Logf("%s: %+v", p.name, r)
	}
	alice.Eval("phone.hangUp()", nil)
	bob.await("the call is over", func(r report) bool { return r.Ended && r.Reason == "user_hangup" })
}

// TestRelayed places a call over each way to the relays, which share a port or
// not.
func TestRelayed(t *testing.T) {
	script, binary := phone(t), instance.Binary(t)
	for _, c := range []struct {
		name, protocol string
		turn           func(address string) map[string]any
	}{
		{"UDP", "udp", func(at string) map[string]any { return map[string]any{"udp": []string{at}} }},
		{"UDP, one port", "udp", func(at string) map[string]any {
			return map[string]any{"udp": []string{at}, "one_port": port(t, freeAddress(t))}
		}},
		{"TCP", "tcp", func(at string) map[string]any { return map[string]any{"tcp": []string{at}} }},
		{"TLS", "tls", func(at string) map[string]any { return map[string]any{"tls": []string{at}} }},
		{"HTTPS", "tls", func(string) map[string]any { return map[string]any{"https": true} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			turn := map[string]any{"udp": []string{}, "tcp": []string{}, "tls": []string{}, "https": false, "external_ips": []string{"127.0.0.1"}, "min_port": 42000, "max_port": 42300}
			for key, value := range c.turn(freeAddress(t)) {
				turn[key] = value
			}
			s := newServer(t, binary, nil, freeAddress(t), builtin(turn))
			alice, bob := s.person(t, nil, script, "alice", "relay"), s.person(t, nil, script, "bob", "relay")
			if len(alice.urls) == 0 {
				t.Fatal("the server tells of no TURN server")
			}
			t.Logf("the TURN servers are %s", strings.Join(alice.urls, " "))
			talk(t, alice, bob, c.protocol)
		})
	}
}

// port is the port of an address.
func port(t *testing.T, address string) int {
	t.Helper()
	a, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	return a.Port
}
