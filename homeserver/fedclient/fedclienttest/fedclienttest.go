// Package fedclienttest plays other servers for tests: each is a handler behind
// real TLS on loopback, and its name is its address. It knows no operations of
// the server-server API.
package fedclienttest

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
)

// Server serves h as another server until the test ends, and answers its name.
func Server(t testing.TB, h http.Handler) matrix.ServerName {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return matrix.ServerName(strings.TrimPrefix(s.URL, "https://"))
}

// Absent is the name of a server that refuses connections.
const Absent matrix.ServerName = "127.0.0.1:1"

// Client makes the client of a server with which the servers of Server can be
// asked.
func Client(t testing.TB, name matrix.ServerName, st *store.Store) *fedclient.Client {
	t.Helper()
	key, err := signing.Generate()
	if err != nil {
		t.Fatal(err)
	}
	c := fedclient.DefaultConfig()
	c.Notaries, c.RootCA = nil, authority(t)
	c.Timeout, c.LongTimeout = 2*time.Minute, 2*time.Minute
	out := fedclient.DefaultOutboundConfig()
	out.ConnectTimeout = time.Minute
	out.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	client, err := fedclient.New(c, name, key, fedclient.NewDialer(out, nil), st, &notify.Bell{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// authority writes the certificate that all servers of httptest have to a file.
func authority(t testing.TB) string {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
