package voip

import (
	"bytes"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/pion/stun/v3"
	"github.com/pion/turn/v5"
)

// TestErrors is what RFC 8489 and RFC 8656 want to be refused, and how.
func TestErrors(t *testing.T) {
	r := startRelay(t, nil)
	peer := netip.MustParseAddrPort("198.41.0.4:9")
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			s := speak(t, r, network, "@alice:a.test").greet()
			nonce := s.nonce
			for _, c := range []struct {
				name string
				want stun.ErrorCode
				with []stun.Setter
			}{
				{"no transport", 400, nil},
				{"TCP to peers", 442, []stun.Setter{attr(stun.AttrRequestedTransport, 6, 0, 0, 0)}},
				{"broken transport", 400, []stun.Setter{attr(stun.AttrRequestedTransport, 17)}},
				{"unknown attribute", 420, []stun.Setter{overUDP, attr(0x7ff0, 1, 2, 3, 4)}},
				{"DONT-FRAGMENT", 420, []stun.Setter{overUDP, attr(stun.AttrDontFragment)}},
				{"broken lifetime", 400, []stun.Setter{overUDP, attr(stun.AttrLifetime, 1)}},
				{"token and even port", 400, []stun.Setter{overUDP, attr(stun.AttrReservationToken, 1, 2, 3, 4, 5, 6, 7, 8), attr(stun.AttrEvenPort, 0)}},
				{"token and family", 400, []stun.Setter{overUDP, attr(stun.AttrReservationToken, 1, 2, 3, 4, 5, 6, 7, 8), attr(stun.AttrRequestedAddressFamily, 1, 0, 0, 0)}},
				{"unknown token", 508, []stun.Setter{overUDP, attr(stun.AttrReservationToken, 1, 2, 3, 4, 5, 6, 7, 8)}},
				{"unknown family", 440, []stun.Setter{overUDP, attr(stun.AttrRequestedAddressFamily, 3, 0, 0, 0)}},
				{"two ways to ask for a family", 400, []stun.Setter{overUDP, attr(stun.AttrRequestedAddressFamily, 1, 0, 0, 0), attr(attrAdditionalAddressFamily, 2, 0, 0, 0)}},
				{"additional IPv4", 400, []stun.Setter{overUDP, attr(attrAdditionalAddressFamily, 1, 0, 0, 0)}},
				{"additional family and a reserved port", 400, []stun.Setter{overUDP, attr(attrAdditionalAddressFamily, 2, 0, 0, 0), attr(stun.AttrEvenPort, 0x80)}},
			} {
				t.Run(c.name, func(t *testing.T) {
					s.t = t
					s.want(c.want, stun.MethodAllocate, c.with...)
				})
			}
			s.t = t
			for _, method := range []stun.Method{stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind} {
				s.want(stun.CodeAllocMismatch, method, at(peer), channel(0x4000))
			}
			password := s.password
			s.password = "wrong"
			s.want(stun.CodeUnauthorized, stun.MethodAllocate, overUDP)
			s.password = password
			s.nonce = "made up"
			answer := s.want(stun.CodeStaleNonce, stun.MethodAllocate, overUDP)
			if n := new(stun.Nonce); n.GetFrom(answer) != nil || !r.nonces.valid(n.String(), s.local(), time.Now()) {
				t.Errorf("no new nonce in %v", answer)
			}
			s.nonce = speak(t, r, network, "@alice:a.test").greet().nonce // of another address
			s.want(stun.CodeStaleNonce, stun.MethodAllocate, overUDP)
			s.nonce = nonce
			s.realm = "b.test"
			s.want(stun.CodeUnauthorized, stun.MethodAllocate, overUDP)
			s.realm = "a.test"
			username := s.username
			s.username = strconv.FormatInt(time.Now().Add(-time.Second).Unix(), 10) + ":@alice:a.test"
			s.password = restPassword(r.issuer.secrets[0].Value, s.username)
			s.want(stun.CodeUnauthorized, stun.MethodAllocate, overUDP)
			s.username, s.password = username, password

			first := s.build(stun.MethodAllocate, overUDP)
			if got := s.ask(first); got.Type.Class != stun.ClassSuccessResponse {
				t.Fatalf("no allocation: %v", got)
			} else if again := s.ask(first); relayed(again)[0] != relayed(got)[0] {
				t.Errorf("the same request got %v and %v", got, again)
			}
			s.want(stun.CodeAllocMismatch, stun.MethodAllocate, overUDP)
			s.want(400, stun.MethodCreatePermission)
			s.want(400, stun.MethodCreatePermission, attr(stun.AttrXORPeerAddress))
			s.want(400, stun.MethodCreatePermission, at(peer), attr(stun.AttrXORPeerAddress, 0, 3, 0, 0, 0, 0, 0, 0))
			s.want(443, stun.MethodCreatePermission, at(netip.MustParseAddrPort("[2001:503:ba3e::2:30]:9")))
			s.want(400, stun.MethodChannelBind, at(peer))
			s.want(400, stun.MethodChannelBind, channel(0x4000))
			s.want(400, stun.MethodChannelBind, at(peer), channel(0x3fff))
			s.want(400, stun.MethodChannelBind, at(peer), channel(0x8000))
			s.want(443, stun.MethodChannelBind, at(netip.MustParseAddrPort("[2001:503:ba3e::2:30]:9")), channel(0x4000))
			s.want(0, stun.MethodChannelBind, at(peer), channel(0x4000))
			s.want(0, stun.MethodChannelBind, at(peer), channel(0x4000))
			s.want(400, stun.MethodChannelBind, at(peer), channel(0x4001))
			s.want(400, stun.MethodChannelBind, at(netip.MustParseAddrPort("198.41.0.4:10")), channel(0x4000))
			s.want(443, stun.MethodRefresh, attr(stun.AttrRequestedAddressFamily, 2, 0, 0, 0))
			s.want(0, stun.MethodRefresh, attr(stun.AttrRequestedAddressFamily, 1, 0, 0, 0))
			s.want(stun.CodeForbidden, stun.MethodConnect, at(peer))

			mallory := r.Issue("@mallory:a.test")
			s.username, s.password = mallory.Username, mallory.Password
			s.want(stun.CodeWrongCredentials, stun.MethodRefresh, lifetime(0))
			s.username, s.password = username, password
			s.want(0, stun.MethodRefresh, lifetime(0))
			s.want(stun.CodeAllocMismatch, stun.MethodRefresh, lifetime(0))
		})
	}
	if n := r.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// local is the client's own address.
func (s *speaker) local() netip.AddrPort { return netip.MustParseAddrPort(s.conn.LocalAddr().String()) }

// TestLifetime bounds how long a client asks an address to last.
func TestLifetime(t *testing.T) {
	r := startRelay(t, nil)
	for asked, want := range map[uint32]uint32{1: 600, 600: 600, 1200: 1200, 4_000_000_000: 3600} {
		s := speak(t, r, "udp", "@alice:a.test")
		for _, answer := range []*stun.Message{
			s.greet().want(0, stun.MethodAllocate, overUDP, lifetime(asked)), s.want(0, stun.MethodRefresh, lifetime(asked)),
		} {
			v, err := answer.Get(stun.AttrLifetime)
			if err != nil || uint32(v[0])<<24|uint32(v[1])<<16|uint32(v[2])<<8|uint32(v[3]) != want {
				t.Errorf("%d seconds became %v, want %d", asked, v, want)
			}
		}
	}
}

// TestQuota bounds what one user has, and all of them.
func TestQuota(t *testing.T) {
	r := startRelay(t, func(o *Options) { o.Config.UserQuota, o.Config.TotalQuota = 2, 3 })
	first := speak(t, r, "udp", "@alice:a.test")
	first.allocate()
	speak(t, r, "tcp", "@alice:a.test").allocate()
	speak(t, r, "udp", "@alice:a.test").greet().want(stun.CodeAllocQuotaReached, stun.MethodAllocate, overUDP)
	speak(t, r, "udp", "@bob:a.test").allocate()
	speak(t, r, "udp", "@carol:a.test").greet().want(stun.CodeInsufficientCapacity, stun.MethodAllocate, overUDP)
	first.want(0, stun.MethodRefresh, lifetime(0))
	speak(t, r, "udp", "@carol:a.test").allocate()
}

// TestEvenPort gives out pairs of ports.
func TestEvenPort(t *testing.T) {
	r := startRelay(t, nil)
	s := speak(t, r, "udp", "@alice:a.test")
	answer := s.greet().want(0, stun.MethodAllocate, overUDP, attr(stun.AttrEvenPort, 0x80))
	token, err := answer.Get(stun.AttrReservationToken)
	if err != nil || len(token) != 8 {
		t.Fatalf("no token: %v", answer)
	}
	even := relayed(answer)[0].Port()
	second := speak(t, r, "udp", "@alice:a.test")
	answer = second.greet().want(0, stun.MethodAllocate, overUDP, attr(stun.AttrReservationToken, token...))
	if odd := relayed(answer)[0].Port(); even%2 != 0 || odd != even+1 {
		t.Errorf("ports %d and %d", even, odd)
	}
	speak(t, r, "udp", "@alice:a.test").greet().want(stun.CodeInsufficientCapacity, stun.MethodAllocate, overUDP, attr(stun.AttrReservationToken, token...))
	answer = speak(t, r, "udp", "@alice:a.test").greet().want(0, stun.MethodAllocate, overUDP, attr(stun.AttrEvenPort, 0))
	if answer.Contains(stun.AttrReservationToken) || relayed(answer)[0].Port()%2 != 0 {
		t.Errorf("an even port alone: %v", answer)
	}
}

// TestReserved keeps a port of IPv6, too, and counts it as one that the user has.
func TestReserved(t *testing.T) {
	r := startRelay(t, func(o *Options) {
		o.Config.UDP = append(o.Config.UDP, "[::1]:0")
		o.Config.UserQuota = 2
	})
	client := func() *speaker { return speak(t, r, "udp6", "@alice:a.test").greet() }
	pair := []stun.Setter{overUDP, attr(stun.AttrEvenPort, 0x80), attr(stun.AttrRequestedAddressFamily, 2, 0, 0, 0)}
	first := client()
	answer := first.want(0, stun.MethodAllocate, pair...)
	token, err := answer.Get(stun.AttrReservationToken)
	if err != nil {
		t.Fatal(err)
	}
	client().want(stun.CodeAllocQuotaReached, stun.MethodAllocate, overUDP)
	second := speak(t, r, "udp6", "@bob:a.test").greet()
	got := relayed(second.want(0, stun.MethodAllocate, overUDP, attr(stun.AttrReservationToken, token...)))
	if len(got) != 1 || got[0] != netip.AddrPortFrom(netip.IPv6Loopback(), relayed(answer)[0].Port()+1) {
		t.Errorf("the port that was kept is %v, beside %v", got, relayed(answer))
	}
	third := client()
	third.want(stun.CodeAllocQuotaReached, stun.MethodAllocate, pair...)
	third.want(0, stun.MethodAllocate, overUDP)
	for _, s := range []*speaker{first, second, third} {
		s.want(0, stun.MethodRefresh, lifetime(0))
	}
	r.ports.mu.Lock()
	defer r.ports.mu.Unlock()
	r.quotas.mu.Lock()
	defer r.quotas.mu.Unlock()
	if len(r.ports.taken) != 0 || r.quotas.all != 0 {
		t.Errorf("%v are taken still, and %d count", r.ports.taken, r.quotas.all)
	}
}

// TestPermissions bounds how many peers a client names, who may go on with those
// that it has.
func TestPermissions(t *testing.T) {
	r := startRelay(t, nil)
	s := speak(t, r, "udp", "@alice:a.test")
	s.allocate()
	peer := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 41, byte(i >> 8), byte(i)}), 9)
	}
	for i := 0; i < maxPermissions; i += 32 {
		var list []stun.Setter
		for j := range 32 {
			list = append(list, at(peer(i+j)))
		}
		s.want(0, stun.MethodCreatePermission, list...)
	}
	s.want(stun.CodeInsufficientCapacity, stun.MethodCreatePermission, at(peer(maxPermissions)))
	s.want(stun.CodeInsufficientCapacity, stun.MethodChannelBind, at(peer(maxPermissions)), channel(0x4000))
	s.want(0, stun.MethodCreatePermission, at(peer(0)), at(peer(1)))
	s.want(0, stun.MethodChannelBind, at(peer(0)), channel(0x4000))
	s.want(0, stun.MethodChannelBind, at(peer(0)), channel(0x4000))
}

// TestFamilies gives out addresses of IPv4, of IPv6 and of both.
func TestFamilies(t *testing.T) {
	r := startRelay(t, func(o *Options) {
		o.Config.UDP = append(o.Config.UDP, "[::1]:0")
		o.Config.AllowPeers = append(o.Config.AllowPeers, netip.MustParsePrefix("::1/128"))
	})
	for _, c := range []struct {
		with []stun.Setter
		want []string
	}{
		{nil, []string{"127.0.0.1"}},
		{[]stun.Setter{attr(stun.AttrRequestedAddressFamily, 1, 0, 0, 0)}, []string{"127.0.0.1"}},
		{[]stun.Setter{attr(stun.AttrRequestedAddressFamily, 2, 0, 0, 0)}, []string{"::1"}},
		{[]stun.Setter{attr(attrAdditionalAddressFamily, 2, 0, 0, 0)}, []string{"127.0.0.1", "::1"}},
	} {
		for _, network := range []string{"udp", "udp6", "tcp"} {
			s := speak(t, r, network, "@alice:a.test")
			got := relayed(s.greet().want(0, stun.MethodAllocate, append(c.with, overUDP)...))
			if len(got) != len(c.want) {
				t.Fatalf("%v over %s: %v, want %v", c.with, network, got, c.want)
			}
			for i := range got {
				if got[i].Addr().String() != c.want[i] {
					t.Errorf("%v over %s: %v, want %v", c.with, network, got, c.want)
				}
			}
			if len(got) == 2 {
				s.want(0, stun.MethodCreatePermission, at(netip.MustParseAddrPort("127.0.0.1:9")), at(netip.MustParseAddrPort("[::1]:9")))
				s.want(0, stun.MethodRefresh, attr(stun.AttrRequestedAddressFamily, 2, 0, 0, 0), lifetime(0))
				s.want(443, stun.MethodRefresh, attr(stun.AttrRequestedAddressFamily, 2, 0, 0, 0), lifetime(0))
				s.want(443, stun.MethodCreatePermission, at(netip.MustParseAddrPort("[::1]:9")))
				s.want(0, stun.MethodCreatePermission, at(netip.MustParseAddrPort("127.0.0.1:9")))
			}
			s.want(0, stun.MethodRefresh, lifetime(0))
		}
	}
	only := newRelay(t, func(o *Options) { o.Config.ExternalIPs = []netip.Addr{netip.MustParseAddr("127.0.0.1")} })
	opened := only.addresses.found.Load()
	serve(t, only)
	for only.addresses.found.Load() == opened { // it looks at them when it begins
		time.Sleep(time.Millisecond)
	}
	only.addresses.found.Store(&found{local: only.addresses.found.Load().local, external: [2]netip.Addr{ipv4: netip.MustParseAddr("127.0.0.1")}})
	s := speak(t, only, "udp", "@alice:a.test")
	s.greet().want(stun.CodeAddrFamilyNotSupported, stun.MethodAllocate, overUDP, attr(stun.AttrRequestedAddressFamily, 2, 0, 0, 0))
	answer := s.want(0, stun.MethodAllocate, overUDP, attr(attrAdditionalAddressFamily, 2, 0, 0, 0))
	if v, err := answer.Get(attrAddressErrorCode); err != nil || len(v) != 4 || v[0] != 2 || v[2] != 4 || v[3] != 40 || len(relayed(answer)) != 1 {
		t.Errorf("without IPv6: %v", answer)
	}
	r.ports.mu.Lock()
	for number := r.ports.min; number <= r.ports.max; number++ {
		r.ports.taken[netip.AddrPortFrom(netip.IPv6Loopback(), number)] = &relayPort{}
	}
	r.ports.mu.Unlock()
	answer = speak(t, r, "udp", "@alice:a.test").greet().want(0, stun.MethodAllocate, overUDP, attr(attrAdditionalAddressFamily, 2, 0, 0, 0))
	if v, err := answer.Get(attrAddressErrorCode); err != nil || len(v) != 4 || v[2] != 5 || v[3] != 8 || len(relayed(answer)) != 1 {
		t.Errorf("without a port of IPv6: %v", answer)
	}
}

// TestOneOfTwo gives a client that asks for both families the one that there is.
func TestOneOfTwo(t *testing.T) {
	r := startRelay(t, func(o *Options) {
		o.Config.UDP = append(o.Config.UDP, "[::1]:0")
		o.Config.UserQuota = 1
	})
	both := []stun.Setter{overUDP, attr(attrAdditionalAddressFamily, 2, 0, 0, 0)}
	want := func(answer *stun.Message, has netip.Addr, lacks, class, number byte) {
		t.Helper()
		v, err := answer.Get(attrAddressErrorCode)
		got := relayed(answer)
		if err != nil || !bytes.Equal(v, []byte{lacks, 0, class, number}) || len(got) != 1 || got[0].Addr() != has {
			t.Errorf("%v with %v, want %s alone", got, v, has)
		}
	}
	first := speak(t, r, "udp", "@alice:a.test").greet()
	want(first.want(0, stun.MethodAllocate, both...), netip.MustParseAddr("127.0.0.1"), 2, 4, 86)
	speak(t, r, "udp", "@alice:a.test").greet().want(stun.CodeAllocQuotaReached, stun.MethodAllocate, both...)
	first.want(0, stun.MethodRefresh, lifetime(0))
	r.ports.mu.Lock()
	for number := r.ports.min; number <= r.ports.max; number++ {
		r.ports.taken[netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), number)] = &relayPort{}
	}
	r.ports.mu.Unlock()
	second := speak(t, r, "udp", "@alice:a.test").greet()
	want(second.want(0, stun.MethodAllocate, both...), netip.IPv6Loopback(), 1, 5, 8)
	second.want(443, stun.MethodCreatePermission, at(netip.MustParseAddrPort("127.0.0.1:9")))
	second.want(0, stun.MethodRefresh, lifetime(0))
	r.quotas.mu.Lock()
	defer r.quotas.mu.Unlock()
	if r.quotas.all != 0 {
		t.Errorf("%d are counted still", r.quotas.all)
	}
}

// TestPionFamily gives an address of IPv6 to pion's client, which asks for it
// behind its signature.
func TestPionFamily(t *testing.T) {
	r := startRelay(t, func(o *Options) { o.Config.UDP = append(o.Config.UDP, "[::1]:0") })
	client := dial(t, r, turn.RequestedAddressFamilyIPv6)
	relayed, err := client.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	defer relayed.Close()
	if a := relayed.LocalAddr().(*net.UDPAddr).AddrPort().Addr(); a != netip.IPv6Loopback() {
		t.Errorf("it is relayed as %s", a)
	}
}

// TestBinding answers what STUN asks.
func TestBinding(t *testing.T) {
	r := startRelay(t, nil)
	for _, network := range []string{"udp", "tcp"} {
		s := speak(t, r, network, "@alice:a.test")
		answer := s.want(0, stun.MethodBinding)
		v, err := answer.Get(stun.AttrXORMappedAddress)
		if err != nil {
			t.Fatal(err)
		}
		if a, ok := readAddress(answer, v); !ok || a != s.local() {
			t.Errorf("%v, want %v", a, s.local())
		}
		s.want(stun.CodeUnknownAttribute, stun.MethodBinding, attr(stun.AttrChangeRequest, 0, 0, 0, 6))
	}
}

// TestUnsigned passes over attributes behind the signature: they come from
// somebody on the way.
func TestUnsigned(t *testing.T) {
	r := startRelay(t, nil)
	s := speak(t, r, "udp", "@alice:a.test")
	s.allocate()
	theirs := netip.MustParseAddrPort("198.41.0.4:9")
	m := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodCreatePermission, stun.ClassRequest), at(netip.MustParseAddrPort("198.41.0.5:9")),
		stun.NewUsername(s.username), stun.NewRealm(s.realm), stun.NewNonce(s.nonce), stun.MessageIntegrity(longTermKey(s.username, s.realm, s.password)),
		at(theirs), attr(0x7ff0), stun.Fingerprint)
	if answer := s.ask(m); answer.Type.Class != stun.ClassSuccessResponse {
		t.Errorf("it is refused: %v", answer)
	}
	own := r.session0(t)
	own.mu.Lock()
	defer own.mu.Unlock()
	if _, ok := own.legs[ipv4].permissions[theirs.Addr()]; ok || len(own.legs[ipv4].permissions) != 1 {
		t.Errorf("the permissions are %v", own.legs[ipv4].permissions)
	}
}
