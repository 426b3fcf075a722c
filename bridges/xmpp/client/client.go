package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"sync"
	"time"

	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
)

// Client is one account's connection.
type Client struct {
	config Config
	handle func(Event)

	writing sync.Mutex // tier 2; one stanza after the other is written, in the order of unacked

	mu      sync.Mutex // tier 1; guards what follows
	session *xmpp.Session
	sm      management
	asks    map[string]chan *Element // by ID
	queries map[string]*query        // by query ID
	rooms   map[string]*Room         // by bare JID
	own     jid.JID                  // with the resource
	seen    time.Time                // when something was last read
}

// management is the state of XEP-0198.
type management struct {
	id      string     // by which the stream can go on; empty if it can not
	on      bool       // stanzas are counted
	in, out uint32     // handled, acknowledged by the server
	unacked []outgoing // sent after out
}

// outgoing is a stanza that the server has not acknowledged.
type outgoing struct {
	text string
	done func(error)
}

// What Send and Ask may end with, besides what the other side says.
var (
	ErrOffline     = errors.New("there is no connection to the XMPP server")
	ErrUnconfirmed = errors.New("the connection broke before the server confirmed that it has the message")
)

// New prepares a client. Handle is called with each event, in the order of the
// stream; while it runs nothing else is read, so it must not wait for an answer.
func New(config Config, handle func(Event)) *Client {
	return &Client{
		config: config, handle: handle, own: config.JID,
		asks: make(map[string]chan *Element), queries: make(map[string]*query), rooms: make(map[string]*Room),
	}
}

// Account is the account's JID, without a resource.
func (c *Client) Account() jid.JID { return c.config.JID.Bare() }

// Own is the account's JID with the resource of the present connection.
func (c *Client) Own() jid.JID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own
}

// Online reports whether there is a connection.
func (c *Client) Online() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session != nil
}

// Try logs in and out again. The error is *AuthError if the account or password
// is wrong.
func (c *Client) Try(ctx context.Context) error {
	s, _, err := c.config.open(ctx, "", 0)
	if err != nil {
		return err
	}
	_ = s.Close()
	return s.Conn().Close()
}

// The times between attempts to connect.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// Run keeps the connection until ctx is done, then closes the stream and returns
// nil. It returns an *AuthError when the server does not want the account.
func (c *Client) Run(ctx context.Context) error {
	wait := firstRetry
	for {
		began := time.Now()
		connected, err := c.once(ctx)
		if ctx.Err() != nil {
			c.forget()
			return nil
		}
		var refused *AuthError
		if errors.As(err, &refused) {
			c.forget()
			return err
		}
		if connected {
			wait = firstRetry
		}
		pause := time.Duration(0)
		if !connected || time.Since(began) < firstRetry { // a resumption that fails at once must not spin
			pause = wait/2 + time.Duration(mrand.Int64N(int64(wait)))
			wait = min(2*wait, lastRetry)
		}
		c.handle(Disconnected{err})
		select {
		case <-ctx.Done():
			c.forget()
			return nil
		case <-time.After(pause):
		}
	}
}

// forget gives up the stream and what has not been confirmed.
func (c *Client) forget() {
	c.mu.Lock()
	lost := c.sm.unacked
	c.sm = management{}
	for _, answer := range c.asks {
		close(answer)
	}
	clear(c.asks)
	clear(c.rooms)
	c.mu.Unlock()
	for _, o := range lost {
		if o.done != nil {
			o.done(ErrUnconfirmed)
		}
	}
}

// once connects, and reads until the connection breaks.
func (c *Client) once(ctx context.Context) (connected bool, err error) {
	c.mu.Lock()
	id, handled := c.sm.id, c.sm.in
	c.mu.Unlock()
	s, old, err := c.config.open(ctx, id, handled)
	if old.counted {
		c.acknowledged(old.handled)
	}
	if err != nil {
		return false, err
	}
	conn := s.Conn()
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { c.goodbye(s) })()
	if !old.resumed {
		c.forget()
		c.handle(Lost{})
	}
	if err := c.begin(s, old.resumed); err != nil {
		return true, err
	}
	defer func() {
		c.mu.Lock()
		c.session = nil
		c.mu.Unlock()
	}()
	c.handle(Connected{Resumed: old.resumed})
	alive, stop := context.WithCancel(ctx)
	defer stop()
	go c.keepAlive(alive, s)
	return true, c.read(s)
}

// begin makes s the connection: it sends again what the server did not get, or
// asks for a stream that can go on after a break.
func (c *Client) begin(s *xmpp.Session, resumed bool) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	c.session, c.seen = s, time.Now()
	var first bytes.Buffer
	if resumed {
		for _, o := range c.sm.unacked {
			first.WriteString(o.text)
		}
		first.WriteString(`<r xmlns="` + nsSM + `"/>`)
	} else {
		c.own = s.LocalAddr()
		if _, ok := s.Feature(nsSM); ok {
			c.sm.on = true
			first.WriteString(El(nsSM, "enable").Set("resume", "true").String())
		}
	}
	c.mu.Unlock()
	return write(s, first.Bytes())
}

// writeTimeout is how long the server may take to accept a stanza.
const writeTimeout = 30 * time.Second

func write(s *xmpp.Session, text []byte) error {
	if len(text) == 0 {
		return nil
	}
	conn := s.Conn()
	_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := conn.Write(text)
	if err != nil {
		_ = conn.Close() // so that the reader sees it
	}
	return err
}

// closeTimeout is how long the server may take to confirm our last words.
const closeTimeout = 2 * time.Second

// goodbye ends a stream in good order.
func (c *Client) goodbye(s *xmpp.Session) {
	_ = s.Conn().SetDeadline(time.Now().Add(closeTimeout))
	c.writing.Lock()
	_ = s.Close()
	c.writing.Unlock()
}

// The times after which silence is broken, and taken for the end.
const (
	quietTime = time.Minute
	deadTime  = 2*quietTime + writeTimeout
)

// keepAlive asks for a sign of life when there was none for a while.
func (c *Client) keepAlive(ctx context.Context, s *xmpp.Session) {
	tick := time.NewTicker(quietTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.mu.Lock()
		quiet, managed := time.Since(c.seen), c.sm.on
		c.mu.Unlock()
		switch {
		case quiet < quietTime:
		case quiet > deadTime:
			_ = s.Conn().Close()
		case managed:
			c.writing.Lock()
			_ = write(s, []byte(`<r xmlns="`+nsSM+`"/>`))
			c.writing.Unlock()
		default:
			c.Send(El(nsClient, "iq", El(nsPing, "ping")).Set("type", "get", "id", NewID(), "to", c.Account().Domainpart()), nil)
		}
	}
}

// Send writes a stanza. Done, which may be nil, is called once: with nil when
// the server has confirmed it, or with ErrOffline or ErrUnconfirmed. While a
// stream that can go on is interrupted, stanzas wait for it.
func (c *Client) Send(e *Element, done func(error)) {
	c.writing.Lock()
	c.mu.Lock()
	s := c.session
	if s == nil && c.sm.id == "" {
		c.mu.Unlock()
		c.writing.Unlock()
		if done != nil {
			done(ErrOffline)
		}
		return
	}
	var b bytes.Buffer
	e.write(&b, nsClient)
	managed := c.sm.on
	if managed {
		c.sm.unacked = append(c.sm.unacked, outgoing{b.String(), done})
		if e.Local == "message" {
			b.WriteString(`<r xmlns="` + nsSM + `"/>`)
		}
	}
	c.mu.Unlock()
	var err error
	if s != nil {
		err = write(s, b.Bytes())
	}
	c.writing.Unlock()
	if !managed && done != nil {
		if err != nil {
			err = ErrUnconfirmed
		}
		done(err)
	}
}

// acknowledged takes that the server has the first h stanzas of the stream.
func (c *Client) acknowledged(h uint32) {
	c.mu.Lock()
	n := min(int(h-c.sm.out), len(c.sm.unacked))
	if int32(h-c.sm.out) < 0 {
		n = 0
	}
	list := c.sm.unacked[:n:n]
	c.sm.unacked = c.sm.unacked[n:]
	c.sm.out += uint32(n)
	c.mu.Unlock()
	for _, o := range list {
		if o.done != nil {
			o.done(nil)
		}
	}
}

// Ask sends a request and returns the answer. An error answer is a
// *StanzaError.
func (c *Client) Ask(ctx context.Context, kind string, to jid.JID, payload *Element) (*Element, error) {
	id := NewID()
	answer := make(chan *Element, 1)
	c.mu.Lock()
	c.asks[id+" "+to.String()] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.asks, id+" "+to.String())
		c.mu.Unlock()
	}()
	failed := make(chan error, 1)
	c.Send(El(nsClient, "iq", payload).Set("type", kind, "id", id, "to", to.String()), func(err error) {
		if err != nil {
			failed <- err
		}
	})
	select {
	case e, ok := <-answer:
		if !ok {
			return nil, ErrUnconfirmed
		}
		if err := stanzaError(e); err != nil {
			return nil, err
		}
		return e, nil
	case err := <-failed:
		return nil, err
	case <-ctx.Done():
		if to.Equal(jid.JID{}) {
			return nil, fmt.Errorf("the server did not answer: %w", ctx.Err())
		}
		return nil, fmt.Errorf("%s did not answer: %w", to, ctx.Err())
	}
}

// NewID returns an ID for a stanza.
func NewID() string { return rand.Text()[:16] }

// read handles the stream until it ends.
func (c *Client) read(s *xmpp.Session) error {
	r := s.TokenReader()
	defer r.Close()
	for {
		e, err := nextElement(r)
		if err != nil {
			if errors.Is(err, io.EOF) {
				// The server has closed the stream: it can not go on.
				c.mu.Lock()
				c.sm.id = ""
				c.mu.Unlock()
				return errors.New("the server has closed the stream")
			}
			return err
		}
		c.mu.Lock()
		c.seen = time.Now()
		c.mu.Unlock()
		if err := c.take(s, e); err != nil {
			return err
		}
	}
}
