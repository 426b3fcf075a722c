package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v3"
	"github.com/rs/zerolog"
)

// TestMux serves HTTPS and TURN on one port: each connection goes to whom it is
// for, whether or not it says so.
func TestMux(t *testing.T) {
	c, err := loadCertificate(pair(t, t.TempDir(), "localhost"))
	if err != nil {
		t.Fatal(err)
	}
	config := c.config()
	config.NextProtos = []string{"h2", "http/1.1", alpnTURN}
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	turn := func(conn net.Conn) {
		defer conn.Close()
		b := make([]byte, 20)
		if _, err := io.ReadFull(conn, b); err == nil {
			conn.Write(append([]byte("TURN "), b...))
		}
	}
	server := newServer(zerolog.Nop(), defaultConfig().HTTP, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	server.TLSConfig = config
	l := &listener{name: "test", net: newMux(raw, config, time.Minute, turn), server: server, tls: true}
	served := make(chan error, 1)
	go func() { served <- l.serve() }()
	address := raw.Addr().String()
	trust := func(protocols ...string) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
	}

	question := stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw
	for name, dial := range map[string]func() (net.Conn, error){
		"TLS":           func() (net.Conn, error) { return tls.Dial("tcp", address, trust()) },
		"TLS that says": func() (net.Conn, error) { return tls.Dial("tcp", address, trust(alpnTURN)) },
		"no TLS":        func() (net.Conn, error) { return net.Dial("tcp", address) },
	} {
		conn, err := dial()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := conn.Write(question); err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(conn); !bytes.Equal(got, append([]byte("TURN "), question...)) {
			t.Errorf("%s: %q", name, got)
		}
		conn.Close()
	}
	for name, transport := range map[string]*http.Transport{
		"HTTP/1.1": {TLSClientConfig: trust("http/1.1")},
		"HTTP/2.0": {TLSClientConfig: trust("h2"), ForceAttemptHTTP2: true},
	} {
		resp, err := (&http.Client{Transport: transport}).Get("https://" + address)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(got) != name {
			t.Errorf("%s: %s", name, got)
		}
		transport.CloseIdleConnections()
	}
	conn, err := tls.Dial("tcp", address, trust()) // HTTP without ALPN
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	if got, _ := io.ReadAll(conn); !bytes.HasSuffix(got, []byte("HTTP/1.0")) {
		t.Errorf("without ALPN: %q", got)
	}
	conn.Close()

	silent, err := net.Dial("tcp", address) // it is closed with the listener
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	silent.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives its listener")
	}
}

// TestMuxPending holds connections open that never say what they are: one source
// cannot keep others out by that, and many cannot for long.
func TestMuxPending(t *testing.T) {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	m := newMux(raw, nil, time.Hour, func(conn net.Conn) {
		conn.Close()
		close(served)
	})
	ended := make(chan error, 1)
	go func() {
		_, err := m.Accept()
		ended <- err
	}()
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	silent := func() net.Conn {
		conn, err := from.Dial("tcp", raw.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
		return conn
	}
	for range maxPendingOne {
		silent()
	}
	// Whichever of them comes last is refused.
	for end := time.Now().Add(2 * time.Minute); m.waiting() < maxPendingOne; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d are waiting", m.waiting())
		}
	}
	if _, err := silent().Read(make([]byte, 1)); err == nil {
		t.Error("one more of the same source is let in")
	}
	other, err := net.Dial("tcp", raw.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.Write(stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw)
	<-served

	for i := range 2 * maxPending {
		if !m.wait(&strangerConn{i: i}) {
			t.Fatalf("stranger %d finds no place", i)
		}
	}
	if n := m.waiting(); n != maxPending {
		t.Errorf("%d are waiting, want %d", n, maxPending)
	}
	m.Close()
	<-ended
}

// TestMuxTimeout lets go of connections of which it does not get clear what they
// are.
func TestMuxTimeout(t *testing.T) {
	c, err := loadCertificate(pair(t, t.TempDir(), "localhost"))
	if err != nil {
		t.Fatal(err)
	}
	m := newMux(nil, c.config(), 10*time.Second, nil)
	for name, says := range map[string][]byte{"nothing": nil, "half of TLS": {22, 3, 1, 1, 0, 1, 0}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				defer there.Close()
				go there.Write(says)
				began := time.Now()
				if _, _, err := m.look(here); err == nil || time.Since(began) != m.timeout {
					t.Errorf("after %s: %v", time.Since(began), err)
				}
				here.Close()
			})
		})
	}
}

// waiting is how many connections are in their handshake.
func (m *mux) waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.pending)
}

// strangerConn is a connection of one of many.
type strangerConn struct {
	net.Conn
	i int
}

// RemoteAddr implements net.Conn.
func (c *strangerConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{9, 9, byte(c.i >> 8), byte(c.i)}), 9))
}

// Close implements net.Conn.
func (*strangerConn) Close() error { return nil }

// FuzzMux sends anything to a port of HTTPS: what begins as STUN does is TURN's,
// whole, and all else has to be TLS.
func FuzzMux(f *testing.F) {
	f.Add(stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 3})
	c, err := loadCertificate(pair(f, f.TempDir(), "localhost"))
	if err != nil {
		f.Fatal(err)
	}
	m := newMux(nil, c.config(), time.Minute, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		here, there := net.Pipe()
		var client sync.WaitGroup
		client.Go(func() { there.Write(b); there.Close() })
		client.Go(func() { io.Copy(io.Discard, there) })
		defer client.Wait()
		defer here.Close()
		conn, turn, err := m.look(here)
		if want := len(b) > 0 && b[0] == 0; turn != want || (err == nil) != want {
			t.Fatalf("%x is TURN: %v, %v", b, turn, err)
		}
		if !turn {
			return
		}
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%x becomes %x, %v", b, got, err)
		}
	})
}
