package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/matrix"
)

func TestForwardedFor(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	tests := []struct {
		name, peer string
		headers    []string
		want       string
	}{
		{"no proxy", "192.0.2.1:5", []string{"198.51.100.1"}, "192.0.2.1:5"},
		{"proxy", "127.0.0.1:5", []string{"198.51.100.1"}, "198.51.100.1:0"},
		{"proxy over IPv6", "[::1]:5", []string{"2001:db8::1"}, "[2001:db8::1]:0"},
		{"mapped proxy", "[::ffff:127.0.0.1]:5", []string{"198.51.100.1"}, "198.51.100.1:0"},
		{"lie before the proxy", "127.0.0.1:5", []string{"203.0.113.9, 198.51.100.1"}, "198.51.100.1:0"},
		{"two proxies", "127.0.0.1:5", []string{"203.0.113.9, 198.51.100.1, 10.1.2.3"}, "198.51.100.1:0"},
		{"two headers", "127.0.0.1:5", []string{"203.0.113.9", "198.51.100.1"}, "198.51.100.1:0"},
		{"all trusted", "127.0.0.1:5", []string{"10.0.0.9, 10.0.0.1"}, "10.0.0.9:0"},
		{"with a port", "127.0.0.1:5", []string{"198.51.100.1:1234"}, "198.51.100.1:0"},
		{"IPv6 with a port", "127.0.0.1:5", []string{"[2001:db8::1]:1234"}, "[2001:db8::1]:0"},
		{"nonsense", "127.0.0.1:5", []string{"198.51.100.1, <script>"}, "127.0.0.1:5"},
		{"nonsense first", "127.0.0.1:5", []string{"unknown, 198.51.100.1"}, "198.51.100.1:0"},
		{"empty", "127.0.0.1:5", nil, "127.0.0.1:5"},
		{"socket", "@", []string{"198.51.100.1"}, "198.51.100.1:0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			h := behindProxies(trusted, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.RemoteAddr }))
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = tt.peer
			for _, v := range tt.headers {
				r.Header.Add("X-Forwarded-For", v)
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// pair writes a certificate for a name, signed by itself.
func pair(t testing.TB, dir, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestCertificateReload(t *testing.T) {
	dir := t.TempDir()
	cert, key := pair(t, dir, "first.test")
	c, err := loadCertificate(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	name := func() string {
		pair, err := c.config().GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.Subject.CommonName
	}
	if changed, err := c.reload(); changed || err != nil || name() != "first.test" {
		t.Errorf("%v, %v, %s", changed, err, name())
	}
	if err := os.WriteFile(key, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := c.reload(); changed || err == nil || name() != "first.test" {
		t.Errorf("a broken key: %v, %v, %s", changed, err, name())
	}
	pair(t, dir, "second.test")
	later := time.Now().Add(time.Second) // than the clock of the file system can tell from the first time
	if err := os.Chtimes(cert, later, later); err != nil {
		t.Fatal(err)
	}
	if changed, err := c.reload(); !changed || err != nil || name() != "second.test" {
		t.Errorf("%v, %v, %s", changed, err, name())
	}
	if _, err := loadCertificate(cert, filepath.Join(dir, "absent")); err == nil {
		t.Error("an absent key is no error")
	}
}

// A listener with a certificate of its own, with HTTP/2, beside a plain one.
func TestTLSListener(t *testing.T) {
	t.Chdir(t.TempDir())
	cert, key := pair(t, ".", "localhost")
	s := serve(t, "SWITCHBOARD_LISTENERS=[{address: '127.0.0.1:0', serve: [client]}, {address: '127.0.0.1:0', serve: [federation], tls: {cert: "+cert+", key: "+key+"}}, {address: 'unix:s.sock'}]")
	url := s.out.find(t, `listening +(https://\S+)`)
	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}, ForceAttemptHTTP2: true,
	}}
	defer client.CloseIdleConnections()
	a, err := client.Get(url + "/_matrix/client/versions")
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.StatusCode != 404 || a.ProtoMajor != 2 {
		t.Errorf("the federation's listener answers clients with %d over %s", a.StatusCode, a.Proto)
	}
	if a, err = client.Get(url + "/health"); err != nil || a.StatusCode != 200 {
		t.Errorf("health: %v", err)
	} else {
		a.Body.Close()
	}
	socket := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", "s.sock")
	}}}
	defer socket.CloseIdleConnections()
	if a, err = socket.Get("http://x/_matrix/client/versions"); err != nil || a.StatusCode != 200 {
		t.Errorf("over the socket: %v", err)
	} else {
		a.Body.Close()
	}
}

// pipes is a listener whose connections are pipes, so that time can stand still.
type pipes struct {
	net.Listener
	conns  chan net.Conn
	closed chan struct{}
}

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

// What stands still in the middle is ended, and waiting for an answer is not.
func TestStalls(t *testing.T) { synctest.Test(t, testStalls) }

func testStalls(t *testing.T) {
	ended := make(chan error, 10)
	mux := http.NewServeMux()
	mux.HandleFunc("/read", func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		ended <- err
	})
	mux.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(time.Hour):
		case <-r.Context().Done():
		}
		io.WriteString(w, "late")
	})
	mux.HandleFunc("/write", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				ended <- err
				return
			}
		}
	})
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := newServer(zerolog.Nop(), HTTPConfig{HeaderTimeout: time.Minute, StallTimeout: time.Second, IdleTimeout: time.Minute, MaxHeader: 8 << 10}, mux)
	go server.Serve(l)
	defer func() {
		server.Close()
		time.Sleep(time.Minute) // until its connections have ended: time stops with the test
	}()
	open := func(request string) (net.Conn, *bufio.Reader) {
		here, there := net.Pipe()
		l.conns <- there
		t.Cleanup(func() { here.Close() })
		go io.WriteString(here, request)
		return here, bufio.NewReader(here)
	}
	open("POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
	if err := <-ended; err == nil {
		t.Error("a body that stands still is read to its end")
	}
	open("GET /write HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := <-ended; err == nil {
		t.Error("an answer that nobody takes does not end")
	}
	conn, answers := open("POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
	for range 2 { // the second one on the same connection
		a, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(a.Body)
		if err != nil || string(b) != "late" {
			t.Errorf("got %q, %v", b, err)
		}
		io.WriteString(conn, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	_, answers = open("GET /wait HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n\r\n")
	if a, err := http.ReadResponse(answers, nil); err != nil || a.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a large header: %v, %v", a, err)
	}
}

func TestListenReplacesSocket(t *testing.T) {
	t.Chdir(t.TempDir())
	first, err := listen(t.Context(), "unix:s")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t.Context(), "unix:s"); err == nil {
		t.Error("a socket that is used was taken over")
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	first.Close() // as a crash would leave it
	second, err := listen(t.Context(), "unix:s")
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	if err := os.WriteFile("file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t.Context(), "unix:file"); err == nil {
		t.Error("a file was replaced by a socket")
	}
}

func TestACMEDomains(t *testing.T) {
	tests := []struct {
		server, public string
		domains, want  []string
	}{
		{"example.org", "", nil, []string{"example.org"}},
		{"example.org:8448", "", nil, []string{"example.org"}},
		{"example.org", "https://matrix.example.org/", nil, []string{"example.org", "matrix.example.org"}},
		{"example.org", "https://matrix.example.org:8443", nil, []string{"example.org", "matrix.example.org"}},
		{"example.org", "https://x.org", []string{"y.org"}, []string{"y.org"}},
	}
	for _, tt := range tests {
		c := defaultConfig()
		c.PublicURL, c.ACME.Domains = tt.public, tt.domains
		c.ServerName = matrix.ServerName(tt.server)
		if got := c.acmeDomains(); !slices.Equal(got, tt.want) {
			t.Errorf("%+v: got %v", tt, got)
		}
	}
}
