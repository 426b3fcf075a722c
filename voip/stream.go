package voip

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Bounds of clients over TCP and TLS.
const (
	maxFrame      = 8 << 10          // bytes of one message
	maxBacklog    = 256 << 10        // bytes that wait for a slow client; what is more is lost
	authTime      = 30 * time.Second // how long one may be connected without a relayed address
	writeTime     = 10 * time.Second
	maxStreams    = 8192
	maxUnknown    = 512 // streams without a relayed address, all together
	maxUnknownOne = 64  // and from one source
)

// gate bounds the connections of those who have shown no credentials yet.
type gate struct {
	mu      sync.Mutex // tier 3; guards what follows
	all     map[*stream]struct{}
	unknown map[*stream]netip.Addr // and of which source
	from    map[netip.Addr]int     // how many of these each has
	closed  bool
	empty   sync.WaitGroup
}

// enter lets a connection in; false if there are too many, or too many of its
// source. If those of all sources together are too many that have shown no
// credentials, it takes the place of one of these, which chance finds: who only
// holds places loses them sooner or later, and who uses one seldom does.
func (g *gate) enter(s *stream, a netip.Addr) bool {
	other, ok := g.admit(s, a)
	if other != nil {
		other.conn.Close()
	}
	return ok
}

// admit is enter, and gives the connection that has to go.
func (g *gate) admit(s *stream, a netip.Addr) (other *stream, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || len(g.all) >= maxStreams || g.from[a] >= maxUnknownOne {
		return nil, false
	}
	if g.from == nil {
		g.all, g.unknown, g.from = map[*stream]struct{}{}, map[*stream]netip.Addr{}, map[netip.Addr]int{}
	}
	if len(g.unknown) >= maxUnknown {
		for other = range g.unknown {
			break
		}
		g.forget(other)
	}
	g.empty.Add(1)
	g.all[s] = struct{}{}
	g.suspect(s, a)
	return other, true
}

// know counts a connection as one of a user, or no more. One that has left counts
// no more anyway.
func (g *gate) know(s *stream, a netip.Addr, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, in := g.all[s]; !in {
		return
	}
	if known {
		g.forget(s)
	} else {
		g.suspect(s, a)
	}
}

// leave lets a connection out.
func (g *gate) leave(s *stream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.all, s)
	g.empty.Done()
	g.forget(s)
}

// close closes all connections, and lets none in any more.
func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	for s := range g.all {
		s.conn.Close()
	}
	g.mu.Unlock()
	g.empty.Wait()
}

// suspect counts one more that is not known. The lock is held.
func (g *gate) suspect(s *stream, a netip.Addr) {
	g.unknown[s] = a
	g.from[a]++
}

// forget counts one less, if it counts. The lock is held.
func (g *gate) forget(s *stream) {
	a, ok := g.unknown[s]
	if !ok {
		return
	}
	delete(g.unknown, s)
	if g.from[a]--; g.from[a] == 0 {
		delete(g.from, a)
	}
}

// stream is a client over TCP or TLS.
type stream struct {
	conn  net.Conn
	plain bool // it is TCP; of TLS, some clients take one message from each record

	mu      sync.Mutex // tier 3; guards what follows
	known   bool       // it has a relayed address
	waiting []byte
	spare   []byte
	closed  bool
	wake    *sync.Cond
}

func newStream(conn net.Conn) *stream {
	_, plain := conn.(*net.TCPConn)
	s := &stream{conn: conn, plain: plain}
	s.wake = sync.NewCond(&s.mu)
	return s
}

// send puts a message in line. It does not wait; b may be used again.
func (s *stream) send(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.waiting)+len(b) > maxBacklog {
		return
	}
	s.waiting = append(s.waiting, b...)
	s.wake.Signal()
}

// write writes what waits until the stream is closed.
func (s *stream) write() {
	for {
		s.mu.Lock()
		for len(s.waiting) == 0 && !s.closed {
			s.wake.Wait()
		}
		if s.closed {
			s.mu.Unlock()
			return
		}
		b := s.waiting
		s.waiting = s.spare[:0]
		s.mu.Unlock()
		s.conn.SetWriteDeadline(time.Now().Add(writeTime))
		for rest := b; len(rest) > 0; {
			n := len(rest)
			if !s.plain {
				_, n = frameSize(rest)
			}
			if _, err := s.conn.Write(rest[:n]); err != nil {
				s.close()
				return
			}
			rest = rest[n:]
		}
		s.mu.Lock()
		s.spare = b
		s.mu.Unlock()
	}
}

func (s *stream) close() {
	s.mu.Lock()
	s.closed = true
	s.wake.Signal()
	s.mu.Unlock()
	s.conn.Close()
}

// ServeConn serves a client that is connected over TCP or TLS, until it or the
// relay ends. What of it was read already, to see what it is, must come from
// conn's Read again.
func (r *Relay) ServeConn(conn net.Conn) {
	defer conn.Close()
	<-r.serving
	remote, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return
	}
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	s, from := newStream(conn), Source(remote.Addr())
	if !r.gate.enter(s, from) {
		r.count.dropped(tooMany)
		return
	}
	p := path{stream: s, remote: remote}
	defer func() {
		if session := r.session(p); session != nil {
			r.end(session)
		}
		r.gate.leave(s)
	}()
	conn.SetDeadline(time.Now().Add(authTime))
	if t, ok := conn.(*tls.Conn); ok {
		if err := t.Handshake(); err != nil {
			return
		}
	}
	var writer sync.WaitGroup
	writer.Go(s.write)
	defer writer.Wait()
	defer s.close()
	in := bufio.NewReaderSize(conn, maxFrame)
	for {
		frame, err := nextFrame(in)
		if err != nil {
			return
		}
		r.packet(nil, p, frame)
		if _, err := in.Discard(len(frame) + (4-len(frame)%4)%4); err != nil {
			return
		}
	}
}

// know notes whether a client over a stream has a relayed address. Those that
// have none must ask for one in time.
func (r *Relay) know(p path, known bool) {
	s := p.stream
	s.mu.Lock()
	changed := s.known != known && !s.closed
	if changed {
		s.known = known
	}
	s.mu.Unlock()
	if !changed {
		return
	}
	r.gate.know(s, Source(p.remote.Addr()), known)
	deadline := time.Time{}
	if !known {
		deadline = time.Now().Add(authTime)
	}
	s.conn.SetReadDeadline(deadline)
}

// errFrame ends a stream that does not speak TURN.
var errFrame = errors.New("neither STUN nor ChannelData")

// nextFrame reads the next message of a stream. It stays in the reader. Behind
// ChannelData are up to three bytes more, so that the next message begins at a
// multiple of four (RFC 8656, 12.5).
func nextFrame(in *bufio.Reader) ([]byte, error) {
	head, err := in.Peek(4)
	if err != nil {
		return nil, err
	}
	n, padded := frameSize(head)
	if n == 0 || padded > maxFrame {
		return nil, errFrame
	}
	b, err := in.Peek(padded)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

// frameSize is how long the message is that begins with four bytes, and how long
// with what fills it up. It is 0 if they begin none.
func frameSize(head []byte) (n, padded int) {
	n = int(binary.BigEndian.Uint16(head[2:]))
	switch {
	case head[0]&0xc0 == 0 && n%4 == 0:
		return n + 20, n + 20
	case head[0]&0xc0 == 0x40:
		return n + 4, (n + 7) &^ 3
	}
	return 0, 0
}

// accept serves the clients of a listener until ctx is done.
func (r *Relay) accept(ctx context.Context, l net.Listener, config *tls.Config) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil { // too many files, or it was reset already
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		if config != nil {
			conn = tls.Server(conn, config)
		}
		go r.ServeConn(conn)
	}
}
