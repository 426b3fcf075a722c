package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
	"github.com/ergochat/irc-go/ircreader"
	"github.com/rs/zerolog"
)

// The time-outs of a connection.
const (
	registerTimeout = 60 * time.Second  // from the first line to the welcome
	idleTimeout     = 120 * time.Second // without a line before we ask
	pongTimeout     = 60 * time.Second  // for the answer, then the connection is lost
	writeTimeout    = 30 * time.Second
	answerTimeout   = 90 * time.Second // for a request
	quitTimeout     = 2 * time.Second
	maxQueue        = 1000 // lines that wait for flood control
)

// link is one connection from its first byte to its last. Its fields are
// guarded by the client's mu, apart from conn and reader.
type link struct {
	cfg    *Config
	conn   net.Conn
	reader ircreader.Reader
	mu     *sync.Mutex // the client's
	wmu    sync.Mutex  // tier 1; taken before mu; keeps lines whole and in order

	wanted   *wanted // the client's
	handle   func(Event)
	isupport ISupport
	self     ircmsg.NUH
	trying   string // the nick that was asked for last
	caps     caps
	channels map[string]*channel
	batches  map[string]*batch

	registered, ready       bool
	saslStarted, saslDone   bool
	regaining               bool // another nick than the configured one is in use
	closed                  bool
	tokens                  uint64
	queue, inflight         []*request
	bucket                  bucket
	drainTimer, regainTimer *time.Timer
}

// serve reads until the connection ends or until returns true. It returns what
// ended the connection, or nil.
func (l *link) serve(ctx context.Context, until func() bool) error {
	log := zerolog.Ctx(ctx)
	asked := false
	for {
		if until != nil && until() {
			return nil
		}
		if l.isRegistered() {
			wait := idleTimeout
			if asked {
				wait = pongTimeout
			}
			_ = l.conn.SetReadDeadline(time.Now().Add(wait))
		}
		line, err := l.reader.ReadLine()
		switch {
		case err == nil:
			asked = false
		case errors.Is(err, os.ErrDeadlineExceeded) && l.isRegistered() && !asked:
			asked = true
			fx := effects{handle: l.handle}
			fx.line("PING", "idle")
			l.step(nil, &fx)
			if err := l.carryOut(&fx); err != nil {
				return err
			}
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("%w: it does not answer", ErrRegistration)
		default:
			return fmt.Errorf("read: %w", err)
		}
		if len(line) == 0 {
			continue
		}
		m, err := parse(line)
		if err != nil {
			log.Debug().Err(err).Int("bytes", len(line)).Msg("unreadable line from the network")
			continue
		}
		fx := effects{handle: l.handle}
		l.step(&m, &fx)
		if err := l.carryOut(&fx); err != nil {
			return err
		}
	}
}

// step lets a line, or with nil just time, act on the state.
func (l *link) step(m *ircmsg.Message, fx *effects) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m != nil {
		l.apply(m, fx)
	}
	l.expire(time.Now().Add(-answerTimeout), fx)
}

func (l *link) isRegistered() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.registered
}

// carryOut does what follows from a line.
func (l *link) carryOut(fx *effects) error {
	for _, m := range fx.lines {
		line, err := m.LineBytesStrict(true, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Command, err)
		}
		if err := l.write(line); err != nil {
			return err
		}
	}
	for _, call := range fx.calls {
		call()
	}
	return fx.err
}

// write sends bytes at once, past flood control.
func (l *link) write(line []byte) error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	return l.writeLocked(line)
}

func (l *link) writeLocked(line []byte) error {
	_ = l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := l.conn.Write(line); err != nil {
		_ = l.conn.Close() // a half-written line can not be mended
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// enqueue puts a request at the end of the queue and sends what may be sent.
func (l *link) enqueue(m ircmsg.Message, done func(Outcome)) error {
	l.mu.Lock()
	if l.closed || !l.ready {
		l.mu.Unlock()
		return ErrNotSent
	}
	if len(l.queue) >= maxQueue {
		l.mu.Unlock()
		return fmt.Errorf("%w: too many lines are waiting", ErrNotSent)
	}
	r, err := l.newRequest(m, done)
	if err == nil {
		l.queue = append(l.queue, r)
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	l.drain()
	return nil
}

// drain sends queued lines as long as flood control allows, and sets a timer
// for the rest.
func (l *link) drain() {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	for {
		l.mu.Lock()
		if l.closed || len(l.queue) == 0 {
			l.mu.Unlock()
			return
		}
		now := time.Now()
		wait, ok := l.bucket.take(now)
		if !ok {
			if l.drainTimer != nil {
				l.drainTimer.Stop()
			}
			l.drainTimer = time.AfterFunc(wait, l.drain)
			l.mu.Unlock()
			return
		}
		r := l.queue[0]
		l.queue = l.queue[1:]
		if r.done != nil {
			r.sent = now
			l.inflight = append(l.inflight, r)
		}
		l.mu.Unlock()
		if l.writeLocked(r.line) != nil {
			return // the reader notices
		}
	}
}

// close ends the connection. What was in flight is unconfirmed, what was
// queued is not sent.
func (l *link) close() {
	_ = l.conn.Close()
	l.mu.Lock()
	l.closed = true
	for _, t := range []*time.Timer{l.drainTimer, l.regainTimer} {
		if t != nil {
			t.Stop()
		}
	}
	inflight, queue := l.inflight, l.queue
	l.inflight, l.queue = nil, nil
	l.mu.Unlock()
	for _, r := range inflight {
		if r.outcome.Err == nil {
			r.outcome.Err = ErrUnconfirmed
		}
		r.done(r.outcome)
	}
	for _, r := range queue {
		if r.done != nil {
			r.done(Outcome{Err: ErrNotSent})
		}
	}
}

// regain asks for the configured nick until it is ours.
func (l *link) regain() {
	l.mu.Lock()
	again, nick := l.regaining && !l.closed, l.cfg.Nick
	if again {
		l.regainTimer = time.AfterFunc(regainInterval, l.regain)
	}
	l.mu.Unlock()
	if again {
		_ = l.enqueue(ircmsg.MakeMessage(nil, "", "NICK", nick), func(Outcome) {})
	}
}

const regainInterval = time.Minute

// wanted are the channels that are entered again after a reconnect. Guarded by
// the client's mu.
type wanted struct{ list []Wanted }

// Wanted is a channel to enter, with its key if it needs one.
type Wanted struct {
	Name string
	Key  string
}

func (w *wanted) index(m Casemapping, name string) int {
	return slices.IndexFunc(w.list, func(c Wanted) bool { return m.Fold(c.Name) == m.Fold(name) })
}

func (w *wanted) add(m Casemapping, name, key string) {
	if i := w.index(m, name); i < 0 {
		w.list = append(w.list, Wanted{Name: name, Key: key})
	} else if key != "" {
		w.list[i].Key = key
	}
}

func (w *wanted) remove(m Casemapping, name string) {
	if i := w.index(m, name); i >= 0 {
		w.list = slices.Delete(w.list, i, i+1)
	}
}
