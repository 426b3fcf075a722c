package fedclient

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// inbound makes a request to us as a server would have received it.
func inbound(t *testing.T, key signing.Key, origin, destination matrix.ServerName, method, uri, body string) *http.Request {
	t.Helper()
	var content []byte
	if body != "" {
		content = []byte(body)
	}
	line, err := authorization(key, origin, destination, method, uri, content)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, uri, strings.NewReader(body))
	r.RequestURI = uri
	r.Header.Set("Authorization", line)
	return r.WithContext(t.Context())
}

func wantCode(t *testing.T, err error, code matrix.Code, status int) {
	t.Helper()
	var e *matrix.Error
	if !errors.As(err, &e) || e.Code != code || e.HTTPStatus() != status {
		t.Errorf("%v, want %d %s", err, status, code)
	}
}

func TestAuthenticate(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		n := newInternet(t)
		b := n.peer("b.test", "5.5.5.1")
		c := n.client(st, n.config())
		ring := NewKeyRing(c)
		const uri = "/_matrix/federation/v1/send/1?x=%2F"
		good := func() *http.Request { return inbound(t, b.key, "b.test", us, "PUT", uri, `{"a":1}`) }
		ask := func(r *http.Request, body string) error {
			name, err := ring.Authenticate(r, []byte(body))
			if err == nil && name != "b.test" || err != nil && name != "" {
				t.Errorf("%q, %v", name, err)
			}
			return err
		}
		if err := ask(good(), `{ "a": 1 }`); err != nil {
			t.Fatal(err)
		}
		if err := ask(inbound(t, b.key, "b.test", us, "GET", uri, ""), ""); err != nil {
			t.Fatal(err)
		}
		r := good() // as servers do it that do not name us
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), `destination="us.test",`, "", 1))
		if err := ask(r, `{"a":1}`); err != nil {
			t.Errorf("without destination: %v", err)
		}
		r = good() // a second key that nobody knows
		r.Header.Add("Authorization", `X-Matrix origin="b.test",destination="us.test",key="ed25519:other",sig="AAAA"`)
		if err := ask(r, `{"a":1}`); err != nil {
			t.Errorf("two headers: %v", err)
		}

		unauthorized := map[string]func() (*http.Request, string){
			"another body":   func() (*http.Request, string) { return good(), `{"a":2}` },
			"no body":        func() (*http.Request, string) { return good(), "" },
			"another method": func() (*http.Request, string) { r := good(); r.Method = "POST"; return r, `{"a":1}` },
			"another path":   func() (*http.Request, string) { r := good(); r.RequestURI = "/other"; return r, `{"a":1}` },
			"another way to write the path": func() (*http.Request, string) {
				r := good()
				r.RequestURI = strings.Replace(uri, "%2F", "/", 1)
				return r, `{"a":1}`
			},
			"for another server": func() (*http.Request, string) {
				return inbound(t, b.key, "b.test", "c.test", "PUT", uri, `{"a":1}`), `{"a":1}`
			},
			"for another server, which it does not say": func() (*http.Request, string) {
				r := inbound(t, b.key, "b.test", "c.test", "PUT", uri, `{"a":1}`)
				r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), `destination="c.test",`, "", 1))
				return r, `{"a":1}`
			},
			"another origin": func() (*http.Request, string) {
				r := good()
				r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "b.test", "c.test", 1))
				return r, `{"a":1}`
			},
			"another key of that name": func() (*http.Request, string) {
				other := newKey(t)
				other.ID = b.key.ID
				return inbound(t, other, "b.test", us, "PUT", uri, `{"a":1}`), `{"a":1}`
			},
			"an unknown algorithm": func() (*http.Request, string) {
				other := b.key
				other.ID = "rsa:1"
				return inbound(t, other, "b.test", us, "PUT", uri, `{"a":1}`), `{"a":1}`
			},
			"not signed": func() (*http.Request, string) { r := good(); r.Header.Del("Authorization"); return r, `{"a":1}` },
		}
		for name, f := range unauthorized {
			t.Run(name, func(t *testing.T) {
				r, body := f()
				wantCode(t, ask(r, body), matrix.Unauthorized, 401)
			})
		}
		wantCode(t, ask(good(), `{"a":1`), matrix.NotJSON, 400)
		wantCode(t, ask(good(), `{"a":1,"a":1}`), matrix.NotJSON, 400)

		denied := n.config()
		denied.DenyServers = []string{"b.test"}
		_, err := NewKeyRing(n.client(st, denied)).Authenticate(good(), []byte(`{"a":1}`))
		wantCode(t, err, matrix.Forbidden, 403)
	})
}

// TestAuthenticateKeys checks which keys may sign requests: those in use, for
// which the server answers now.
func TestAuthenticateKeys(t *testing.T) {
	n := newInternet(t)
	b := n.peer("b.test", "5.5.5.1")
	old, next := newKey(t), newKey(t)
	st := sqlite(t)
	c := n.client(st, n.config())
	ring := NewKeyRing(c)
	clock := newClock().rule(c, ring)
	ask := func(key signing.Key) error {
		_, err := ring.Authenticate(inbound(t, key, "b.test", us, "GET", "/", ""), nil)
		return err
	}
	b.answers(func() []byte {
		return keyAnswerOf(t, "b.test", clock.time().Add(time.Hour), oldKey(old, clock.time().Add(time.Hour)), b.key)
	})
	if err := ask(b.key); err != nil {
		t.Fatal(err)
	}
	if err := ask(old); err == nil {
		t.Error("an old key signed a request")
	}

	// A key that has run out is asked for again, and what is known is not.
	asked := b.timesAsked()
	for range 5 {
		if err := ask(b.key); err != nil {
			t.Fatal(err)
		}
	}
	if n := b.timesAsked(); n != asked {
		t.Errorf("asked for known keys %d times", n-asked)
	}
	clock.forward(2 * time.Hour)
	if err := ask(b.key); err != nil || b.timesAsked() != asked+1 {
		t.Errorf("%v, asked %d times", err, b.timesAsked()-asked)
	}

	// A new key is found, but not asked for again and again.
	if err := ask(next); err == nil {
		t.Error("an unknown key signed a request")
	}
	clock.forward(time.Second)
	b.answers(func() []byte {
		return keyAnswerOf(t, "b.test", clock.time().Add(time.Hour), oldKey(b.key, clock.time()), next)
	})
	asked = b.timesAsked()
	_ = ask(next)
	if b.timesAsked() != asked {
		t.Error("asked again at once")
	}
	clock.forward(askAgain)
	if err := ask(next); err != nil {
		t.Error(err)
	}
	if err := ask(b.key); err == nil {
		t.Error("the key that was replaced signed a request")
	}

	// A server that says less than it could be believed for is not believed.
	b.answers(func() []byte { return keyAnswerOf(t, "b.test", clock.time().Add(-time.Second), nil, next) })
	clock.forward(2 * time.Hour)
	if err := ask(next); err == nil {
		t.Error("a key that has run out signed a request")
	}
}

// TestHeardAgain has a server that was down ask us something.
func TestHeardAgain(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		n := newInternet(t)
		b := n.peer("b.test", "5.5.5.1")
		c := n.client(st, n.config())
		ring := NewKeyRing(c)
		clock := newClock().rule(c, ring) // the pause does not pass
		c.Failed(t.Context(), "b.test")
		if at, err := c.RetryAt(t.Context(), "b.test"); err != nil || !at.After(clock.time()) {
			t.Fatalf("retry at %v, %v", at, err)
		}
		_, err := c.Version(t.Context(), "b.test")
		var backoff *BackoffError
		if !errors.As(err, &backoff) || backoff.Server != "b.test" {
			t.Fatalf("%v", err)
		}
		rung := c.reach.bell.Listen(BellKey("b.test"))
		if _, err := ring.Authenticate(inbound(t, newKey(t), "b.test", us, "GET", "/", ""), nil); err == nil {
			t.Fatal("a forged request")
		}
		select {
		case <-rung:
			t.Fatal("a forged request rang")
		default:
		}
		if _, err := ring.Authenticate(inbound(t, b.key, "b.test", us, "GET", "/", ""), nil); err != nil {
			t.Fatal(err)
		}
		select {
		case <-rung:
		default:
			t.Error("nobody was woken")
		}
		if at, err := c.RetryAt(t.Context(), "b.test"); err != nil || !at.IsZero() {
			t.Errorf("retry at %v, %v", at, err)
		}
		if d, _, err := st.Destination(t.Context(), "b.test"); err != nil || d.Failures != 0 || d.SuccessTS == 0 {
			t.Errorf("stored %+v, %v", d, err)
		}
	})
}
