package irctest

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Scripted is a server for what a real one can not be made to do: accounts
// without services, net splits, odd answers. It knows one client at a time, and
// lets a test say lines to it.
type Scripted struct {
	Address  string
	Password string              // of every account; empty means no SASL
	Names    map[string][]string // who is in a channel, as in RPL_NAMREPLY

	t     *testing.T
	mu    sync.Mutex // tier 1; guards what follows
	conn  net.Conn   // of the newest client
	lines []string   // since the last Await
	all   []string
}

// client is a connection.
type client struct {
	*Scripted
	conn net.Conn
	nick string
}

// say says a line to this client.
func (c *client) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.conn, format+"\r\n", args...)
}

// StartScripted runs a scripted server until the test ends.
func StartScripted(t *testing.T) *Scripted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Scripted{Address: l.Addr().String(), Names: make(map[string][]string), t: t}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go (&client{Scripted: s, conn: conn}).serve()
		}
	}()
	return s
}

func (c *client) serve() {
	defer c.conn.Close()
	c.mu.Lock()
	c.Scripted.conn = c.conn
	c.mu.Unlock()
	registering, account := true, ""
	for in := bufio.NewScanner(c.conn); in.Scan(); {
		line := in.Text()
		c.mu.Lock()
		c.lines, c.all = append(c.lines, line), append(c.all, line)
		c.mu.Unlock()
		command, rest, _ := strings.Cut(line, " ")
		switch command {
		case "CAP":
			c.negotiate(rest)
		case "NICK":
			c.nick = strings.TrimPrefix(rest, ":")
		case "AUTHENTICATE":
			account = c.authenticate(rest)
		case "PING":
			c.say(":irc.test PONG irc.test %s", rest)
		case "JOIN":
			c.join(strings.TrimPrefix(rest, ":"))
		case "QUIT":
			return
		}
		if registering && (line == "CAP END") {
			registering = false
			c.welcome(account)
		}
	}
}

func (c *client) negotiate(rest string) {
	if strings.HasPrefix(rest, "LS") {
		offer := "batch server-time"
		if c.Password != "" {
			offer += " sasl=PLAIN"
		}
		c.say(":irc.test CAP * LS :%s", offer)
	} else if name, ok := strings.CutPrefix(rest, "REQ "); ok {
		c.say(":irc.test CAP * ACK :%s", strings.TrimPrefix(name, ":"))
	}
}

func (c *client) authenticate(rest string) (account string) {
	if rest == "PLAIN" {
		c.say("AUTHENTICATE +")
		return ""
	}
	plain, _ := base64.StdEncoding.DecodeString(rest)
	parts := strings.Split(string(plain), "\x00")
	if len(parts) == 3 && parts[2] == c.Password {
		c.say(":irc.test 903 * :SASL authentication successful")
		return parts[1]
	}
	c.say(":irc.test 904 * :Invalid credentials for your account")
	return ""
}

func (c *client) welcome(account string) {
	c.say(":irc.test 001 %s :Welcome, account %q", c.nick, account)
	c.say(":irc.test 005 %s CASEMAPPING=ascii CHANTYPES=# PREFIX=(ov)@+ NETWORK=Scripted :are supported", c.nick)
	c.say(":irc.test 422 %s :no MOTD", c.nick)
}

func (c *client) join(rest string) {
	channel, _, _ := strings.Cut(rest, " ")
	c.say(":%s!u@h JOIN %s", c.nick, channel)
	c.say(":irc.test 353 %s = %s :%s %s", c.nick, channel, c.nick, strings.Join(c.Names[channel], " "))
	c.say(":irc.test 366 %s %s :End", c.nick, channel)
}

// Send says a line to the client.
func (s *Scripted) Send(format string, args ...any) {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	_, _ = fmt.Fprintf(conn, format+"\r\n", args...)
}

// All returns everything that clients ever sent.
func (s *Scripted) All() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// Cut breaks the connection.
func (s *Scripted) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.conn.Close()
}

// Await waits for a line of the client that contains a text, and forgets all
// lines up to it.
func (s *Scripted) Await(text string) string {
	s.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		for i, line := range s.lines {
			if strings.Contains(line, text) {
				s.lines = s.lines[i+1:]
				s.mu.Unlock()
				return line
			}
		}
		s.mu.Unlock()
	}
	s.t.Fatalf("the client never sent %q", text)
	return ""
}
