package fedclient

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestGuard(t *testing.T) {
	refused := []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.1",
		"169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1",
		"198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.7", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::7f00:1", "::127.0.0.1", "::8.8.8.8", // IPv4-compatible
		"::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", // IPv4-mapped
		"64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b:1::8.8.8.8", // NAT64
		"100::1", "2001::1", "2001:0:53aa:64c:0:0:80ff:fffe", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::",
		"3fff::1", "5f00::1", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "4000::1",
	}
	allowed := []string{
		"1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "192.0.1.1", "223.255.255.255",
		"2606:4700::1", "2001:4860:4860::8888", "2a00::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
	}
	var g guard
	for _, s := range refused {
		if err := g.check(netip.MustParseAddr(s)); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v, want it refused", s, err)
		}
	}
	for _, s := range allowed {
		if err := g.check(netip.MustParseAddr(s)); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	if err := g.check(netip.Addr{}); err == nil {
		t.Error("no address is allowed")
	}

	g.allow = prefixes("10.1.0.0/16", "fd00::/8")
	g.deny = prefixes("8.8.8.0/24", "10.1.2.0/24")
	for s, want := range map[string]bool{
		"10.1.1.1": true, "::ffff:10.1.1.1": true, "64:ff9b::10.1.1.1": true, "10.2.1.1": false, "fd00::1": true, "fe80::1": false,
		"8.8.8.8": false, "64:ff9b::8.8.8.8": false, "8.8.4.4": true, "10.1.2.3": false,
	} {
		if err := g.check(netip.MustParseAddr(s)); (err == nil) != want {
			t.Errorf("with lists, %s: %v, want %v", s, err, want)
		}
	}
	g = guard{allow: Everywhere()}
	for _, s := range refused {
		if a := netip.MustParseAddr(s); a.Zone() == "" && g.check(a) != nil {
			t.Errorf("everywhere does not allow %s", s)
		}
	}
}

// FuzzGuard checks that an IPv4 address is judged alike in every way of
// writing it.
func FuzzGuard(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1})
	f.Add([]byte{8, 8, 8, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != 4 {
			return
		}
		var g guard
		plain := netip.AddrFrom4([4]byte(b))
		want := g.check(plain) == nil
		mapped := netip.AddrFrom16(plain.As16())
		through := netip.AddrFrom16([16]byte{0, 0x64, 0xff, 0x9b, 12: b[0], b[1], b[2], b[3]})
		compatible := netip.AddrFrom16([16]byte{12: b[0], b[1], b[2], b[3]})
		if got := g.check(mapped) == nil; got != want {
			t.Errorf("%s: %v, %s: %v", plain, want, mapped, got)
		}
		if got := g.check(through) == nil; got != want {
			t.Errorf("%s: %v, %s: %v", plain, want, through, got)
		}
		if g.check(compatible) == nil {
			t.Errorf("%s is allowed", compatible)
		}
		if ip := net.IP(b); want && (ip.IsPrivate() || ip.IsLoopback() || ip.IsMulticast() || ip.IsLinkLocalUnicast() || ip.IsUnspecified()) {
			t.Errorf("%s is allowed", plain)
		}
	})
}

func TestDialerRefusesNames(t *testing.T) {
	n := newInternet(t)
	n.host("inside.test", "10.0.0.5", "fd00::1")
	n.host("mixed.test", "127.0.0.1", "5.5.5.5")
	d := n.dialer()
	if _, err := d.DialContext(t.Context(), "tcp", "inside.test:80"); !errors.Is(err, ErrRefused) {
		t.Errorf("a name inside: %v", err)
	}
	for _, a := range []string{"127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "[64:ff9b::7f00:1]:80"} {
		if _, err := d.DialContext(t.Context(), "tcp", a); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", a, err)
		}
	}
	if list := n.connected(); len(list) > 0 {
		t.Errorf("connected to %v", list)
	}
	_, err := d.DialContext(t.Context(), "tcp", "mixed.test:80")
	if list := n.connected(); err == nil || !slices.Equal(list, []string{"5.5.5.5:80"}) {
		t.Errorf("%v, connected to %v, want only what is outside", err, list)
	}
	if _, err := d.DialContext(t.Context(), "tcp", "nowhere.test:80"); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("no such name: %v", err)
	}
}

// TestDialerLastMoment checks the rule at the socket, which does not trust the
// look-up.
func TestDialerLastMoment(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	config := DefaultOutboundConfig()
	config.ConnectTimeout = time.Minute
	d := NewDialer(config, nil)
	if c, err := d.connect(t.Context(), "tcp", s.Listener.Addr().String()); !errors.Is(err, ErrRefused) {
		t.Errorf("%v, %v", c, err)
	}
	c, err := d.Unguarded().DialContext(t.Context(), "tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()

	config.Allow = Everywhere()
	resp, err := NewDialer(config, nil).Client(time.Minute).Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

// TestDialerRedirects follows a redirect of a public host to the inside.
func TestDialerRedirects(t *testing.T) {
	n := newInternet(t)
	n.host("page.test", "5.5.5.5")
	n.host("inside.test", "10.0.0.5")
	to := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to == "" {
			_, _ = w.Write([]byte("page"))
			return
		}
		http.Redirect(w, r, to, http.StatusFound)
	}))
	defer s.Close()
	n.ports["5.5.5.5:80"] = s.Listener.Addr().String()
	n.ports["10.0.0.5:80"] = s.Listener.Addr().String()
	client := n.dialer().Client(time.Minute)
	defer client.CloseIdleConnections()
	for _, to = range []string{"http://inside.test/", "http://127.0.0.1/", "http://[::1]/", "http://0x7f.1/"} {
		if resp, err := client.Get("http://page.test/"); err == nil {
			t.Errorf("redirect to %s: %d", to, resp.StatusCode)
		}
	}
	to = "http://page.test/again"
	if _, err := client.Get("http://page.test/"); err == nil || !strings.Contains(err.Error(), "too many redirects") {
		t.Errorf("a loop: %v", err)
	}
	to = ""
	resp, err := client.Get("http://page.test/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if slices.Contains(n.connected(), "10.0.0.5:80") {
		t.Error("connected to the inside")
	}
}

// TestDialerTriesAll has addresses that refuse, that never answer, and one that
// works.
func TestDialerTriesAll(t *testing.T) {
	n := newInternet(t)
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	n.host("many.test", "2606:4700::1", "5.5.5.1", "5.5.5.2", "5.5.5.3")
	d := n.dialer()
	d.stagger = defaultStagger
	d.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
		switch address {
		case "5.5.5.1:1": // a black hole
			<-ctx.Done()
			return nil, ctx.Err()
		case "5.5.5.3:1":
			return (&net.Dialer{}).DialContext(ctx, network, s.Listener.Addr().String())
		}
		return nil, errors.New("refused")
	}
	c, err := d.DialContext(t.Context(), "tcp", "many.test:1")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	n.host("many.test", "5.5.5.2", "5.5.5.4")
	if _, err := d.DialContext(t.Context(), "tcp", "many.test:1"); err == nil {
		t.Error("nobody answers, and there is a connection")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.DialContext(ctx, "tcp", "5.5.5.1:1"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := d.DialContext(t.Context(), "tcp6", "many.test:1"); err == nil {
		t.Error("IPv6 to a host of IPv4")
	}
}

func TestConfigChecks(t *testing.T) {
	if err := errors.Join(DefaultConfig().Check(), DefaultOutboundConfig().Check()); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	bad := Config{
		AllowServers: []string{"a b"}, DenyServers: []string{"evil.test:8448", "*.evil.test"}, RootCA: "/nowhere",
		Notaries: []NotaryConfig{{Server: "!", Keys: map[string]string{"x": "y"}}}, OldKeys: []OldKeyConfig{{ID: "ed25519:1", Public: "AA"}},
		MaxState: -1,
	}
	err := bad.Check()
	for _, key := range []string{
		"allow_servers", "deny_servers", "notaries[0].server", "notaries[0].keys", "old_keys[0]", "old_keys[0].expired_ts", "root_ca",
		"timeout", "max_answer", "max_state", "retry_first",
	} {
		if err == nil || !strings.Contains(err.Error(), "federation."+key+": ") {
			t.Errorf("%s is not found wrong in: %v", key, err)
		}
	}
	if strings.Contains(err.Error(), "*.evil.test") {
		t.Errorf("a pattern is found wrong: %v", err)
	}
	out := OutboundConfig{Allow: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8")}}
	if err := out.Check(); err == nil || !strings.Contains(err.Error(), "10.0.0.0/8") || !strings.Contains(err.Error(), "connect_timeout") {
		t.Errorf("outbound: %v", err)
	}
}

func TestPermits(t *testing.T) {
	tests := []struct {
		allow, deny []string
		server      string
		want        bool
	}{
		{nil, nil, "a.test", true},
		{nil, []string{"evil.test"}, "evil.test", false},
		{nil, []string{"evil.test"}, "EVIL.test:8448", false},
		{nil, []string{"evil.test"}, "not.evil.test", true},
		{nil, []string{"*.evil.test"}, "very.evil.test", false},
		{nil, []string{"*.evil.test"}, "evil.test", true},
		{nil, []string{"*"}, "a.test", false},
		{[]string{"*.org"}, nil, "matrix.org", true},
		{[]string{"*.org"}, nil, "matrix.com", false},
		{[]string{"*.org"}, []string{"bad.org"}, "bad.org", false},
		{nil, []string{"1.2.3.*"}, "1.2.3.4:8448", false},
		{nil, []string{"[::1]"}, "[::1]:8448", false},
	}
	for _, tt := range tests {
		c := Config{AllowServers: tt.allow, DenyServers: tt.deny}
		if got := c.Permits(matrixName(tt.server)); got != tt.want {
			t.Errorf("allow %v, deny %v: %s %v, want %v", tt.allow, tt.deny, tt.server, got, tt.want)
		}
	}
}
