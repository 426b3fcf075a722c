package fedclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
)

// call is one request.
type call struct {
	op     string // operation ID of the specification
	method string
	path   string     // escaped, see path
	query  url.Values // may be nil
	body   any        // nil: none. json.RawMessage is sent as it is, in canonical form
	accept string     // type of the answer; "": JSON

	unsigned bool // the operation takes no signature
	once     bool // must not be sent twice by the transport
	aside    bool // does not count for whether the server answers

	limit int64 // bytes of an ordinary answer; 0: as configured
}

// path fills the parts into a pattern like /a/{}/b/{}.
func path[S ~string](pattern string, parts ...S) string {
	var b strings.Builder
	for _, p := range parts {
		before, after, _ := strings.Cut(pattern, "{}")
		b.WriteString(before)
		b.WriteString(url.PathEscape(string(p)))
		pattern = after
	}
	b.WriteString(pattern)
	return b.String()
}

// values makes a query of pairs of names and values. Empty values are left out.
func values(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Add(pairs[i], pairs[i+1])
		}
	}
	return v
}

// do makes an ordinary call and decodes the answer into out, which may be nil.
func (c *Client) do(ctx context.Context, server matrix.ServerName, k call, out any) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	body, err := c.read(ctx, server, k)
	if err != nil {
		return wrap(k.op, err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return wrap(k.op, &AnswerError{server, err})
	}
	return nil
}

// read makes an ordinary call and answers the body.
func (c *Client) read(ctx context.Context, server matrix.ServerName, k call) ([]byte, error) {
	resp, err := c.send(ctx, server, k)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if k.limit == 0 {
		k.limit = c.config.MaxAnswer
	}
	body, err := readAll(resp.Body, k.limit)
	if err != nil {
		return nil, c.broken(ctx, server, k, err)
	}
	return body, nil
}

// broken is the error of an answer that broke off or is too large.
func (c *Client) broken(ctx context.Context, server matrix.ServerName, k call, err error) error {
	if errors.Is(err, ErrAnswerSize) {
		return &AnswerError{server, err}
	}
	return c.unreachable(ctx, server, k, err)
}

// unreachable notes that a server did not answer, unless it is only that our
// caller did not wait.
func (c *Client) unreachable(ctx context.Context, server matrix.ServerName, k call, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	c.discovery.forget(server)
	c.note(ctx, server, k, false)
	return &UnreachableError{server, err}
}

// note remembers whether a server answered.
func (c *Client) note(ctx context.Context, server matrix.ServerName, k call, answered bool) {
	switch {
	case k.aside:
	case answered:
		c.reach.heard(ctx, server)
	default:
		c.reach.failed(ctx, server)
	}
}

// send makes a request and answers the response if its status is a good one.
// Its body must be closed. It is not unpacked further than JSON needs.
func (c *Client) send(ctx context.Context, server matrix.ServerName, k call) (*http.Response, error) {
	if !c.config.Permits(server) {
		return nil, notPermitted(server)
	}
	if !c.insist && !k.aside {
		if err := c.reach.check(ctx, server); err != nil {
			return nil, err
		}
	}
	dest, err := c.discovery.find(ctx, server)
	if err != nil {
		return nil, c.unreachable(ctx, server, k, err)
	}
	r, err := c.request(ctx, server, dest, k)
	if err != nil {
		return nil, err
	}
	resp, err := c.transport.RoundTrip(r)
	if err != nil {
		return nil, c.unreachable(ctx, server, k, err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		c.note(ctx, server, k, true)
		return resp, nil
	}
	defer resp.Body.Close()
	answer := responseError(server, resp)
	// A proxy that finds no server behind it knows nothing of errcodes.
	c.note(ctx, server, k, answer.Code != "" || answer.Status < 500)
	return nil, answer
}

// request makes the signed request.
func (c *Client) request(ctx context.Context, server matrix.ServerName, dest Destination, k call) (*http.Request, error) {
	var body []byte
	if k.body != nil {
		var err error
		if body, err = canonical(k.body); err != nil {
			return nil, fmt.Errorf("body: %w", err)
		}
	}
	plain, err := url.PathUnescape(k.path)
	if err != nil {
		return nil, fmt.Errorf("path: %w", err)
	}
	target := url.URL{Scheme: "https", Host: poolHost(dest.Host), Path: plain, RawPath: k.path, RawQuery: k.query.Encode()}
	r, err := http.NewRequestWithContext(context.WithValue(ctx, destinationKey{}, dest), k.method, "https://"+target.Host, nil)
	if err != nil {
		return nil, err
	}
	r.URL = &target
	r.Host = dest.Host
	r.Header.Set("User-Agent", userAgent)
	if k.accept == "" {
		k.accept = "application/json"
	}
	r.Header.Set("Accept", k.accept)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
		r.ContentLength = int64(len(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.Body, _ = r.GetBody()
	}
	if !k.once {
		r.Header["Idempotency-Key"] = nil // is not sent: the transport may repeat the request on another connection
	}
	if !k.unsigned {
		auth, err := authorization(c.key, c.server, server, k.method, target.RequestURI(), body)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", auth)
	}
	return r, nil
}

// canonical is a request's body in canonical JSON. Events of old room versions
// may hold any number.
func canonical(v any) ([]byte, error) {
	raw, ok := v.(json.RawMessage)
	if !ok {
		var err error
		if raw, err = json.Marshal(v); err != nil {
			return nil, err
		}
	}
	return canonjson.Relaxed(raw)
}

// maxErrorAnswer is how much of an answer with an error is read.
const maxErrorAnswer = 64 << 10

// responseError reads an answer that is an error.
func responseError(server matrix.ServerName, resp *http.Response) *ResponseError {
	e := &ResponseError{Server: server, Status: resp.StatusCode}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorAnswer)) // half an answer is no JSON
	var answer struct {
		Code        matrix.Code `json:"errcode"`
		Text        string      `json:"error"`
		After       float64     `json:"retry_after_ms"`
		RoomVersion string      `json:"room_version"`
	}
	if json.Unmarshal(body, &answer) == nil && len(answer.Code) < 256 && len(answer.RoomVersion) < 256 {
		e.Code, e.Text, e.RoomVersion = matrix.Code(clean(string(answer.Code))), clean(answer.Text), clean(answer.RoomVersion)
		if ms := answer.After; ms > 0 && ms < float64(24*time.Hour/time.Millisecond) {
			e.After = time.Duration(ms) * time.Millisecond
		}
	}
	if n, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16); err == nil {
		e.After = time.Duration(n) * time.Second // the newer of the two ways to say it
	}
	return e
}
