// Package xmpptest runs a real XMPP server for tests, and people on it whose
// client is mellium's, not the bridge's.
package xmpptest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// The names of the server and its services.
const (
	Domain = "xmpp.test"
	Rooms  = "rooms.xmpp.test"
	Upload = "upload.xmpp.test"

	// Password is that of all accounts.
	Password = "correct horse"
)

// binary is where Debian puts Prosody.
const binary = "/usr/bin/prosody"

// Server is a running Prosody.
type Server struct {
	Address string // host:port, for clients
	CAFile  string // PEM of the authority that its certificate is from
	Web     string // host:port of the file share
	t       *testing.T
	dir     string
	process *exec.Cmd
}

// Start runs a server until the test ends. Without Prosody the test is skipped,
// but not in CI.
func Start(t *testing.T) *Server {
	t.Helper()
	if _, err := os.Stat(binary); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("Prosody is not installed: %v", err)
		}
		t.Skip("Prosody is not installed (apt-get install prosody)")
	}
	s := &Server{Address: freeAddress(t), Web: freeAddress(t), t: t, dir: t.TempDir()}
	s.CAFile = filepath.Join(s.dir, "ca.pem")
	s.certificates()
	s.configure()
	s.Run()
	t.Cleanup(s.Kill)
	return s
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
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

func (s *Server) configure() {
	_, port, _ := net.SplitHostPort(s.Address)
	_, web, _ := net.SplitHostPort(s.Web)
	text := fmt.Sprintf(`pidfile = "%[1]s/pid"
data_path = "%[1]s/data"
run_as_root = true
daemonize = false
interfaces = { "127.0.0.1" }
c2s_ports = { %[2]s }
s2s_ports = { }
http_ports = { %[3]s }
http_interfaces = { "127.0.0.1" }
https_ports = { }
http_default_host = "%[6]s"
ssl = { key = "%[1]s/key.pem"; certificate = "%[1]s/cert.pem" }
modules_enabled = { "roster"; "saslauth"; "tls"; "disco"; "carbons"; "pep"; "ping"; "mam"; "smacks"; "blocklist"; "vcard4"; "vcard_legacy"; "bookmarks"; "posix" }
modules_disabled = { "s2s"; "offline" }
authentication = "internal_plain"
c2s_require_encryption = true
limits = { }
log = { info = "%[1]s/log"; }
archive_expires_after = "never"
VirtualHost "%[4]s"
Component "%[5]s" "muc"
  modules_enabled = { "muc_mam"; "vcard_muc" }
  muc_room_default_public_jids = true
  restrict_room_creation = false
  muc_room_locking = false
Component "%[6]s" "http_file_share"
  http_external_url = "http://%[7]s/"
  http_file_share_size_limit = 1048576
  http_file_share_access = { "%[4]s" }
`, s.dir, port, web, Domain, Rooms, Upload, s.Web)
	if err := os.WriteFile(filepath.Join(s.dir, "prosody.cfg.lua"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	accounts := filepath.Join(s.dir, "data", "xmpp%2etest", "accounts")
	if err := os.MkdirAll(accounts, 0o700); err != nil {
		s.t.Fatal(err)
	}
}

// Account makes an account, unless there is one, and returns its JID.
func (s *Server) Account(name string) string {
	s.t.Helper()
	file := filepath.Join(s.dir, "data", "xmpp%2etest", "accounts", name+".dat")
	if err := os.WriteFile(file, []byte(`return { ["password"] = "`+Password+`" };`), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return name + "@" + Domain
}

// Run starts the server, on the same ports as before.
func (s *Server) Run() {
	s.t.Helper()
	s.process = exec.Command(binary, "--config", filepath.Join(s.dir, "prosody.cfg.lua"), "-F")
	out, err := os.Create(filepath.Join(s.dir, "output"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	s.process.Stdout, s.process.Stderr = out, out
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", s.Address); err == nil {
			_ = conn.Close()
			return
		}
	}
	s.t.Fatalf("Prosody did not start:\n%s", s.Log())
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
