package calls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"switchboard/cmd/dev/child"
	"switchboard/cmd/dev/chromium"

	"gopkg.in/yaml.v3"
)

// server is a running program with two users, alice and bob.
type server struct {
	url         string
	fingerprint string // of the key of its certificate
	command     func(args ...string) *exec.Cmd
}

// password is that of both.
const password = "correct horse battery staple"

// builtin is a section "voip" with a section "turn".
func builtin(turn map[string]any) map[string]any {
	return map[string]any{"provider": "builtin", "turn": turn}
}

// newServer runs the program at an address, by a command in front of it, which
// may be empty, with a section "voip" of its configuration.
func newServer(t *testing.T, binary string, before []string, address string, voip map[string]any) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{url: "https://" + address}
	cert, key := s.certificate(t, dir)
	host, _, _ := net.SplitHostPort(address)
	if turn, ok := voip["turn"].(map[string]any); ok {
		turn["host"], turn["stun_servers"], turn["grace"] = host, []string{}, "0s"
	}
	config, err := yaml.Marshal(map[string]any{
		"server_name": "calls.test", "public_url": s.url, "data_dir": filepath.Join(dir, "data"),
		"listeners": []any{map[string]any{"address": address, "tls": map[string]any{"cert": cert, "key": key}}},
		"voip":      voip,
	})
	file := filepath.Join(dir, "switchboard.yaml")
	if err == nil {
		err = os.WriteFile(file, config, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) *exec.Cmd {
		args = append(append(append([]string{}, before...), binary), append(args, "--config", file)...)
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		return cmd
	}
	s.command = command
	for _, name := range []string{"alice", "bob"} {
		cmd := command("user", "create", name, "--password-file", "-")
		cmd.Stdin = strings.NewReader(password + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("make %s: %v\n%s", name, err, out)
		}
	}
	var out child.Output
	serve := command("serve")
	serve.Stdout, serve.Stderr = &out, &out
	serve.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-serve.Process.Pid, syscall.SIGTERM)
		stuck := time.AfterFunc(chromium.Patience, func() { syscall.Kill(-serve.Process.Pid, syscall.SIGKILL) })
		defer stuck.Stop()
		if err := serve.Wait(); err != nil {
			t.Errorf("the server ended badly: %v", err)
		}
		if t.Failed() {
			t.Logf("the server:\n%s", &out)
		}
	})
	for end := time.Now().Add(chromium.Patience); !strings.Contains(out.String(), "homeserver "); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the server does not start:\n%s", &out)
		}
	}
	return s
}

// certificate makes a certificate and its key. Browsers are told to trust the
// key, so no name stands in it.
func (s *server) certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	pair, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{"calls.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &pair.PublicKey, pair)
	check(err)
	public, err := x509.MarshalPKIXPublicKey(&pair.PublicKey)
	check(err)
	sum := sha256.Sum256(public)
	s.fingerprint = base64.StdEncoding.EncodeToString(sum[:])
	private, err := x509.MarshalECPrivateKey(pair)
	check(err)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	check(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	check(os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600))
	return cert, key
}

// freeAddress is a loopback address where nobody listens, over TCP or UDP.
func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}
