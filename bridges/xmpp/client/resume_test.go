package client_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mellium.im/xmpp/jid"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/xmpp/client"
	"switchboard/bridges/xmpp/xmpptest"
)

// TestResume cuts the connection while both sides write: everything arrives,
// once, in order.
func TestResume(t *testing.T) {
	s := xmpptest.Start(t)
	proxy := bridgetest.NewProxy(t, s.Address)
	bob := s.Person("bob")
	alice := run(t, config(t, s, proxy.Address, "alice", xmpptest.Password))
	const count = 200
	var mu sync.Mutex
	confirmed := 0
	for i := range count {
		alice.Send(post(jid.MustParse(bob.JID), false, fmt.Sprintf("a%d", i), fmt.Sprint(i)), func(err error) {
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				confirmed++
			}
		})
		bob.Send(`<message to="%s" type="chat" id="%s"><body>%s</body></message>`, "alice@"+xmpptest.Domain, fmt.Sprintf("b%d", i), fmt.Sprint(i))
		if i%40 == 20 {
			// Prosody 0.12 gives what comes on a stream that goes on to the parser of the
			// connection before. If that broke inside a stanza, as where there was more
			// than the 4096 bytes that it reads at once, it understands nothing.
			bridgetest.Eventually(t, "few are under way", func() bool { mu.Lock(); defer mu.Unlock(); return confirmed >= i-5 })
			proxy.Cut()
		}
		time.Sleep(time.Millisecond)
	}
	bridgetest.Eventually(t, "all is confirmed", func() bool { mu.Lock(); defer mu.Unlock(); return confirmed == count })
	var want, atBob []string
	for i := range count {
		want = append(want, fmt.Sprint(i))
	}
	bob.Await("the last message", func(m xmpptest.Stanza) bool { return m.Body == fmt.Sprint(count-1) })
	for _, m := range bob.Stanzas() {
		if m.Body != "" {
			atBob = append(atBob, m.Body)
		}
	}
	if !slices.Equal(atBob, want) {
		t.Errorf("bob got %v", atBob)
	}
	await(alice, "bob's last message", func(m *client.Message) bool { return m.Body == fmt.Sprint(count-1) })
	var atAlice []string
	for _, m := range all[*client.Message](alice) {
		if m.Body != "" {
			atAlice = append(atAlice, m.Body)
		}
	}
	if !slices.Equal(atAlice, want) {
		t.Errorf("alice got %v", atAlice)
	}
	resumed := 0
	for _, e := range all[client.Connected](alice) {
		if e.Resumed {
			resumed++
		}
	}
	if resumed == 0 {
		t.Error("the stream was never resumed")
	}
}

// deaf is a connection from which at some time nothing is read any more.
type deaf struct {
	net.Conn
	ears   *atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (d *deaf) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	if d.ears.Load() {
		return n, err
	}
	<-d.closed
	return 0, net.ErrClosed
}

func (d *deaf) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Conn.Close()
}

// TestResumeExpired has a server that knows an old stream's count, but not the
// stream: what it had is confirmed.
func TestResumeExpired(t *testing.T) {
	s := xmpptest.Start(t)
	c := config(t, s, s.Address, "alice", xmpptest.Password)
	var ears atomic.Bool
	ears.Store(true)
	conns := make(chan net.Conn, 100)
	c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		conn = &deaf{Conn: conn, ears: &ears, closed: make(chan struct{})}
		conns <- conn
		return conn, nil
	}
	alice, bob := run(t, c), s.Person("bob")
	const count = 20
	results := make(chan error, count)
	ears.Store(false)
	for i := range count {
		alice.Send(post(jid.MustParse(bob.JID), false, fmt.Sprint(i), fmt.Sprint(i)), func(err error) { results <- err })
	}
	bob.Await("the last message", func(m xmpptest.Stanza) bool { return m.Body == fmt.Sprint(count-1) })
	s.Stop()
	s.Run()
	ears.Store(true)
	_ = (<-conns).Close()
	for i := range count {
		if err := <-results; err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	await(alice, "a new stream", func(client.Lost) bool { return len(all[client.Lost](alice)) == 2 })
}
