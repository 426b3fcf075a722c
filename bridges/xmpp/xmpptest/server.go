// Package xmpptest runs real XMPP servers for tests, and people on them whose
// client is mellium's, not the bridge's.
package xmpptest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"switchboard/cmd/dev/child"
)

// The names of the server and its services.
const (
	Domain = "xmpp.test"
	Rooms  = "rooms.xmpp.test"
	Upload = "upload.xmpp.test"

	// Password is that of all accounts.
	Password = "correct horse"
)

// Server is a running XMPP server.
type Server struct {
	Address string // host:port, for clients
	CAFile  string // PEM of the authority that its certificate is from
	Web     string // host:port of the file share
	t       *testing.T
	dir     string
	process *exec.Cmd
	software
}

// software is what a server runs.
type software interface {
	name() string // of the Debian package
	installed() bool
	configure(s *Server) error
	command(s *Server) *exec.Cmd

	// register makes an account, if there is none, on a server that runs.
	register(s *Server, account string) error
}

// Start runs Prosody until the test ends. Without it the test is skipped, but
// not in CI; so do the others.
func Start(t *testing.T) *Server { t.Helper(); return run(t, prosody{}) }

// StartEjabberd runs ejabberd until the test ends.
func StartEjabberd(t *testing.T) *Server { t.Helper(); return run(t, ejabberd{}) }

func run(t *testing.T, what software) *Server {
	t.Helper()
	if !what.installed() {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not installed", what.name())
		}
		t.Skipf("%s is not installed (apt-get install %s)", what.name(), what.name())
	}
	s := &Server{Address: freeAddress(t), Web: freeAddress(t), t: t, dir: t.TempDir(), software: what}
	s.CAFile = filepath.Join(s.dir, "ca.pem")
	s.certificates()
	if err := what.configure(s); err != nil {
		t.Fatal(err)
	}
	s.Run()
	t.Cleanup(s.Kill)
	return s
}

func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// certificates makes an authority and the server's certificate.
func (s *Server) certificates() {
	check := func(err error) {
		if err != nil {
			s.t.Fatal(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	check(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: Domain}, DNSNames: []string{Domain, Rooms, Upload},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	check(err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	check(err)
	for name, block := range map[string]*pem.Block{
		"ca.pem": {Type: "CERTIFICATE", Bytes: caDER}, "cert.pem": {Type: "CERTIFICATE", Bytes: leafDER}, "key.pem": {Type: "EC PRIVATE KEY", Bytes: keyDER},
	} {
		check(os.WriteFile(filepath.Join(s.dir, name), pem.EncodeToMemory(block), 0o600))
	}
}

// Account makes an account, unless there is one, and returns its JID.
func (s *Server) Account(name string) string {
	s.t.Helper()
	if err := s.register(s, name); err != nil {
		s.t.Fatalf("register %s: %v", name, err)
	}
	return name + "@" + Domain
}

// startTime is how long a server may take to start.
const startTime = 2 * time.Minute

// Run starts the server, on the same ports as before.
func (s *Server) Run() {
	s.t.Helper()
	s.process = s.command(s)
	out, err := os.Create(filepath.Join(s.dir, "output"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	s.process.Stdout, s.process.Stderr = out, out
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	for _, address := range []string{s.Address, s.Web} {
		s.await(address)
	}
}

// await waits until the server listens.
func (s *Server) await(address string) {
	s.t.Helper()
	for end := time.Now().Add(startTime); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			return
		}
	}
	s.t.Fatalf("%s did not start:\n%s", s.name(), s.Log())
}

// Kill ends the server without good-bye.
func (s *Server) Kill() {
	if s.process != nil {
		_ = s.process.Process.Kill()
		_ = s.process.Wait()
		s.process = nil
	}
}

// Stop ends the server in good order: it remembers how much it had of the
// streams.
func (s *Server) Stop() {
	s.t.Helper()
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	_ = s.process.Wait()
	s.process = nil
}

// Log is what the server has written.
func (s *Server) Log() string {
	output, _ := os.ReadFile(filepath.Join(s.dir, "output"))
	log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(output) + string(log)
}
