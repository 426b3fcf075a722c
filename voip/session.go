package voip

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v3"
)

// How long things last (RFC 8656).
const (
	defaultLifetime    = 10 * time.Minute
	maxLifetime        = time.Hour
	permissionLifetime = 5 * time.Minute
	channelLifetime    = 10 * time.Minute
)

// maxPermissions is how many peers one client may name.
const maxPermissions = 256

// The two families of addresses.
const (
	ipv4 = iota
	ipv6
)

// familyOf is the family of an address. An IPv4 address in the clothes of IPv6
// is one of IPv6.
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

// path is how a client is connected: over a UDP port of ours, or a stream. It is
// the 5-tuple of RFC 8656.
type path struct {
	port   *udpPort
	stream *stream
	remote netip.AddrPort
	local  netip.Addr // our address that the client sends to, if the port has several
}

// send sends one message to the client. On is the loop that calls, if one does.
// b may be used until the loop's round ends, and on a stream not at all after
// send.
func (p path) send(on *loop, b []byte) {
	if p.stream != nil {
		p.stream.send(b)
		return
	}
	p.port.send(on, b, p.remote, p.local)
}

// session is a client with one or two relayed addresses: what RFC 8656 calls an
// allocation.
type session struct {
	relay    *Relay
	number   uint64
	path     path
	username string
	user     string
	key      []byte // of the credentials by which it was made
	asked    [stun.TransactionIDSize]byte
	answer   []stun.Setter
	expiry   *time.Timer
	legs     [2]*leg // by family; set before the session is known to anybody else

	mu       sync.Mutex // tier 3; guards what follows, and the fields of legs
	channels map[uint16]netip.AddrPort
	up       bucket // from the client
	down     bucket
}

// leg is one relayed address of a session.
type leg struct {
	session *session
	socket  relaySocket
	address netip.AddrPort // as others see it

	gone        atomic.Bool // given back before the other one of the session
	permissions map[netip.Addr]struct{}
	numbers     map[netip.AddrPort]uint16 // channels, by peer
}

// room is how much there is before each packet that a socket reads: enough for
// the header of a data indication.
const room = 48

// data takes a ChannelData message of the client to its peer.
func (s *session) data(on *loop, b []byte) {
	n := int(binary.BigEndian.Uint16(b[2:]))
	if len(b) < 4+n {
		s.relay.count.dropped(malformed)
		return
	}
	number := binary.BigEndian.Uint16(b)
	now := on.now()
	s.mu.Lock()
	peer, ok := s.channels[number]
	fits := s.up.take(n, s.relay.rate, now)
	s.mu.Unlock()
	switch {
	case !ok:
		s.relay.count.dropped(noPermission)
	case !fits:
		s.relay.count.dropped(tooFast)
	default:
		s.forward(on, s.legs[familyOf(peer.Addr())], b[4:4+n], peer)
	}
}

// sendIndication takes the data of a Send indication to its peer.
func (s *session) sendIndication(on *loop, m *stun.Message) {
	data, err := m.Get(stun.AttrData)
	v, err2 := m.Get(stun.AttrXORPeerAddress)
	if err != nil || err2 != nil {
		s.relay.count.dropped(malformed)
		return
	}
	peer, ok := readAddress(m, v)
	if !ok || m.Contains(stun.AttrDontFragment) {
		s.relay.count.dropped(malformed)
		return
	}
	l := s.legs[familyOf(peer.Addr())]
	now := on.now()
	s.mu.Lock()
	ok = l != nil
	if ok {
		_, ok = l.permissions[peer.Addr()]
	}
	fits := s.up.take(len(data), s.relay.rate, now)
	s.mu.Unlock()
	switch {
	case !ok:
		s.relay.count.dropped(noPermission)
	case !fits:
		s.relay.count.dropped(tooFast)
	default:
		s.forward(on, l, data, peer)
	}
}

// forward sends data from a relayed address to a peer, which may be another
// relayed address of ours.
func (s *session) forward(on *loop, l *leg, data []byte, peer netip.AddrPort) {
	if s.relay.addresses.isExternal(peer.Addr()) {
		if other := s.relay.ports.across(l, data, peer); other != nil {
			s.relay.count.relayed(on, toPeer, len(data))
			other.receive(on, on.copy(data), len(data), l.address)
			return
		}
		if peer == l.address || !s.relay.peers.named(peer.Addr()) {
			s.relay.count.dropped(noPermission) // nothing else of this machine is a peer, nor is the client itself
			return
		}
	}
	s.relay.count.relayed(on, toPeer, len(data))
	l.socket.send(on, data, peer)
}

// receive takes what a peer sent to a relayed address to the client. The data
// are n bytes behind the room at the beginning of buf, with 4 bytes behind them.
func (l *leg) receive(on *loop, buf []byte, n int, peer netip.AddrPort) {
	s := l.session
	now := on.now()
	s.mu.Lock()
	number, channel := l.numbers[peer]
	permitted := channel
	if !channel {
		_, permitted = l.permissions[peer.Addr()]
	}
	fits := permitted && s.down.take(n, s.relay.rate, now)
	s.mu.Unlock()
	switch {
	case !permitted:
		s.relay.count.dropped(noPermission)
		return
	case !fits:
		s.relay.count.dropped(tooFast)
		return
	}
	s.relay.count.relayed(on, toClient, n)
	if channel {
		b := buf[room-4 : room+n]
		binary.BigEndian.PutUint16(b, number)
		binary.BigEndian.PutUint16(b[2:], uint16(n))
		if s.path.stream != nil { // there, messages are padded
			b = pad(buf, room-4, room+n)
		}
		s.path.send(on, b)
		return
	}
	s.path.send(on, dataIndication(buf, n, peer))
}

// pad fills buf[from:to] up to a multiple of four bytes.
func pad(buf []byte, from, to int) []byte {
	for (to-from)%4 != 0 {
		buf[to] = 0
		to++
	}
	return buf[from:to]
}

// dataIndication writes a Data indication around the n bytes behind the room of
// buf.
func dataIndication(buf []byte, n int, peer netip.AddrPort) []byte {
	ip := peer.Addr().AsSlice()
	from := room - 4 - len(ip) - 8 - 20
	b := buf[from:]
	binary.BigEndian.PutUint16(b, 0x0017) // Data indication
	binary.BigEndian.PutUint32(b[4:], 0x2112A442)
	binary.BigEndian.PutUint64(b[8:], rand.Uint64())
	binary.BigEndian.PutUint32(b[16:], rand.Uint32())
	p := b[20:]
	binary.BigEndian.PutUint16(p, uint16(stun.AttrXORPeerAddress))
	binary.BigEndian.PutUint16(p[2:], uint16(4+len(ip)))
	p[4], p[5] = 0, 1
	if len(ip) == 16 {
		p[5] = 2
	}
	binary.BigEndian.PutUint16(p[6:], peer.Port()^0x2112)
	for i := range ip {
		p[8+i] = ip[i] ^ b[4+i]
	}
	binary.BigEndian.PutUint16(buf[room-4:], uint16(stun.AttrData))
	binary.BigEndian.PutUint16(buf[room-2:], uint16(n))
	message := pad(buf, from, room+n)
	binary.BigEndian.PutUint16(message[2:], uint16(len(message)-20))
	return message
}

// leg is the relayed address of a family; nil if there is none.
func (s *session) leg(family int) *leg {
	if l := s.legs[family]; l != nil && !l.gone.Load() {
		return l
	}
	return nil
}

// permit notes that the engine granted a permission or took it away.
func (s *session) permit(peer netip.Addr, on bool) {
	l := s.legs[familyOf(peer)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if on {
		l.permissions[peer] = struct{}{}
	} else {
		delete(l.permissions, peer)
	}
}

// bind notes that the engine bound a channel or freed it.
func (s *session) bind(peer netip.AddrPort, number uint16, on bool) {
	l := s.legs[familyOf(peer.Addr())]
	s.mu.Lock()
	defer s.mu.Unlock()
	if on {
		s.channels[number] = peer
		l.numbers[peer] = number
	} else {
		delete(s.channels, number)
		delete(l.numbers, peer)
	}
}

// The engine holds a leg as its socket.
var _ relayConn = (*leg)(nil)

// external implements relayConn.
func (l *leg) external() netip.AddrPort { return l.address }

// ReadFrom implements net.PacketConn. The engine never sees data: it waits here
// until the relayed address is given back.
func (l *leg) ReadFrom([]byte) (int, net.Addr, error) {
	<-l.socket.done()
	return 0, nil, net.ErrClosed
}

// WriteTo implements net.PacketConn. The engine has nothing to send.
func (l *leg) WriteTo([]byte, net.Addr) (int, error) { return 0, errors.ErrUnsupported }

// Close implements net.PacketConn: the engine gives the address back.
func (l *leg) Close() error {
	l.socket.close()
	return nil
}

// LocalAddr implements net.PacketConn.
func (l *leg) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(l.address) }

// SetDeadline implements net.PacketConn.
func (l *leg) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadDeadline implements net.PacketConn.
func (l *leg) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetWriteDeadline implements net.PacketConn.
func (l *leg) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// mayPermit tells whether the client may name these peers, beside those that it
// has named.
func (s *session) mayPermit(list []netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, l := range s.legs {
		if l != nil {
			n += len(l.permissions)
		}
	}
	for _, p := range list {
		if _, ok := s.legs[familyOf(p.Addr())].permissions[p.Addr()]; !ok {
			n++
		}
	}
	return n <= maxPermissions
}

// mayBind tells whether a channel number is free for a peer, or is the peer's.
func (s *session) mayBind(number uint16, peer netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	bound, taken := s.channels[number]
	other, has := s.legs[familyOf(peer.Addr())].numbers[peer]
	return (!taken || bound == peer) && (!has || other == number)
}
