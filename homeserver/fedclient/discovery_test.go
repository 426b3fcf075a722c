package fedclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"switchboard/homeserver/matrix"
)

// seen is what a server got.
type seen struct{ host, sni, path string }

// delegating answers /.well-known/matrix/server, and everything else as the
// version of a program.
func delegating(to string, got chan<- seen) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/.well-known/matrix/server" {
			if to == "" {
				http.NotFound(w, r)
				return
			}
			fmt.Fprintf(w, `{"m.server":%q}`, to)
			return
		}
		if got != nil {
			got <- seen{r.Host, r.TLS.ServerName, r.URL.Path}
		}
		_, _ = io.WriteString(w, `{"server":{"name":"peer","version":"1"}}`)
	})
}

// TestDiscovery goes through the steps of the specification. Each server is
// asked for its version, and tells what it saw.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names
func TestDiscovery(t *testing.T) {
	type srv = net.SRV
	tests := []struct {
		step      string
		server    string
		delegate  string // what https://server.test/.well-known says; "": 404
		records   map[string][]*srv
		at        string // where the server really is
		names     string // on its certificate
		host, sni string // that it should see
	}{
		{"1 IPv4", "5.5.5.1", "", nil, "5.5.5.1:8448", "5.5.5.1", "5.5.5.1", ""},
		{"1 IPv4 and port", "5.5.5.1:1234", "", nil, "5.5.5.1:1234", "5.5.5.1", "5.5.5.1:1234", ""},
		{"1 IPv6", "[2606:4700::1]", "", nil, "[2606:4700::1]:8448", "2606:4700::1", "[2606:4700::1]", ""},
		{"1 IPv6 and port", "[2606:4700::1]:1234", "", nil, "[2606:4700::1]:1234", "2606:4700::1", "[2606:4700::1]:1234", ""},
		{"2", "server.test:1234", "other.test", map[string][]*srv{"_matrix-fed._tcp.server.test": {{Target: "other.test.", Port: 1}}},
			"5.5.5.2:1234", "server.test", "server.test:1234", "server.test"},
		{"3.1", "server.test", "5.5.5.3", nil, "5.5.5.3:8448", "5.5.5.3", "5.5.5.3", ""},
		{"3.1 port", "server.test", "5.5.5.3:443", nil, "5.5.5.3:443", "5.5.5.3", "5.5.5.3:443", ""},
		{"3.1 IPv6", "server.test", "[2606:4700::3]", nil, "[2606:4700::3]:8448", "2606:4700::3", "[2606:4700::3]", ""},
		{"3.2", "server.test", "other.test:1234", map[string][]*srv{"_matrix-fed._tcp.other.test": {{Target: "srv.test.", Port: 1}}},
			"5.5.5.4:1234", "other.test", "other.test:1234", "other.test"},
		{"3.3", "server.test", "other.test", map[string][]*srv{
			"_matrix-fed._tcp.other.test": {{Target: "srv.test.", Port: 99}}, "_matrix._tcp.other.test": {{Target: "old.test.", Port: 1}},
			"_matrix-fed._tcp.server.test": {{Target: "old.test.", Port: 1}},
		}, "5.5.5.5:99", "other.test", "other.test", "other.test"},
		{"3.4", "server.test", "other.test", map[string][]*srv{"_matrix._tcp.other.test": {{Target: "srv.test.", Port: 99}}},
			"5.5.5.5:99", "other.test", "other.test", "other.test"},
		{"3.5", "server.test", "other.test", nil, "5.5.5.4:8448", "other.test", "other.test", "other.test"},
		{"4", "server.test", "", map[string][]*srv{
			"_matrix-fed._tcp.server.test": {{Target: "srv.test.", Port: 99}}, "_matrix._tcp.server.test": {{Target: "old.test.", Port: 1}},
		}, "5.5.5.5:99", "server.test", "server.test", "server.test"},
		{"5", "server.test", "", map[string][]*srv{"_matrix._tcp.server.test": {{Target: "srv.test.", Port: 99}}},
			"5.5.5.5:99", "server.test", "server.test", "server.test"},
		{"6", "server.test", "", nil, "5.5.5.2:8448", "server.test", "server.test", "server.test"},
		{"6 after a bad answer", "server.test", "not a name", nil, "5.5.5.2:8448", "server.test", "server.test", "server.test"},
		{"6 after port 0", "server.test", "other.test:0", nil, "5.5.5.2:8448", "server.test", "server.test", "server.test"},
		{"2 for port 443", "server.test:443", "other.test", nil, "5.5.5.2:443", "server.test", "server.test:443", "server.test"},
	}
	st := sqlite(t)
	for _, tt := range tests {
		t.Run(tt.step, func(t *testing.T) {
			n := newInternet(t)
			n.host("server.test", "5.5.5.2")
			n.host("other.test", "5.5.5.4")
			n.host("srv.test", "5.5.5.5")
			n.records = tt.records
			got := make(chan seen, 1)
			if tt.at != "5.5.5.2:443" {
				n.serve("5.5.5.2:443", delegating(tt.delegate, nil), "server.test")
			}
			n.serve(tt.at, delegating(tt.delegate, got), tt.names)
			c := n.client(st, n.config()).Insisting()
			if _, err := c.Version(t.Context(), matrix.ServerName(tt.server)); err != nil {
				t.Fatal(err)
			}
			if s := <-got; s != (seen{tt.host, tt.sni, "/_matrix/federation/v1/version"}) {
				t.Errorf("the server saw %+v, want host %q and SNI %q", s, tt.host, tt.sni)
			}
		})
	}
}

// TestDiscoveryNames has servers that do not have the certificate that the
// step demands.
func TestDiscoveryNames(t *testing.T) {
	tests := []struct {
		name     string
		delegate string
		srv      bool
		names    string
		until    time.Duration
	}{
		{"another host", "", false, "other.test", time.Hour},
		{"delegated, but certified for the delegating host", "other.test", false, "server.test", time.Hour},
		{"SRV, but certified for its target", "", true, "other.test", time.Hour},
		{"delegated to an address, but certified for a name", "5.5.5.4", false, "server.test", time.Hour},
		{"expired", "", true, "server.test", -time.Minute},
	}
	st := sqlite(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newInternet(t)
			n.host("server.test", "5.5.5.4")
			n.host("other.test", "5.5.5.4")
			n.serve("5.5.5.4:443", delegating(tt.delegate, nil), "server.test")
			n.serveUntil("5.5.5.4:8448", delegating("", nil), time.Now().Add(tt.until), tt.names)
			if tt.srv {
				n.records["_matrix-fed._tcp.server.test"] = []*net.SRV{{Target: "other.test.", Port: 8448}}
			}
			_, err := n.client(st, n.config()).Insisting().Version(t.Context(), "server.test")
			var gone *UnreachableError
			if !errors.As(err, &gone) || gone.Server != "server.test" || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestDiscoveryTriesAllTargets has SRV records with hosts that are down, that
// have no certificate, and one that works.
func TestDiscoveryTriesAllTargets(t *testing.T) {
	n := newInternet(t)
	n.host("down.test", "5.5.5.1")
	n.host("wrong.test", "5.5.5.2")
	n.host("inside.test", "10.0.0.1")
	n.host("up.test", "5.5.5.3", "2606:4700::3")
	n.records["_matrix-fed._tcp.server.test"] = []*net.SRV{
		{Target: "up.test.", Port: 1, Priority: 50}, {Target: "wrong.test.", Port: 1, Priority: 3}, {Target: "gone.test.", Port: 1, Priority: 2},
		{Target: "down.test.", Port: 1, Priority: 1}, {Target: "inside.test.", Port: 1, Priority: 4},
	}
	n.serve("5.5.5.2:1", delegating("", nil), "wrong.test")
	n.serve("[2606:4700::3]:1", delegating("", nil), "server.test")
	c := n.client(sqlite(t), n.config())
	v, err := c.Version(t.Context(), "server.test")
	if err != nil || v.Name != "peer" {
		t.Fatalf("%v, %v", v, err)
	}
	// The host of server.test has no address and so no .well-known.
	want := []string{"5.5.5.1:1", "5.5.5.2:1", "5.5.5.3:1", "[2606:4700::3]:1"}
	if list := n.connected(); !slices.Equal(list, want) {
		t.Errorf("connected to %v, want %v", list, want)
	}
}

func TestDiscoveryNoService(t *testing.T) {
	n := newInternet(t)
	n.host("server.test", "5.5.5.1")
	n.serve("5.5.5.1:8448", delegating("", nil), "server.test")
	n.records["_matrix-fed._tcp.server.test"] = []*net.SRV{{Target: "."}}
	if _, err := n.client(sqlite(t), n.config()).Version(t.Context(), "server.test"); !errors.Is(err, ErrNoService) {
		t.Errorf("%v", err)
	}
}

func TestDiscoveryRefusesNames(t *testing.T) {
	n := newInternet(t)
	c := n.client(sqlite(t), n.config()).Insisting()
	for _, name := range []string{"", "a b", "a.test:0", "a/b", "a.test:70000", "user@a.test", "a.test#"} {
		if dest, err := c.Find(t.Context(), matrix.ServerName(name)); err == nil {
			t.Errorf("%q: %v", name, dest)
		}
	}
	for _, name := range []string{"127.0.0.1", "10.0.0.1:8448", "[::1]:8448", "169.254.169.254:80"} {
		if _, err := c.Version(t.Context(), matrix.ServerName(name)); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if list := n.connected(); len(list) > 0 {
		t.Errorf("connected to %v", list)
	}
}

// TestOrderRecords checks RFC 2782: priorities in order, and weights by chance.
func TestOrderRecords(t *testing.T) {
	records := []*net.SRV{
		{Target: "c.", Port: 3, Priority: 20, Weight: 1},
		{Target: "a.", Port: 1, Priority: 10, Weight: 0},
		{Target: "b.", Port: 2, Priority: 10, Weight: 90},
		{Target: "d.", Port: 0, Priority: 1}, {Target: ".", Port: 4, Priority: 1}, // unusable
	}
	first := map[string]int{}
	for range 10_000 {
		got := orderRecords(records)
		if len(got) != 3 || got[2] != (Target{"c", 3}) {
			t.Fatalf("%v", got)
		}
		first[got[0].Host]++
	}
	if first["a"] == 0 || first["a"] > 1000 || first["b"] < 9000 {
		t.Errorf("first of 10000: %v, want a in about 1 of 91", first)
	}
	var many []*net.SRV
	for range 50 {
		many = append(many, &net.SRV{Target: "x.", Port: 1})
	}
	if got := orderRecords(many); len(got) != maxTargets {
		t.Errorf("%d targets", len(got))
	}
	if orderRecords(nil) != nil {
		t.Error("targets out of nothing")
	}
}

func TestSplitName(t *testing.T) {
	for in, want := range map[string]string{
		"a.test": "a.test 0 false", "a.test:1": "a.test 1 true", "1.2.3.4:80": "1.2.3.4 80 true", "[::1]": "::1 0 false", "[::1]:5": "::1 5 true",
		"a.test:00080": "a.test 80 true",
	} {
		host, port, explicit := splitName(matrix.ServerName(in))
		if got := fmt.Sprint(host, " ", port, " ", explicit); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestLifetime(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	tests := []struct {
		header string
		want   time.Duration
	}{
		{"", defaultWellKnown},
		{"Cache-Control: max-age=3600", time.Hour},
		{`Cache-Control: public, MAX-AGE="7200"`, 2 * time.Hour},
		{"Cache-Control: max-age=60", shortWellKnown},
		{"Cache-Control: max-age=9999999", longWellKnown},
		{"Cache-Control: max-age=99999999999999999999999", longWellKnown},
		{"Cache-Control: max-age=-1", shortWellKnown},
		{"Cache-Control: max-age=x", shortWellKnown},
		{"Cache-Control: max-age", shortWellKnown},
		{"Cache-Control: no-store", shortWellKnown},
		{"Cache-Control: max-age=3600, no-cache", shortWellKnown},
		{"Cache-Control: max-age=3600|Cache-Control: max-age=7200", time.Hour},
		{"Cache-Control: private", defaultWellKnown},
		{"Cache-Control: max-age=7200|Age: 3600", time.Hour},
		{"Cache-Control: max-age=7200|Age: x", 2 * time.Hour},
		{"Cache-Control: max-age=3600|Expires: " + at(10*time.Hour), time.Hour},
		{"Expires: " + at(2*time.Hour), 2 * time.Hour},
		{"Date: " + at(-time.Hour) + "|Expires: " + at(time.Hour), 2 * time.Hour},
		{"Expires: 0", shortWellKnown},
		{"Expires: Mon, 01 Jan 0001 00:00:00 GMT|Age: 2000000000", shortWellKnown},
		{"Expires: Fri, 31 Dec 9999 23:59:59 GMT", longWellKnown},
	}
	for _, tt := range tests {
		h := http.Header{}
		for line := range strings.SplitSeq(tt.header, "|") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				h.Add(name, value)
			}
		}
		if got := lifetime(h, now); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.header, got, tt.want)
		}
	}
}

// FuzzWellKnown checks that what is accepted is a server name that can be
// reached, and that the body has it under the one right key.
func FuzzWellKnown(f *testing.F) {
	for _, s := range []string{`{"m.server":"a.test:443"}`, `{"M.server":"a.test"}`, `{"m.server":null}`, `[]`, `{"m.server":"[::1]:1","m.server":"b"}`, `{"m.server":"a:0"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		server, err := parseWellKnown(body)
		if err != nil {
			return
		}
		var exact map[string]any
		if err := json.Unmarshal(body, &exact); err != nil || exact["m.server"] != string(server) {
			t.Errorf("%q became %q", body, server)
		}
		host, port, explicit := splitName(server)
		again := host
		if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
			again = "[" + host + "]"
		}
		if again != server.Host() || explicit && port == 0 || strings.ContainsAny(host, "/@? \r\n\x00") {
			t.Errorf("%q: host %q, port %d", server, host, port)
		}
	})
}

// wellKnownHost is a host whose .well-known the test changes.
type wellKnownHost struct {
	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request)
	asked  atomic.Int64
}

func (h *wellKnownHost) set(f func(w http.ResponseWriter, r *http.Request)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = f
}

func (h *wellKnownHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.asked.Add(1)
	h.mu.Lock()
	f := h.answer
	h.mu.Unlock()
	f(w, r)
}

func says(body string, headers ...string) func(w http.ResponseWriter, r *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		_, _ = io.WriteString(w, body)
	}
}

func TestWellKnownIsKept(t *testing.T) {
	n := newInternet(t)
	n.host("server.test", "5.5.5.1")
	h := &wellKnownHost{}
	n.serve("5.5.5.1:443", h, "server.test")
	c := n.client(sqlite(t), n.config())
	clock := newClock().rule(c, nil)
	find := func(want string, asked int64) {
		t.Helper()
		dest, err := c.Find(t.Context(), "server.test")
		if err != nil || dest.Host != want || h.asked.Load() != asked {
			t.Errorf("found %q, %v, asked %d times; want %q, %d", dest.Host, err, h.asked.Load(), want, asked)
		}
	}
	h.set(says(`{"m.server":"a.test:1"}`, "Cache-Control", "max-age=3600"))
	find("a.test:1", 1)
	h.set(says(`{"m.server":"b.test:1"}`, "Cache-Control", "max-age=3600"))
	clock.forward(59 * time.Minute)
	find("a.test:1", 1)
	clock.forward(2 * time.Minute)
	find("b.test:1", 2)

	// While the host is down, what it said holds, and it is asked ever more
	// seldom.
	h.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	clock.forward(61 * time.Minute)
	find("b.test:1", 3)
	clock.forward(61 * time.Second)
	find("b.test:1", 4)
	clock.forward(61 * time.Second)
	find("b.test:1", 4)
	clock.forward(60 * time.Second)
	find("b.test:1", 5)
	for range 3 {
		clock.forward(61 * time.Minute)
		find("b.test:1", h.asked.Load()+1)
	}

	// It does not hold for ever, nor against a definite answer.
	clock.forward(48 * time.Hour)
	find("server.test", h.asked.Load()+1)
	h.set(says(`{"m.server":"c.test:1"}`))
	clock.forward(61 * time.Minute)
	find("c.test:1", h.asked.Load()+1)
	clock.forward(25 * time.Hour)
	h.set(func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) })
	find("server.test", h.asked.Load()+1)
	clock.forward(9 * time.Minute)
	find("server.test", h.asked.Load())
	clock.forward(2 * time.Minute)
	find("server.test", h.asked.Load()+1)
}

// TestWellKnownHostile has hosts that answer with what they should not. None of
// them may delegate, and none may hold anybody up for long.
func TestWellKnownHostile(t *testing.T) {
	n := newInternet(t)
	n.host("server.test", "5.5.5.1")
	n.host("plain.test", "5.5.5.2")
	n.host("inside.test", "10.0.0.1")
	n.host("good.test", "5.5.5.3")
	h := &wellKnownHost{}
	n.serve("5.5.5.1:443", h, "server.test")
	n.serve("5.5.5.3:443", http.HandlerFunc(says(`{"m.server":"good.test:1"}`)), "good.test")
	redirect := func(to string) func(w http.ResponseWriter, r *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	endless := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"x":"`)
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	}
	slow := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, " ")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	}
	tests := []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		want   string
	}{
		{"no JSON", says(`hello`), "server.test"},
		{"an array", says(`["a.test"]`), "server.test"},
		{"no m.server", says(`{"m.homeserver":"a.test"}`), "server.test"},
		{"another case", says(`{"M.SERVER":"a.test"}`), "server.test"},
		{"a number", says(`{"m.server":1}`), "server.test"},
		{"a URL", says(`{"m.server":"https://a.test/"}`), "server.test"},
		{"too large", says(`{"m.server":"a.test:1","x":"` + strings.Repeat("x", maxWellKnown) + `"}`), "server.test"},
		{"endless", endless, "server.test"},
		{"slow", slow, "server.test"},
		{"another status", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"m.server":"a.test"}`)
		}, "server.test"},
		{"a loop", redirect("https://server.test/.well-known/matrix/server"), "server.test"},
		{"redirect to plain HTTP", redirect("http://plain.test/"), "server.test"},
		{"redirect inside", redirect("https://inside.test/"), "server.test"},
		{"redirect to an address inside", redirect("https://169.254.169.254/"), "server.test"},
		{"a good redirect", redirect("https://good.test/elsewhere"), "good.test:1"},
		{"another content type", says(`{"m.server":"a.test:1"}`, "Content-Type", "text/plain"), "a.test:1"},
	}
	st := sqlite(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h.set(tt.answer)
			c := n.client(st, n.config())
			if tt.name == "endless" || tt.name == "slow" {
				c.discovery.http.Timeout = 300 * time.Millisecond
			}
			dest, err := c.Find(t.Context(), "server.test")
			if err != nil || dest.Host != tt.want {
				t.Errorf("%v, %v, want %s", dest, err, tt.want)
			}
		})
	}
	if list := n.connected(); slices.ContainsFunc(list, func(a string) bool {
		return !strings.HasPrefix(a, "5.5.5.1:443") && !strings.HasPrefix(a, "5.5.5.3:443")
	}) {
		t.Errorf("connected to %v", list)
	}
}

// TestDiscoveryCoalesces has many callers at once, of whom the first gives up.
func TestDiscoveryCoalesces(t *testing.T) {
	n := newInternet(t)
	n.host("server.test", "5.5.5.1")
	h := &wellKnownHost{}
	hold := make(chan struct{})
	h.set(func(w http.ResponseWriter, _ *http.Request) {
		<-hold
		_, _ = io.WriteString(w, `{"m.server":"a.test:1"}`)
	})
	n.serve("5.5.5.1:443", h, "server.test")
	c := n.client(sqlite(t), n.config())
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := c.Find(ctx, "server.test")
		first <- err
	}()
	for h.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if dest, err := c.Find(t.Context(), "server.test"); err != nil || dest.Host != "a.test:1" {
				t.Errorf("%v, %v", dest, err)
			}
		})
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up got %v", err)
	}
	close(hold)
	group.Wait()
	if n := h.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}
