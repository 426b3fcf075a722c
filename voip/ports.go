package voip

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// relaySocket is where a relayed address sends and receives.
type relaySocket interface {
	// send sends to a peer.
	send(on *loop, data []byte, peer netip.AddrPort)

	// close gives the address back. It may be called twice.
	close()

	// done is closed when the address was given back.
	done() <-chan struct{}
}

// reservationTime is how long a port is kept for the one who holds the token.
const reservationTime = 30 * time.Second

var (
	errNoPort   = errors.New("no port is free")
	errNoFamily = errors.New("this machine has no such address")
	errQuota    = errors.New("the user has as many as one may have")
	errFull     = errors.New("all users together have as many as there may be")
)

// ports give out relayed addresses: each one a UDP port of its own, or a share of
// one port.
type ports struct {
	network   *network
	addresses *addresses
	quotas    *quotas
	min, max  uint16
	one       [2]*onePort // by family; nil: each has a port of its own

	mu       sync.Mutex // tier 3; guards taken and reserved
	taken    map[netip.AddrPort]*relayPort
	reserved map[string]reservation
}

// reservation is a port that is kept for who has its token.
type reservation struct {
	port *relayPort
	user string // for whom it counts
}

// relayPort is one of these ports.
type relayPort struct {
	ports   *ports
	udp     *udpPort
	address netip.AddrPort      // as others see it
	leg     atomic.Pointer[leg] // nil while it is reserved
}

// give gives a leg an address of a family: one that was kept for a token, or a
// new one. If the port next to it is to be kept, the token is for that.
func (p *ports) give(l *leg, on *loop, family int, w wish) (token string, err error) {
	local, external := p.addresses.of(family)
	if !external.IsValid() {
		return "", errNoFamily
	}
	if one := p.one[family]; one != nil {
		if w.even && one.number%2 == 1 || w.reserve || w.token != "" {
			return "", errNoPort
		}
		l.socket, l.address = newOneSocket(one, l, local), netip.AddrPortFrom(external, one.number)
		return "", nil
	}
	var port *relayPort
	if w.token != "" {
		if port = p.claim(w.token); port == nil {
			return "", errNoPort
		}
	} else if port, token, err = p.take(on, local, external, w); err != nil {
		return "", err
	}
	l.socket, l.address = port, port.address
	port.leg.Store(l)
	return token, nil
}

// take opens a port. With even its number is even; with reserve the next one is
// kept, too, and the token is for it. It counts as one that the user has.
func (p *ports) take(on *loop, local, external netip.Addr, w wish) (socket *relayPort, token string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.reserve {
		if err := p.quotas.take(w.user); err != nil {
			return nil, "", err
		}
		defer func() {
			if token == "" {
				p.quotas.give(w.user)
			}
		}()
	}
	size := int(p.max) - int(p.min) + 1
	start, err := rand.Int(rand.Reader, big.NewInt(int64(size)))
	if err != nil {
		return nil, "", err
	}
	for i := range size {
		number := p.min + uint16((int(start.Int64())+i)%size)
		if w.even && number%2 == 1 || w.reserve && number == p.max {
			continue
		}
		first, err := p.open(on, local, external, number)
		if errors.Is(err, errNoPort) {
			continue
		}
		if err != nil || !w.reserve {
			return first, "", err
		}
		second, err := p.open(on, local, external, number+1)
		if err != nil {
			p.shut(first)
			continue
		}
		token := rand.Text()[:8]
		p.reserved[token] = reservation{second, w.user}
		time.AfterFunc(reservationTime, func() { p.forget(token) })
		return first, token, nil
	}
	return nil, "", errNoPort
}

// claim gives out the port that was kept for a token; nil if there is none.
func (p *ports) claim(token string) *relayPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.reserved[token]
	if ok {
		delete(p.reserved, token)
		p.quotas.give(r.user)
	}
	return r.port
}

// reservedFamily is the family of the port that is kept for a token; false if
// there is none.
func (p *ports) reservedFamily(token string) (family int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.reserved[token]
	if !ok {
		return 0, false
	}
	return familyOf(r.port.address.Addr()), true
}

func (p *ports) forget(token string) {
	if r := p.claim(token); r != nil {
		r.close()
	}
}

// open opens one port; errNoPort if somebody has it. The lock is held.
func (p *ports) open(on *loop, local, external netip.Addr, number uint16) (*relayPort, error) {
	r := &relayPort{ports: p, address: netip.AddrPortFrom(external, number)}
	if p.taken[r.address] != nil {
		return nil, errNoPort
	}
	var err error
	r.udp, err = p.network.open1(netip.AddrPortFrom(local, number), on, r.receive)
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES) {
		return nil, errNoPort
	}
	if err != nil {
		return nil, fmt.Errorf("relay port %d: %w", number, err)
	}
	p.taken[r.address] = r
	return r, nil
}

// shut closes a port. The lock is held.
func (p *ports) shut(r *relayPort) {
	r.udp.close()
	if p.taken[r.address] == r {
		delete(p.taken, r.address)
	}
}

// across finds the leg that has a relayed address, to which another one sends
// data; nil if there is none.
func (p *ports) across(from *leg, data []byte, address netip.AddrPort) *leg {
	if s, ok := from.socket.(*oneSocket); ok {
		if address != from.address {
			return nil
		}
		return s.across(data)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.taken[address]; r != nil {
		return r.leg.Load()
	}
	return nil
}

// isRelay tells whether an address of ours may be a relayed one.
func (p *ports) isRelay(a netip.AddrPort) bool {
	if one := p.one[familyOf(a.Addr())]; one != nil {
		return a.Port() == one.number
	}
	return a.Port() >= p.min && a.Port() <= p.max
}

// openOne opens the port that all share, at the addresses that there are.
func (p *ports) openOne(number uint16) error {
	for family := range p.one {
		at := p.addresses.bound[family]
		if !at.IsValid() {
			at = unspecified(family)
		}
		one, err := openOnePort(p.network, netip.AddrPortFrom(at, number))
		if err != nil && family == ipv4 {
			return err
		}
		p.one[family] = one
	}
	return nil
}

// receive is the handler of the port.
func (r *relayPort) receive(on *loop, buf []byte, n int, from netip.AddrPort, _ netip.Addr) {
	if l := r.leg.Load(); l != nil {
		l.receive(on, buf, n, from)
	}
}

// send implements relaySocket.
func (r *relayPort) send(on *loop, data []byte, peer netip.AddrPort) {
	r.udp.send(on, data, peer, netip.Addr{})
}

// close implements relaySocket.
func (r *relayPort) close() {
	r.ports.mu.Lock()
	defer r.ports.mu.Unlock()
	r.ports.shut(r)
}

// done implements relaySocket.
func (r *relayPort) done() <-chan struct{} { return r.udp.ended }
