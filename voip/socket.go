package voip

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// handler gets each packet that a port receives. It is n bytes behind the room
// at the beginning of buf, with 4 bytes behind them, and stays until the loop's
// round ends. To is the address that it was sent to, if the port has several.
type handler func(on *loop, buf []byte, n int, from netip.AddrPort, to netip.Addr)

// packetSize is the largest packet that is relayed.
const packetSize = 2048

// network holds the UDP sockets.
type network struct {
	mu      sync.Mutex // tier 3; guards running and waiting
	running *sync.WaitGroup
	waiting []*udpPort
}

// loop is where packets are read and handled, one after the other.
type loop struct {
	counters counters
}

func newNetwork(int) (*network, error) { return &network{}, nil }

// udpPort is a UDP address at which we receive.
type udpPort struct {
	conn   *net.UDPConn
	handle handler
	loop   loop
	ended  chan struct{}
	once   sync.Once
}

// open opens a port; copies sockets share it.
func (n *network) open(at netip.AddrPort, copies int, h handler) (*udpPort, error) {
	name := "udp4"
	if at.Addr().Is6() {
		name = "udp6"
	}
	conn, err := net.ListenUDP(name, net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	p := &udpPort{conn: conn, handle: h, ended: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running != nil {
		n.running.Go(p.run)
	} else {
		n.waiting = append(n.waiting, p)
	}
	return p, nil
}

// run reads all ports until ctx is done.
func (n *network) run(ctx context.Context) error {
	var running sync.WaitGroup
	n.mu.Lock()
	n.running = &running
	for _, p := range n.waiting {
		running.Go(p.run)
	}
	n.mu.Unlock()
	<-ctx.Done()
	for _, p := range n.waiting {
		p.close()
	}
	running.Wait()
	return nil
}

func (p *udpPort) run() {
	buf := make([]byte, room+packetSize+4)
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(buf[room : room+packetSize])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n < packetSize {
			p.handle(&p.loop, buf, n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), netip.Addr{})
		}
	}
}

// addr is where the port is.
func (p *udpPort) addr() netip.AddrPort { return p.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// send sends a packet.
func (p *udpPort) send(_ *loop, b []byte, to netip.AddrPort, _ netip.Addr) {
	p.conn.WriteToUDPAddrPort(b, to) // what cannot be sent is lost, as on any network
}

func (p *udpPort) close() {
	p.once.Do(func() {
		p.conn.Close()
		close(p.ended)
	})
}

// counters are those of all loops.
func (n *network) counters() []*counters {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []*counters
	for _, p := range n.waiting {
		list = append(list, &p.loop.counters)
	}
	return list
}

// now is the time of the packet that is handled, in nanoseconds.
func (l *loop) now() int64 { return time.Now().UnixNano() }

// copy puts data behind a room of its own, as a handler gets it.
func (l *loop) copy(data []byte) []byte {
	b := make([]byte, room+len(data)+4)
	copy(b[room:], data)
	return b
}
