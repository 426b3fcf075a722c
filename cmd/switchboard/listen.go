package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// listener is an address at which we listen, and the server behind it.
type listener struct {
	name   string // for the log
	net    net.Listener
	server *http.Server
	tls    bool
}

// listen opens an address: "host:port", or "unix:" and a path. A socket that a
// server left behind is replaced.
func listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		l, err := config.Listen(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
		return l, nil
	}
	if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, fmt.Errorf("listen: another program listens at %s", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// newServer makes the HTTP server of a listener. Its requests carry log.
func newServer(log zerolog.Logger, c HTTPConfig, h http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           stalls(c.StallTimeout, h),
		ReadHeaderTimeout: c.HeaderTimeout,
		IdleTimeout:       c.IdleTimeout,
		MaxHeaderBytes:    int(c.MaxHeader),
		Protocols:         protocols,
		BaseContext:       func(net.Listener) context.Context { return log.WithContext(context.Background()) },
		ErrorLog:          quietLog(log),
	}
}

// serve serves until the server is shut down.
func (l *listener) serve() error {
	var err error
	if _, done := l.net.(*mux); l.tls && !done { // there, TLS is done already
		err = l.server.ServeTLS(l.net, "", "")
	} else {
		err = l.server.Serve(l.net)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", l.name, err)
}

// stalls ends a connection that has not moved for a while in the middle of a
// body or an answer. It does not bound how long an answer may be awaited, as
// in a long poll, or how long a large file may take.
func stalls(after time.Duration, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		control.SetWriteDeadline(time.Time{}) // that of the request before
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &movingBody{ReadCloser: r.Body, control: control, after: after}
		}
		h.ServeHTTP(&movingWriter{ResponseWriter: w, control: control, after: after}, r)
		control.SetWriteDeadline(time.Now().Add(after)) // for what is still in the buffers
	})
}

// movingBody is a request's body of which each part must arrive in time.
type movingBody struct {
	io.ReadCloser
	control *http.ResponseController
	after   time.Duration
}

// Read implements io.Reader.
func (b *movingBody) Read(p []byte) (int, error) {
	b.control.SetReadDeadline(time.Now().Add(b.after))
	n, err := b.ReadCloser.Read(p)
	b.control.SetReadDeadline(time.Time{})
	return n, err
}

// movingWriter is an answer of which each part must be taken in time.
type movingWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	after   time.Duration
}

// Write implements io.Writer.
func (w *movingWriter) Write(p []byte) (int, error) {
	w.control.SetWriteDeadline(time.Now().Add(w.after))
	return w.ResponseWriter.Write(p)
}

// WriteHeader implements http.ResponseWriter.
func (w *movingWriter) WriteHeader(status int) {
	w.control.SetWriteDeadline(time.Now().Add(w.after))
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *movingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
