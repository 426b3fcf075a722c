package voip

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// patience is how long a test waits for what must come.
const patience = 2 * time.Minute

// speaker is a TURN client that says what a test wants it to.
type speaker struct {
	t        testing.TB
	conn     net.Conn
	in       *bufio.Reader // over TCP
	user     string
	username string
	password string
	realm    string
	nonce    string
}

// speak connects a client of a user to a relay: "udp", "tcp" or "tls".
func speak(t testing.TB, r *Relay, network, user string) *speaker {
	t.Helper()
	s := &speaker{t: t, user: user}
	if r.issuer.secrets != nil {
		have := r.Issue(user)
		s.username, s.password = have.Username, have.Password
	}
	var err error
	switch network {
	case "udp":
		s.conn, err = net.Dial("udp", r.udp[0].addr().String())
	case "udp6":
		s.conn, err = net.Dial("udp6", r.udp[1].addr().String())
	case "tcp":
		s.conn, err = net.Dial("tcp", r.tcp[0].Addr().String())
	case "tls":
		s.conn, err = tls.Dial("tcp", r.tls[0].Addr().String(), &tls.Config{InsecureSkipVerify: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	if network[:1] == "t" {
		s.in = bufio.NewReaderSize(s.conn, maxFrame)
	}
	t.Cleanup(func() { s.conn.Close() })
	return s
}

// read reads the next message; nil if none comes in time.
func (s *speaker) read(limit time.Duration) []byte {
	s.conn.SetReadDeadline(time.Now().Add(limit))
	if s.in == nil {
		b := make([]byte, 4096)
		n, err := s.conn.Read(b)
		if err != nil {
			return nil
		}
		return b[:n]
	}
	frame, err := nextFrame(s.in)
	if err != nil {
		return nil
	}
	b := append([]byte{}, frame...)
	s.in.Discard((len(frame) + 3) &^ 3)
	return b
}

// write sends a message.
func (s *speaker) write(b []byte) {
	s.t.Helper()
	if s.in != nil {
		b = append(append([]byte{}, b...), make([]byte, (4-len(b)%4)%4)...)
	}
	if _, err := s.conn.Write(b); err != nil {
		s.t.Fatal(err)
	}
}

// ask sends a message, again and again over UDP, until its answer comes.
func (s *speaker) ask(m *stun.Message) *stun.Message {
	s.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		s.write(m.Raw)
		wait := 3 * time.Second
		if s.in != nil {
			wait = patience
		}
		for b := s.read(wait); b != nil; b = s.read(wait) {
			answer, err := parse(b)
			if err == nil && answer.TransactionID == m.TransactionID {
				return answer
			}
		}
	}
	s.t.Fatalf("no answer to %v", m)
	return nil
}

// build makes a message; signed if the server's realm is known.
func (s *speaker) build(method stun.Method, with ...stun.Setter) *stun.Message {
	s.t.Helper()
	setters := append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, with...)
	if s.realm != "" {
		setters = append(setters, stun.NewUsername(s.username), stun.NewRealm(s.realm), stun.NewNonce(s.nonce),
			stun.MessageIntegrity(longTermKey(s.username, s.realm, s.password)))
	}
	m, err := stun.Build(append(setters, stun.Fingerprint)...)
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// request asks, as the user if it has logged in, and gives the answer with its
// error code, 0 if it succeeded.
func (s *speaker) request(method stun.Method, with ...stun.Setter) (*stun.Message, stun.ErrorCode) {
	s.t.Helper()
	answer := s.ask(s.build(method, with...))
	var code stun.ErrorCodeAttribute
	if answer.Type.Class == stun.ClassErrorResponse && code.GetFrom(answer) != nil {
		s.t.Fatalf("an error without a code: %v", answer)
	}
	return answer, code.Code
}

// want makes a request and wants a code, 0 for success.
func (s *speaker) want(code stun.ErrorCode, method stun.Method, with ...stun.Setter) *stun.Message {
	s.t.Helper()
	answer, got := s.request(method, with...)
	if got != code {
		s.t.Errorf("%s %v: %d, want %d", method, with, got, code)
	}
	return answer
}

// greet learns realm and nonce.
func (s *speaker) greet() *speaker {
	s.t.Helper()
	s.realm = ""
	answer := s.want(stun.CodeUnauthorized, stun.MethodAllocate, overUDP)
	var realm stun.Realm
	var nonce stun.Nonce
	if realm.GetFrom(answer) != nil || nonce.GetFrom(answer) != nil {
		s.t.Fatalf("no realm or nonce: %v", answer)
	}
	s.realm, s.nonce = realm.String(), nonce.String()
	return s
}

// allocate gives the client a relayed address.
func (s *speaker) allocate(with ...stun.Setter) netip.AddrPort {
	s.t.Helper()
	answer := s.greet().want(0, stun.MethodAllocate, append([]stun.Setter{overUDP}, with...)...)
	return relayed(answer)[0]
}

// relayed are the relayed addresses in an answer.
func relayed(m *stun.Message) (list []netip.AddrPort) {
	for _, a := range m.Attributes {
		if a.Type == stun.AttrXORRelayedAddress {
			if p, ok := readAddress(m, a.Value); ok {
				list = append(list, p)
			}
		}
	}
	return list
}

// indicate sends data to a peer.
func (s *speaker) indicate(peer netip.AddrPort, data string) {
	s.t.Helper()
	m, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication), at(peer), stun.RawAttribute{Type: stun.AttrData, Value: []byte(data)})
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(m.Raw)
}

// data waits for data from a peer, in an indication or a channel. It passes over
// answers: those to a request that was sent again while the first one was late.
func (s *speaker) data() (data string, from netip.AddrPort, channel uint16) {
	s.t.Helper()
	b := s.read(patience)
	for len(b) > 0 && b[0] == 1 { // of the class of answers
		b = s.read(patience)
	}
	if len(b) < 4 {
		s.t.Fatal("no data came")
	}
	if b[0]&0xc0 == 0x40 {
		return string(b[4 : 4+binary.BigEndian.Uint16(b[2:])]), netip.AddrPort{}, binary.BigEndian.Uint16(b)
	}
	m, err := parse(b)
	if err != nil || m.Type != stun.NewType(stun.MethodData, stun.ClassIndication) {
		s.t.Fatalf("%x is no data indication: %v", b, err)
	}
	v, err := m.Get(stun.AttrXORPeerAddress)
	if err != nil {
		s.t.Fatal(err)
	}
	d, err := m.Get(stun.AttrData)
	if err != nil {
		s.t.Fatal(err)
	}
	from, _ = readAddress(m, v)
	return string(d), from, 0
}

// channelData is a message on a channel.
func channelData(number uint16, data string) []byte {
	b := binary.BigEndian.AppendUint16(nil, number)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(data))), data...)
}

// overUDP is what every allocation asks for.
var overUDP = attr(stun.AttrRequestedTransport, 17, 0, 0, 0)

func attr(t stun.AttrType, v ...byte) stun.RawAttribute {
	return stun.RawAttribute{Type: t, Value: v}
}

// at is a peer.
func at(p netip.AddrPort) stun.Setter { return address{stun.AttrXORPeerAddress, p} }

func lifetime(seconds uint32) stun.Setter {
	return attr(stun.AttrLifetime, binary.BigEndian.AppendUint32(nil, seconds)...)
}

func channel(number uint16) stun.Setter {
	return attr(stun.AttrChannelNumber, byte(number>>8), byte(number), 0, 0)
}

// peerSocket is somebody else, on loopback.
func peerSocket(t *testing.T) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(patience))
	return conn, conn.LocalAddr().(*net.UDPAddr).AddrPort()
}
