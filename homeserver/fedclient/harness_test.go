package fedclient

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// us is the server that the tests play.
const us matrix.ServerName = "us.test"

// internet is a little internet for one test: names, addresses of hosts that
// are really listeners on loopback, and an authority for certificates.
type internet struct {
	t     *testing.T
	ca    *x509.Certificate
	caKey crypto.Signer
	pem   string // file with the authority's certificate

	mu      sync.Mutex
	hosts   map[string][]netip.Addr
	records map[string][]*net.SRV // by "_service._tcp.name"
	ports   map[string]string     // "address:port" -> listener
	dialed  []string              // see connected
	lookups map[string]int
}

func newInternet(t *testing.T) *internet {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &internet{
		t: t, ca: ca, caKey: key, pem: file,
		hosts: map[string][]netip.Addr{}, records: map[string][]*net.SRV{}, ports: map[string]string{}, lookups: map[string]int{},
	}
}

// certificate makes a certificate for host names and IP addresses.
func (n *internet) certificate(until time.Time, names ...string) tls.Certificate {
	n.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		n.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: until.Add(-24 * time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, n.ca, key.Public(), n.caKey)
	if err != nil {
		n.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serve listens at "address:port" with a certificate for names.
func (n *internet) serve(at string, h http.Handler, names ...string) *httptest.Server {
	return n.serveUntil(at, h, time.Now().Add(time.Hour), names...)
}

func (n *internet) serveUntil(at string, h http.Handler, until time.Time, names ...string) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{n.certificate(until, names...)}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	n.t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports[at] = s.Listener.Addr().String()
	return s
}

// host gives a name addresses.
func (n *internet) host(name string, addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[name] = nil
	for _, a := range addresses {
		n.hosts[name] = append(n.hosts[name], netip.MustParseAddr(a))
	}
}

// LookupNetIP implements Resolver.
func (n *internet) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lookups[host]++
	if list, ok := n.hosts[host]; ok {
		return append([]netip.Addr{}, list...), nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// LookupSRV implements Resolver.
func (n *internet) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := "_" + service + "._" + proto + "." + name
	n.lookups[key]++
	if list, ok := n.records[key]; ok {
		return key, append([]*net.SRV{}, list...), nil
	}
	return "", nil, &net.DNSError{Err: "no such record", Name: key, IsNotFound: true}
}

func (n *internet) looked(name string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lookups[name]
}

// dialer makes the guarded dialer of this internet.
func (n *internet) dialer() *Dialer {
	c := DefaultOutboundConfig()
	c.ConnectTimeout = time.Minute
	d := NewDialer(c, n)
	d.stagger = time.Hour // however slow an address is, it is the only one that is tried
	d.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
		n.mu.Lock()
		n.dialed = append(n.dialed, address)
		real, ok := n.ports[address]
		n.mu.Unlock()
		if !ok {
			return nil, fmt.Errorf("connection to %s refused", address)
		}
		return (&net.Dialer{}).DialContext(ctx, network, real)
	}
	return d
}

// connected lists the addresses to which connections were made or tried.
func (n *internet) connected() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.dialed)
}

// config is that of a client of this internet.
func (n *internet) config() Config {
	c := DefaultConfig()
	c.RootCA, c.Notaries = n.pem, nil
	c.Timeout, c.LongTimeout = time.Minute, 2*time.Minute
	return c
}

// client makes our client.
func (n *internet) client(st *store.Store, c Config) *Client {
	return n.clientOf(us, st, c, newKey(n.t))
}

func (n *internet) clientOf(name matrix.ServerName, st *store.Store, c Config, key signing.Key) *Client {
	n.t.Helper()
	client, err := New(c, name, key, n.dialer(), st, &notify.Bell{})
	if err != nil {
		n.t.Fatal(err)
	}
	client.discovery.http.Timeout = time.Minute
	n.t.Cleanup(client.Close)
	return client
}

// clock makes client and ring take the time from a clock that the test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now()} }

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c *clock) rule(client *Client, ring *KeyRing) *clock {
	client.discovery.now, client.reach.now = c.time, c.time
	if ring != nil {
		ring.now = c.time
	}
	return c
}

func newKey(t testing.TB) signing.Key {
	t.Helper()
	key, err := signing.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sqlite opens a store for tests to which it does not matter.
func sqlite(t testing.TB) *store.Store {
	t.Helper()
	db, err := database.Open(t.Context(), databasetest.SQLite(t), database.Options{Volatile: true, WriteTimeout: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	st, err := store.New(t.Context(), db, storetest.Budget)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// peer is another server, with a key and what it published.
type peer struct {
	name matrix.ServerName
	key  signing.Key
	mux  *http.ServeMux

	mu      sync.Mutex
	publish func() []byte // answer of /_matrix/key/v2/server; nil: 500
	asked   int           // for its keys
}

// peer makes a server at a name without a port, on the default port.
func (n *internet) peer(name matrix.ServerName, address string) *peer {
	p := &peer{name: name, key: newKey(n.t), mux: http.NewServeMux()}
	p.publish = func() []byte { return keyAnswerOf(n.t, name, time.Now().Add(24*time.Hour), nil, p.key) }
	p.mux.HandleFunc("GET /_matrix/key/v2/server", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked++
		if p.publish == nil {
			http.Error(w, "down", http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(p.publish())
	})
	n.host(string(name), address)
	n.serve(address+":8448", p.mux, string(name))
	return p
}

// answers sets what the peer publishes.
func (p *peer) answers(f func() []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.publish = f
}

func (p *peer) timesAsked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// keyAnswerOf is what a server publishes, signed by its keys.
func keyAnswerOf(t testing.TB, name matrix.ServerName, until time.Time, old map[string]any, keys ...signing.Key) []byte {
	t.Helper()
	current := map[string]any{}
	for _, k := range keys {
		current[k.ID] = map[string]string{"key": signing.EncodeBase64(k.Public())}
	}
	answer := map[string]any{"server_name": name, "verify_keys": current, "valid_until_ts": until.UnixMilli()}
	if old != nil {
		answer["old_verify_keys"] = old
	}
	raw, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if raw, err = signing.SignJSON(raw, name, k); err != nil {
			t.Fatal(err)
		}
	}
	return raw
}

func oldKey(k signing.Key, expired time.Time) map[string]any {
	return map[string]any{k.ID: map[string]any{"key": signing.EncodeBase64(k.Public()), "expired_ts": expired.UnixMilli()}}
}

// ticking answers a channel by which the test lets time pass for answers that may
// stand still: at the third tick for which the client waits all the while, an
// answer is given up.
func ticking(c *Client) chan<- time.Time {
	ticks := make(chan time.Time)
	c.tick = func() *time.Ticker { return &time.Ticker{C: ticks} }
	return ticks
}

func matrixName(s string) matrix.ServerName { return matrix.ServerName(s) }
