package bridgetest

import (
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
)

// Proxy carries TCP connections to a server, until it cuts them.
type Proxy struct {
	// Address is where it listens, host:port.
	Address string

	target string

	mu    sync.Mutex // tier 1; guards what follows
	down  bool
	conns map[net.Conn]bool // true for those that were cut
	ended sync.Cond         // one of them is closed
}

// NewProxy runs a proxy to target, host:port, until the test ends.
func NewProxy(t *testing.T, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Address: l.Addr().String(), target: target, conns: make(map[net.Conn]bool)}
	p.ended.L = &p.mu
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.carry(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.Down()
		serving.Wait()
	})
	return p
}

// carry connects a client with the server.
func (p *Proxy) carry(client net.Conn) {
	defer client.Close()
	p.awaitCut()
	if !p.hold(client) {
		return
	}
	defer p.forget(client)
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.hold(server) {
		return
	}
	defer p.forget(server)
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	_, _ = io.Copy(client, server)
	_ = client.Close()
	up.Wait()
}

// awaitCut waits until what was cut is closed. Who comes back must not meet itself,
// which on IRC would cost it its nick.
func (p *Proxy) awaitCut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for slices.Contains(slices.Collect(maps.Values(p.conns)), true) {
		p.ended.Wait()
	}
}

func (p *Proxy) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.down {
		p.conns[c] = false
	}
	return !p.down
}

func (p *Proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	p.ended.Broadcast()
}

// Cut resets all connections, with what is under way in them. New ones are
// carried.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close() // in fact when nobody reads it any more
		p.conns[c] = true
	}
}

// AwaitEnd waits until nothing is carried any more. Whoever has connected has
// ended; the server is to know it before another comes.
func (p *Proxy) AwaitEnd(t *testing.T) {
	t.Helper()
	Eventually(t, "all connections end", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.conns) == 0
	})
}

// Down is Cut, and refuses new connections until Up.
func (p *Proxy) Down() {
	p.mu.Lock()
	p.down = true
	p.mu.Unlock()
	p.Cut()
}

// Up ends Down.
func (p *Proxy) Up() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}
