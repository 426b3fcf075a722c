package calltest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/turn/v5"
	"github.com/pion/webrtc/v4"
)

// patience is how long a test waits for what must happen, on a busy machine.
const patience = 2 * time.Minute

// newService is a service without a relay, on the loopback interface.
func newService(t *testing.T, relay Relay) *Service {
	s := &Service{
		Config: DefaultConfig(), Relay: relay, Loopback: true,
		Refuses: func(netip.Addr) bool { return false }, patience: patience,
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	t.Cleanup(func() { stop(); <-done })
	return s
}

// testRelay is a TURN server of pion at the loopback interface.
type testRelay struct {
	uris        []string
	first, last uint16
}

func (r testRelay) TestCredentials(string, time.Duration) Credentials {
	return Credentials{Username: "calltest", Password: "secret", URIs: r.uris}
}
func (r testRelay) Local() string           { return r.uris[0] }
func (r testRelay) External() []netip.Addr  { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} }
func (r testRelay) Ports() (uint16, uint16) { return r.first, r.last }

// startRelay starts a TURN server over UDP and TCP.
func startRelay(t *testing.T) testRelay {
	t.Helper()
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	loopback := &turn.RelayAddressGeneratorStatic{RelayAddress: net.IPv4(127, 0, 0, 1), Address: "127.0.0.1"}
	server, err := turn.NewServer(turn.ServerConfig{
		Realm: "test",
		AuthHandler: func(a *turn.RequestAttributes) (string, []byte, bool) {
			return a.Username, turn.GenerateAuthKey(a.Username, "test", "secret"), a.Username == "calltest"
		},
		PacketConnConfigs: []turn.PacketConnConfig{{PacketConn: udp, RelayAddressGenerator: loopback}},
		ListenerConfigs:   []turn.ListenerConfig{{Listener: tcp, RelayAddressGenerator: loopback}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return testRelay{uris: []string{
		"turn:" + udp.LocalAddr().String() + "?transport=udp",
		"turn:" + tcp.Addr().String() + "?transport=tcp",
	}, first: 1024, last: 65535}
}

// caller is the other side of a call, as a browser would be.
type caller struct {
	t       *testing.T
	pc      *webrtc.PeerConnection
	data    *webrtc.DataChannel
	sound   *webrtc.TrackLocalStaticRTP
	open    chan struct{}
	echoed  chan string
	heard   atomic.Int64 // packets that came back
	markers atomic.Int64 // of these, with the payload that was sent
}

const payload = "the voice of the caller"

// newCaller makes a caller with sound and a data channel.
func newCaller(t *testing.T, conf webrtc.Configuration, codec string) *caller {
	t.Helper()
	settings := webrtc.SettingEngine{}
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetICETimeouts(patience, patience, 2*time.Second)
	settings.SetICEMaxBindingRequests(10_000) // it goes on asking
	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithSettingEngine(settings)).NewPeerConnection(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.GracefulClose() })
	c := &caller{t: t, pc: pc, open: make(chan struct{}), echoed: make(chan string, 10)}
	if c.data, err = pc.CreateDataChannel("test", nil); err != nil {
		t.Fatal(err)
	}
	c.data.OnOpen(func() { close(c.open) })
	c.data.OnMessage(func(m webrtc.DataChannelMessage) { c.echoed <- string(m.Data) })
	if codec != "" {
		c.sound, err = webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: codec}, "voice", "caller")
		if err == nil {
			_, err = pc.AddTrack(c.sound)
		}
		if err != nil {
			t.Fatal(err)
		}
		pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
			for {
				p, _, err := track.ReadRTP()
				if err != nil {
					return
				}
				c.heard.Add(1)
				if string(p.Payload) == payload {
					c.markers.Add(1)
				}
			}
		})
	}
	return c
}

// offer makes the offer, with all candidates in it.
func (c *caller) offer() string {
	c.t.Helper()
	offer, err := c.pc.CreateOffer(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(c.pc)
	if err := c.pc.SetLocalDescription(offer); err != nil {
		c.t.Fatal(err)
	}
	await(c.t, gathered, "the candidates")
	return c.pc.LocalDescription().SDP
}

// accept takes the answer.
func (c *caller) accept(answer string) {
	c.t.Helper()
	if err := c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		c.t.Fatal(err)
	}
}

// talk sends sound until the test ends.
func (c *caller) talk() {
	ctx, stop := context.WithCancel(c.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		sequence := uint16(rand.Uint32())
		for stamp := uint32(0); ctx.Err() == nil; stamp += 960 {
			c.sound.WriteRTP(&rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: sequence, Timestamp: stamp}, Payload: []byte(payload)})
			sequence++
			time.Sleep(20 * time.Millisecond)
		}
	}()
	c.t.Cleanup(func() { stop(); <-done })
}

// await waits until done is closed.
func await[T any](t *testing.T, done <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-done:
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
	}
	return v
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

// TestEcho lets a peer of pion talk with the server: over each path what it
// sends comes back, and the server sees the path and the codec.
func TestEcho(t *testing.T) {
	relay := startRelay(t)
	servers := func(uri string) webrtc.Configuration {
		return webrtc.Configuration{
			ICEServers:         []webrtc.ICEServer{{URLs: []string{uri}, Username: "calltest", Credential: "secret"}},
			ICETransportPolicy: webrtc.ICETransportPolicyRelay,
		}
	}
	for _, tt := range []struct {
		name, codec string
		relay       Relay
		conf        webrtc.Configuration
		want        quality
	}{
		{"direct", webrtc.MimeTypeOpus, nil, webrtc.Configuration{}, quality{codec: "opus"}},
		{"G.711", webrtc.MimeTypePCMA, nil, webrtc.Configuration{}, quality{codec: "PCMA"}},
		{"relay over UDP", webrtc.MimeTypeOpus, relay, servers(relay.uris[0]), quality{codec: "opus", theirs: "relay"}},
		{"relay over TCP", webrtc.MimeTypeOpus, relay, servers(relay.uris[1]), quality{codec: "opus", theirs: "relay"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, tt.relay)
			c := newCaller(t, tt.conf, tt.codec)
			p, answer, err := s.open(t.Context(), c.offer(), 0, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			c.accept(answer)
			await(t, c.open, "the data channel")
			if err := c.data.SendText("ping"); err != nil {
				t.Fatal(err)
			}
			if got := await(t, c.echoed, "the echo"); got != "ping" {
				t.Errorf("%q came back", got)
			}
			c.talk()
			eventually(t, "sound comes back", func() bool { return c.markers.Load() > 20 })
			q := p.quality()
			if !strings.EqualFold(q.codec, tt.want.codec) || q.theirs == "" || tt.want.theirs != "" && q.theirs != tt.want.theirs || q.version == 0 || q.received < 20 {
				t.Errorf("the server saw %+v", q)
			}
			p.close()
			eventually(t, "the peer gives its place back", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.peers) == 0 })
		})
	}
}

// TestLater keeps what is known of a connection while that ends.
func TestLater(t *testing.T) {
	before := quality{ours: "host", theirs: "relay", version: 4, roundTrip: time.Millisecond}
	for _, now := range []quality{{}, {ours: "host", theirs: "relay", version: 4}} { // it forgets the round trip first
		if got := later(before, now); got != before {
			t.Errorf("after %+v came %+v, which makes %+v", before, now, got)
		}
	}
	if now := (quality{ours: "host", theirs: "host", version: 6, roundTrip: time.Second}); later(before, now) != now {
		t.Errorf("%+v is not taken", now)
	}
}

// TestMaySend looks which of the addresses that a stranger names are tried.
func TestMaySend(t *testing.T) {
	s := newService(t, testRelay{uris: []string{"turn:127.0.0.1:3478?transport=udp"}, first: 40000, last: 40010})
	s.Refuses = func(a netip.Addr) bool { return a.IsPrivate() || a.IsLoopback() }
	p := &peer{calls: s}
	const offer = "v=0\r\na=candidate:1 1 udp 1 %s typ host\r\na=x\r\n"
	for address, want := range map[string]bool{
		"8.8.8.8 53":             true,
		"10.0.0.1 53":            false,
		"::ffff:10.0.0.1 53":     false,
		"127.0.0.1 40000":        true, // a relayed address of ours
		"127.0.0.1 5432":         false,
		"secret.internal.lan 80": false,
		"2d1f.local 5000":        false,
		"8.8.8.8 99999":          false,
		"8.8.8.8":                false,
	} {
		if got := strings.Contains(p.reachable(fmt.Sprintf(offer, address)), "candidate"); got != want {
			t.Errorf("%s is tried: %v", address, got)
		}
	}
}
