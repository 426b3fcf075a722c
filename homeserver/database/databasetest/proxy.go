package databasetest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// Fate is what a Proxy does with a COMMIT.
type Fate int

// What can happen to a COMMIT.
const (
	Passed  Fate = iota // it goes through, as does its answer
	Cut                 // it is lost, with both connections
	Unheard             // the server carries it out, and the client loses its connection
	Stuck               // the client loses its connection, of which the server learns nothing
	Gone                // as Unheard, and the client gets no other connection until Down is called with false
)

// Proxy stands before a PostgreSQL server and loses connections.
type Proxy struct {
	// URL leads to the server by way of the proxy.
	URL string

	target string
	wg     sync.WaitGroup

	mu    sync.Mutex // tier 1; guards what follows
	fates []Fate
	down  bool
	open  map[net.Conn]bool
}

// StartProxy returns a proxy to the server of a URL, until the end of the test.
func StartProxy(t testing.TB, dsn string) *Proxy {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	target := u.Host
	if u.Port() == "" {
		target = net.JoinHostPort(u.Hostname(), "5432")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("sslmode", "disable") // it reads what passes
	u.Host, u.RawQuery = l.Addr().String(), query.Encode()
	p := &Proxy{URL: u.String(), target: target, open: map[net.Conn]bool{}}
	p.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); p.Down(true); p.wg.Wait() })
	return p
}

// Next says what happens to the next COMMITs, one after the other. All others
// pass.
func (p *Proxy) Next(fates ...Fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fates = fates
}

// Left is how many of the COMMITs that Next named are still to come.
func (p *Proxy) Left() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.fates)
}

// Down ends all connections and refuses new ones until it is called with false.
func (p *Proxy) Down(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
	for c := range p.open {
		_ = c.Close()
	}
}

// leave is Down for all but a connection to the server.
func (p *Proxy) leave(server net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for c := range p.open {
		if c != server {
			_ = c.Close()
		}
	}
}

// keep has Down close c, and reports false if it is to be closed now.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[c] = true
	return !p.down
}

func (p *Proxy) close(c net.Conn) {
	p.mu.Lock()
	delete(p.open, c)
	p.mu.Unlock()
	_ = c.Close()
}

func (p *Proxy) fate() Fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.fates) == 0 {
		return Passed
	}
	f := p.fates[0]
	p.fates = p.fates[1:]
	return f
}

func (p *Proxy) serve(client net.Conn) {
	defer p.close(client)
	if !p.keep(client) {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer p.close(server)
	if !p.keep(server) {
		return
	}
	answers, ended := &mouth{Conn: client}, make(chan struct{})
	p.wg.Go(func() {
		defer close(ended)
		_, _ = io.Copy(answers, server)
		p.close(client)
	})
	fate, rest := p.forward(client, server)
	switch fate {
	case Unheard: // it is carried out before the client can ask what came of it
		answers.shut.Store(true)
		_ = write(server, rest)
		<-ended
	case Gone:
		p.leave(server)
		_ = write(server, rest)
	}
	p.close(client)
	if fate != Passed && fate != Cut {
		_, _ = io.Copy(io.Discard, server) // until somebody else ends it
	}
}

// mouth is a connection that says nothing any more once it is shut: what comes
// then is its end.
type mouth struct {
	net.Conn
	shut atomic.Bool
}

// Write implements io.Writer.
func (m *mouth) Write(b []byte) (int, error) {
	if m.shut.Load() {
		return 0, net.ErrClosed
	}
	return m.Conn.Write(b)
}

// forward passes on what the client says until one of both leaves, or until a
// COMMIT that does not pass. That is returned, with what belongs to it.
func (p *Proxy) forward(client io.Reader, server io.Writer) (Fate, []byte) {
	in := bufio.NewReader(client)
	m, err := message(in, 0)     // StartupMessage has no type
	commits := map[string]bool{} // names of statements
	for err == nil && write(server, m) == nil {
		if m, err = message(in, 1); err != nil {
			break
		}
		name, rest, _ := bytes.Cut(m[5:], []byte{0})
		switch m[0] {
		case 'P': // Parse: name, text
			commits[string(name)] = bytes.HasPrefix(rest, []byte("COMMIT\x00"))
		case 'B': // Bind: portal, name
			name, _, _ := bytes.Cut(rest, []byte{0})
			if !commits[string(name)] {
				break
			}
			if f := p.fate(); f != Passed {
				rest := m
				for err == nil && m[0] != 'S' { // Sync ends it
					m, err = message(in, 1)
					rest = append(rest, m...)
				}
				return f, rest
			}
		}
	}
	return Passed, nil
}

// message reads one message, whose length stands behind typ bytes.
func message(in io.Reader, typ int) ([]byte, error) {
	head := make([]byte, typ+4)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, err
	}
	m := append(head, make([]byte, max(4, binary.BigEndian.Uint32(head[typ:]))-4)...)
	_, err := io.ReadFull(in, m[len(head):])
	return m, err
}

func write(w io.Writer, m []byte) error {
	_, err := w.Write(m)
	return err
}
