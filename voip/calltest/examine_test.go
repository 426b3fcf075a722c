package calltest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// issued is a certificate with its key.
type issued struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// issue makes a certificate, signed by an authority or, for nil, by itself.
func issue(t *testing.T, by *issued, name string, authority bool, until time.Time) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-100 * 24 * time.Hour), NotAfter: until,
		IsCA: authority, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else if !authority {
		template.DNSNames = []string{name}
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.Certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{cert, key}
}

func TestVerify(t *testing.T) {
	const name = "turn.example.org"
	year := time.Now().Add(365 * 24 * time.Hour)
	root := issue(t, nil, "root", true, year)
	middle := issue(t, root, "middle", true, year)
	roots := x509.NewCertPool()
	roots.AddCert(root.Certificate)
	e := &Examination{Roots: roots}
	good := issue(t, middle, name, false, year)
	foreign := issue(t, nil, "foreign", true, year)
	for _, tt := range []struct {
		name  string
		chain []*issued
		want  string // of the error; "" for none
		soft  bool
	}{
		{"good", []*issued{good, middle}, "", false},
		{"no chain", []*issued{good}, "without those between", false},
		{"another name", []*issued{issue(t, middle, "example.org", false, year), middle}, "for [example.org], not for " + name, false},
		{"expired", []*issued{issue(t, middle, name, false, time.Now().Add(-time.Hour)), middle}, "has expired", false},
		{"soon", []*issued{issue(t, middle, name, false, time.Now().Add(3*24*time.Hour+time.Hour)), middle}, "expires in 3 days", true},
		{"by itself", []*issued{issue(t, nil, name, false, year)}, "signed by itself", false},
		{"unknown authority", []*issued{issue(t, foreign, name, false, year), foreign}, "not trusted", false},
		{"none", nil, "shows no certificate", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var chain []*x509.Certificate
			for _, c := range tt.chain {
				chain = append(chain, c.Certificate)
			}
			err := e.verify(name, chain, time.Now())
			var cert certificateError
			if tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &cert) || !strings.Contains(cert.text, tt.want) || cert.fix == "" || cert.soft != tt.soft) {
				t.Errorf("%v, %+v", err, cert)
			}
		})
	}
}

// examine runs an examination of a relay with these URIs.
func examine(t *testing.T, relay Relay, roots *x509.CertPool, password string, uris ...string) Report {
	t.Helper()
	e := &Examination{Relay: relay, Roots: roots, patience: patience, Credentials: func(context.Context) (*Credentials, error) {
		return &Credentials{Username: "calltest", Password: password, URIs: uris}, nil
	}}
	return e.Run(t.Context())
}

// expect fails if there is no finding of a level with a text about a thing.
func (r Report) expect(t *testing.T, l Level, what, text string) {
	t.Helper()
	for _, f := range r.Findings {
		if f.Level == l && strings.HasPrefix(f.What, what) && strings.Contains(f.Text, text) && (l == Good) == (f.Fix == "") {
			return
		}
	}
	t.Errorf("no finding %q of %s says %q in %+v", l, what, text, r.Findings)
}

// TestExamine examines a relay that works over UDP, TCP and TLS, and then what
// does not.
func TestExamine(t *testing.T) {
	relay := startRelay(t)
	udp, tcp := relay.uris[0], relay.uris[1]
	cert := issue(t, nil, "127.0.0.1", true, time.Now().Add(24*time.Hour*365))
	roots := x509.NewCertPool()
	roots.AddCert(cert.Certificate)
	plain, err := parseURI(tcp)
	if err != nil {
		t.Fatal(err)
	}
	secured := startTLS(t, cert, plain.address())
	tlsURI := "turns:" + secured + "?transport=tcp"

	r := examine(t, relay, roots, "secret", udp, tcp, tlsURI, "stun:"+strings.TrimSuffix(strings.TrimPrefix(udp, "turn:"), "?transport=udp"))
	for _, u := range []string{udp, tcp, tlsURI} {
		r.expect(t, Good, u, "data work")
	}
	r.expect(t, Good, "stun:", "STUN works")
	r.expect(t, Good, "relay ports", "tried are free")
	r.expect(t, Unsure, "address", "127.0.0.1 is no public address")
	r.expect(t, Unsure, "from outside", "")
	if r.Count(Problem) != 0 {
		t.Errorf("it works, but %+v", r)
	}

	examine(t, relay, roots, "wrong", udp).expect(t, Problem, udp, "allocate")
	examine(t, relay, nil, "secret", tlsURI).expect(t, Problem, tlsURI, "signed by itself")
	busy, err := net.Dial("tcp4", plain.address())
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	// The port of a connection, where nobody listens, and one where nobody answers.
	deadTCP, deadUDP := "turn:"+busy.LocalAddr().String()+"?transport=tcp", "turn:"+silent.LocalAddr().String()+"?transport=udp"
	r = examine(t, relay, roots, "secret", tcp, deadTCP, deadUDP, "nonsense:x")
	r.expect(t, Problem, deadTCP, "connect")
	r.expect(t, Problem, deadUDP, "STUN")
	r.expect(t, Problem, "nonsense:x", "turns:")

	// By a name, of which the DNS says something else than others see.
	named := "turn:localhost:" + plain.port + "?transport=tcp"
	examine(t, awayRelay{relay}, roots, "secret", named).expect(t, Problem, "DNS", "others see this machine as 192.0.2.77")
	examine(t, awayRelay{relay}, roots, "secret", deadTCP).expect(t, Unsure, "hairpin", "does not reach itself")
	examine(t, relay, roots, "secret", "turn:no.such.name.invalid").expect(t, Problem, "DNS", "no address")
	(&Examination{Credentials: func(context.Context) (*Credentials, error) { return nil, nil }}).Run(t.Context()).expect(t, Problem, "relay", "there is none")
	(&Examination{Credentials: func(context.Context) (*Credentials, error) { return nil, errors.New("they are out") }}).Run(t.Context()).expect(t, Problem, "credentials", "they are out")
}

// TestJudge tells a relay that is full from one that is another server, and an
// address of a provider's own network from a public one.
func TestJudge(t *testing.T) {
	u, err := parseURI("turn:turn.example.org:3478?transport=udp")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		relay Relay
		code  stun.ErrorCode
		fix   string
	}{
		{awayRelay{}, stun.CodeInsufficientCapacity, "voip.turn.total_quota"},
		{awayRelay{}, stun.CodeAllocQuotaReached, "voip.turn.total_quota"},
		{nil, stun.CodeInsufficientCapacity, "raise its quotas"},
		{nil, stun.CodeUnauthorized, "does not know our secret"},
	} {
		refused := &stun.TurnError{StunMessageType: stun.NewType(stun.MethodAllocate, stun.ClassErrorResponse), ErrorCodeAttr: stun.ErrorCodeAttribute{Code: c.code}}
		found := (&Examination{Relay: c.relay}).judge(u, u.text, "", stepError{stepAllocate, refused}, true)
		if len(found) != 1 || found[0].Level != Problem || !strings.Contains(found[0].Fix, c.fix) {
			t.Errorf("%d is judged as %+v", c.code, found)
		}
	}
	for address, level := range map[string]Level{"100.64.3.4": Unsure, "192.168.1.2": Unsure, "fd00::1": Unsure, "198.41.0.4": Good, "2001:503:ba3e::2:30": Good} {
		var r Report
		(&Examination{}).external(&r, []netip.Addr{netip.MustParseAddr(address)})
		r.expect(t, level, "address", address)
	}
}

// awayRelay is a relay behind a router.
type awayRelay struct{ testRelay }

func (awayRelay) External() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.77")} }

// startTLS takes connections over TLS and passes what they carry to another
// address.
func startTLS(t *testing.T, cert *issued, to string) string {
	t.Helper()
	l, err := tls.Listen("tcp4", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: cert.key}}, NextProtos: []string{"stun.turn"}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp4", to)
			if err != nil {
				c.Close()
				continue
			}
			go func() { copyAll(out, c) }()
			go func() { copyAll(c, out) }()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// copyAll passes on what comes, until either side ends.
func copyAll(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if _, bad := to.Write(buf[:n]); err != nil || bad != nil {
			return
		}
	}
}
