package appservices

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"switchboard/registrations"
)

// caller calls one appservice.
type caller struct {
	reg       *registrations.Registration
	base      string // URL before the path
	transport http.RoundTripper
	handler   http.Handler // of this process; nil for one elsewhere

	oldUntil atomic.Int64  // until when the old paths are tried first, as Unix seconds
	wake     chan struct{} // has room for one: the appservice is there again
}

// newTransport carries requests to appservices elsewhere. Nothing bounds the
// time of an answer here; each call has a bound of its own.
func newTransport() *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        time.Minute,
		ForceAttemptHTTP2:      true,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// caller makes the caller of an appservice, which is h if that is not nil. The
// caller of this function holds mu.
func (s *Service) caller(reg *registrations.Registration, h http.Handler) *caller {
	c := &caller{reg: reg, base: reg.URL, handler: h, wake: make(chan struct{}, 1)}
	switch {
	case h != nil:
		c.base, c.transport = "http://appservice.invalid", &Wire{Handler: h}
	case reg.URL != "" && s.Transport != nil:
		c.transport = s.Transport
	case reg.URL != "":
		if s.http == nil {
			s.http = newTransport()
		}
		c.transport = s.http
	}
	return c
}

// same tells whether both call the same appservice in the same way.
func (c *caller) same(d *caller) bool {
	if c == d {
		return true
	}
	return c.handler == nil && d.handler == nil &&
		c.base == d.base && c.reg.HSToken == d.reg.HSToken && c.reg.ID == d.reg.ID && c.reg.SenderLocalpart == d.reg.SenderLocalpart &&
		c.reg.MSC3202 == d.reg.MSC3202 && c.reg.ReceiveEphemeral == d.reg.ReceiveEphemeral &&
		sameSpaces(c.reg.Users, d.reg.Users) && sameSpaces(c.reg.Rooms, d.reg.Rooms) && sameSpaces(c.reg.Aliases, d.reg.Aliases)
}

func sameSpaces(a, b []registrations.Namespace) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Regex != b[i].Regex || a[i].Exclusive != b[i].Exclusive {
			return false
		}
	}
	return true
}

// call is one request to an appservice.
type call struct {
	method string
	path   string // from /_matrix/app on, escaped
	old    string // the path of earlier drafts, escaped; "" for none
	query  url.Values
	body   []byte // JSON; nil for none
}

// answer is what an appservice said.
type answer struct {
	status int
	body   []byte // at most mostAnswer bytes of it
}

func (a answer) ok() bool { return a.status >= 200 && a.status < 300 }

// mostAnswer bounds what is read of an answer.
const mostAnswer = 4 << 20

// oldFor is how long an appservice that knows only the old paths is asked there
// first.
const oldFor = time.Hour

// do makes a call. If the appservice does not know the path, the one of earlier
// drafts is tried.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#legacy-routes
func (c *caller) do(ctx context.Context, r call) (answer, error) {
	oldFirst := r.old != "" && time.Now().Unix() < c.oldUntil.Load()
	if !oldFirst {
		a, err := c.once(ctx, r, r.path, false)
		if err != nil || r.old == "" || !unknownPath(a.status) {
			return a, err
		}
		old, err := c.once(ctx, r, r.old, true)
		if err != nil || !old.ok() {
			return a, nil // what the proper path said counts
		}
		c.oldUntil.Store(time.Now().Add(oldFor).Unix())
		return old, nil
	}
	a, err := c.once(ctx, r, r.old, true)
	if err == nil && unknownPath(a.status) {
		c.oldUntil.Store(0)
		return c.once(ctx, r, r.path, false)
	}
	return a, err
}

func unknownPath(status int) bool {
	return status == http.StatusNotFound || status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented
}

// once makes one request. Appservices of earlier drafts look for the token in
// the query.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#authorisation
func (c *caller) once(ctx context.Context, r call, path string, old bool) (answer, error) {
	query := url.Values{}
	for k, v := range r.query {
		query[k] = v
	}
	if old {
		query.Set("access_token", c.reg.HSToken)
	}
	address := c.base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	request, err := http.NewRequestWithContext(ctx, r.method, address, body)
	if err != nil {
		return answer{}, withoutURL(err)
	}
	request.Header.Set("Authorization", "Bearer "+c.reg.HSToken)
	if r.body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return answer{}, withoutURL(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, mostAnswer))
	if err != nil {
		return answer{}, withoutURL(err)
	}
	return answer{response.StatusCode, content}, nil
}

// withoutURL is err without the address, in which a token may stand.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("call appservice: %w", err)
}
