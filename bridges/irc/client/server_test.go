package client

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// script is the server's end of a connection in a test. It must run inside a
// synctest bubble.
type script struct {
	t    *testing.T
	conn net.Conn
	in   chan string // lines of the client; closed at the end
}

func newScript(t *testing.T, conn net.Conn) *script {
	s := &script{t: t, conn: conn, in: make(chan string, 1000)}
	go func() {
		defer close(s.in)
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			s.in <- lines.Text()
		}
	}()
	return s
}

func (s *script) send(format string, args ...any) {
	s.t.Helper()
	if _, err := fmt.Fprintf(s.conn, format+"\r\n", args...); err != nil {
		s.t.Errorf("server: %v", err)
	}
}

// next returns the next line of the client, "" at the end.
func (s *script) next() string {
	return <-s.in
}

func (s *script) want(lines ...string) {
	s.t.Helper()
	for _, want := range lines {
		if got := s.next(); got != want {
			s.t.Errorf("client sent %q, want %q", got, want)
		}
	}
}

// welcome goes through a registration in which the server offers caps.
func (s *script) welcome(caps string) {
	s.t.Helper()
	s.want("CAP LS 302", "NICK alice", "USER ident 0 * :Alice A")
	s.send(":irc.test CAP * LS :%s", caps)
	for _, c := range wantedCaps {
		if strings.Contains(" "+caps+" ", " "+c+" ") {
			s.want("CAP REQ " + c)
		}
	}
	for _, c := range wantedCaps {
		if strings.Contains(" "+caps+" ", " "+c+" ") {
			s.send(":irc.test CAP * ACK :%s", c)
		}
	}
	s.want("CAP END")
	s.numerics()
}

func (s *script) numerics() {
	s.send(":irc.test 001 alice :Welcome alice!ident@host.test")
	s.send(":irc.test 005 alice CASEMAPPING=rfc1459 CHANTYPES=# PREFIX=(ov)@+ CHANMODES=b,k,l,imnst NICKLEN=20 LINELEN=512 STATUSMSG=@+ :are supported")
	s.send(":irc.test 422 alice :no MOTD")
	synctest.Wait()
}

// world is a client whose connections are answered by scripts.
type world struct {
	*Client
	t       *testing.T
	mu      sync.Mutex // tier 1; guards events
	events  []Event
	accept  chan *script
	cancel  context.CancelFunc
	done    chan error
	nowhere bool // Dial fails
	dialled []time.Time
}

func newWorld(t *testing.T, cfg Config) *world {
	w := &world{t: t, accept: make(chan *script, 1), done: make(chan error, 1)}
	cfg.Address, cfg.User, cfg.RealName = "irc.test:6667", "ident", "Alice A"
	if cfg.Nick == "" {
		cfg.Nick = "alice"
	}
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		w.dialled = append(w.dialled, time.Now())
		if w.nowhere {
			return nil, net.ErrClosed
		}
		here, there := net.Pipe()
		w.accept <- newScript(t, there)
		return here, nil
	}
	w.Client = New(cfg, func(e Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	})
	return w
}

func (w *world) run() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	go func() { w.done <- w.Run(ctx) }()
}

// stop ends the client; the script must read what it still sends.
func (w *world) stop(s *script) {
	w.cancel()
	if s != nil {
		for range s.in {
		}
		_ = s.conn.Close()
	}
	<-w.done
	synctest.Wait()
}

// take returns the events so far that are of type T and forgets all.
func take[T Event](w *world) []T {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []T
	for _, e := range w.events {
		if x, ok := e.(T); ok {
			out = append(out, x)
		}
	}
	w.events = nil
	return out
}

// one returns the only event of type T.
func one[T Event](w *world) T {
	w.t.Helper()
	all := take[T](w)
	if len(all) != 1 {
		w.t.Fatalf("got %d events of type %T, want one", len(all), *new(T))
	}
	return all[0]
}
