package voip

import (
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// forbidden are addresses to which nobody may relay: each class of them, the
// edges of those with odd ones, and other ways to write them.
var forbidden = []string{
	"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.2", "127.255.255.255",
	"169.254.169.254", "169.254.0.1", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.170", "192.0.2.1", "192.88.99.1",
	"192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
	"240.0.0.1", "255.255.255.255",

	"::", "::1", "::7f00:1", "::127.0.0.1", "::8.8.8.8", // the last three as IPv4-compatible addresses
	"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::ffff:8.8.8.8", // mapped
	"::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8", // translated
	"64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::10.0.0.1", "64:ff9b:1:ffff::1", // NAT64
	"100::1", "100:0:0:1::1",
	"2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:10::1", "2001:1ff:ffff::1", // Teredo, ORCHID
	"2001:db8::1", "3fff::1",
	"2002:7f00:1::1", "2002:a00:1::", "2002:808:808::1", // 6to4
	"fc00::1", "fd00::1", "fdff:ffff::1", "fe80::1", "febf::1", "fec0::1", "feff::1", "ff02::1", "ff0e::1",
	"5f00::1", "4000::1", "8000::1", "::2", "1::1",
}

// TestForbidden has every forbidden address refused as a peer, whatever client
// asks, however it asks, and whatever address it relays from.
func TestForbidden(t *testing.T) {
	r := startRelay(t, func(o *Options) {
		o.Config.UDP = append(o.Config.UDP, "[::1]:0")
		o.Config.AllowPeers = nil
		o.Config.ExternalIPs = []netip.Addr{netip.MustParseAddr("192.0.32.10"), netip.MustParseAddr("2620:fe::10")}
		o.Config.DenyPeers = []netip.Prefix{netip.MustParsePrefix("198.41.0.0/24")}
		o.Denied = []netip.Addr{netip.MustParseAddr("192.0.32.8")} // the database
	})
	for _, network := range []string{"udp", "tcp"} {
		s := speak(t, r, network, "@alice:a.test")
		s.allocate(attr(attrAdditionalAddressFamily, 2, 0, 0, 0))
		for _, text := range append(forbidden, "198.41.0.4", "192.0.32.8") {
			peer := netip.AddrPortFrom(netip.MustParseAddr(text), 80)
			for _, v := range encodings(peer) {
				s.want(stun.CodeForbidden, stun.MethodCreatePermission, raw{v})
				s.want(stun.CodeForbidden, stun.MethodChannelBind, raw{v}, channel(0x4000))
				s.want(stun.CodeForbidden, stun.MethodConnect, raw{v})
			}
		}
		s.want(stun.CodeForbidden, stun.MethodCreatePermission, at(netip.MustParseAddrPort("9.9.9.9:53")), at(netip.MustParseAddrPort("10.0.0.1:53")))
		s.want(0, stun.MethodCreatePermission, at(netip.MustParseAddrPort("9.9.9.9:53")))
		s.want(0, stun.MethodCreatePermission, at(netip.MustParseAddrPort("[2620:fe::fe]:53")))
		// Our own address is that of relays, and of nothing else.
		own := netip.MustParseAddr("192.0.32.10")
		s.want(0, stun.MethodCreatePermission, at(netip.AddrPortFrom(own, 5432)))
		s.want(stun.CodeForbidden, stun.MethodChannelBind, at(netip.AddrPortFrom(own, 5432)), channel(0x4000))
		s.want(stun.CodeForbidden, stun.MethodChannelBind, at(netip.AddrPortFrom(own, r.udp[0].addr().Port())), channel(0x4000))
	}
}

// raw is XOR-PEER-ADDRESS with a value that depends on the transaction.
type raw struct {
	value func(m *stun.Message) []byte
}

// AddTo implements stun.Setter.
func (r raw) AddTo(m *stun.Message) error {
	m.Add(stun.AttrXORPeerAddress, r.value(m))
	return nil
}

// encodings are the ways to write a peer: as it is and, if it is one of IPv4,
// as IPv6 with the same meaning.
func encodings(peer netip.AddrPort) []func(*stun.Message) []byte {
	as := func(p netip.AddrPort) func(*stun.Message) []byte {
		return func(m *stun.Message) []byte {
			other := &stun.Message{TransactionID: m.TransactionID}
			if err := (address{stun.AttrXORPeerAddress, p}).AddTo(other); err != nil {
				return nil
			}
			return other.Attributes[0].Value
		}
	}
	// The library writes a mapped address as one of IPv4; by hand it stays what
	// it is.
	mapped := func(m *stun.Message) []byte {
		b := peer.Addr().As16()
		key := append([]byte{0x21, 0x12, 0xa4, 0x42}, m.TransactionID[:]...)
		v := []byte{0, 2, byte(peer.Port()>>8) ^ 0x21, byte(peer.Port()) ^ 0x12}
		for i := range b {
			v = append(v, b[i]^key[i])
		}
		return v
	}
	if peer.Addr().Is4In6() {
		return []func(*stun.Message) []byte{mapped}
	}
	return []func(*stun.Message) []byte{as(peer), mapped}
}

// TestOwnListeners lets no packet through to what else listens on the address
// from which we relay.
func TestOwnListeners(t *testing.T) {
	r := startRelay(t, func(o *Options) { o.Config.AllowPeers = nil })
	victim, peer := peerSocket(t)
	s := speak(t, r, "udp", "@alice:a.test")
	s.allocate()
	s.want(0, stun.MethodCreatePermission, at(peer))
	for range 10 {
		s.indicate(peer, "select 1")
	}
	s.want(0, stun.MethodBinding) // what was sent before has been handled
	victim.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, from, err := victim.ReadFrom(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes from %v", n, from)
	}
}

// TestAllowed knows whom LAN-only sites allow.
func TestAllowed(t *testing.T) {
	own := netip.MustParseAddr("192.168.1.2")
	p := &peers{
		allow:    []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("10.0.0.9/32")},
		deny:     []netip.Prefix{netip.MustParsePrefix("192.168.1.7/32"), netip.MustParsePrefix("198.41.0.0/24")},
		own:      func() []netip.Addr { return []netip.Addr{own, netip.MustParseAddr("10.0.0.9")} },
		external: func(a netip.Addr) bool { return a == netip.MustParseAddr("198.41.0.4") },
	}
	for text, want := range map[string]bool{
		"192.168.1.3": true, "192.168.1.2": false, "192.168.1.7": false, "192.168.2.3": false, "fd00::5": true, "fe80::1": false,
		"10.0.0.9": true, "10.0.0.8": false, "198.41.0.4": true, "198.41.0.5": false, "9.9.9.9": true, "::ffff:192.168.1.3": false,
	} {
		if got := p.allowed(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	p.allow = append(p.allow, netip.MustParsePrefix("198.41.0.4/32"))
	if p.allowed(netip.MustParseAddr("198.41.0.4")) { // now all of it would be reached
		t.Error("what is allowed by itself is not denied")
	}
	if p.allowed(netip.Addr{}) || p.allowed(netip.MustParseAddr("fd00::5%eth0")) {
		t.Error("what is no address is allowed")
	}
}

// TestThrottle bounds the answers to one source without holding up others.
func TestThrottle(t *testing.T) {
	h := newThrottle(10, 60)
	for h.slot(netip.MustParseAddr("192.0.2.1")) == h.slot(netip.MustParseAddr("2001:db8::1")) { // by chance
		h = newThrottle(10, 60)
	}
	now := time.Now()
	count := func(a string, n int) (answered int) {
		for range n {
			if h.take(netip.MustParseAddr(a), now) {
				answered++
			}
		}
		return answered
	}
	if n := count("192.0.2.1", 1000); n != 60 {
		t.Errorf("%d answers at once", n)
	}
	if n := count("2001:db8::1", 1000) + count("2001:db8::2", 1000); n != 60 {
		t.Errorf("%d answers to one network", n)
	}
	now = now.Add(time.Second)
	if n := count("192.0.2.1", 1000); n != 10 {
		t.Errorf("%d answers a second later", n)
	}
	now = now.Add(-time.Hour)
	count("192.0.2.1", 1)
	now = now.Add(time.Second)
	if n := count("192.0.2.1", 1000); n != 10 {
		t.Errorf("%d answers a second after the clock was set back", n)
	}
}

// TestSource counts what belongs together as one.
func TestSource(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "fe80::1%eth0": "fe80::",
	} {
		if got := Source(netip.MustParseAddr(text)); got.String() != want {
			t.Errorf("%s counts as %s, want %s", text, got, want)
		}
	}
	if Source(netip.Addr{}).IsValid() {
		t.Error("what is no address counts as one")
	}
}

// TestChallenges asks strangers for a password a few times, and then no more:
// who writes in somebody's name has little sent there.
func TestChallenges(t *testing.T) {
	r := startRelay(t, nil)
	s, began := speak(t, r, "udp", "@alice:a.test"), time.Now()
	for end := time.Now().Add(patience); r.count.drops[tooOften].Load() < 200; s.write(s.build(stun.MethodAllocate, overUDP).Raw) {
		if time.Now().After(end) {
			t.Fatalf("%d are not answered", r.count.drops[tooOften].Load())
		}
	}
	answers := 0
	for s.read(time.Second) != nil {
		answers++
	}
	if took := time.Since(began); answers > 60+int(11*took.Seconds()) {
		t.Errorf("%d are answered in %s", answers, took)
	}
	speak(t, r, "tcp", "@bob:a.test").allocate() // whose address is shown to be right
}

// TestBucket bounds the bytes of a second.
func TestBucket(t *testing.T) {
	var b bucket
	passed, now := 0, time.Now().UnixNano()
	for range 10_000 { // ten seconds
		now += int64(time.Millisecond)
		for range 10 {
			if b.take(1000, 100_000, now) {
				passed += 1000
			}
		}
	}
	if passed < 990_000 || passed > 1_060_000 {
		t.Errorf("%d bytes in ten seconds, at 100,000 a second", passed)
	}
	if !new(bucket).take(1<<20, 0, now) {
		t.Error("no rate is a limit")
	}
	if !new(bucket).take(1<<20, 100_000_000_000_000, now) {
		t.Error("a very high rate lets nothing through")
	}
	for b.take(1000, 100_000, now) { // until it is empty
	}
	now -= int64(time.Hour)
	b.take(1000, 100_000, now)
	if now += int64(time.Second); !b.take(1000, 100_000, now) {
		t.Error("nothing passes a second after the clock was set back")
	}
	passed = 0
	for range 1_000_000 { // ten seconds of a flood
		now += int64(10 * time.Microsecond)
		if b.take(100, 8000, now) {
			passed += 100
		}
	}
	if passed < 79_000 || passed > 85_000 {
		t.Errorf("%d bytes in ten seconds of many small packets, at 8,000 a second", passed)
	}
}
