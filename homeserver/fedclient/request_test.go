package fedclient

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// asker is a client and a peer that answers everything with one handler.
func asker(t *testing.T, config func(c *Config), h http.HandlerFunc) (*internet, *Client) {
	t.Helper()
	n := newInternet(t)
	n.host("b.test", "5.5.5.1")
	n.serve("5.5.5.1:8448", h, "b.test")
	c := n.config()
	if config != nil {
		config(&c)
	}
	return n, n.client(sqlite(t), c)
}

func TestConnectionsAreReused(t *testing.T) {
	var protocol atomic.Value
	n, c := asker(t, nil, func(w http.ResponseWriter, r *http.Request) {
		protocol.Store(r.Proto)
		_, _ = io.WriteString(w, `{}`)
	})
	newClock().rule(c, nil) // nothing that was found runs out
	for range 5 {
		if _, err := c.Profile(t.Context(), "@a:b.test", ""); err != nil {
			t.Fatal(err)
		}
	}
	if protocol.Load() != "HTTP/2.0" || !slices.Equal(n.connected(), []string{"5.5.5.1:443", "5.5.5.1:8448"}) {
		t.Errorf("%v over %v", protocol.Load(), n.connected())
	}
}

// TestPortsDoNotShareConnections asks servers whose names differ in the port
// alone.
func TestPortsDoNotShareConnections(t *testing.T) {
	n := newInternet(t)
	n.host("b.test", "5.5.5.1")
	for _, port := range []string{"8448", "443"} {
		n.serve("5.5.5.1:"+port, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/.well-known/matrix/server" {
				http.NotFound(w, r)
				return
			}
			fmt.Fprintf(w, `{"server":{"name":%q}}`, port+" "+r.Host)
		}), "b.test")
	}
	c := n.client(sqlite(t), n.config())
	for _, name := range []matrix.ServerName{"b.test", "b.test:443", "b.test:8448", "b.test", "b.test:443"} {
		want := "8448 " + string(name)
		if name == "b.test:443" {
			want = "443 b.test:443"
		}
		if v, err := c.Version(t.Context(), name); err != nil || v.Name != want {
			t.Errorf("%s: %q, %v", name, v.Name, err)
		}
	}
}

func TestResponseErrors(t *testing.T) {
	tests := []struct {
		name    string
		status  int
		body    string
		header  string // Retry-After
		want    ResponseError
		counts  bool // as a failure to answer
		matrix  matrix.Code
		matrixS int
	}{
		{"ours", 403, `{"errcode":"M_FORBIDDEN","error":"no\nway"}`, "", ResponseError{Status: 403, Code: "M_FORBIDDEN", Text: "no way"}, false, matrix.Forbidden, 403},
		{"limited", 429, `{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":1500}`, "", ResponseError{Status: 429, Code: "M_LIMIT_EXCEEDED", After: 1500 * time.Millisecond}, false, matrix.LimitExceeded, 429},
		{"limited by header", 429, `{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":1}`, "3", ResponseError{Status: 429, Code: "M_LIMIT_EXCEEDED", After: 3 * time.Second}, false, matrix.LimitExceeded, 429},
		{"absurd limit", 429, `{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":1e300}`, "", ResponseError{Status: 429, Code: "M_LIMIT_EXCEEDED"}, false, matrix.LimitExceeded, 429},
		{"room version", 400, `{"errcode":"M_INCOMPATIBLE_ROOM_VERSION","room_version":"99"}`, "", ResponseError{Status: 400, Code: "M_INCOMPATIBLE_ROOM_VERSION", RoomVersion: "99"}, false, matrix.IncompatibleRoomVersion, 400},
		{"not found by a proxy", 404, `<html>`, "", ResponseError{Status: 404}, false, matrix.Unknown, 502},
		{"proxy", 502, `<html>`, "", ResponseError{Status: 502}, true, matrix.Unknown, 502},
		{"an error of the server", 500, `{"errcode":"M_UNKNOWN","error":"x"}`, "", ResponseError{Status: 500, Code: "M_UNKNOWN", Text: "x"}, false, matrix.Unknown, 502},
		{"that would log our client out", 401, `{"errcode":"M_UNKNOWN_TOKEN"}`, "", ResponseError{Status: 401, Code: "M_UNKNOWN_TOKEN"}, false, matrix.Unknown, 502},
		{"redirect", 302, ``, "", ResponseError{Status: 302}, false, matrix.Unknown, 502},
		{"errcode of another type", 400, `{"errcode":5}`, "", ResponseError{Status: 400}, false, matrix.Unknown, 502},
		{"endless error", 400, `{"errcode":"M_X","error":"` + strings.Repeat("x", 2*maxErrorAnswer) + `"}`, "", ResponseError{Status: 400}, false, matrix.Unknown, 502},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, c := asker(t, nil, func(w http.ResponseWriter, _ *http.Request) {
				if tt.header != "" {
					w.Header().Set("Retry-After", tt.header)
				}
				if tt.status == 302 {
					w.Header().Set("Location", "https://inside.test/")
				}
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			})
			_, err := c.Profile(t.Context(), "@a:b.test", "")
			var got *ResponseError
			tt.want.Server = "b.test"
			if !errors.As(err, &got) || *got != tt.want {
				t.Fatalf("%v (%+v), want %+v", err, got, tt.want)
			}
			if m := got.Matrix(); m.Code != tt.matrix || m.HTTPStatus() != tt.matrixS || m.RetryAfter != tt.want.After {
				t.Errorf("for clients: %+v", m)
			}
			at, err := c.RetryAt(t.Context(), "b.test")
			if err != nil || at.IsZero() == tt.counts {
				t.Errorf("retry at %v, %v", at, err)
			}
		})
	}
}

func TestAnswerLimits(t *testing.T) {
	small := func(c *Config) { c.MaxAnswer = 1000 }
	body := `{"displayname":"` + strings.Repeat("x", 2000) + `"}`
	_, c := asker(t, small, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
	_, err := c.Profile(t.Context(), "@a:b.test", "")
	var bad *AnswerError
	if !errors.As(err, &bad) || !errors.Is(err, ErrAnswerSize) {
		t.Errorf("too large: %v", err)
	}
	_, c = asker(t, small, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "gzip" {
			t.Error("gzip is not accepted")
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, body)
		_ = z.Close()
	})
	if _, err = c.Profile(t.Context(), "@a:b.test", ""); !errors.Is(err, ErrAnswerSize) {
		t.Errorf("too large when unpacked: %v", err)
	}
	_, c = asker(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, `{"displayname":"x"}`)
		_ = z.Close()
	})
	if p, err := c.Profile(t.Context(), "@a:b.test", ""); err != nil || string(p["displayname"]) != `"x"` {
		t.Errorf("gzip: %v, %v", p, err)
	}
	_, c = asker(t, nil, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"a":`) })
	if _, err = c.Profile(t.Context(), "@a:b.test", ""); !errors.As(err, &bad) {
		t.Errorf("no JSON: %v", err)
	}
	_, c = asker(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 2*maxHeader))
		_, _ = io.WriteString(w, `{}`)
	})
	if _, err = c.Profile(t.Context(), "@a:b.test", ""); err == nil {
		t.Error("an endless header")
	}
}

// TestSlowAnswers has servers that do not come to an end.
func TestSlowAnswers(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"no header": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"no body": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"a drop at a time": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, " ")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(5 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, c := asker(t, func(c *Config) { c.Timeout = 200 * time.Millisecond }, h)
			if _, err := c.RetryAt(t.Context(), "b.test"); err != nil { // so that the store is not asked within the timeout
				t.Fatal(err)
			}
			_, err := c.Profile(t.Context(), "@a:b.test", "")
			var gone *UnreachableError
			if !errors.As(err, &gone) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			if at, err := c.RetryAt(t.Context(), "b.test"); err != nil || at.IsZero() {
				t.Errorf("it does not count: %v, %v", at, err)
			}
		})
	}
	started := make(chan struct{}, 1)
	_, c := asker(t, nil, func(_ http.ResponseWriter, r *http.Request) {
		started <- struct{}{}
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	if _, err := c.Profile(ctx, "@a:b.test", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if at, err := c.RetryAt(t.Context(), "b.test"); err != nil || !at.IsZero() {
		t.Errorf("that our caller gave up counts: %v, %v", at, err)
	}
}

func TestBackoff(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		n := newInternet(t)
		config := n.config()
		config.RetryFirst, config.RetryMost = 10*time.Second, 200*time.Second
		c := n.client(st, config)
		clock := newClock().rule(c, nil)
		attempt := func() error {
			_, err := c.Version(t.Context(), "down.test")
			return err
		}
		var backoff *BackoffError
		want := []float64{10, 20, 40, 80, 160, 200, 200}
		for i, seconds := range want {
			if err := attempt(); err == nil || errors.As(err, &backoff) {
				t.Fatalf("attempt %d: %v", i, err)
			}
			at, err := c.RetryAt(t.Context(), "down.test")
			if err != nil {
				t.Fatal(err)
			}
			pause := at.Sub(clock.time()).Seconds()
			if pause < 0.79*seconds || pause > 1.21*seconds {
				t.Errorf("after %d failures a pause of %.0f s, not about %.0f", i+1, pause, seconds)
			}
			c.Failed(t.Context(), "down.test") // requests that were under way together
			if err := attempt(); !errors.As(err, &backoff) || !backoff.Until.Equal(at) {
				t.Errorf("while it is left alone: %v", err)
			}
			clock.forward(at.Sub(clock.time()) + time.Millisecond)
		}
		d, ok, err := st.Destination(t.Context(), "down.test")
		if err != nil || !ok || d.Failures != int64(len(want)) || d.FailingTS == 0 {
			t.Errorf("stored %+v, %v", d, err)
		}
		if err := attempt(); err == nil {
			t.Fatal("answered")
		}

		// A user who waits does not care, and another process knows it, too.
		if _, err := c.Insisting().Version(t.Context(), "down.test"); err == nil || errors.As(err, &backoff) {
			t.Errorf("insisting: %v", err)
		}
		again := n.client(st, config)
		again.reach.now = clock.time
		if _, err := again.Version(t.Context(), "down.test"); !errors.As(err, &backoff) {
			t.Errorf("after a restart: %v", err)
		}

		n.host("down.test", "5.5.5.1")
		n.serve("5.5.5.1:8448", delegating("", nil), "down.test")
		clock.forward(time.Hour)
		if err := attempt(); err != nil {
			t.Fatal(err)
		}
		if d, _, err := st.Destination(t.Context(), "down.test"); err != nil || d.Failures != 0 || d.RetryTS != 0 || d.SuccessTS != clock.time().UnixMilli() {
			t.Errorf("stored %+v, %v", d, err)
		}
	})
}

func TestPause(t *testing.T) {
	r := newReach(nil, nil, time.Second, 1<<62)
	for _, failures := range []int64{1, 2, 30, 39, 40, 63, 64, 65, 1000, 1 << 40} {
		if p := r.pause(failures); p <= 0 && failures < 39 {
			t.Errorf("%d failures: %s", failures, p)
		}
	}
	r = newReach(nil, nil, time.Second, time.Hour)
	for _, failures := range []int64{40, 63, 64, 65, 1000, 1 << 40} {
		if p := r.pause(failures); p < 48*time.Minute || p > 72*time.Minute {
			t.Errorf("%d failures: %s", failures, p)
		}
	}
}

// TestStrangersAreNotWrittenDown asks for keys of servers that do not exist, as
// everybody can make us do.
func TestStrangersAreNotWrittenDown(t *testing.T) {
	n := newInternet(t)
	st := sqlite(t)
	c := n.client(st, n.config())
	ring := NewKeyRing(c)
	for i := range 20 {
		name := matrix.ServerName(fmt.Sprintf("s%d.test", i))
		if _, err := ring.Authenticate(inbound(t, newKey(t), name, us, "GET", "/", ""), nil); err == nil {
			t.Fatal("a stranger got in")
		}
	}
	if list, err := st.Destinations(t.Context(), "", 10); err != nil || len(list) > 0 {
		t.Errorf("written down: %v, %v", list, err)
	}
}

func TestNotPermitted(t *testing.T) {
	n, c := asker(t, func(c *Config) { c.DenyServers = []string{"b.*"} }, func(http.ResponseWriter, *http.Request) { t.Error("asked") })
	if _, err := c.Version(t.Context(), "b.test"); !errors.Is(err, ErrNotPermitted) {
		t.Errorf("%v", err)
	}
	if list := n.connected(); len(list) > 0 {
		t.Errorf("connected to %v", list)
	}
}

// TestPath checks that what is signed is what arrives, for IDs with characters
// that paths do not like.
func TestPath(t *testing.T) {
	for _, id := range []matrix.EventID{"$a/b?c#d%e f", "$é+&=:@!;,", "$..", "$%2F", "$AbC_-"} {
		n := newInternet(t)
		b := n.peer("b.test", "5.5.5.1")
		st := sqlite(t)
		theirs := NewKeyRing(n.clientOf("b.test", st, n.config(), b.key))
		c := n.client(sqlite(t), n.config())
		ours := NewKeyRing(c)
		n.host(string(us), "5.5.5.9")
		mux := http.NewServeMux()
		mux.HandleFunc("GET /_matrix/key/v2/server", func(w http.ResponseWriter, _ *http.Request) {
			body, err := ours.Published()
			if err != nil {
				t.Error(err)
			}
			_, _ = w.Write(body)
		})
		n.serve("5.5.5.9:8448", mux, string(us))
		b.mux.HandleFunc("GET /_matrix/federation/v1/event/{id}", func(w http.ResponseWriter, r *http.Request) {
			from, err := theirs.Authenticate(r, nil)
			if err != nil || from != us || r.PathValue("id") != string(id) {
				t.Errorf("%q: got %q from %s, %v", id, r.PathValue("id"), from, err)
			}
			_, _ = io.WriteString(w, `{"pdus":[{}]}`)
		})
		if raw, err := c.Event(t.Context(), "b.test", id); err != nil || string(raw) != "{}" {
			t.Errorf("%q: %s, %v", id, raw, err)
		}
	}
}

// TestBodies checks the signature of bodies with everything that old room
// versions allow.
func TestBodies(t *testing.T) {
	n := newInternet(t)
	b := n.peer("b.test", "5.5.5.1")
	c := n.client(sqlite(t), n.config())
	theirs := NewKeyRing(n.clientOf("b.test", sqlite(t), n.config(), b.key))
	theirs.servers.Put(us, &serverKeys{map[string]store.ServerKey{c.key.ID: {ID: c.key.ID, Public: c.key.Public(), ValidUntilTS: time.Now().Add(time.Hour).UnixMilli()}}}, 1)
	b.mux.HandleFunc("PUT /_matrix/federation/v1/send/{id}", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if _, err := theirs.Authenticate(r, body); err != nil {
			t.Errorf("%s: %v", body, err)
		}
		_, _ = io.WriteString(w, `{"pdus":{"$a":{"error":"no\u0000"},"$b":{}}}`)
	})
	problems, err := c.Send(t.Context(), "b.test", Transaction{
		ID: "1/2", OriginServerTS: 5,
		PDUs: []json.RawMessage{json.RawMessage(`{"z":1.5,"a":123456789012345678901234567890,"\u00e9":"\ud83d\ude00"}`)},
		EDUs: []EDU{{"m.typing", json.RawMessage(`{}`)}},
	})
	if err != nil || len(problems) != 1 || problems["$a"] != "no " {
		t.Errorf("%q, %v", problems, err)
	}
}

// TestSendCounts checks that every failure of a transaction counts, and what
// does not.
func TestSendCounts(t *testing.T) {
	status := 0
	_, c := asker(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"errcode":"M_UNKNOWN"}`)
	})
	for _, tt := range []struct {
		status int
		counts bool
	}{{200, false}, {429, false}, {500, true}, {403, true}, {200, false}} {
		status = tt.status
		c.Heard(t.Context(), "b.test")
		_, err := c.Send(t.Context(), "b.test", Transaction{ID: "1"})
		if (err == nil) != (status == 200) {
			t.Errorf("%d: %v", status, err)
		}
		if at, err := c.RetryAt(t.Context(), "b.test"); err != nil || at.IsZero() == tt.counts {
			t.Errorf("%d: retry at %v, %v", status, at, err)
		}
	}
	newClock().rule(c, nil) // the pause does not pass
	c.Failed(t.Context(), "b.test")
	var backoff *BackoffError
	if _, err := c.Send(t.Context(), "b.test", Transaction{ID: "1"}); !errors.As(err, &backoff) {
		t.Errorf("%v", err)
	}
}

// TestBrokenConnections has a server without HTTP/2 that closes a connection
// which was used before, instead of answering on it.
func TestBrokenConnections(t *testing.T) {
	n := newInternet(t)
	n.host("b.test", "5.5.5.1")
	var mu sync.Mutex
	used, asked := map[string]int{}, 0
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		used[r.RemoteAddr]++
		first := used[r.RemoteAddr] == 1
		asked++
		mu.Unlock()
		if !first || strings.HasSuffix(r.URL.Path, "/claim") {
			panic(http.ErrAbortHandler)
		}
		if r.Method == http.MethodPut && !strings.Contains(string(body), "us.test") {
			t.Errorf("body %q", body)
		}
		_, _ = io.WriteString(w, `{}`)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{n.certificate(time.Now().Add(time.Hour), "b.test")}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	n.ports["5.5.5.1:8448"] = s.Listener.Addr().String()
	c := n.client(sqlite(t), n.config())
	for range 3 {
		if _, err := c.Send(t.Context(), "b.test", Transaction{ID: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	before := asked
	mu.Unlock()

	// One-time keys must not be taken twice.
	if _, err := c.ClaimKeys(t.Context(), "b.test", nil); err == nil {
		t.Error("asked again for one-time keys")
	}
	if mu.Lock(); asked != before+1 {
		t.Errorf("asked %d times for one-time keys", asked-before)
	}
	mu.Unlock()
}
