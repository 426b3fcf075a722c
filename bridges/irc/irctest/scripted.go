package irctest

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
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

	t  *testing.T
	mu sync.Mutex // tier 1; guards what follows
	// conn is the newest client.
	conn  net.Conn
	nick  string
	lines []string
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
			go s.serve(conn)
		}
	}()
	return s
}

func (s *Scripted) serve(conn net.Conn) {
	defer conn.Close()
	s.mu.Lock()
	s.conn = conn
	s.mu.Unlock()
	registering, account := true, ""
	for in := bufio.NewScanner(conn); in.Scan(); {
		line := in.Text()
		s.mu.Lock()
		s.lines = append(s.lines, line)
		s.mu.Unlock()
		command, rest, _ := strings.Cut(line, " ")
		switch command {
		case "CAP":
			s.negotiate(rest)
		case "NICK":
			s.nick = strings.TrimPrefix(rest, ":")
		case "AUTHENTICATE":
			account = s.authenticate(rest)
		case "PING":
			s.Send(":irc.test PONG irc.test %s", rest)
		case "JOIN":
			s.join(strings.TrimPrefix(rest, ":"))
		case "QUIT":
			return
		}
		if registering && (line == "CAP END") {
			registering = false
			s.welcome(account)
		}
	}
}

func (s *Scripted) negotiate(rest string) {
	if strings.HasPrefix(rest, "LS") {
		offer := "batch server-time"
		if s.Password != "" {
			offer += " sasl=PLAIN"
		}
		s.Send(":irc.test CAP * LS :%s", offer)
	} else if name, ok := strings.CutPrefix(rest, "REQ "); ok {
		s.Send(":irc.test CAP * ACK :%s", strings.TrimPrefix(name, ":"))
	}
}

func (s *Scripted) authenticate(rest string) (account string) {
	if rest == "PLAIN" {
		s.Send("AUTHENTICATE +")
		return ""
	}
	plain, _ := base64.StdEncoding.DecodeString(rest)
	parts := strings.Split(string(plain), "\x00")
	if len(parts) == 3 && parts[2] == s.Password {
		s.Send(":irc.test 903 * :SASL authentication successful")
		return parts[1]
	}
	s.Send(":irc.test 904 * :Invalid credentials for your account")
	return ""
}

func (s *Scripted) welcome(account string) {
	s.Send(":irc.test 001 %s :Welcome, account %q", s.nick, account)
	s.Send(":irc.test 005 %s CASEMAPPING=ascii CHANTYPES=# PREFIX=(ov)@+ NETWORK=Scripted :are supported", s.nick)
	s.Send(":irc.test 422 %s :no MOTD", s.nick)
}

func (s *Scripted) join(rest string) {
	channel, _, _ := strings.Cut(rest, " ")
	s.Send(":%s!u@h JOIN %s", s.nick, channel)
	s.Send(":irc.test 353 %s = %s :%s %s", s.nick, channel, s.nick, strings.Join(s.Names[channel], " "))
	s.Send(":irc.test 366 %s %s :End", s.nick, channel)
}

// Send says a line to the client.
func (s *Scripted) Send(format string, args ...any) {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	_, _ = fmt.Fprintf(conn, format+"\r\n", args...)
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
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
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
