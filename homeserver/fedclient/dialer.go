package fedclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

// Resolver asks the domain name system. *net.Resolver is one.
type Resolver interface {
	// LookupNetIP answers the addresses of a host. Network is "ip".
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)

	// LookupSRV answers the SRV records of _service._proto.name.
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, records []*net.SRV, err error)
}

// Dialer makes the connections of all outbound requests. It looks names up
// first and then refuses addresses that are not on the internet, so that
// nobody can make this server ask its own network, not by a name that leads
// there and not by a redirect. Its methods may be called from several
// goroutines.
type Dialer struct {
	rules    guard
	resolver Resolver
	timeout  time.Duration // of one address
	stagger  time.Duration // how long an address may take before the next one is tried beside it

	// connect makes one connection to an IP address and port.
	connect func(ctx context.Context, network, address string) (net.Conn, error)
}

// defaultStagger is what most programs have for Dialer.stagger.
const defaultStagger = 300 * time.Millisecond

// mostAddresses is how many addresses of one name are tried.
const mostAddresses = 16

// NewDialer makes the dialer. A nil resolver is that of the system.
func NewDialer(c OutboundConfig, resolver Resolver) *Dialer {
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	if c.ConnectTimeout <= 0 {
		c.ConnectTimeout = DefaultOutboundConfig().ConnectTimeout
	}
	d := &Dialer{rules: guard{allow: c.Allow, deny: c.Deny}, resolver: resolver, timeout: c.ConnectTimeout, stagger: defaultStagger}
	d.connect = (&net.Dialer{KeepAlive: 30 * time.Second, Control: d.control}).DialContext
	return d
}

// Unguarded is the same dialer without rules about addresses: for hosts that
// the operator wrote into the configuration, such as those of appservices.
func (d *Dialer) Unguarded() *Dialer {
	free := *d
	free.rules = guard{off: true}
	free.connect = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	return &free
}

// control looks at the address again at the last moment, whoever resolved it.
func (d *Dialer) control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrRefused, address)
	}
	return d.rules.check(ap.Addr())
}

// Check tells whether the rules allow connections to an address. The error is
// ErrRefused.
func (d *Dialer) Check(a netip.Addr) error { return d.rules.check(a) }

// DialContext connects to "host:port" over TCP: for http.Transport. The host is
// a name or an IP address, the network "tcp", "tcp4" or "tcp6". All addresses
// of a name that the rules allow are tried, the next one when one is slow. The
// error is ErrRefused if the rules leave none.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := d.addresses(ctx, network, host)
	if err != nil {
		return nil, err
	}
	return d.race(ctx, addrs, port)
}

// addresses looks a host up and leaves out what is refused.
func (d *Dialer) addresses(ctx context.Context, network, host string) ([]netip.Addr, error) {
	found, err := d.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	var good []netip.Addr
	var refused error
	for _, a := range interleave(found) {
		if network == "tcp4" && !a.Is4() || network == "tcp6" && !a.Is6() {
			continue
		}
		if err := d.rules.check(a); err != nil {
			refused = err
		} else if len(good) < mostAddresses {
			good = append(good, a)
		}
	}
	switch {
	case len(good) > 0:
		return good, nil
	case refused != nil:
		return nil, fmt.Errorf("connect to %s: %w", host, refused)
	}
	return nil, &net.DNSError{Err: "no addresses", Name: host, IsNotFound: true}
}

func (d *Dialer) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	found, err := d.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i] = found[i].Unmap()
	}
	return found, nil
}

// interleave lets both families take turns, beginning with that of the first.
func interleave(list []netip.Addr) []netip.Addr {
	var same, other []netip.Addr
	for _, a := range list {
		if a.Is4() == list[0].Is4() {
			same = append(same, a)
		} else {
			other = append(other, a)
		}
	}
	out := list[:0:0]
	for i := range max(len(same), len(other)) {
		if i < len(same) {
			out = append(out, same[i])
		}
		if i < len(other) {
			out = append(out, other[i])
		}
	}
	return out
}

// race tries the addresses one after the other, and the next one beside it
// when one is slow. The first connection wins.
func (d *Dialer) race(ctx context.Context, addrs []netip.Addr, port string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	try := func(a netip.Addr) {
		conn, err := d.one(ctx, a, port)
		select {
		case results <- result{conn, err}:
		case <-ctx.Done(): // another one has won, or nobody waits
			if conn != nil {
				_ = conn.Close()
			}
		}
	}
	var errs []error
	running, next := 0, time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-next.C:
			if len(addrs) > 0 {
				go try(addrs[0])
				addrs, running = addrs[1:], running+1
				next.Reset(d.stagger)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			errs = append(errs, r.err)
			if running--; running == 0 && len(addrs) == 0 {
				return nil, errors.Join(errs...)
			}
			next.Reset(0)
		case <-ctx.Done():
			return nil, errors.Join(append(errs, ctx.Err())...)
		}
	}
}

func (d *Dialer) one(ctx context.Context, a netip.Addr, port string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	return d.connect(ctx, "tcp", net.JoinHostPort(a.String(), port))
}

// maxRedirects is how many redirects are followed in a row.
const maxRedirects = 10

// Client makes an HTTP client for hosts that are no Matrix servers, such as
// pages to preview and push gateways: guarded, with TLS as the system trusts
// it, without a proxy, cookies and memory of its own. It follows a few
// redirects, each of which is guarded like the first request. Timeout bounds a
// whole request with its answer; the caller bounds how much it reads.
func (d *Dialer) Client(timeout time.Duration) *http.Client {
	return &http.Client{Transport: d.Transport(), Timeout: timeout, CheckRedirect: checkRedirect}
}

// WithoutURL is an error of a Client's request without the address, in which a
// secret may stand, or what somebody wrote in an encrypted room.
func WithoutURL(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err
	}
	return err
}

// Transport is the transport of Client, for those who follow redirects
// themselves or not at all.
func (d *Dialer) Transport() *http.Transport {
	return &http.Transport{
		DialContext:            d.DialContext,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           100,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        time.Minute,
		TLSHandshakeTimeout:    d.timeout,
		MaxResponseHeaderBytes: maxHeader,
	}
}

// maxHeader is the largest header of an answer in bytes.
const maxHeader = 64 << 10

// checkRedirect bounds redirects and never goes from TLS to plain text.
func checkRedirect(r *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return errors.New("too many redirects")
	case r.URL.Scheme != "https" && via[0].URL.Scheme == "https":
		return errors.New("a redirect to plain HTTP")
	}
	return nil
}

// joinPort writes "host:port", with brackets where the host needs them.
func joinPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
