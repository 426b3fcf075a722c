package client

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"mellium.im/sasl"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
)

// Dial makes TCP connections; it has the form of net.Dialer.DialContext.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Config says how to log in.
type Config struct {
	JID      jid.JID // of the account, without a resource
	Password string
	Address  string      // host:port of the server; empty means what DNS says
	TLS      *tls.Config // nil means the system's certificates
	Dial     Dial        // nil means net.Dialer's
}

// AuthError is that the server does not let the account in.
type AuthError struct{ Reason error }

// Error says why.
func (e *AuthError) Error() string { return "the server refuses the log-in: " + e.Reason.Error() }

// Unwrap returns the reason.
func (e *AuthError) Unwrap() error { return e.Reason }

// target is a place where the server may listen.
type target struct {
	address string
	direct  bool // TLS from the first byte on (XEP-0368)
}

// targets are where the servers of a domain listen, the best first.
func (c Config) targets(ctx context.Context) []target {
	if c.Address != "" {
		return []target{{c.Address, false}}
	}
	domain := c.JID.Domainpart()
	var out []target
	for _, service := range []string{"xmpps-client", "xmpp-client"} {
		_, list, err := net.DefaultResolver.LookupSRV(ctx, service, "tcp", domain)
		if err != nil {
			continue
		}
		for _, s := range list {
			if host := strings.TrimSuffix(s.Target, "."); host != "" {
				out = append(out, target{net.JoinHostPort(host, strconv.Itoa(int(s.Port))), service == "xmpps-client"})
			}
		}
	}
	if len(out) == 0 {
		out = append(out, target{net.JoinHostPort(domain, "5222"), false})
	}
	return out
}

// dialTimeout is how long one address may take to connect and negotiate.
const dialTimeout = 30 * time.Second

// open connects and negotiates a stream. Resume, unless empty, is the ID of the
// stream that is to go on, and handled how many stanzas of it have come; the
// answer is what became of it, which is known also when the log-in fails after it.
func (c Config) open(ctx context.Context, resume string, handled uint32) (s *xmpp.Session, old former, err error) {
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	for _, t := range c.targets(ctx) {
		s, old, err = c.try(ctx, dial, t, resume, handled)
		var refused *AuthError
		if err == nil || old.counted || errors.As(err, &refused) || ctx.Err() != nil {
			break
		}
	}
	return s, old, err
}

// former is what a server says of the stream of before.
type former struct {
	resumed bool
	counted bool   // it says handled
	handled uint32 // how many of our stanzas the server had
}

func (c Config) try(ctx context.Context, dial Dial, t target, resume string, handled uint32) (_ *xmpp.Session, old former, _ error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := dial(ctx, "tcp", t.address)
	if err != nil {
		return nil, old, fmt.Errorf("connect to %s: %w", t.address, err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLS != nil {
		config = c.TLS.Clone()
	}
	config.ServerName = c.JID.Domainpart()
	if t.direct {
		config.NextProtos = []string{"xmpp-client"}
		conn = tls.Client(conn, config)
	}
	last := xmpp.BindResource()
	if resume != "" {
		last = resumption(resume, handled, &old)
	}
	s, err := xmpp.NewClientSession(ctx, c.JID, conn, xmpp.StartTLS(config), login(c.Password), last)
	if err != nil {
		_ = conn.Close()
		return nil, old, fmt.Errorf("log in to %s: %w", t.address, err)
	}
	if s.State()&xmpp.Secure == 0 {
		_ = conn.Close()
		return nil, old, fmt.Errorf("the server %s offers no encryption", t.address)
	}
	return s, old, nil
}

// login is SASL, with refusals told apart from broken connections.
func login(password string) xmpp.StreamFeature {
	f := xmpp.SASL("", password, sasl.ScramSha256, sasl.ScramSha1, sasl.Plain)
	negotiate := f.Negotiate
	f.Negotiate = func(ctx context.Context, s *xmpp.Session, data any) (xmpp.SessionState, io.ReadWriter, error) {
		state, rw, err := negotiate(ctx, s, data)
		var network net.Error
		var syntax *xml.SyntaxError
		if err != nil && !errors.As(err, &network) && !errors.As(err, &syntax) && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "temporary") {
			err = &AuthError{err}
		}
		return state, rw, err
	}
	return f
}

// resumption takes the place of binding a resource when the stream of before can
// go on (XEP-0198). When it can not, a resource is bound all the same; the server
// may still know how far it went.
func resumption(id string, handled uint32, old *former) xmpp.StreamFeature {
	bind := xmpp.BindResource()
	return xmpp.StreamFeature{
		Name:      xml.Name{Space: nsSM, Local: "sm"},
		Necessary: xmpp.Authn, Prohibited: xmpp.Ready,
		Parse: func(_ context.Context, d *xml.Decoder, _ *xml.StartElement) (bool, any, error) {
			return true, nil, d.Skip()
		},
		Negotiate: func(ctx context.Context, s *xmpp.Session, _ any) (xmpp.SessionState, io.ReadWriter, error) {
			request := El(nsSM, "resume").Set("previd", id, "h", strconv.FormatUint(uint64(handled), 10))
			if _, err := io.WriteString(s.Conn(), request.String()); err != nil {
				return 0, nil, err
			}
			r := s.TokenReader()
			answer, err := nextElement(r)
			_ = r.Close()
			if err != nil {
				return 0, nil, err
			}
			h, err := strconv.ParseUint(answer.At("h"), 10, 32)
			*old = former{resumed: answer.Local == "resumed", counted: err == nil, handled: uint32(h)}
			switch {
			case !old.resumed:
				return bind.Negotiate(ctx, s, nil)
			case err != nil:
				return 0, nil, fmt.Errorf("the server resumes without a count: %w", err)
			}
			return xmpp.Ready, nil, nil
		},
	}
}

// nextElement reads the next element of a stream. Its end is io.EOF.
func nextElement(r xml.TokenReader) (*Element, error) {
	for {
		t, err := r.Token()
		if start, ok := t.(xml.StartElement); ok {
			return readElement(r, start.Copy())
		}
		if err != nil {
			return nil, err
		}
	}
}
