package voip

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v3"
)

// TestGate holds connections, over TCP and TLS, open without ever speaking. They
// take no place from users, and when one goes there is room for another.
func TestGate(t *testing.T) {
	r := startRelay(t, func(o *Options) { o.TLS, o.Config.TLS = selfSigned(t), []string{"127.0.0.1:0"} })
	alice := speak(t, r, "tls", "@alice:a.test")
	alice.allocate()
	unknown := func(want int) {
		t.Helper()
		got := -1
		for end := time.Now().Add(patience); got != want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d strangers are in, want %d", got, want)
			}
			r.gate.mu.Lock()
			got = len(r.gate.unknown)
			r.gate.mu.Unlock()
		}
	}
	unknown(0)
	var silent []net.Conn
	connect := func(l net.Listener) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetReadDeadline(time.Now().Add(patience))
		return conn
	}
	for i := range maxUnknownOne {
		l := r.tls[0]
		if i%2 == 0 {
			l = r.tcp[0]
		}
		silent = append(silent, connect(l))
	}
	unknown(maxUnknownOne)
	for _, l := range []net.Listener{r.tls[0], r.tcp[0]} {
		if n, err := connect(l).Read(make([]byte, 1)); err == nil {
			t.Errorf("one more is let in, and told %d bytes", n)
		}
	}
	if n := r.count.drops[tooMany].Load(); n != 2 {
		t.Errorf("%d were counted as too many", n)
	}
	alice.want(0, stun.MethodRefresh)
	silent[0].Close()
	unknown(maxUnknownOne - 1)
	speak(t, r, "tcp", "@bob:a.test").allocate()
	unknown(maxUnknownOne - 1)
}

// TestSilence lets go of clients that get no relayed address in time, whatever
// they do instead: nothing, half of what begins TLS, or questions.
func TestSilence(t *testing.T) {
	config, question := selfSigned(t), stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw
	for _, c := range []struct {
		name string
		tls  bool
		says []byte
		many bool
	}{
		{"nothing", false, nil, false},
		{"nothing, where TLS is", true, nil, false},
		{"half of TLS", true, []byte{22, 3, 1, 1, 0, 1, 0}, false},
		{"half of STUN", false, question[:10], false},
		{"questions", false, question, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &Relay{serving: make(chan struct{}), count: &metrics{}} // as much as strangers meet
				close(r.serving)
				here, there := net.Pipe()
				var client sync.WaitGroup
				client.Go(func() { io.Copy(io.Discard, there) })
				client.Go(func() {
					for {
						if _, err := there.Write(c.says); err != nil || !c.many {
							return
						}
						time.Sleep(time.Second)
					}
				})
				var conn net.Conn = pipeFrom{here, netip.MustParseAddrPort("192.0.2.1:5")}
				if c.tls {
					conn = tls.Server(conn, config)
				}
				began := time.Now()
				r.ServeConn(conn)
				if took := time.Since(began); took != authTime {
					t.Errorf("it is let go of after %s", took)
				}
				there.Close()
				client.Wait()
			})
		})
	}
}

// pipeFrom is a pipe to an address.
type pipeFrom struct {
	net.Conn
	from netip.AddrPort
}

// RemoteAddr implements net.Conn.
func (c pipeFrom) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.from) }

// TestGateTotal bounds strangers of many addresses, too, who take the places of
// each other, and none of a user.
func TestGateTotal(t *testing.T) {
	var g gate
	closed := 0
	enter := func(i int) *stream {
		t.Helper()
		s := newStream(closer{closed: &closed})
		if !g.enter(s, stranger(i)) {
			t.Fatalf("stranger %d is not let in", i)
		}
		return s
	}
	user := enter(0)
	g.know(user, stranger(0), true)
	for i := range maxUnknown {
		enter(i)
	}
	if closed != 0 {
		t.Errorf("%d of %d have to go", closed, maxUnknown)
	}
	for i := range maxUnknown {
		enter(maxUnknown + i)
	}
	if closed != maxUnknown || len(g.unknown) != maxUnknown {
		t.Errorf("%d of %d have to go, %d stay", closed, 2*maxUnknown, len(g.unknown))
	}
	for s := range g.all {
		g.leave(s)
	}
	g.know(user, stranger(0), false) // whose address ends while it leaves
	if len(g.from)+len(g.unknown) != 0 {
		t.Errorf("%v count still", g.from)
	}
}

// closer is a connection that counts how often it is closed.
type closer struct {
	net.Conn
	closed *int
}

// Close implements io.Closer.
func (c closer) Close() error {
	*c.closed++
	return nil
}

// stranger is the address of one of many.
func stranger(i int) netip.Addr { return netip.AddrFrom4([4]byte{9, 9, byte(i >> 8), byte(i)}) }
