package appservices

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Wire is an http.RoundTripper that calls a handler of this process. A bridge
// that uses it goes through the same checks as one on another machine, and can
// be moved there without a change.
type Wire struct {
	// Handler answers the requests.
	Handler http.Handler

	// Values, if not nil, gives the context of the handler its values, such as
	// the logger. Its end does not end requests.
	Values context.Context //nolint:containedctx // of the wire, not of one call
}

// RoundTrip implements http.RoundTripper. The answer begins when the handler
// has written its header, and what the handler writes can be read while it
// runs. When the request's context ends, or the body of the answer is closed,
// the handler's context ends.
func (w *Wire) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	inner := w.request(ctx, r)
	pipe, out := io.Pipe()
	a := &wireAnswer{ctx: ctx, header: http.Header{}, out: out, head: r.Method == http.MethodHead, started: make(chan struct{})}
	stopped := context.AfterFunc(ctx, func() { out.CloseWithError(context.Cause(ctx)) })
	go func() {
		defer cancel()
		defer stopped()
		a.run(w.Handler, inner)
		if inner.Body != nil {
			inner.Body.Close()
		}
	}()
	select {
	case <-a.started:
	case <-r.Context().Done():
	}
	if err := r.Context().Err(); err != nil {
		cancel()
		pipe.Close()
		return nil, err
	}
	if a.failed != nil {
		pipe.Close()
		return nil, a.failed
	}
	return &http.Response{
		Status: strconv.Itoa(a.status) + " " + http.StatusText(a.status), StatusCode: a.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.sent, ContentLength: a.length, Request: r,
		Body: &wireBody{pipe, cancel},
	}, nil
}

// request is r as a server gets it.
func (w *Wire) request(ctx context.Context, r *http.Request) *http.Request {
	if w.Values != nil {
		ctx = valued{ctx, w.Values}
	}
	inner := r.Clone(ctx)
	inner.RequestURI = r.URL.RequestURI()
	inner.RemoteAddr = "127.0.0.1:0"
	inner.Proto, inner.ProtoMajor, inner.ProtoMinor = "HTTP/1.1", 1, 1
	if inner.Host == "" {
		inner.Host = r.URL.Host
	}
	inner.URL.Scheme, inner.URL.Host, inner.URL.User = "", "", nil
	if inner.Body == nil {
		inner.Body = http.NoBody
	}
	return inner
}

// valued is a context with the values of another one.
type valued struct {
	context.Context //nolint:containedctx // that is what it is
	values          context.Context
}

// Value implements context.Context.
func (v valued) Value(key any) any {
	if x := v.Context.Value(key); x != nil {
		return x
	}
	return v.values.Value(key)
}

// wireBody is the body of an answer.
type wireBody struct {
	*io.PipeReader
	cancel context.CancelFunc
}

// Close implements io.Closer. It ends a handler that still writes.
func (b *wireBody) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}

// held is how much of an answer is held back to learn its length and type, as
// net/http does.
const held = 2048

// wireAnswer is the http.ResponseWriter of a handler behind a Wire.
type wireAnswer struct {
	ctx    context.Context //nolint:containedctx // of the one call
	header http.Header     // as the handler sees it
	out    *io.PipeWriter
	head   bool // nothing is sent behind the header

	mu      sync.Mutex // guards what follows, until started is closed
	status  int        // 0 until WriteHeader
	sent    http.Header
	length  int64
	held    bytes.Buffer
	begun   bool
	failed  error
	started chan struct{}
}

var errAborted = errors.New("the handler broke off")

// run runs the handler and ends the answer.
func (a *wireAnswer) run(h http.Handler, r *http.Request) {
	var err error
	defer func() {
		if p := recover(); p != nil {
			err = errAborted
			if p != http.ErrAbortHandler {
				err = fmt.Errorf("%w: panic: %v", errAborted, p)
			}
		}
		a.finish(err)
	}()
	h.ServeHTTP(a, r)
}

// Header implements http.ResponseWriter.
func (a *wireAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *wireAnswer) WriteHeader(status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if status < 200 || a.status != 0 { // those before the answer, such as 100, are not passed on
		return
	}
	a.status, a.sent = status, a.header.Clone()
	if a.sent == nil {
		a.sent = http.Header{}
	}
}

// Write implements io.Writer.
func (a *wireAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.mu.Lock()
	if !bodyAllowed(a.status) {
		a.mu.Unlock()
		return 0, http.ErrBodyNotAllowed
	}
	if !a.begun && a.held.Len()+len(p) <= held {
		a.held.Write(p)
		a.mu.Unlock()
		return len(p), nil
	}
	a.begin(-1, p)
	a.mu.Unlock()
	if err := a.release(); err != nil {
		return 0, err
	}
	if a.head {
		return len(p), nil
	}
	return a.out.Write(p)
}

// Flush implements http.Flusher.
func (a *wireAnswer) Flush() {
	a.WriteHeader(http.StatusOK)
	a.mu.Lock()
	a.begin(-1, nil)
	a.mu.Unlock()
	a.release() // the next Write gives the error
}

// begin lets the answer begin; mu is held. length is that of the whole body if
// it is known, or -1; next is what comes behind what is held.
func (a *wireAnswer) begin(length int64, next []byte) {
	if a.begun {
		return
	}
	a.begun = true
	a.length = length
	if n, err := strconv.ParseInt(a.sent.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
		a.length = n
	} else if length >= 0 && bodyAllowed(a.status) && !(a.head && length == 0) {
		a.sent.Set("Content-Length", strconv.FormatInt(length, 10))
	}
	if start := append(bytes.Clone(a.held.Bytes()), next...); len(start) > 0 && a.sent["Content-Type"] == nil && a.sent.Get("Content-Encoding") == "" {
		a.sent.Set("Content-Type", http.DetectContentType(start))
	}
	if a.sent["Date"] == nil {
		a.sent.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	close(a.started)
}

// release writes out what was held. Only the handler's goroutine calls it.
func (a *wireAnswer) release() error {
	if a.held.Len() == 0 || a.head {
		a.held.Reset()
		return nil
	}
	_, err := a.out.Write(a.held.Bytes())
	a.held.Reset()
	return err
}

// finish ends the answer, with an error if the handler did not end well.
func (a *wireAnswer) finish(err error) {
	if err != nil {
		a.mu.Lock()
		if !a.begun {
			a.begun, a.failed = true, err
			close(a.started)
		}
		a.mu.Unlock()
		a.out.CloseWithError(err)
		return
	}
	a.WriteHeader(http.StatusOK)
	a.mu.Lock()
	a.begin(int64(a.held.Len()), nil)
	a.mu.Unlock()
	if err := a.release(); err != nil {
		return // nobody reads it
	}
	a.out.Close()
}

// bodyAllowed tells whether an answer with this status has a body.
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
