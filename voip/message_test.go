package voip

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// The test vectors of RFC 5769.
const (
	vectorRequest = "000100582112a442b7e7a701bc34d686fa87dfae" +
		"802200105354554e207465737420636c69656e74" + "002400046e0001ff" + "80290008932ff9b151263b36" +
		"000600096576746a3a68367659202020" + "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2" + "80280004e57a3bcf"
	vectorIPv4 = "0101003c2112a442b7e7a701bc34d686fa87dfae" +
		"8022000b7465737420766563746f7220" + "002000080001a147e112a643" +
		"000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7" + "80280004c07d4c96"
	vectorIPv6 = "010100482112a442b7e7a701bc34d686fa87dfae" +
		"8022000b7465737420766563746f7220" + "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9" +
		"00080014a382954e4be67bf11784c97c8292c275bfe3ed41" + "80280004c8fb0b4c"
	vectorLongTerm = "000100602112a44278ad3433c6ad72c029da412e" +
		"00060012e3839ee38388e383aae38383e382afe382b90000" +
		"0015001c662f2f3439396b39353464364f4c33346f4c394653547679363473" + "41" +
		"0014000b6578616d706c652e6f726700" + "00080014f67024656dd64a3e02b8e0712e85c9a28ca89666"
)

// TestVectors reads the messages of RFC 5769 as it says.
func TestVectors(t *testing.T) {
	short := []byte("VOkJxbRl1RmTxUk/WvJxBt")
	long := longTermKey("マトリックス", "example.org", "TheMatrIX")
	for _, c := range []struct {
		name, vector string
		key          []byte
		mapped       string
	}{
		{"request", vectorRequest, short, ""},
		{"IPv4 response", vectorIPv4, short, "192.0.2.1:32853"},
		{"IPv6 response", vectorIPv6, short, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"},
		{"long-term credentials", vectorLongTerm, long, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := hex.DecodeString(c.vector)
			if err != nil {
				t.Fatal(err)
			}
			m, err := parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if err := stun.MessageIntegrity(c.key).Check(m); err != nil {
				t.Errorf("its signature: %v", err)
			}
			if stun.MessageIntegrity("another").Check(m) == nil {
				t.Error("another key signed it, too")
			}
			if c.mapped != "" {
				v, err := m.Get(stun.AttrXORMappedAddress)
				if err != nil {
					t.Fatal(err)
				}
				if a, ok := readAddress(m, v); !ok || a.String() != c.mapped {
					t.Errorf("address %v, want %s", a, c.mapped)
				}
			}
			for i := range b {
				broken := bytes.Clone(b)
				broken[i] ^= 1
				if m, err := parse(broken); err == nil && m.Contains(stun.AttrFingerprint) {
					t.Errorf("byte %d is wrong, and nobody notices", i)
				}
			}
		})
	}
}

// TestNonces know whom they were given to, and when.
func TestNonces(t *testing.T) {
	n := newNonces()
	alice, bob := netip.MustParseAddrPort("192.0.2.1:5"), netip.MustParseAddrPort("192.0.2.1:6")
	now := time.Now()
	nonce := n.at(alice, uint32(now.Unix()))
	for _, c := range []struct {
		name   string
		nonce  string
		client netip.AddrPort
		at     time.Time
		want   bool
	}{
		{"hers", nonce, alice, now, true},
		{"hers, an hour later", nonce, alice, now.Add(time.Hour), true},
		{"hers, too late", nonce, alice, now.Add(time.Hour + 2*time.Second), false},
		{"from the future", nonce, alice, now.Add(-2 * time.Second), false},
		{"his", nonce, bob, now, false},
		{"another server's", newNonces().at(alice, uint32(now.Unix())), alice, now, false},
		{"empty", "", alice, now, false},
		{"nonsense", strings.Repeat("A", 22), alice, now, false},
		{"long", nonce + "A", alice, now, false},
	} {
		if got := n.valid(c.nonce, c.client, c.at); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// FuzzPacket sends anything to a relay, from a stranger and from a client with a
// relayed address: it answers with STUN messages only, with few more bytes than
// it got, and lets nothing through to whom there is no permission for.
func FuzzPacket(f *testing.F) {
	for _, v := range []string{vectorRequest, vectorLongTerm, "40000004deadbeef", "7fff0000"} {
		b, _ := hex.DecodeString(v)
		f.Add(b)
	}
	r := startRelay(f, func(o *Options) { o.Config.AllowPeers = nil })
	r.bindings, r.challenges = newThrottle(1e12, 1e12), newThrottle(1e12, 1e12)
	s := speak(f, r, "tcp", "@alice:a.test")
	s.allocate()
	s.want(0, stun.MethodCreatePermission, at(netip.MustParseAddrPort("127.0.0.1:9")))
	for _, method := range []stun.Method{stun.MethodAllocate, stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind, stun.MethodConnect} {
		f.Add(s.build(method, overUDP, at(netip.MustParseAddrPort("9.9.9.9:9")), channel(0x4000)).Raw)
	}
	known := r.session0(f).path
	f.Fuzz(func(t *testing.T, b []byte) {
		stranger := path{stream: newStream(nil), remote: netip.MustParseAddrPort("192.0.2.9:9")}
		before := bytes.Clone(b)
		r.packet(nil, stranger, bytes.Clone(b))
		answer := stranger.stream.waiting
		if len(answer) > 0 {
			if _, err := parse(answer); err != nil || len(answer) > len(b)+120 {
				t.Errorf("%x is answered with %x", b, answer)
			}
		}
		sent := r.count.apart.packets[toPeer].Load()
		r.packet(nil, known, bytes.Clone(b))
		if n := r.count.apart.packets[toPeer].Load(); n != sent && !mayForward(before) {
			t.Errorf("%x went to somebody", b)
		}
	})
}

// mayForward tells whether a message is data for the only peer there is a
// permission for.
func mayForward(b []byte) bool {
	m, err := parse(b)
	if err != nil {
		return false
	}
	v, err := m.Get(stun.AttrXORPeerAddress)
	if err != nil {
		return false
	}
	p, ok := readAddress(m, v)
	return ok && p.Addr() == netip.MustParseAddr("127.0.0.1")
}

// FuzzFrames cuts a stream into messages: together they are the stream again, and
// how it was sent makes no difference.
func FuzzFrames(f *testing.F) {
	request, _ := hex.DecodeString(vectorRequest)
	f.Add(append(bytes.Clone(request), request...), 3)
	f.Add(append(channelData(0x4001, "abcde"), 0, 0, 0), 1)
	f.Add([]byte("GET / HTTP/1.1\r\n"), 7)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		cut := func(in *bufio.Reader) (frames [][]byte) {
			for {
				frame, err := nextFrame(in)
				if err != nil {
					return frames
				}
				frames = append(frames, bytes.Clone(frame))
				in.Discard((len(frame) + 3) &^ 3)
			}
		}
		whole := cut(bufio.NewReaderSize(bytes.NewReader(b), maxFrame))
		slow := cut(bufio.NewReaderSize(&trickle{b, 1 + step&15}, maxFrame))
		at := 0
		for i, frame := range whole {
			if i >= len(slow) || !bytes.Equal(frame, slow[i]) {
				t.Fatalf("frame %d is %x at once and another slowly", i, frame)
			}
			if !bytes.Equal(frame, b[at:at+len(frame)]) {
				t.Fatalf("frame %d is %x, not what was sent", i, frame)
			}
			at += (len(frame) + 3) &^ 3
		}
		if len(slow) != len(whole) {
			t.Errorf("%d frames at once, %d slowly", len(whole), len(slow))
		}
	})
}

// trickle gives a few bytes at a time.
type trickle struct {
	rest []byte
	step int
}

// Read implements io.Reader.
func (r *trickle) Read(b []byte) (int, error) {
	n := min(r.step, len(b), len(r.rest))
	if n == 0 {
		return bytes.NewReader(nil).Read(b)
	}
	copy(b, r.rest[:n])
	r.rest = r.rest[n:]
	return n, nil
}
