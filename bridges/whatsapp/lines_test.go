package whatsapp_test

import (
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/whatsapp/whatsapptest"
)

// lines are the bridge's connections to WhatsApp. They can be broken in one
// direction only: nothing gets out any more, while nothing says so to who reads.
type lines struct {
	mu      sync.Mutex // tier 1; guards what follows
	open    []net.Conn
	mute    bool
	refused int // writes
}

// carry makes a connection one of them.
func (l *lines) carry(c net.Conn) net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, c)
	return line{c, l}
}

// line is one of them.
type line struct {
	net.Conn
	of *lines
}

// Write implements net.Conn.
func (c line) Write(b []byte) (int, error) {
	c.of.mu.Lock()
	mute := c.of.mute
	if mute {
		c.of.refused++
	}
	c.of.mu.Unlock()
	if mute {
		return 0, &net.OpError{Op: "write", Net: "tcp", Err: syscall.ECONNRESET}
	}
	return c.Conn.Write(b)
}

// silence lets no byte out until mend, and forgets what was refused before.
func (l *lines) silence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mute, l.refused = true, 0
}

// mend ends the connections that were silenced, so that new ones are made.
func (l *lines) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mute = false
	for _, c := range l.open {
		_ = c.Close()
	}
	l.open = nil
}

// awaitRefusal waits until something could not be written.
func (l *lines) awaitRefusal(t *testing.T) {
	t.Helper()
	bridgetest.Eventually(t, "the bridge writes in vain", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.refused > 0
	})
}

// TestUnwritable sends what the socket refuses when it is broken and the bridge
// does not know it yet.
func TestUnwritable(t *testing.T) {
	w := start(t, nil)
	bob := w.wa.Phone(t, "15550002", "Bob")
	alice := w.linked("alice", "15550001")
	bob.Say(alice.lid(), "hello Alice")
	room := alice.chat(bob.Account)
	alice.Say(room, "hello Bob")
	bob.Said("hello Bob")

	w.lines.silence()
	var sent []id.EventID
	texts := []string{"one", "two", "three"}
	for _, text := range texts {
		sent = append(sent, alice.Say(room, text))
	}
	w.lines.awaitRefusal(t)
	w.lines.mend()
	for i, text := range texts {
		bob.Said(text)
		alice.Await(text+" was sent", bridgetest.Status(sent[i], event.MessageStatusSuccess))
	}
	var got []string
	for _, m := range bob.Messages() {
		got = append(got, whatsapptest.Text(m.Message))
	}
	if want := append([]string{"hello Bob"}, texts...); !slices.Equal(got, want) {
		t.Errorf("bob has %q, want %q", got, want)
	}
}

// TestNoKeys writes to somebody for the first time, while WhatsApp does not give
// the keys that this takes.
func TestNoKeys(t *testing.T) {
	w := start(t, nil)
	dora := w.wa.Phone(t, "15550004", "Dora")
	alice := w.linked("alice", "15550001")
	alice.Say(alice.manage, "start-chat +15550004")
	room := alice.chat(dora.Account)
	w.wa.SetKeyless(true)
	sent := alice.Say(room, "hello Dora")
	bridgetest.Eventually(t, "the bridge asks for keys", func() bool { return w.wa.Withheld() > 1 })
	w.wa.SetKeyless(false)
	dora.Said("hello Dora")
	alice.Await("that it was sent", bridgetest.Status(sent, event.MessageStatusSuccess))
}
