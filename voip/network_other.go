//go:build !linux

package voip

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// network holds the UDP sockets. Each is read by a goroutine of its own.
type network struct {
	mu      sync.Mutex // tier 3; guards what follows
	started bool
	ended   bool
	open    map[*udpPort]struct{}
	running sync.WaitGroup
	all     counters
}

// loop is where packets are read and handled, one after the other.
type loop struct{ counters *counters }

func newNetwork(int) (*network, error) { return &network{open: map[*udpPort]struct{}{}}, nil }

// udpPort is a UDP address at which we receive.
type udpPort struct {
	network *network
	conn    *net.UDPConn
	handle  handler
	ended   chan struct{}
	once    sync.Once
}

// listen opens a port.
func (w *network) listen(at netip.AddrPort, h handler) (*udpPort, error) { return w.open1(at, nil, h) }

// open1 opens a port.
func (w *network) open1(at netip.AddrPort, _ *loop, h handler) (*udpPort, error) {
	name := "udp4"
	if at.Addr().Is6() {
		name = "udp6"
	}
	conn, err := net.ListenUDP(name, net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	p := &udpPort{network: w, conn: conn, handle: h, ended: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[p] = struct{}{}
	switch {
	case w.ended:
		conn.Close()
	case w.started:
		w.running.Go(p.run)
	}
	return p, nil
}

// run reads all ports until ctx is done.
func (w *network) run(ctx context.Context) error {
	w.mu.Lock()
	w.started = true
	for p := range w.open {
		w.running.Go(p.run)
	}
	w.mu.Unlock()
	<-ctx.Done()
	w.close()
	w.running.Wait()
	return nil
}

// close closes what is open.
func (w *network) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	for p := range w.open {
		p.conn.Close()
	}
}

// counters are those of all loops.
func (w *network) counters() []*counters { return []*counters{&w.all} }

func (p *udpPort) run() {
	buf := make([]byte, room+packetSize+4)
	l := &loop{&p.network.all}
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(buf[room : room+packetSize])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n < packetSize {
			p.handle(l, buf, n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), netip.Addr{})
		}
	}
}

// addr is where the port is.
func (p *udpPort) addr() netip.AddrPort { return p.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// send sends a packet. What cannot be sent is lost, as on any network.
func (p *udpPort) send(_ *loop, b []byte, to netip.AddrPort, _ netip.Addr) {
	p.conn.WriteToUDPAddrPort(b, to)
}

// close gives the port back.
func (p *udpPort) close() {
	p.once.Do(func() {
		p.conn.Close()
		close(p.ended)
		p.network.mu.Lock()
		defer p.network.mu.Unlock()
		delete(p.network.open, p)
	})
}

// tally counts what the loop does.
func (l *loop) tally() *counters { return l.counters }

// now is the time of the packet that is handled, in nanoseconds.
func (l *loop) now() int64 { return time.Now().UnixNano() }

// copy puts data behind a room of its own, as a handler gets it.
func (l *loop) copy(data []byte) []byte {
	b := make([]byte, room+len(data)+4)
	copy(b[room:], data)
	return b
}
