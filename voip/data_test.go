package voip

import (
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v3"
	turn2 "github.com/pion/turn/v2"
	"github.com/pion/webrtc/v3"
)

// TestData carries data both ways, in indications and in channels, over each
// transport, and only where there is a permission.
func TestData(t *testing.T) {
	for _, mode := range []string{"range", "one port"} {
		r := startRelay(t, func(o *Options) {
			o.TLS = selfSigned(t)
			o.Config.TLS = []string{"127.0.0.1:0"}
			if mode == "one port" {
				o.Config.OnePort = freePort(t)
			}
		})
		for _, network := range []string{"udp", "tcp", "tls"} {
			t.Run(mode+"/"+network, func(t *testing.T) {
				s := speak(t, r, network, "@alice:a.test")
				relayed := s.allocate()
				conn, peer := peerSocket(t)
				stranger, _ := peerSocket(t)
				s.want(0, stun.MethodCreatePermission, at(peer))
				s.indicate(peer, "hello")
				hear(t, conn, "hello", relayed)
				if _, err := conn.WriteTo([]byte("who is there?"), net.UDPAddrFromAddrPort(relayed)); err != nil {
					t.Fatal(err)
				}
				if data, from, number := s.data(); data != "who is there?" || from != peer || number != 0 {
					t.Errorf("%q from %v on %x", data, from, number)
				}
				s.want(0, stun.MethodChannelBind, at(peer), channel(0x4abc))
				for _, text := range []string{"four", "five!", "six six", "", strings.Repeat("x", 1200)} { // odd lengths are padded on a stream
					s.write(channelData(0x4abc, text))
					hear(t, conn, text, relayed)
					if text == "" {
						continue
					}
					if _, err := conn.WriteTo([]byte(text), net.UDPAddrFromAddrPort(relayed)); err != nil {
						t.Fatal(err)
					}
					if data, _, number := s.data(); data != text || number != 0x4abc {
						t.Errorf("%q on %x, want %q", data, number, text)
					}
				}
				if _, err := stranger.WriteTo([]byte("let me in"), net.UDPAddrFromAddrPort(relayed)); err != nil {
					t.Fatal(err)
				}
				// It has the address of the peer, but another port: it may write,
				// without a channel.
				if mode == "range" {
					if data, _, number := s.data(); data != "let me in" || number != 0 {
						t.Errorf("%q on %x", data, number)
					}
				}
				s.write(channelData(0x4abd, "no such channel"))
				s.indicate(netip.MustParseAddrPort("9.9.9.9:9"), "no permission")
				s.want(0, stun.MethodBinding)
				s.want(0, stun.MethodRefresh, lifetime(0))
			})
		}
	}
}

// hear wants a packet.
func hear(t *testing.T, conn *net.UDPConn, text string, from netip.AddrPort) {
	t.Helper()
	b := make([]byte, 2000)
	n, at, err := conn.ReadFromUDPAddrPort(b)
	if err != nil || string(b[:n]) != text || netip.AddrPortFrom(at.Addr().Unmap(), at.Port()) != from {
		t.Fatalf("%q from %v, %v; want %q from %v", b[:n], at, err, text, from)
	}
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	conn, at := peerSocket(t)
	conn.Close()
	return at.Port()
}

// TestAcross carries data between two clients that are both relayed here, without
// a way out of the machine and in.
func TestAcross(t *testing.T) {
	r := startRelay(t, func(o *Options) { o.Config.ExternalIPs = []netip.Addr{netip.MustParseAddr("192.0.32.10")} })
	alice, bob := speak(t, r, "udp", "@alice:a.test"), speak(t, r, "tcp", "@bob:a.test")
	a, b := alice.allocate(), bob.allocate()
	alice.want(0, stun.MethodChannelBind, at(b), channel(0x4001))
	bob.want(0, stun.MethodCreatePermission, at(a))
	alice.write(channelData(0x4001, "hello"))
	if data, from, _ := bob.data(); data != "hello" || from != a {
		t.Errorf("%q from %v", data, from)
	}
	bob.indicate(a, "hi")
	if data, _, number := alice.data(); data != "hi" || number != 0x4001 {
		t.Errorf("%q on %x", data, number)
	}
}

// ice is a STUN message of ICE.
func ice(t *testing.T, class stun.MessageClass, id [stun.TransactionIDSize]byte, username string) string {
	t.Helper()
	setters := []stun.Setter{stun.NewTransactionIDSetter(id), stun.NewType(stun.MethodBinding, class)}
	if username != "" {
		setters = append(setters, stun.NewUsername(username))
	}
	m, err := stun.Build(setters...)
	if err != nil {
		t.Fatal(err)
	}
	return string(m.Raw)
}

// TestOnePort tells clients apart that share one address, among each other and
// for somebody outside.
func TestOnePort(t *testing.T) {
	r := startRelay(t, func(o *Options) { o.Config.OnePort = freePort(t) })
	users := map[string]*speaker{}
	var shared netip.AddrPort
	for _, name := range []string{"alice", "bob", "carol"} {
		users[name] = speak(t, r, "udp", "@"+name+":a.test")
		shared = users[name].allocate()
		users[name].want(0, stun.MethodCreatePermission, at(shared))
	}
	id := func(n byte) (id [stun.TransactionIDSize]byte) { id[0] = n; return id }
	wantData := func(name, text string) {
		t.Helper()
		if data, from, _ := users[name].data(); data != text || from != shared {
			t.Errorf("%s got %q from %v, want %q", name, data, from, text)
		}
	}
	// The first check of each goes astray: nobody knows the other's name yet.
	users["bob"].indicate(shared, ice(t, stun.ClassRequest, id(1), "A:B"))
	users["carol"].indicate(shared, ice(t, stun.ClassRequest, id(2), "D:C"))
	users["carol"].want(0, stun.MethodBinding)
	users["bob"].want(0, stun.MethodBinding)
	check := ice(t, stun.ClassRequest, id(3), "B:A")
	users["alice"].indicate(shared, check)
	wantData("bob", check)
	answer := ice(t, stun.ClassSuccessResponse, id(3), "")
	users["bob"].indicate(shared, answer)
	wantData("alice", answer)
	for range 3 {
		users["alice"].indicate(shared, "\x80media of alice")
		wantData("bob", "\x80media of alice")
		users["bob"].indicate(shared, "\x80media of bob")
		wantData("alice", "\x80media of bob")
	}
	users["carol"].indicate(shared, "\x80media of carol") // for nobody
	users["carol"].want(0, stun.MethodBinding)

	outside, peer := peerSocket(t)
	for _, name := range []string{"alice", "carol"} {
		users[name].want(0, stun.MethodCreatePermission, at(peer))
	}
	question := ice(t, stun.ClassRequest, id(4), "C:X")
	if _, err := outside.WriteTo([]byte(question), net.UDPAddrFromAddrPort(shared)); err != nil {
		t.Fatal(err)
	}
	if data, from, _ := users["carol"].data(); data != question || from != peer {
		t.Errorf("carol got %q from %v", data, from)
	}
	users["carol"].indicate(peer, "\x80media")
	hear(t, outside, "\x80media", shared)
	if _, err := outside.WriteTo([]byte("\x80back"), net.UDPAddrFromAddrPort(shared)); err != nil {
		t.Fatal(err)
	}
	if data, from, _ := users["carol"].data(); data != "\x80back" || from != peer {
		t.Errorf("carol got %q from %v", data, from)
	}
	users["alice"].greet().want(stun.CodeAllocMismatch, stun.MethodAllocate, overUDP)
	speak(t, r, "udp", "@dora:a.test").greet().want(stun.CodeInsufficientCapacity, stun.MethodAllocate, overUDP, attr(stun.AttrEvenPort, 0x80))
	even := stun.CodeInsufficientCapacity
	if shared.Port()%2 == 0 {
		even = 0
	}
	dora := speak(t, r, "udp", "@dora:a.test").greet()
	dora.want(even, stun.MethodAllocate, overUDP, attr(stun.AttrEvenPort, 0))
	users["dora"] = dora
	if even != 0 {
		dora.allocate()
	}
	for _, u := range users {
		u.want(0, stun.MethodRefresh, lifetime(0))
	}
	one := r.ports.one[ipv4]
	one.mu.Lock()
	defer one.mu.Unlock()
	if len(one.named) != 0 || len(one.owners) != 0 || len(one.asked) != 0 {
		t.Errorf("something stays: %v, %v, %v", one.named, one.owners, one.asked)
	}
}

// TestClosedShare keeps nothing of a packet that was on its way when its share of
// the port was given back.
func TestClosedShare(t *testing.T) {
	p := &onePort{asked: map[[stun.TransactionIDSize]byte]*oneSocket{}, named: map[string]*oneSocket{}, owners: map[origin]*oneSocket{}}
	s := newOneSocket(p, nil, netip.Addr{})
	s.close()
	for _, data := range []string{ice(t, stun.ClassRequest, [stun.TransactionIDSize]byte{1}, "B:A"), "\x80media"} {
		s.across([]byte(data))
		s.send(nil, []byte(data), netip.MustParseAddrPort("198.41.0.4:9"))
	}
	if len(p.named) != 0 || len(p.owners) != 0 || len(p.asked) != 0 {
		t.Errorf("something stays: %v, %v, %v", p.named, p.owners, p.asked)
	}
}

// TestTurns lets two clients write to the same peer in turns for as long as they
// like: what the peer sends goes to the one that wrote last.
func TestTurns(t *testing.T) {
	p := &onePort{owners: map[origin]*oneSocket{}}
	clients := []*oneSocket{newOneSocket(p, nil, netip.Addr{}), newOneSocket(p, nil, netip.Addr{})}
	peer := origin{address: netip.MustParseAddrPort("198.41.0.4:9")}
	for i := range 4 * mostOrigins {
		s := clients[i%2]
		if p.wrote(s, peer, []byte("\x80media")); p.owners[peer] != s {
			t.Fatalf("after %d packets, it is not the one that wrote last", i)
		}
	}
	for i := range 2 * mostOrigins {
		p.wrote(clients[0], origin{address: netip.AddrPortFrom(netip.IPv6Loopback(), uint16(i+1))}, []byte("\x80media"))
	}
	if len(p.owners) != mostOrigins {
		t.Errorf("one client owns %d peers", len(p.owners))
	}
}

// TestRate drops what is above the rate, in each direction by itself.
func TestRate(t *testing.T) {
	r := startRelay(t, func(o *Options) { o.Config.MaxBitrate = 80 }) // 10,000 bytes a second
	s := speak(t, r, "udp", "@alice:a.test")
	relayed := s.allocate()
	conn, peer := peerSocket(t)
	s.want(0, stun.MethodChannelBind, at(peer), channel(0x4000))
	text, dropped := strings.Repeat("x", 1000), uint64(0)
	want := func(direction string, began time.Time) { // half a second's worth at once, and what time gives
		t.Helper()
		n := r.count.drops[tooFast].Load() - dropped
		if most := 6 + 10*time.Since(began).Seconds(); n > 25 || float64(30-n) > most {
			t.Errorf("%d of 30 packets %s were dropped, and %.1f may pass", n, direction, most)
		}
		dropped += n
	}
	began := time.Now()
	for range 30 {
		s.write(channelData(0x4000, text))
	}
	s.want(0, stun.MethodBinding)
	want("to the peer", began)
	began = time.Now()
	for range 30 {
		if _, err := conn.WriteTo([]byte(text), net.UDPAddrFromAddrPort(relayed)); err != nil {
			t.Fatal(err)
		}
	}
	passed := uint64(0)
	for end := time.Now().Add(patience); passed+r.count.drops[tooFast].Load()-dropped < 30; {
		if s.read(10*time.Millisecond) != nil {
			passed++
		} else if time.Now().After(end) {
			t.Fatal("packets are missing")
		}
	}
	want("to the client", began)
}

// TestExpiry takes an address back when its time is over.
func TestExpiry(t *testing.T) {
	r := startRelay(t, nil)
	s := speak(t, r, "udp", "@alice:a.test")
	relayed := s.allocate()
	session := r.session(path{port: r.udp[0], remote: s.local(), local: r.session0(t).path.local})
	session.expiry.Reset(time.Millisecond)
	for end := time.Now().Add(patience); r.Sessions() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it stays")
		}
	}
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(relayed))
	for end := time.Now().Add(patience); err != nil; conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(relayed)) {
		if time.Now().After(end) {
			t.Fatalf("the port is still in use: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
	conn.Close()
	s.want(stun.CodeAllocMismatch, stun.MethodRefresh)
	s.allocate()
}

// session0 is the only session.
func (r *Relay) session0(t testing.TB) *session {
	t.Helper()
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, s := range r.sessions {
		return s
	}
	t.Fatal("there is no session")
	return nil
}

// TestOldTURN relays for a client of pion/turn/v2, and survives the packet that
// ends a server of that version.
func TestOldTURN(t *testing.T) {
	r := startRelay(t, nil)
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	have := r.Issue("@alice:a.test")
	client, err := turn2.NewClient(&turn2.ClientConfig{
		STUNServerAddr: udpAddress(r), TURNServerAddr: udpAddress(r), Conn: conn, Username: have.Username, Password: have.Password, RTO: time.Minute, LoggerFactory: silent{},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Listen(); err != nil {
		t.Fatal(err)
	}
	relayed, err := client.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	peer, _ := peerSocket(t)
	exchange(t, relayed, peer)

	// A Send indication with an empty XOR-PEER-ADDRESS: 32 bytes.
	m, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication),
		attr(stun.AttrData, 1, 2, 3, 4), attr(stun.AttrXORPeerAddress))
	if err != nil || len(m.Raw) != 32 {
		t.Fatalf("%d bytes, %v", len(m.Raw), err)
	}
	if _, err := conn.WriteTo(m.Raw, net.UDPAddrFromAddrPort(r.udp[0].addr())); err != nil {
		t.Fatal(err)
	}
	exchange(t, relayed, peer)
	relayed.Close()
}

// TestOldWebRTC connects two peers of pion/webrtc/v3 that have no way but the
// relay.
func TestOldWebRTC(t *testing.T) {
	var patient webrtc.SettingEngine
	patient.SetICETimeouts(patience, patience, 2*time.Second)
	patient.SetDTLSConnectContextMaker(func() (context.Context, func()) { return context.WithTimeout(context.Background(), patience) })
	api := webrtc.NewAPI(webrtc.WithSettingEngine(patient))
	for _, mode := range []string{"range", "one port"} {
		t.Run(mode, func(t *testing.T) {
			r := startRelay(t, func(o *Options) {
				if mode == "one port" {
					o.Config.OnePort = freePort(t)
				}
			})
			for _, transport := range []string{"udp", "tcp"} {
				t.Run(transport, func(t *testing.T) {
					var peers [2]*webrtc.PeerConnection
					for i, user := range []string{"@alice:a.test", "@bob:a.test"} {
						have := r.Issue(user)
						uri := "turn:" + udpAddress(r) + "?transport=udp"
						if transport == "tcp" {
							uri = "turn:" + r.tcp[0].Addr().String() + "?transport=tcp"
						}
						p, err := api.NewPeerConnection(webrtc.Configuration{
							ICETransportPolicy: webrtc.ICETransportPolicyRelay,
							ICEServers:         []webrtc.ICEServer{{URLs: []string{uri}, Username: have.Username, Credential: have.Password}},
						})
						if err != nil {
							t.Fatal(err)
						}
						defer p.Close()
						peers[i] = p
					}
					talk(t, peers[0], peers[1])
				})
			}
		})
	}
}

// talk connects two peers and sends a message from one to the other and back.
func talk(t *testing.T, a, b *webrtc.PeerConnection) {
	t.Helper()
	heard := make(chan string, 2)
	b.OnDataChannel(func(d *webrtc.DataChannel) {
		d.OnMessage(func(m webrtc.DataChannelMessage) {
			heard <- string(m.Data)
			d.SendText("and hello to you")
		})
	})
	d, err := a.CreateDataChannel("talk", nil)
	if err != nil {
		t.Fatal(err)
	}
	d.OnOpen(func() { d.SendText("hello") })
	d.OnMessage(func(m webrtc.DataChannelMessage) { heard <- string(m.Data) })
	offer, err := a.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(a)
	if err := a.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	if err := b.SetRemoteDescription(*a.LocalDescription()); err != nil {
		t.Fatal(err)
	}
	answer, err := b.CreateAnswer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered = webrtc.GatheringCompletePromise(b)
	if err := b.SetLocalDescription(answer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	if err := a.SetRemoteDescription(*b.LocalDescription()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"hello", "and hello to you"} {
		select {
		case got := <-heard:
			if got != want {
				t.Errorf("%q, want %q", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%q does not arrive", want)
		}
	}
}

// TestStrangers holds memory flat whatever strangers send.
func TestStrangers(t *testing.T) {
	r := startRelay(t, nil)
	conn, err := net.Dial("udp", udpAddress(r))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	packets := [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n"), channelData(0x4000, "data"), {0, 3, 0, 0}, {}}
	for _, method := range []stun.Method{stun.MethodBinding, stun.MethodAllocate, stun.MethodRefresh} {
		s := &speaker{t: t, username: "1:x", realm: "a.test", nonce: "x"}
		signed := s.build(method, overUDP)
		s.realm = ""
		packets = append(packets, s.build(method, overUDP).Raw, signed.Raw)
	}
	drain := make([]byte, 2000)
	flood := func(n int) {
		for i := range n {
			p := packets[i%len(packets)]
			if i%1000 == 0 { // a new source
				conn.Close()
				if conn, err = net.Dial("udp", udpAddress(r)); err != nil {
					t.Fatal(err)
				}
			}
			conn.Write(p)
			if i%50 == 0 { // until it was handled
				conn.SetReadDeadline(time.Now().Add(time.Millisecond))
				conn.Read(drain)
			}
		}
	}
	measure := func() (heap uint64, goroutines int, files int) {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		list, _ := os.ReadDir("/proc/self/fd")
		return m.HeapAlloc, runtime.NumGoroutine(), len(list)
	}
	flood(5000)
	heap, goroutines, files := measure()
	for left := 2; ; left-- { // what is late to begin grows once, and a leak each time
		flood(100_000)
		heap2, goroutines2, files2 := measure()
		if heap2 <= heap+256<<10 && goroutines2 <= goroutines && files2 <= files {
			break
		}
		if left == 0 {
			t.Fatalf("100,000 packets: %d bytes became %d, %d goroutines %d, %d files %d", heap, heap2, goroutines, goroutines2, files, files2)
		}
		heap, goroutines, files = heap2, goroutines2, files2
	}
	dropped := func() uint64 { return r.count.drops[malformed].Load() + r.count.drops[tooOften].Load() }
	for end := time.Now().Add(patience); dropped() < 10_000; flood(1000) { // not by the system, which is busy
		if time.Now().After(end) {
			t.Fatalf("only %d packets were dropped", dropped())
		}
	}
	speak(t, r, "udp", "@alice:a.test").want(0, stun.MethodBinding)
}
