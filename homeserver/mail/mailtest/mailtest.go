// Package mailtest runs a mail server that keeps what it gets, for tests:
// aiosmtpd, which is not ours.
package mailtest

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	ours "switchboard/homeserver/mail"
)

//go:embed smtpd.py
var script string

// Server is a mail server on loopback.
type Server struct {
	testing.TB
	Config ours.Config // of a sender that may send through it

	dir string
}

// python is Debian's: the package python3-aiosmtpd is for that.
func python() string {
	for _, p := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(p, "-c", "import aiosmtpd").Run() == nil {
			return p
		}
	}
	return ""
}

// Start runs a mail server until the test ends: with TLS as one of the
// constants of package mail says, and with a login unless there is no TLS.
func Start(t testing.TB, tls string) *Server {
	t.Helper()
	interpreter := python()
	if interpreter == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no aiosmtpd: install the Debian package python3-aiosmtpd")
		}
		t.Skip("there is no aiosmtpd (Debian package python3-aiosmtpd)")
	}
	s := &Server{TB: t, dir: t.TempDir(), Config: ours.DefaultConfig()}
	s.Config.Host, s.Config.TLS, s.Config.From = "127.0.0.1", tls, "Example chat <chat@example.org>"
	s.Config.Timeout = 2 * time.Minute // however busy the machine is
	args := []string{"-c", script, "--dir", s.dir, "--tls", tls}
	if tls != ours.None {
		cert, key := s.certificate()
		s.Config.RootCA, s.Config.User, s.Config.Password = cert, "switchboard", "correct horse"
		args = append(args, "--cert", cert, "--key", key, "--user", s.Config.User, "--password", s.Config.Password)
	}
	cmd := exec.Command(interpreter, args...)
	var told bytes.Buffer
	cmd.Stderr = &told
	in, err := cmd.StdinPipe()
	s.ok(err)
	out, err := cmd.StdoutPipe()
	s.ok(err)
	s.ok(cmd.Start())
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill() // it may wait for a connection
		if cmd.Wait(); t.Failed() {
			t.Logf("aiosmtpd: %s", told.Bytes())
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	s.ok(err)
	s.Config.Port, err = strconv.Atoi(strings.TrimSpace(line))
	s.ok(err)
	go io.Copy(io.Discard, out) // ends with the process
	return s
}

func (s *Server) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// certificate makes a certificate for 127.0.0.1 that vouches for itself.
func (s *Server) certificate() (cert, key string) {
	s.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.ok(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	s.ok(err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	s.ok(err)
	cert, key = filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "key.pem")
	s.ok(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	s.ok(os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	return cert, key
}

// Sender is one that sends through the server.
func (s *Server) Sender() *ours.Sender {
	s.Helper()
	sender, err := ours.New(s.Config)
	s.ok(err)
	return sender
}

// Refuse answers every receiver with a line, such as "550 nobody here"; "" lets
// them in again.
func (s *Server) Refuse(answer string) { s.say("refuse", answer) }

// Fail answers every message with a line, such as "451 later"; "" takes them
// again.
func (s *Server) Fail(answer string) { s.say("fail", answer) }

func (s *Server) say(name, answer string) {
	s.Helper()
	if answer == "" {
		s.ok(os.RemoveAll(filepath.Join(s.dir, name)))
		return
	}
	s.ok(os.WriteFile(filepath.Join(s.dir, name), []byte(answer), 0o600))
}

// Raw lists what the server has got, in order. Its headers X-MailFrom and
// X-RcptTo are the sender and the receiver as SMTP had them.
func (s *Server) Raw() []string {
	s.Helper()
	names, err := filepath.Glob(filepath.Join(s.dir, "mail", "new", "*"))
	s.ok(err)
	// A maildir's names hold the time, a process and a counter, which do not sort
	// as text: 1795262153.M90412P4242Q1.host
	arrival := func(name string) int {
		_, count, _ := strings.Cut(filepath.Base(name), "Q")
		count, _, _ = strings.Cut(count, ".")
		n, err := strconv.Atoi(count)
		s.ok(err)
		return n
	}
	slices.SortFunc(names, func(a, b string) int { return arrival(a) - arrival(b) })
	var list []string
	for _, name := range names {
		b, err := os.ReadFile(name)
		s.ok(err)
		list = append(list, string(b))
	}
	return list
}

// Want waits until the server has n messages and gives the last one.
func (s *Server) Want(n int) *mail.Message {
	s.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if list := s.Raw(); len(list) >= n {
			m, err := mail.ReadMessage(strings.NewReader(list[n-1]))
			s.ok(err)
			return m
		}
		if time.Now().After(deadline) {
			s.Fatalf("waited in vain for message %d; there are %d", n, len(s.Raw()))
		}
	}
}
