package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
	"github.com/rs/zerolog"
)

// Config says where to connect and as whom.
type Config struct {
	Address  string      // host:port
	TLS      *tls.Config // nil for a plain connection
	Password string      // of the server, PASS; usually empty

	Nick     string
	User     string // "username", the part before the host
	RealName string

	SASL         *SASL // nil without a services account
	NickServ     bool  // without SASL on the server, IDENTIFY with NickServ
	NickFallback bool  // take "nick_" when the nick is in use, and go on asking for it

	// Burst lines may be sent at once, then one every Interval. An Interval of
	// zero turns flood control off.
	Burst    int
	Interval time.Duration

	// Dial connects; nil means TCP. Tests and proxies set it.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Backoff is the wait before the second attempt to connect; it doubles
	// up to five minutes, until a connection has lasted thirty times as long.
	// Zero means two seconds.
	Backoff time.Duration
}

const (
	maxBackoff  = 5 * time.Minute
	stableAfter = 30 // times the first wait: a connection of that age resets it
)

// Client is a user of an IRC network, connected or not. Its methods may be
// called from several goroutines.
type Client struct {
	cfg    Config
	handle func(Event)

	mu     sync.Mutex // tier 1; guards what follows and the link's state
	link   *link      // nil while not connected
	wanted wanted
	last   ISupport // of the newest connection, for names while there is none
	nick   string   // that we had last
}

// New returns a client that gives what happens to handle, one event after the
// other and in the network's order. Handle should not wait for long: the
// connection does nothing meanwhile. Nothing happens before Connect or Run.
func New(cfg Config, handle func(Event)) *Client {
	if cfg.Backoff <= 0 {
		cfg.Backoff = 2 * time.Second
	}
	if cfg.User == "" {
		cfg.User = cfg.Nick
	}
	if cfg.RealName == "" {
		cfg.RealName = cfg.Nick
	}
	cfg.Nick, cfg.User, cfg.RealName = OneLine(cfg.Nick), OneLine(cfg.User), OneLine(cfg.RealName)
	return &Client{cfg: cfg, handle: handle, nick: cfg.Nick}
}

// Connect makes one attempt to connect and register. It returns when the
// server has welcomed us, or why it did not: a *RegistrationError or an error
// of the network. Run then serves the connection; until it is called nobody
// answers the server.
func (c *Client) Connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	l := &link{
		cfg: &c.cfg, conn: conn, mu: &c.mu, wanted: &c.wanted, handle: c.guarded(ctx),
		caps:     caps{offered: make(map[string]string), enabled: make(map[string]bool)},
		channels: make(map[string]*channel), batches: make(map[string]*batch),
		bucket: bucket{burst: max(1, c.cfg.Burst), interval: c.cfg.Interval},
	}
	l.reader.Initialize(conn, 512, 16*1024)
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	fx := effects{handle: l.handle}
	c.mu.Lock()
	c.link = l
	l.greet(&fx)
	c.mu.Unlock()
	err = l.carryOut(&fx)
	if err == nil {
		err = l.serve(ctx, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return l.ready })
	}
	if err != nil {
		c.drop(l)
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("connect to %s: %w", c.cfg.Address, cause)
		}
		return err
	}
	c.welcomed(l)
	return nil
}

// dial opens the connection and, where wanted, TLS.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	dial := c.cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 60 * time.Second}).DialContext
	}
	conn, err := dial(ctx, "tcp", c.cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c.cfg.Address, err)
	}
	if c.cfg.TLS == nil {
		return conn, nil
	}
	cfg := c.cfg.TLS.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(c.cfg.Address)
	}
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("TLS with %s: %w", c.cfg.Address, err)
	}
	return secure, nil
}

// guarded is handle with a recover, so that a faulty handler costs one event.
func (c *Client) guarded(ctx context.Context) func(Event) {
	log := zerolog.Ctx(ctx)
	return func(e Event) {
		defer func() {
			if r := recover(); r != nil {
				log.Error().Any("err", r).Bytes("stack", debug.Stack()).Type("event", e).Msg("panic while handling an IRC event")
			}
		}()
		c.handle(e)
	}
}

// welcomed enters the channels again and tries to get the nick back.
func (c *Client) welcomed(l *link) {
	c.mu.Lock()
	c.last, c.nick = l.isupport, l.self.Name
	l.regaining = c.cfg.NickFallback && l.fold(l.self.Name) != l.fold(c.cfg.Nick)
	if l.regaining {
		l.regainTimer = time.AfterFunc(regainInterval, l.regain)
	}
	c.mu.Unlock()
	c.rejoin(l)
}

// Rejoin enters the wanted channels that we are not in, after Want has changed
// them on a connection that is there.
func (c *Client) Rejoin() {
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	if l != nil {
		c.rejoin(l)
	}
}

func (c *Client) rejoin(l *link) {
	for _, ch := range c.Wanted() {
		if _, in := c.Channel(ch.Name); in {
			continue
		}
		c.Join(ch.Name, ch.Key, func(o Outcome) {
			if o.Err == nil || errors.Is(o.Err, ErrNotSent) || errors.Is(o.Err, ErrUnconfirmed) {
				return
			}
			c.mu.Lock()
			c.wanted.remove(l.isupport.Casemapping(), ch.Name)
			c.mu.Unlock()
			l.handle(JoinFailed{Channel: ch.Name, Err: o.Err})
		})
	}
}

// drop forgets a link that has ended.
func (c *Client) drop(l *link) {
	c.mu.Lock()
	if c.link == l {
		c.link = nil
		if l.registered {
			c.last, c.nick = l.isupport, l.self.Name
		}
	}
	c.mu.Unlock()
	l.close()
}

// Run serves the connection made by Connect, or makes one, and makes new ones
// when it is lost, until ctx is done, which ends it with a QUIT and nil, or
// until an error that time does not mend: a wrong password or nick, or a ban.
func (c *Client) Run(ctx context.Context) error {
	wait := c.cfg.Backoff
	for {
		c.mu.Lock()
		l := c.link
		c.mu.Unlock()
		started := time.Now()
		var err error
		if l == nil {
			if err = c.Connect(ctx); err == nil {
				continue
			}
		} else {
			err = c.serve(ctx, l)
		}
		if ctx.Err() != nil {
			c.handle(Disconnected{Err: ctx.Err(), Retry: -1})
			return nil
		}
		if permanent(err) {
			c.handle(Disconnected{Err: err, Retry: -1})
			return err
		}
		if l != nil && time.Since(started) > stableAfter*c.cfg.Backoff {
			wait = c.cfg.Backoff
		}
		pause := wait/2 + rand.N(wait) // half to one and a half of it
		wait = min(2*wait, maxBackoff)
		zerolog.Ctx(ctx).Info().Err(err).Dur("retry", pause).Msg("no connection to the IRC network")
		c.handle(Disconnected{Err: err, Retry: pause})
		select {
		case <-ctx.Done():
			c.handle(Disconnected{Err: ctx.Err(), Retry: -1})
			return nil
		case <-time.After(pause):
		}
	}
}

// serve runs an established connection until it ends.
func (c *Client) serve(ctx context.Context, l *link) error {
	stop := context.AfterFunc(ctx, func() {
		_ = l.write([]byte("QUIT :Bridge is stopping\r\n"))
		time.AfterFunc(quitTimeout, func() { _ = l.conn.Close() })
	})
	defer stop()
	defer c.drop(l)
	return l.serve(ctx, nil)
}

// Close ends a connection made by Connect that Run has not taken over.
func (c *Client) Close() {
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	if l != nil {
		_ = l.write([]byte("QUIT\r\n"))
		c.drop(l)
	}
}

// FallBack makes later connections take another nick when the wanted one is in
// use, see Config.NickFallback. A first log-in goes without, so that the user
// can choose.
func (c *Client) FallBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cfg.NickFallback = true
}

// Do sends a command. If done is not nil it is called exactly once: when the
// network has accepted or refused the command, or when that can not be known.
// It may be called before Do returns, and must not wait.
func (c *Client) Do(m ircmsg.Message, done func(Outcome)) {
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	err := ErrNotSent
	if l != nil {
		err = l.enqueue(m, done)
	}
	if err != nil && done != nil {
		done(Outcome{Err: err})
	}
}

// Ask is Do for callers that want to wait.
func (c *Client) Ask(ctx context.Context, command string, params ...string) error {
	result := make(chan error, 1)
	c.Do(ircmsg.MakeMessage(nil, "", command, params...), func(o Outcome) { result <- o.Err })
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", command, ctx.Err())
	}
}

// Join enters a channel, now and after every reconnect.
func (c *Client) Join(name, key string, done func(Outcome)) {
	c.mu.Lock()
	known := c.wanted.index(c.last.Casemapping(), name) >= 0
	c.wanted.add(c.last.Casemapping(), name, key)
	c.mu.Unlock()
	params := []string{name}
	if key != "" {
		params = append(params, key)
	}
	c.Do(ircmsg.MakeMessage(nil, "", "JOIN", params...), func(o Outcome) {
		if o.Err != nil && !known {
			c.mu.Lock()
			c.wanted.remove(c.last.Casemapping(), name)
			c.mu.Unlock()
		}
		if done != nil {
			done(o)
		}
	})
}

// Part leaves a channel for good.
func (c *Client) Part(name, reason string, done func(Outcome)) {
	c.mu.Lock()
	c.wanted.remove(c.last.Casemapping(), name)
	c.mu.Unlock()
	params := []string{name}
	if reason = OneLine(reason); reason != "" {
		params = append(params, reason)
	}
	c.Do(ircmsg.MakeMessage(nil, "", "PART", params...), done)
}

// Want sets the channels that are entered at the next connection.
func (c *Client) Want(channels []Wanted) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted.list = slices.Clone(channels)
}

// Wanted returns the channels that are entered after a reconnect.
func (c *Client) Wanted() []Wanted {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.wanted.list)
}

// SetNick changes the nick, now and for later connections.
func (c *Client) SetNick(ctx context.Context, nick string) error {
	if err := c.Ask(ctx, "NICK", nick); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cfg.Nick = nick
	if c.link != nil {
		c.link.regaining = false
	}
	return nil
}

// Say sends a text, in as many lines as it needs, with prefix before each.
// Done is called once: with the first line's ID when all lines were accepted,
// else with the first error. ReplyTo is the msgid of the message that this one
// answers, or empty.
func (c *Client) Say(kind Kind, target, prefix, text, replyTo string, done func(Outcome)) {
	command := "PRIVMSG"
	if kind == Notice {
		command = "NOTICE"
	}
	prefix = OneLine(prefix) + trailingSpace(prefix)
	room := c.textRoom(command, target) - len(prefix)
	if kind == Action {
		room -= len("\x01ACTION \x01")
	}
	lines := Split(text, room)
	if len(lines) == 0 {
		done(Outcome{})
		return
	}
	all := gather(len(lines), done)
	for i, line := range lines {
		line = prefix + line
		if kind == Action {
			line = "\x01ACTION " + line + "\x01"
		}
		m := ircmsg.MakeMessage(nil, "", command, target, line)
		if replyTo != "" && i == 0 {
			m.SetTag("+draft/reply", replyTo)
		}
		c.Do(m, all)
	}
}

func trailingSpace(s string) string {
	if strings.HasSuffix(s, " ") {
		return " "
	}
	return ""
}

// textRoom is how many bytes of text fit into one line, as others receive it:
// ":nick!user@host PRIVMSG target :text" and CR LF.
func (c *Client) textRoom(command, target string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	lineLen, name := 512, ircmsg.NUH{Name: c.nick}
	if c.link != nil {
		lineLen, name = c.link.isupport.LineLen(), c.link.self
	}
	if name.User == "" {
		name.User = "~" + c.cfg.User
	}
	host := len(name.Host)
	if host == 0 {
		host = 63
	}
	source := len(name.Name) + 1 + len(name.User) + 1 + host
	return lineLen - len(":") - source - len(" ") - len(command) - len(" ") - len(target) - len(" :") - len("\r\n")
}

// gather returns a callback for n outcomes that calls done once, with the first
// outcome, or the first error. When only a part was sent, sending all again
// would repeat that part: the error is ErrUnconfirmed then.
func gather(n int, done func(Outcome)) func(Outcome) {
	var mu sync.Mutex // tier 1; guards the variables below
	var first Outcome
	var failed error
	got, sent := 0, 0
	return func(o Outcome) {
		mu.Lock()
		if got++; got == 1 {
			first = o
		}
		if !errors.Is(o.Err, ErrNotSent) {
			sent++
		}
		if failed == nil {
			failed = o.Err
		}
		last := got == n
		mu.Unlock()
		if !last {
			return
		}
		if errors.Is(failed, ErrNotSent) && sent > 0 {
			failed = ErrUnconfirmed
		}
		first.Err = failed
		done(first)
	}
}

// Nick is the nick that we have, or had last.
func (c *Client) Nick() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != nil && c.link.registered {
		return c.link.self.Name
	}
	return c.nick
}

// Online reports whether the server has welcomed us.
func (c *Client) Online() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link != nil && c.link.ready
}

// Enabled reports whether a capability is in use.
func (c *Client) Enabled(capability string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link != nil && c.link.caps.enabled[capability]
}

// Casemapping is the network's rule for names, as far as it is known.
func (c *Client) Casemapping() Casemapping {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.support().Casemapping()
}

// ISupport returns what the server says of itself.
func (c *Client) ISupport() ISupport {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := *c.support()
	tokens := make(map[string]string, len(s.tokens))
	for k, v := range s.tokens {
		tokens[k] = v
	}
	return ISupport{tokens: tokens}
}

func (c *Client) support() *ISupport {
	if c.link != nil && c.link.registered {
		return &c.link.isupport
	}
	return &c.last
}

// Channel returns what is known of a channel that we are in.
func (c *Client) Channel(name string) (Channel, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil {
		return Channel{}, false
	}
	ch := c.link.channels[c.link.fold(name)]
	if ch == nil {
		return Channel{}, false
	}
	return ch.snapshot(), true
}
