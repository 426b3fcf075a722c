package voip

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pion/stun/v3"
	"github.com/pion/turn/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// startRelay runs a relay on loopback, which may relay to loopback.
func startRelay(t testing.TB, change func(*Options)) *Relay {
	t.Helper()
	r := newRelay(t, change)
	serve(t, r)
	return r
}

// newRelay opens a relay as startRelay has it.
func newRelay(t testing.TB, change func(*Options)) *Relay {
	t.Helper()
	c := DefaultConfig().TURN
	c.UDP, c.TCP, c.TLS = []string{"127.0.0.1:0"}, []string{"127.0.0.1:0"}, nil
	c.STUNServers = nil
	c.Grace = 0
	c.Sockets = 2 // however many cores there are
	c.AllowPeers = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	var r *Relay
	var err error
	for range 10 { // a port that was free may be somebody else's by now
		o := Options{Config: c, Lifetime: time.Hour, Realm: "a.test", Host: "127.0.0.1"}
		if change != nil {
			change(&o)
		}
		if r, err = NewRelay(context.Background(), o); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// serve runs a relay until the test ends.
func serve(t testing.TB, r *Relay) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-r.serving
}

func udpAddress(r *Relay) string { return r.udp[0].addr().String() }

// dial gives a client of pion over UDP with fresh credentials, for addresses of a
// family or, with 0, of any.
func dial(t *testing.T, r *Relay, family turn.RequestedAddressFamily) *turn.Client {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	have := r.Issue("@alice:a.test")
	client, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: udpAddress(r), TURNServerAddr: udpAddress(r), Conn: conn, Username: have.Username, Password: have.Password, RTO: time.Minute, LoggerFactory: silent{},
		RequestedAddressFamily: family,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); conn.Close() })
	if err := client.Listen(); err != nil {
		t.Fatal(err)
	}
	return client
}

func TestRelay(t *testing.T) {
	r := startRelay(t, nil)
	client := dial(t, r, 0)
	relayed, err := client.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	for range 3 { // a Send indication, and then a channel
		exchange(t, relayed, peer)
		time.Sleep(50 * time.Millisecond)
	}
	relayed.Close()
}

// exchange sends a packet from a to b and back.
func exchange(t *testing.T, relayed, peer net.PacketConn) {
	t.Helper()
	if _, err := relayed.WriteTo([]byte("ping"), peer.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	peer.SetReadDeadline(time.Now().Add(time.Minute))
	n, from, err := peer.ReadFrom(b)
	if err != nil || string(b[:n]) != "ping" || from.String() != relayed.LocalAddr().String() {
		t.Fatalf("%q from %v, %v", b[:n], from, err)
	}
	if _, err := peer.WriteTo([]byte("pong!"), from); err != nil {
		t.Fatal(err)
	}
	relayed.SetReadDeadline(time.Now().Add(time.Minute))
	n, from, err = relayed.ReadFrom(b)
	if err != nil || string(b[:n]) != "pong!" || from.String() != peer.LocalAddr().String() {
		t.Fatalf("%q from %v, %v", b[:n], from, err)
	}
}

// TestFoundPort finds a free port for each of many that are shared by loops, and
// no two find the same.
func TestFoundPort(t *testing.T) {
	w, err := newNetwork(2)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	seen := map[netip.AddrPort]bool{}
	for range 400 {
		p, err := w.listen(netip.MustParseAddrPort("127.0.0.1:0"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if seen[p.addr()] {
			t.Errorf("%v is found twice", p.addr())
		}
		seen[p.addr()] = true
	}
}

// TestDrain lets calls go on that run when the server is stopped, and begins no
// new ones.
func TestDrain(t *testing.T) {
	r := startRelay(t, nil)
	s, peer := speak(t, r, "udp", "@alice:a.test"), speak(t, r, "tcp", "@bob:a.test")
	s.allocate()
	b := peer.allocate()
	r.Drain()
	speak(t, r, "udp", "@carol:a.test").greet().want(stun.CodeInsufficientCapacity, stun.MethodAllocate, overUDP)
	s.want(0, stun.MethodRefresh)
	s.want(0, stun.MethodCreatePermission, at(b))
}

// TestGrace stops a relay: it goes on for a call, until that ends.
func TestGrace(t *testing.T) {
	r, err := NewRelay(t.Context(), Options{Config: TURNConfig{
		UDP: []string{"127.0.0.1:0"}, MinPort: 49160, MaxPort: 49660, UserQuota: 1, TotalQuota: 1, Grace: time.Hour,
		AllowPeers: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
	}, Lifetime: time.Hour, Realm: "a.test", Host: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	s := speak(t, r, "udp", "@alice:a.test")
	s.allocate()
	stop()
	<-r.drain
	peer, to := peerSocket(t)
	s.want(0, stun.MethodChannelBind, at(to), channel(0x4000))
	s.write(channelData(0x4000, "are you there?"))
	b := make([]byte, 100)
	if n, _, err := peer.ReadFrom(b); err != nil || string(b[:n]) != "are you there?" {
		t.Errorf("the call is broken off: %q, %v", b[:n], err)
	}
	select {
	case err := <-ended:
		t.Fatalf("it ends during the call: %v", err)
	default:
	}
	s.want(0, stun.MethodRefresh, lifetime(0))
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("it does not end when the call has")
	}
}

// TestTaken shares no port with another relay, or with the relayed addresses of
// its own, however many sockets share an address.
func TestTaken(t *testing.T) {
	r := startRelay(t, nil)
	for what, change := range map[string]func(*TURNConfig){
		"another relay":         func(c *TURNConfig) { c.UDP = []string{udpAddress(r)} },
		"the same address":      func(c *TURNConfig) { c.UDP = []string{udpAddress(r), udpAddress(r)} },
		"one port of two kinds": func(c *TURNConfig) { c.OnePort = r.udp[0].addr().Port() },
	} {
		c := DefaultConfig().TURN
		c.UDP, c.TCP, c.STUNServers, c.Sockets = nil, nil, nil, 2
		change(&c)
		if other, err := NewRelay(t.Context(), Options{Config: c, Lifetime: time.Hour, Realm: "a.test"}); err == nil {
			t.Errorf("%s: it is shared", what)
			other.Close()
		}
	}
	speak(t, r, "udp", "@alice:a.test").allocate()
}

// TestUnwelcome ends the calls of a user who may have none any more, and of nobody
// else, and begins no others for that user.
func TestUnwelcome(t *testing.T) {
	r := startRelay(t, func(o *Options) {
		o.Unwelcome = func(_ context.Context, user string) bool { return user == "@mallory:a.test" }
	})
	mallory, again, alice := speak(t, r, "udp", "@mallory:a.test"), speak(t, r, "tcp", "@mallory:a.test"), speak(t, r, "udp", "@alice:a.test")
	for _, s := range []*speaker{mallory, again, alice} {
		s.allocate()
	}
	for range 2 { // the second time there is no session of hers
		r.expel(t.Context(), time.Now())
		mallory.want(stun.CodeAllocMismatch, stun.MethodRefresh)
		again.want(stun.CodeAllocMismatch, stun.MethodRefresh)
		mallory.want(stun.CodeForbidden, stun.MethodAllocate, overUDP)
		alice.want(0, stun.MethodRefresh)
	}
}

// TestExpelled remembers who is unwelcome for as long as that, and as credentials
// last.
func TestExpelled(t *testing.T) {
	forgiven := false
	r := newRelay(t, func(o *Options) { o.Unwelcome = func(context.Context, string) bool { return !forgiven } })
	defer r.Close()
	now := time.Now()
	r.start(&session{user: "@mallory:a.test", relay: r}, time.Hour)
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {r.options.Lifetime - time.Second, true}, {r.options.Lifetime + time.Second, false}} {
		r.expel(t.Context(), now.Add(c.after))
		if got := r.isExpelled("@mallory:a.test"); got != c.want {
			t.Errorf("%s later: %v", c.after, got)
		}
	}
	r.start(&session{user: "@mallory:a.test", relay: r}, time.Hour)
	r.expel(t.Context(), now)
	forgiven = true
	r.expel(t.Context(), now)
	if r.isExpelled("@mallory:a.test") {
		t.Error("she is forgiven and expelled")
	}
}

// TestURIs tells clients of each way once, and of no second port of HTTPS beside
// the usual one.
func TestURIs(t *testing.T) {
	for _, c := range []struct {
		https []uint16
		want  []string
	}{
		{nil, nil},
		{[]uint16{8448, 443}, []string{"turns:127.0.0.1:443?transport=tcp"}},
		{[]uint16{8443, 8448}, []string{"turns:127.0.0.1:8443?transport=tcp", "turns:127.0.0.1:8448?transport=tcp"}},
	} {
		r := startRelay(t, func(o *Options) { o.HTTPS = c.https })
		want := append([]string{"turn:" + udpAddress(r) + "?transport=udp", "turn:" + r.tcp[0].Addr().String() + "?transport=tcp"}, c.want...)
		if got := r.URIs(); !slices.Equal(got, want) {
			t.Errorf("with HTTPS on %d: %s, want %s", c.https, got, want)
		}
	}
}

// TestMetrics names nobody.
func TestMetrics(t *testing.T) {
	r := startRelay(t, nil)
	s := speak(t, r, "udp", "@alice:a.test")
	s.allocate()
	s.want(stun.CodeForbidden, stun.MethodCreatePermission, at(netip.MustParseAddrPort("10.0.0.1:9")))
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(r)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	labels := []string{"direction", "reason", "method", "code"}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !slices.Contains(labels, l.GetName()) || strings.Contains(l.GetValue(), "alice") {
					t.Errorf("%s has the label %s: %s", f.GetName(), l.GetName(), l.GetValue())
				}
			}
			if f.GetName() == "switchboard_turn_allocations" && m.GetGauge().GetValue() != 1 {
				t.Errorf("%v allocations", m.GetGauge().GetValue())
			}
		}
	}
}
