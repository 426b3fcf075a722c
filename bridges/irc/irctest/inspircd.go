// Package irctest runs a real IRC server for tests, and plain IRC users who
// talk with it line by line.
package irctest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"switchboard/cmd/dev/child"
)

// binary is where Debian puts InspIRCd.
const binary = "/usr/sbin/inspircd"

// patience is how long something may take that must happen.
const patience = 2 * time.Minute

// modules are the parts of InspIRCd that modern networks have.
const modules = `cap ircv3 ircv3_accounttag ircv3_batch ircv3_capnotify ircv3_chghost ircv3_ctctags
	ircv3_echomessage ircv3_invitenotify ircv3_labeledresponse ircv3_msgid ircv3_servertime
	namesx uhnames setname`

// Server is a running InspIRCd.
type Server struct {
	Address string // host:port, plain text
	t       *testing.T
	dir     string
	process *exec.Cmd
}

// Start runs a server until the test ends. Plain leaves out the capabilities,
// as on an old network. Without InspIRCd the test is skipped, but not in CI.
func Start(t *testing.T, plain bool) *Server {
	t.Helper()
	if _, err := os.Stat(binary); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("InspIRCd is not installed: %v", err)
		}
		t.Skip("InspIRCd is not installed (apt-get install inspircd)")
	}
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), t: t, dir: t.TempDir()}
	if err := os.Chmod(s.dir, 0o777); err != nil { //nolint:gosec // the server may run as another user
		t.Fatal(err)
	}
	list := modules
	if plain {
		list = ""
	}
	s.configure(list)
	s.Run()
	t.Cleanup(s.Kill)
	return s
}

func (s *Server) configure(modules string) {
	_, port, _ := net.SplitHostPort(s.Address)
	var load strings.Builder
	for _, m := range strings.Fields(modules) {
		fmt.Fprintf(&load, "<module name=%q>\n", m)
	}
	text := fmt.Sprintf(`<config format="xml">
<server name="irc.test" description="test" network="TestNet" id="1AA">
<admin name="a" nick="a" email="a@b.test">
<bind address="127.0.0.1" port="%s" type="clients">
<connect name="all" allow="*" timeout="600" pingfreq="600" hardsendq="10M" softsendq="8192" recvq="10M" commandrate="100000" fakelag="off" threshold="10000" localmax="1000" globalmax="1000" useident="no" resolvehostnames="no" maxchans="100">
<path configdir="%[2]s" datadir="%[2]s" logdir="%[2]s" moddir="/usr/lib/inspircd/modules" runtimedir="%[2]s">
<log method="file" type="* -USERINPUT -USEROUTPUT" level="default" target="%[2]s/log">
<options casemapping="rfc1459" defaultmodes="not" maxtargets="20">
<performance netbuffersize="10240" somaxconn="128" softlimit="1024" quietbursts="yes">
<class name="all" commands="*" privs="*" usermodes="*" chanmodes="*">
%[3]s`, port, s.dir, load.String())
	if err := os.WriteFile(filepath.Join(s.dir, "inspircd.conf"), []byte(text), 0o644); err != nil { //nolint:gosec // as above
		s.t.Fatal(err)
	}
}

// Run starts the server, on the same port as before.
func (s *Server) Run() {
	s.t.Helper()
	args := []string{"--nofork", "--config", filepath.Join(s.dir, "inspircd.conf")}
	if os.Geteuid() == 0 {
		args = append(args, "--runasroot")
	}
	s.process = exec.Command(binary, args...)
	out, err := os.Create(filepath.Join(s.dir, "output"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	s.process.Stdout, s.process.Stderr = out, out
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", s.Address); err == nil {
			_ = conn.Close()
			return
		}
	}
	text, _ := os.ReadFile(filepath.Join(s.dir, "output"))
	s.t.Fatalf("InspIRCd did not start:\n%s", text)
}

// Kill ends the server without good-bye.
func (s *Server) Kill() {
	if s.process != nil {
		_ = s.process.Process.Kill()
		_ = s.process.Wait()
		s.process = nil
	}
}

// User is a person with the simplest of clients.
type User struct {
	Nick string
	t    *testing.T
	conn net.Conn

	mu    sync.Mutex // tier 1; guards what follows
	lines []string   // since the last Await
	all   []string
}

// User connects somebody.
func (s *Server) User(nick string) *User {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.Address)
	if err != nil {
		s.t.Fatal(err)
	}
	u := &User{Nick: nick, t: s.t, conn: conn}
	s.t.Cleanup(func() { _ = conn.Close() })
	go u.read()
	u.Send("NICK " + nick)
	u.Send("USER " + nick + " 0 * :" + nick)
	u.Await(" 001 ")
	return u
}

func (u *User) read() {
	for in := bufio.NewScanner(u.conn); in.Scan(); {
		line := in.Text()
		if rest, ok := strings.CutPrefix(line, "PING "); ok {
			_, _ = fmt.Fprintf(u.conn, "PONG %s\r\n", rest)
			continue
		}
		u.mu.Lock()
		u.lines, u.all = append(u.lines, line), append(u.all, line)
		u.mu.Unlock()
	}
}

// Send sends a line.
func (u *User) Send(format string, args ...any) {
	u.t.Helper()
	if _, err := fmt.Fprintf(u.conn, format+"\r\n", args...); err != nil {
		u.t.Errorf("%s: %v", u.Nick, err)
	}
}

// Join enters a channel.
func (u *User) Join(channel string) {
	u.t.Helper()
	u.Send("JOIN " + channel)
	u.Await(" 366 " + u.Nick + " " + channel)
}

// Await waits for a line that contains all parts and forgets all lines up to it.
func (u *User) Await(parts ...string) string {
	u.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		u.mu.Lock()
		for i, line := range u.lines {
			if containsAll(line, parts) {
				u.lines = u.lines[i+1:]
				u.mu.Unlock()
				return line
			}
		}
		u.mu.Unlock()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.t.Fatalf("%s waited in vain for %q; got:\n%s", u.Nick, parts, strings.Join(u.lines, "\n"))
	return ""
}

// All returns all lines ever that contain all parts.
func (u *User) All(parts ...string) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []string
	for _, line := range u.all {
		if containsAll(line, parts) {
			out = append(out, line)
		}
	}
	return out
}

func containsAll(line string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(line, p) {
			return false
		}
	}
	return true
}
