package voip

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"sync"

	"github.com/pion/stun/v3"
)

// onePort is the one UDP port that all relayed addresses of a family share. To
// others they are all the same address, and so what arrives has to be told apart
// by who sends it and by what it is: those who relay calls speak ICE (RFC 8445).
//
//   - An answer goes where its question came from, by the transaction ID.
//   - A question goes to whom it names, by the first half of its USERNAME, which
//     is the second half of what that client writes in its own.
//   - Anything else goes to the client that wrote to the sender last.
//
// The same goes for what one client sends to another when both are here.
type onePort struct {
	udp    *udpPort
	number uint16

	mu     sync.Mutex // tier 3; guards what follows, and the fields of oneSocket
	asked  map[[stun.TransactionIDSize]byte]*oneSocket
	recent [recentQuestions][stun.TransactionIDSize]byte // the keys of asked
	next   int
	named  map[string]*oneSocket
	owners map[origin]*oneSocket
}

const (
	recentQuestions = 1024 // how many questions may wait for an answer
	mostOrigins     = 1024 // to how many one client may write
)

// origin is who sends something: an address, or a client of ours.
type origin struct {
	address netip.AddrPort
	socket  *oneSocket
}

// oneSocket is the share of one client. It implements relaySocket.
type oneSocket struct {
	port    *onePort
	leg     *leg
	local   netip.Addr // from which its packets leave
	ended   chan struct{}
	name    string // its ICE user name fragment
	origins map[origin]struct{}
}

func newOneSocket(p *onePort, l *leg, local netip.Addr) *oneSocket {
	return &oneSocket{port: p, leg: l, local: local, ended: make(chan struct{}), origins: map[origin]struct{}{}}
}

// openOnePort opens the port at an address, or at all.
func openOnePort(w *network, at netip.AddrPort) (*onePort, error) {
	p := &onePort{asked: map[[stun.TransactionIDSize]byte]*oneSocket{}, named: map[string]*oneSocket{}, owners: map[origin]*oneSocket{}}
	var err error
	if p.udp, err = w.listen(at, p.receive); err != nil {
		return nil, err
	}
	p.number = p.udp.addr().Port()
	return p, nil
}

// receive is the handler of the port.
func (p *onePort) receive(on *loop, buf []byte, n int, from netip.AddrPort, _ netip.Addr) {
	p.mu.Lock()
	s := p.find(origin{address: from}, buf[room:room+n])
	p.mu.Unlock()
	if s != nil {
		s.leg.receive(on, buf, n, from)
	}
}

// iceMessage tells what a packet is to ICE: a STUN message of a class, with its
// transaction ID; ok is false if it is something else.
func iceMessage(b []byte) (class stun.MessageClass, id [stun.TransactionIDSize]byte, ok bool) {
	if len(b) < 20 || b[0]&0xc0 != 0 || binary.BigEndian.Uint32(b[4:]) != 0x2112A442 {
		return 0, id, false
	}
	var t stun.MessageType
	t.ReadValue(binary.BigEndian.Uint16(b))
	return t.Class, [stun.TransactionIDSize]byte(b[8:]), true
}

// iceUsername reads the USERNAME of a question: who is asked, and who asks.
func iceUsername(b []byte) (asked, asking string) {
	m, err := parse(b)
	if err != nil {
		return "", ""
	}
	v, err := m.Get(stun.AttrUsername)
	if err != nil {
		return "", ""
	}
	to, from, _ := bytes.Cut(v, []byte{':'})
	return string(to), string(from)
}

// find tells for whom a packet is; nil if that cannot be known. The lock is held.
func (p *onePort) find(from origin, data []byte) *oneSocket {
	class, id, ok := iceMessage(data)
	found := p.owners[from]
	switch {
	case !ok:
	case class == stun.ClassSuccessResponse || class == stun.ClassErrorResponse:
		if s := p.asked[id]; s != nil {
			found = s
		}
	case class == stun.ClassRequest:
		to, _ := iceUsername(data)
		if s := p.named[to]; s != nil && !p.sameName(found, to) {
			found = s
		}
	}
	if found != nil && found == from.socket {
		return nil
	}
	return found
}

// sameName tells whether s bears a name. A browser bears it on several relayed
// addresses at once.
func (p *onePort) sameName(s *oneSocket, name string) bool { return s != nil && s.name == name }

// hear learns from what s sends who it is and what it asks. The lock is held.
func (p *onePort) hear(s *oneSocket, data []byte) {
	class, id, ok := iceMessage(data)
	if !ok || class != stun.ClassRequest {
		return
	}
	delete(p.asked, p.recent[p.next])
	p.recent[p.next] = id
	p.next = (p.next + 1) % recentQuestions
	p.asked[id] = s
	if _, name := iceUsername(data); name != "" && name != s.name {
		if p.named[s.name] == s {
			delete(p.named, s.name)
		}
		s.name = name
		p.named[name] = s
	}
}

// wrote notes that s sent data to somebody. The lock is held.
func (p *onePort) wrote(s *oneSocket, to origin, data []byte) {
	_, _, ice := iceMessage(data)
	owner := p.owners[to]
	if owner == s || owner != nil && ice {
		return // who sends media owns a peer, not who asks whether there is a way
	}
	if _, had := s.origins[to]; had || len(s.origins) < mostOrigins {
		p.owners[to] = s
		s.origins[to] = struct{}{}
	}
}

// send implements relaySocket.
func (s *oneSocket) send(on *loop, data []byte, peer netip.AddrPort) {
	s.port.mu.Lock()
	closed := s.closed()
	if !closed {
		s.port.hear(s, data)
		s.port.wrote(s, origin{address: peer}, data)
	}
	s.port.mu.Unlock()
	if !closed {
		s.port.udp.send(on, data, peer, s.local)
	}
}

// across finds for whom of ours data of s are; nil if that cannot be known.
func (s *oneSocket) across(data []byte) *leg {
	p := s.port
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.closed() {
		return nil
	}
	p.hear(s, data)
	other := p.find(origin{socket: s}, data)
	if other == nil {
		return nil
	}
	p.wrote(s, origin{socket: other}, data)
	return other.leg
}

// close implements relaySocket.
func (s *oneSocket) close() {
	p := s.port
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.closed() {
		return
	}
	close(s.ended)
	if p.named[s.name] == s {
		delete(p.named, s.name)
	}
	for o := range s.origins {
		if p.owners[o] == s {
			delete(p.owners, o)
		}
	}
	delete(p.owners, origin{socket: s})
	for id, asking := range p.asked {
		if asking == s {
			delete(p.asked, id)
		}
	}
}

// closed tells whether the share was given back, which a packet that is on its way
// may not know. The lock of the port is held.
func (s *oneSocket) closed() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// done implements relaySocket.
func (s *oneSocket) done() <-chan struct{} { return s.ended }
