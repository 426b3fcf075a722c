package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"switchboard/voip"
)

// alpnTURN is TURN among the protocols inside TLS (RFC 7443).
const alpnTURN = "stun.turn"

// How many connections may be in their handshake: all together, and of one
// source.
const (
	maxPending    = 1024
	maxPendingOne = 128
)

// mux is a listener for HTTPS that keeps the connections of TURN for somebody
// else: those that name the protocol, or that begin as a STUN message does, over
// TLS or not. All others it hands on, with TLS done.
type mux struct {
	net.Listener
	config  *tls.Config
	timeout time.Duration // until it is clear what a connection is
	turn    func(net.Conn)

	start  sync.Once
	https  chan net.Conn
	closed chan struct{}

	mu      sync.Mutex              // tier 1; guards what follows
	err     error                   // why there are no more connections
	pending map[net.Conn]netip.Addr // of which source
	from    map[netip.Addr]int      // how many of each
}

func newMux(l net.Listener, config *tls.Config, timeout time.Duration, turn func(net.Conn)) *mux {
	return &mux{
		Listener: l, config: config, timeout: timeout, turn: turn,
		https: make(chan net.Conn), closed: make(chan struct{}), pending: map[net.Conn]netip.Addr{}, from: map[netip.Addr]int{},
	}
}

// Accept implements net.Listener: it waits for a connection that is not TURN.
func (m *mux) Accept() (net.Conn, error) {
	m.start.Do(func() { go m.acceptAll() })
	select {
	case conn := <-m.https:
		return conn, nil
	case <-m.closed:
		return nil, m.err
	}
}

// Close implements net.Listener. The connections of TURN stay.
func (m *mux) Close() error {
	m.stop(net.ErrClosed)
	return m.Listener.Close()
}

// stop ends Accept and the connections of which it is not clear what they are.
func (m *mux) stop(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return
	}
	m.err = err
	close(m.closed)
	for conn := range m.pending {
		conn.Close()
	}
}

func (m *mux) acceptAll() {
	for {
		conn, err := m.Listener.Accept()
		var temporary interface{ Temporary() bool }
		switch {
		case err == nil:
			go m.sort(conn)
		case errors.As(err, &temporary) && temporary.Temporary(): // too many files, for instance
			time.Sleep(50 * time.Millisecond)
		default:
			m.stop(err)
			return
		}
	}
}

// wait counts a connection of which it is not clear what it is; false if there
// are too many of its source. If there are too many of all sources, it takes the
// place of another one, which chance finds: those who only hold places lose them
// sooner or later, and those who use them are seldom in one.
func (m *mux) wait(conn net.Conn) bool {
	var from netip.Addr // of a socket that has no addresses, none
	if at, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		from = voip.Source(at.Addr())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil || from.IsValid() && m.from[from] >= maxPendingOne {
		return false
	}
	if len(m.pending) >= maxPending {
		for other := range m.pending {
			m.forget(other)
			other.Close()
			break
		}
	}
	m.pending[conn] = from
	m.from[from]++
	return true
}

// forget counts one less, if it is counted. The lock is held.
func (m *mux) forget(conn net.Conn) {
	from, ok := m.pending[conn]
	if !ok {
		return
	}
	delete(m.pending, conn)
	if m.from[from]--; m.from[from] == 0 {
		delete(m.from, from)
	}
}

// sort finds out what a connection is and hands it on.
func (m *mux) sort(raw net.Conn) {
	if !m.wait(raw) {
		raw.Close()
		return
	}
	conn, turn, err := m.look(raw)
	m.mu.Lock()
	m.forget(raw)
	m.mu.Unlock()
	switch {
	case err != nil:
		raw.Close()
	case turn:
		m.turn(conn)
	default:
		select {
		case m.https <- conn:
		case <-m.closed:
			conn.Close()
		}
	}
}

// look reads as much of a connection as it takes to know what it is.
func (m *mux) look(raw net.Conn) (conn net.Conn, turn bool, err error) {
	if err := raw.SetDeadline(time.Now().Add(m.timeout)); err != nil {
		return nil, false, err
	}
	plain, err := peek(raw)
	if err != nil {
		return nil, false, err
	}
	if plain.stun() {
		return plain, true, plain.SetDeadline(time.Time{})
	}
	secure := tls.Server(plain, m.config)
	if err := secure.Handshake(); err != nil {
		return nil, false, fmt.Errorf("tls: %w", err)
	}
	conn = secure
	switch secure.ConnectionState().NegotiatedProtocol {
	case alpnTURN:
		turn = true
	case "": // a client that does not say
		inside, err := peek(secure)
		if err != nil {
			return nil, false, err
		}
		conn, turn = inside, inside.stun()
	}
	return conn, turn, conn.SetDeadline(time.Time{})
}

// peeked is a connection of which the first byte was read. Reading gives it
// again.
type peeked struct {
	net.Conn
	first [1]byte
	again bool
}

func peek(conn net.Conn) (*peeked, error) {
	p := &peeked{Conn: conn, again: true}
	_, err := io.ReadFull(conn, p.first[:])
	return p, err
}

// stun tells whether it begins as a STUN request does, and neither TLS nor HTTP.
func (p *peeked) stun() bool { return p.first[0] == 0 }

// Read implements io.Reader.
func (p *peeked) Read(b []byte) (int, error) {
	if p.again && len(b) > 0 {
		p.again = false
		b[0] = p.first[0]
		return 1, nil
	}
	return p.Conn.Read(b)
}
