package fedclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
)

// userAgent is how requests name this program.
const userAgent = "Switchboard"

// Client asks other servers. Its methods are the operations of the
// server-server API and may be called from several goroutines. They answer
// *ResponseError where the other server answered with an error, *BackoffError
// where it is left alone because it did not answer before, *UnreachableError
// where it did not answer now, and *AnswerError where its answer is no good.
//
// Values of type json.RawMessage in answers are valid JSON and no more: whoever
// keeps them or gives them on must check them.
type Client struct {
	server    matrix.ServerName
	key       signing.Key
	config    Config
	discovery *discovery
	transport *http.Transport
	files     *http.Client // for media that other hosts keep
	reach     *reach
	insist    bool
	tick      func() *time.Ticker // twice in the time for which a long answer may stand still
}

// New makes the client of a server with its signing key. It fails if
// c.RootCA cannot be read. The dialer is also that of other requests; the store
// keeps which servers do not answer; the bell is rung when one of them is heard
// again, see BellKey. The client must be closed.
func New(c Config, server matrix.ServerName, key signing.Key, dialer *Dialer, st *store.Store, bell *notify.Bell) (*Client, error) {
	trust, err := roots(c.RootCA)
	if err != nil {
		return nil, fmt.Errorf("authorities: %w", err)
	}
	client := &Client{
		server: server, key: key, config: c,
		discovery: newDiscovery(dialer, trust, time.Now),
		reach:     newReach(st, bell, c.RetryFirst, c.RetryMost),
		tick:      func() *time.Ticker { return time.NewTicker(stallTime / 2) },
	}
	config := &tls.Config{
		RootCAs:            trust,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"h2", "http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(1024),
	}
	client.transport = &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dest, ok := ctx.Value(destinationKey{}).(Destination)
			if !ok {
				return nil, errors.New("a request without a destination")
			}
			return client.discovery.dialTLS(ctx, dest, config)
		},
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           2000,
		MaxIdleConnsPerHost:    4,
		MaxConnsPerHost:        32,
		IdleConnTimeout:        2 * time.Minute,
		MaxResponseHeaderBytes: maxHeader,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	files := dialer.Transport()
	files.TLSClientConfig = &tls.Config{RootCAs: trust}
	client.files = &http.Client{Transport: files, CheckRedirect: checkRedirect}
	return client, nil
}

// destinationKey is the context key under which a request carries where it
// goes.
type destinationKey struct{}

// Close closes connections that nobody uses.
func (c *Client) Close() {
	c.transport.CloseIdleConnections()
	c.files.CloseIdleConnections()
}

// ServerName is the name of this server.
func (c *Client) ServerName() matrix.ServerName { return c.server }

// Insisting is the same client, but one that asks servers although they did not
// answer before: for what a user waits for.
func (c *Client) Insisting() *Client {
	i := *c
	i.insist = true
	return &i
}

// Find answers where a server is reached.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names
func (c *Client) Find(ctx context.Context, server matrix.ServerName) (Destination, error) {
	return c.discovery.find(ctx, server)
}

// poolHost is the host of the URL of requests to a destination. Connections are
// kept by it. Requests with the same Host header want the same certificate, so
// they may share connections; that of a name without a port must not be taken
// for one with a port.
func poolHost(host string) string {
	if matrix.ServerName(host).Host() == host {
		return host + ":0"
	}
	return host
}

// ResponseError is an error that another server answered with.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#standard-error-response
type ResponseError struct {
	Server matrix.ServerName
	Status int           // of HTTP
	Code   matrix.Code   // "" where the answer has none
	Text   string        // for people; may be ""
	After  time.Duration // when the request may be repeated; 0 where the server does not say

	// RoomVersion comes with M_INCOMPATIBLE_ROOM_VERSION.
	RoomVersion string
}

// Error implements error.
func (e *ResponseError) Error() string {
	s := fmt.Sprintf("%s answered %d", e.Server, e.Status)
	if e.Code != "" {
		s += " " + string(e.Code)
	}
	if e.Text != "" {
		s += ": " + e.Text
	}
	return s
}

// passed are the errcodes of other servers that our clients get to see. Others,
// such as M_UNKNOWN_TOKEN, would make them do what is only ours to ask for.
var passed = map[matrix.Code]bool{
	matrix.Forbidden: true, matrix.NotFound: true, matrix.LimitExceeded: true, matrix.IncompatibleRoomVersion: true,
	matrix.UnsupportedRoomVersion: true, matrix.UnableToAuthoriseJoin: true, matrix.UnableToGrantJoin: true, matrix.InvalidParam: true,
	matrix.BadJSON: true, matrix.InviteBlocked: true, matrix.TooLarge: true,
}

// Matrix is the error as our own clients may see it.
func (e *ResponseError) Matrix() *matrix.Error {
	m := &matrix.Error{Code: e.Code, Text: e.Text, Status: e.Status, Cause: e, RetryAfter: e.After}
	if !passed[m.Code] || e.Status < 400 || e.Status > 499 || e.Status == http.StatusUnauthorized {
		m.Code, m.Status, m.Text = matrix.Unknown, http.StatusBadGateway, "the server "+string(e.Server)+" answered with an error"
	}
	if e.RoomVersion != "" {
		m.Extra = map[string]any{"room_version": e.RoomVersion}
	}
	return m
}

// unknownOperation tells whether the server does not know the operation at all.
func (e *ResponseError) unknownOperation() bool {
	return (e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed) &&
		(e.Code == matrix.Unrecognized || e.Code == "")
}

// UnreachableError tells that a server did not answer: it was not found, refused
// the connection, had no certificate for its name, or took too long.
type UnreachableError struct {
	Server matrix.ServerName
	Err    error
}

// Error implements error.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("%s does not answer: %v", e.Server, e.Err)
}

// Unwrap gives the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// AnswerError tells that an answer is not what the operation answers, such as
// no JSON, the membership event of another user, or too large.
type AnswerError struct {
	Server matrix.ServerName
	Err    error
}

// Error implements error.
func (e *AnswerError) Error() string { return fmt.Sprintf("bad answer of %s: %v", e.Server, e.Err) }

// Unwrap gives the cause.
func (e *AnswerError) Unwrap() error { return e.Err }

// BackoffError tells that a server was not asked, because it did not answer
// before.
type BackoffError struct {
	Server matrix.ServerName
	Until  time.Time
}

// Error implements error.
func (e *BackoffError) Error() string {
	return fmt.Sprintf("%s did not answer and is left alone until %s", e.Server, e.Until.UTC().Format(time.RFC3339))
}

// ErrNotPermitted is in the error of a request to or from a server that the
// operator does not want to talk to.
var ErrNotPermitted = errors.New("not a permitted server")

// notPermitted is what clients and servers are told of that.
func notPermitted(server matrix.ServerName) error {
	return &matrix.Error{Code: matrix.Forbidden, Text: "this server does not talk to " + string(server), Cause: ErrNotPermitted}
}

// wrap adds the operation to an error.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", op, err)
}

// clean makes the text of another server fit for a log and for people.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 500 {
		s = string(r[:500]) + "…"
	}
	return s
}
