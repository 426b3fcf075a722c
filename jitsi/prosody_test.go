package jitsi

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"switchboard/cmd/dev/child"
)

// withProsody puts a real Prosody behind the pages, with a module that asks the
// homeserver. Without Prosody the test is skipped, but not in CI.
func withProsody(t *testing.T, m *meet) {
	t.Helper()
	const binary = "/usr/bin/prosody"
	if _, err := os.Stat(binary); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("Prosody is not installed: %v", err)
		}
		t.Skip("Prosody is not installed (apt-get install prosody)")
	}
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // Prosody does not trust the server's certificate
		m.proxy(w, r, m.uvsURL)
	}))
	t.Cleanup(plain.Close)
	plugins, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "prosody.cfg.lua")
	text := fmt.Sprintf(`pidfile = "%[1]s/pid"
data_path = "%[1]s/data"
run_as_root = true
daemonize = false
c2s_ports = { }
s2s_ports = { }
https_ports = { }
http_ports = { %[2]d }
http_interfaces = { "127.0.0.1" }
http_default_host = "%[3]s"
plugin_paths = { "%[4]s" }
modules_enabled = { "saslauth"; "disco"; "bosh"; "external_services"; "posix" }
modules_disabled = { "s2s" }
consider_bosh_secure = true
limits = { }
log = { debug = "%[1]s/log" }
external_service_secret = "shared"
external_services = {
  { type = "turn", host = "turn.test", port = 3478, transport = "udp", secret = true, ttl = 86400, algorithm = "turn" };
}
VirtualHost "%[3]s"
  authentication = "members"
  uvs_base_url = "%[5]s"
  uvs_auth_token = "%[6]s"
`, dir, port, xmppHost, plugins, plain.URL, m.secret)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	process := exec.Command(binary, "--config", config, "-F")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
		if b, err := os.ReadFile(filepath.Join(dir, "log")); err == nil && t.Failed() {
			t.Logf("Prosody:\n%s", b)
		}
	})
	at := &url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", at.Host)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("Prosody does not listen: %v", err)
		}
	}
	bind := httputil.NewSingleHostReverseProxy(at)
	m.bind = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Host = xmppHost
		bind.ServeHTTP(w, r)
	})
}

// proxy passes a question on to the homeserver.
func (m *meet) proxy(w http.ResponseWriter, r *http.Request, to string) {
	on, err := http.NewRequestWithContext(r.Context(), r.Method, to+r.URL.Path, r.Body)
	if err != nil {
		m.t.Error(err)
		return
	}
	on.Header = r.Header
	resp, err := m.uvs.Do(on)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}
