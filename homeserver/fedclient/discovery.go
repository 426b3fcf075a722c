package fedclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"switchboard/homeserver/cache"
	"switchboard/homeserver/matrix"
)

// DefaultPort is the port of servers that name none.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names
const DefaultPort = 8448

// Destination is where and how a server is reached.
type Destination struct {
	// Host is the Host header of requests.
	Host string

	// Name is what the certificate must be for: a host name or an IP address.
	Name string

	// Targets are where to connect to, in the order in which they are tried.
	Targets []Target
}

// Target is a host and port to connect to. Its host is a name or an IP address.
type Target struct {
	Host string
	Port uint16
}

// String writes "host:port".
func (t Target) String() string { return joinPort(t.Host, t.Port) }

// The bounds of what discovery keeps.
const (
	maxKnown   = 20_000           // .well-known answers, and destinations
	recordLife = 5 * time.Minute  // of SRV records, whose own lifetime nobody tells
	findTime   = 40 * time.Second // for the whole of finding one server
	maxTargets = 10               // of one server
)

// ErrNoService is in the error when a server's SRV record says that there is no
// server.
var ErrNoService = errors.New("the SRV record says that there is no such service")

// discovery turns server names into destinations.
type discovery struct {
	dialer  *Dialer
	http    *http.Client // for .well-known
	files   *cache.Cache[string, *wellKnown]
	found   *cache.Cache[matrix.ServerName, foundAt]
	flights singleflight.Group
	now     func() time.Time
}

// foundAt is a destination that is known.
type foundAt struct {
	Destination
	expires time.Time
}

func newDiscovery(dialer *Dialer, trust *x509.CertPool, now func() time.Time) *discovery {
	transport := dialer.Transport()
	transport.TLSClientConfig = &tls.Config{RootCAs: trust}
	transport.DisableKeepAlives = true // a host is asked once a day
	return &discovery{
		dialer: dialer,
		http:   &http.Client{Transport: transport, Timeout: wellKnownTime, CheckRedirect: checkRedirect},
		files:  cache.New[string, *wellKnown](maxKnown),
		found:  cache.New[matrix.ServerName, foundAt](maxKnown),
		now:    now,
	}
}

// find answers where a server is. Callers that ask for the same at the same
// time share one search, which goes on when one of them gives up.
func (d *discovery) find(ctx context.Context, server matrix.ServerName) (Destination, error) {
	if f, ok := d.found.Find(server); ok && d.now().Before(f.expires) {
		return f.Destination, nil
	}
	flight := d.flights.DoChan(string(server), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), findTime)
		defer cancel()
		dest, expires, err := d.resolve(ctx, server)
		if err == nil {
			d.found.Put(server, foundAt{dest, expires}, 1)
		}
		return dest, err
	})
	select {
	case r := <-flight:
		return r.Val.(Destination), r.Err
	case <-ctx.Done():
		return Destination{}, ctx.Err()
	}
}

// forget makes the next find look for SRV records again.
func (d *discovery) forget(server matrix.ServerName) { d.found.Drop(server) }

// resolve follows the steps of the specification, whose numbers stand beside
// them.
func (d *discovery) resolve(ctx context.Context, server matrix.ServerName) (Destination, time.Time, error) {
	if _, err := matrix.ParseServerName(string(server)); err != nil {
		return Destination{}, time.Time{}, err
	}
	host, port, explicit := splitName(server)
	if explicit && port == 0 {
		return Destination{}, time.Time{}, fmt.Errorf("%s: there is no port 0", server)
	}
	later := d.now().Add(recordLife)
	if dest, ok := literal(server); ok { // 1
		return dest, later, nil
	}
	if explicit { // 2
		return Destination{Host: string(server), Name: host, Targets: []Target{{host, port}}}, later, nil
	}
	file := d.wellKnown(ctx, host) // 3
	if file.server == "" {
		dest, err := d.records(ctx, host) // 4, 5, 6
		return dest, earlier(later, file.expires), err
	}
	delegated := file.server
	if dest, ok := literal(delegated); ok { // 3.1
		return dest, file.expires, nil
	}
	host, port, explicit = splitName(delegated)
	if explicit { // 3.2
		return Destination{Host: string(delegated), Name: host, Targets: []Target{{host, port}}}, file.expires, nil
	}
	dest, err := d.records(ctx, host) // 3.3, 3.4, 3.5
	return dest, earlier(later, file.expires), err
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// literal is the destination of a name whose host is an IP address.
func literal(server matrix.ServerName) (Destination, bool) {
	host, port, explicit := splitName(server)
	if !explicit {
		port = DefaultPort
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return Destination{}, false
	}
	return Destination{Host: string(server), Name: a.String(), Targets: []Target{{a.String(), port}}}, true
}

// records finds a host without a port by its SRV records, or else at the
// default port.
func (d *discovery) records(ctx context.Context, host string) (Destination, error) {
	dest := Destination{Host: host, Name: host}
	for _, service := range []string{"matrix-fed", "matrix"} { // 3.3 and 3.4, or 4 and 5
		// An error of the domain name system is no answer either. Going on is
		// harmless: whoever answers must have the certificate.
		_, list, _ := d.dialer.resolver.LookupSRV(ctx, service, "tcp", host)
		if err := ctx.Err(); err != nil {
			return Destination{}, fmt.Errorf("look up %s: %w", host, err)
		}
		if len(list) == 1 && list[0].Target == "." {
			return Destination{}, fmt.Errorf("%s: %w", host, ErrNoService)
		}
		if dest.Targets = orderRecords(list); len(dest.Targets) > 0 {
			return dest, nil
		}
	}
	dest.Targets = []Target{{host, DefaultPort}} // 3.5 or 6
	return dest, nil
}

// splitName cuts a server name into a host without brackets and a port.
func splitName(server matrix.ServerName) (host string, port uint16, explicit bool) {
	host = server.Host()
	if rest := string(server)[len(host):]; rest != "" {
		n, err := strconv.ParseUint(rest[1:], 10, 16)
		if err != nil {
			n = 0
		}
		port, explicit = uint16(n), true
	}
	return strings.Trim(host, "[]"), port, explicit
}

// dialTLS connects to a destination: to the first of its targets that answers
// and has the certificate.
func (d *discovery) dialTLS(ctx context.Context, dest Destination, config *tls.Config) (*tls.Conn, error) {
	config = config.Clone()
	config.ServerName = dest.Name // an IP address is checked as such and not sent
	var errs []error
	for _, t := range dest.Targets {
		conn, err := d.dialTarget(ctx, t, config)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", t, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (d *discovery) dialTarget(ctx context.Context, t Target, config *tls.Config) (*tls.Conn, error) {
	raw, err := d.dialer.DialContext(ctx, "tcp", t.String())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d.dialer.timeout)
	defer cancel()
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

var _ Resolver = (*net.Resolver)(nil)
