package calltest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/pion/logging"
	"github.com/pion/stun/v3"
	"github.com/pion/turn/v5"
)

// The steps of an attempt, in which it may fail.
const (
	stepConnect  = "connect"
	stepBinding  = "STUN"
	stepAllocate = "allocate"
	stepPermit   = "permission"
	stepData     = "data through the relay"
)

// stepError is a step that failed.
type stepError struct {
	step string
	err  error
}

// Error implements error.
func (e stepError) Error() string { return e.step + ": " + e.err.Error() }

// certificateError is what is wrong with a certificate.
type certificateError struct {
	text, fix string
	soft      bool // it is good yet
}

// Error implements error.
func (e certificateError) Error() string { return e.text }

// try goes through everything with the server of a URI at one of its addresses:
// it sends data from one relayed address to another one, and back. The text
// tells what was seen. A certificateError that is soft comes with the text.
func (e *Examination) try(ctx context.Context, u uri, at netip.Addr) (string, error) {
	if !u.turn {
		return e.bind(ctx, u, at)
	}
	var soft error
	var ends [2]*end
	for i := range ends {
		one, err := e.dial(ctx, u, at)
		var cert certificateError
		if errors.As(err, &cert) && cert.soft {
			soft = err
		} else if err != nil {
			return "", err
		}
		defer one.close()
		ends[i] = one
	}
	began := time.Now()
	if err := exchange(ends[0], ends[1]); err != nil {
		return "", err
	}
	took := time.Since(began)
	if e.Relay != nil {
		first, last := e.Relay.Ports()
		relayed := ends[0].relayed.LocalAddr().(*net.UDPAddr).AddrPort()
		if p := relayed.Port(); p < first || p > last {
			return "", stepError{stepAllocate, fmt.Errorf("the relayed port %d is none of %d to %d: it is another server", p, first, last)}
		}
		if familyOf(relayed.Addr()) != familyOf(at) {
			return "", stepError{stepAllocate, fmt.Errorf("by IPv%d the relay gives %s", familyOf(at), relayed.Addr().Unmap())}
		}
	}
	return fmt.Sprintf("STUN, allocation, permission and data work; relayed as %s, there and back in %s", ends[0].relayed.LocalAddr(), took.Round(100*time.Microsecond)), soft
}

// bind asks a STUN server for the address that it sees.
func (e *Examination) bind(ctx context.Context, u uri, at netip.Addr) (string, error) {
	one, err := e.open(ctx, u, at, &Credentials{})
	if err != nil {
		return "", err
	}
	defer one.close()
	return "STUN works", nil
}

// end is a client of the relay with a relayed address.
type end struct {
	conn    net.PacketConn
	client  *turn.Client
	relayed net.PacketConn
	stop    func() bool
}

func (e *end) close() {
	if e.relayed != nil {
		e.relayed.Close()
	}
	e.client.Close()
	e.conn.Close()
	e.stop()
}

// dial gets a relayed address, with credentials of its own: all ways together
// take more addresses than one user may have. A certificateError that is soft
// comes with the end.
func (e *Examination) dial(ctx context.Context, u uri, at netip.Addr) (*end, error) {
	have, err := e.Credentials(ctx)
	if err != nil {
		return nil, stepError{stepAllocate, err}
	}
	one, soft := e.open(ctx, u, at, have)
	if one == nil {
		return nil, soft
	}
	if one.relayed, err = one.client.Allocate(); err != nil {
		one.close()
		return nil, stepError{stepAllocate, err}
	}
	return one, soft
}

// open connects and asks for the own address. A certificateError that is soft
// comes with the end.
func (e *Examination) open(ctx context.Context, u uri, at netip.Addr, have *Credentials) (*end, error) {
	address := net.JoinHostPort(at.String(), u.port)
	conn, soft := e.connect(ctx, u, address)
	if conn == nil {
		return nil, soft
	}
	one := &end{conn: conn, stop: context.AfterFunc(ctx, func() { conn.Close() })}
	family := turn.RequestedAddressFamilyIPv4
	if e.Relay != nil && at.Is6() {
		family = turn.RequestedAddressFamilyIPv6
	}
	var err error
	one.client, err = turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: address, TURNServerAddr: address, Conn: conn, Username: have.Username, Password: have.Password, RTO: 50 * time.Millisecond,
		RequestedAddressFamily: family, LoggerFactory: &logging.DefaultLoggerFactory{Writer: io.Discard},
	})
	if err == nil {
		err = one.client.Listen()
	}
	if err != nil {
		conn.Close()
		one.stop()
		return nil, stepError{stepConnect, err}
	}
	if _, err := one.client.SendBindingRequest(); err != nil {
		one.close()
		return nil, stepError{stepBinding, err}
	}
	return one, soft
}

// connect opens the way to a server. A certificateError that is soft comes with
// it.
func (e *Examination) connect(ctx context.Context, u uri, address string) (net.PacketConn, error) {
	if u.transport == "udp" {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, stepError{stepConnect, err}
		}
		network := "udp4"
		if to.Addr().Is6() {
			network = "udp6"
		}
		var config net.ListenConfig
		c, err := config.ListenPacket(ctx, network, ":0")
		if err != nil {
			return nil, stepError{stepConnect, err}
		}
		return c, nil
	}
	dialer := net.Dialer{Timeout: e.wait(tryTimeout)}
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, stepError{stepConnect, err}
	}
	if !u.secure {
		return turn.NewSTUNConn(c), nil
	}
	// It is verified below, to tell what exactly is wrong.
	secured := tls.Client(c, &tls.Config{ServerName: u.host, InsecureSkipVerify: true, NextProtos: []string{"stun.turn"}})
	c.SetDeadline(time.Now().Add(e.wait(tryTimeout)))
	if err := secured.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, stepError{stepConnect, fmt.Errorf("TLS: %w", err)}
	}
	c.SetDeadline(time.Time{})
	err = e.verify(u.host, secured.ConnectionState().PeerCertificates, time.Now())
	var cert certificateError
	if err != nil && !(errors.As(err, &cert) && cert.soft) {
		c.Close()
		return nil, err
	}
	return turn.NewSTUNConn(secured), err
}

// verify says what is wrong with a chain of certificates, if anything is.
func (e *Examination) verify(host string, chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 {
		return certificateError{text: "the server shows no certificate", fix: "Set tls of a listener."}
	}
	leaf, others := chain[0], x509.NewCertPool()
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	const day = 24 * time.Hour
	left := leaf.NotAfter.Sub(now)
	_, err := leaf.Verify(x509.VerifyOptions{Intermediates: others, Roots: e.Roots, CurrentTime: now})
	var unknown x509.UnknownAuthorityError
	switch {
	case leaf.VerifyHostname(host) != nil:
		return certificateError{text: fmt.Sprintf("the certificate is for %v, not for %s", leaf.DNSNames, host), fix: "Get a certificate for " + host + ", or set voip.turn.host to a name that it is for."}
	case left < 0:
		return certificateError{text: "the certificate has expired on " + leaf.NotAfter.UTC().Format(time.DateOnly), fix: "Renew it, and see why that did not happen by itself."}
	case errors.As(err, &unknown) && leaf.CheckSignatureFrom(leaf) == nil || errors.As(err, &unknown) && leaf.Issuer.String() == leaf.Subject.String():
		return certificateError{text: "the certificate is signed by itself, so that apps refuse it", fix: "Get one from an authority such as Let's Encrypt (section acme)."}
	case errors.As(err, &unknown) && len(chain) == 1:
		return certificateError{text: "the server sends its certificate without those between it and the authority, so that many apps refuse it", fix: "Let cert be the file with the whole chain (fullchain.pem)."}
	case err != nil:
		return certificateError{text: fmt.Sprintf("the certificate is not trusted: %v", err), fix: "Get one from an authority that apps know, such as Let's Encrypt."}
	case left < 10*day:
		return certificateError{text: fmt.Sprintf("the certificate expires in %d days", int(left/day)), fix: "Renew it, and see why that did not happen by itself.", soft: true}
	}
	return nil
}

// exchange sends data from one relayed address to another one, and back.
func exchange(a, b *end) error {
	for _, p := range []struct {
		from *end
		to   net.Addr
	}{{a, b.relayed.LocalAddr()}, {b, a.relayed.LocalAddr()}} {
		if err := p.from.client.CreatePermission(p.to); err != nil {
			return stepError{stepPermit, err}
		}
	}
	// The data are what calls begin with, by which a relay with one port for all
	// knows whom they are for.
	names := [2]string{rand.Text(), rand.Text()}
	there, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername(names[1]+":"+names[0]))
	if err != nil {
		return stepError{stepData, err}
	}
	back, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername(names[0]+":"+names[1]))
	if err != nil {
		return stepError{stepData, err}
	}
	if err := pass(a.relayed, b.relayed, there.Raw, back.Raw); err != nil {
		return stepError{stepData, err}
	}
	if err := pass(b.relayed, a.relayed, back.Raw, there.Raw); err != nil {
		return stepError{stepData, err}
	}
	return nil
}

// pass sends data until it arrives, some times at most, since a packet may get
// lost. What goes the other way shows who is there.
func pass(from, to net.PacketConn, data, back []byte) error {
	buf := make([]byte, 1500)
	var err error
	for range 10 {
		if _, err = to.WriteTo(back, from.LocalAddr()); err != nil {
			return err
		}
		if _, err = from.WriteTo(data, to.LocalAddr()); err != nil {
			return err
		}
		to.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		for n := 0; err == nil; {
			if n, _, err = to.ReadFrom(buf); err == nil && bytes.Equal(buf[:n], data) {
				return nil
			}
		}
	}
	return fmt.Errorf("nothing arrives: %w", err)
}
