package appservices

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

// manners is a handler with many ways to answer.
func manners() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"a":1}`)
	})
	mux.HandleFunc("GET /guess", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>x") })
	mux.HandleFunc("GET /nothing", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /none", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /large", func(w http.ResponseWriter, _ *http.Request) {
		for range 1000 {
			io.WriteString(w, strings.Repeat("x", 100))
		}
	})
	mux.HandleFunc("GET /length", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		io.WriteString(w, "12345")
	})
	mux.HandleFunc("GET /late-header", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		w.Header().Set("X-Late", "yes")
		w.WriteHeader(http.StatusOK)
	})
	mux.HandleFunc("GET /hints", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "done")
	})
	mux.HandleFunc("POST /echo/{name}", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s %q %s %q %v", r.Method, r.PathValue("name"), r.URL.RawQuery, r.URL.Path, b, r.Header.Get("X-One"), r.RequestURI, err)
	})
	mux.HandleFunc("GET /double", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("X-Two", "a")
		w.Header().Add("X-Two", "b")
	})
	return mux
}

// TestSameAnswer compares the wire with a real HTTP server.
func TestSameAnswer(t *testing.T) {
	server := httptest.NewServer(manners())
	defer server.Close()
	wire := &http.Client{Transport: &Wire{Handler: manners()}}
	tests := []struct{ method, path, body string }{
		{"GET", "/json", ""}, {"HEAD", "/json", ""}, {"GET", "/guess", ""}, {"GET", "/nothing", ""}, {"GET", "/none", ""},
		{"GET", "/large", ""}, {"HEAD", "/large", ""}, {"GET", "/length", ""}, {"HEAD", "/length", ""}, {"GET", "/late-header", ""},
		{"GET", "/hints", ""}, {"POST", "/echo/a%2Fb%20c?x=1&y=%20", "body"}, {"POST", "/echo/x", ""}, {"GET", "/unknown", ""},
		{"PUT", "/json", ""}, {"GET", "/double", ""}, {"GET", "//json", ""},
	}
	for _, tt := range tests {
		t.Run(tt.method+tt.path, func(t *testing.T) {
			ask := func(c *http.Client, base string) string {
				r, err := http.NewRequestWithContext(t.Context(), tt.method, base+tt.path, strings.NewReader(tt.body))
				if err != nil {
					t.Fatal(err)
				}
				if tt.body == "" {
					r.Body, r.GetBody, r.ContentLength = http.NoBody, nil, 0
				}
				r.Header.Set("X-One", "1")
				a, err := c.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer a.Body.Close()
				b, err := io.ReadAll(a.Body)
				if a.Header.Get("Date") == "" {
					t.Error("no Date")
				}
				a.Header.Del("Date")
				return fmt.Sprintf("%s\n%v\n%d\n%s\n%v", a.Status, a.Header, a.ContentLength, b, err)
			}
			got, want := ask(wire, "http://a.test"), ask(server.Client(), server.URL)
			if got != want {
				t.Errorf("the wire answers\n%s\nand a server\n%s", got, want)
			}
		})
	}
}

func TestWireStreams(t *testing.T) {
	next, ended := make(chan struct{}), make(chan error, 1)
	wire := &Wire{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			fmt.Fprintf(w, "line %d\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
		<-r.Context().Done()
		ended <- r.Context().Err()
	})}
	a, err := (&http.Client{Transport: wire}).Get("http://a.test/")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(a.Body)
	for i := range 3 { // each can be read before the next is written
		if !lines.Scan() || lines.Text() != fmt.Sprintf("line %d", i) {
			t.Fatalf("got %q, %v", lines.Text(), lines.Err())
		}
		next <- struct{}{}
	}
	a.Body.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the handler ended with %v", err)
	}
}

func TestWireCancel(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	wire := &Wire{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(ended)
	})}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", "http://a.test/", nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-begun
		cancel()
	}()
	if _, err := wire.RoundTrip(r); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-ended
}

func TestWirePanics(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"before": func(http.ResponseWriter, *http.Request) { panic("no") },
		"within": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, strings.Repeat("x", 5000))
			panic("no")
		},
		"abort": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			a, err := (&http.Client{Transport: &Wire{Handler: h}}).Get("http://a.test/")
			if err == nil {
				_, err = io.ReadAll(a.Body)
				a.Body.Close()
			}
			if !errors.Is(err, errAborted) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// The request of the caller is not changed, and its body is closed.
func TestWireLeavesTheRequest(t *testing.T) {
	type key struct{}
	wire := &Wire{
		Values: context.WithValue(t.Context(), key{}, "value"),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("X-New", "1")
			r.URL.Path = "/changed"
			if r.Context().Value(key{}) != "value" || r.RemoteAddr == "" || r.Host != "a.test" {
				t.Errorf("wrong request: %v %v %v", r.Context().Value(key{}), r.RemoteAddr, r.Host)
			}
		}),
	}
	body := &closing{strings.NewReader("x"), make(chan struct{}, 1)}
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://a.test/path", body)
	if err != nil {
		t.Fatal(err)
	}
	before := r.Clone(t.Context())
	a, err := wire.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, a.Body)
	a.Body.Close()
	if !reflect.DeepEqual(r.Header, before.Header) || r.URL.String() != before.URL.String() {
		t.Error("the request was changed")
	}
	<-body.closed
}

type closing struct {
	io.Reader
	closed chan struct{}
}

// Close implements io.Closer.
func (c *closing) Close() error {
	select {
	case c.closed <- struct{}{}:
	default:
	}
	return nil
}
