package clientapi

import (
	"context"
	"fmt"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// canceled is a context that has ended.
func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimits(Rates{Login: Rate{PerSecond: 0.5, Burst: 3}})
		ask := func(who string) bool { return l.take(classLogin, who, time.Now()) == nil }
		for i := range 3 {
			if !ask("a") {
				t.Errorf("%d of the burst was refused", i)
			}
		}
		if ask("a") || !ask("b") {
			t.Error("the bucket of a is not empty, or that of b is")
		}
		time.Sleep(1999 * time.Millisecond)
		if ask("a") {
			t.Error("too early")
		}
		time.Sleep(time.Millisecond)
		if !ask("a") || ask("a") {
			t.Error("one token should have come")
		}
		time.Sleep(time.Hour)
		for i := range 3 {
			if !ask("a") {
				t.Errorf("%d of the burst was refused after an hour", i)
			}
		}
		if ask("a") {
			t.Error("more than the burst")
		}
		l.give(classLogin, "a", time.Now())
		l.give(classLogin, "b", time.Now()) // is full already
		if !ask("a") || ask("a") {
			t.Error("one token was given back")
		}
		for range 1000 {
			if l.take(classMessage, "a", time.Now()) != nil {
				t.Fatal("what has no limit was refused")
			}
		}
	})
}

func TestLimitsAreBounded(t *testing.T) {
	l := NewLimits(Rates{Public: Rate{PerSecond: 1, Burst: 1}})
	now := time.Now()
	for i := range 3 * mostBuckets {
		l.take(classPublic, fmt.Sprint(i), now)
	}
	if n := len(l.young) + len(l.old); n > 2*mostBuckets {
		t.Errorf("%d buckets", n)
	}
	if l.take(classPublic, fmt.Sprint(3*mostBuckets-1), now) == nil {
		t.Error("the newest bucket was forgotten")
	}
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64", "pipe": "pipe",
	} {
		if got := network(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

// TestEverythingSentIsLimited checks that no other way of sending an event, and no
// report, is free of the limit, and that no limit is of a route that does not exist.
func TestEverythingSentIsLimited(t *testing.T) {
	sends := regexp.MustCompile(`^P.*/rooms/\{roomId\}/(send|state|redact|delayed_event)/|/report(/|$)`)
	known := map[string]bool{}
	for _, rt := range routes() {
		known[rt.pattern] = true
		if sends.MatchString(rt.pattern) && classOf[rt.pattern] != classMessage {
			t.Errorf("%s is not counted as a message", rt.pattern)
		}
	}
	for pattern := range classOf {
		if !known[pattern] {
			t.Errorf("%s is limited, and no route", pattern)
		}
	}
}

func TestRateLimits(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st, func(a *API) {
			a.Limits = NewLimits(Rates{Login: Rate{0.001, 6}, FailedLogin: Rate{0.001, 2}, Register: Rate{0.001, 1}, Request: Rate{0.001, 3}})
		})
		bad := `{"type":"m.login.password","user":"alice","password":"wrong"}`
		s.nobody().want(403, "M_FORBIDDEN", "POST", v3+"login", bad)
		s.nobody().want(403, "M_FORBIDDEN", "POST", v3+"login", bad)
		s.nobody().want(429, `"retry_after_ms":`, "POST", v3+"login", `{"type":"m.login.password","user":"ALICE","password":"`+password+`"}`)
		s.nobody().want(403, "M_FORBIDDEN", "POST", v3+"login", `{"type":"m.login.password","user":"bob","password":"wrong"}`)
		s.want(429, "M_LIMIT_EXCEEDED", "POST", v3+"account/deactivate", `{`+pass("alice", password)+`}`) // guesses count there, too
		s.nobody().want(403, "M_FORBIDDEN", "POST", v3+"login", `{"type":"m.login.password","user":"carol","password":"wrong"}`)
		s.nobody().want(403, "M_FORBIDDEN", "POST", v3+"login", `{"type":"m.login.password","user":"dave","password":"wrong"}`)
		s.nobody().want(429, "M_LIMIT_EXCEEDED", "POST", v3+"login", `{"type":"m.login.password","user":"eve","password":"wrong"}`)
		other := *s.nobody()
		other.address = "192.0.2.2:1"
		other.want(403, "M_FORBIDDEN", "POST", v3+"login", `{"type":"m.login.password","user":"eve","password":"wrong"}`)

		s.want(200, "alice", "GET", v3+"account/whoami", "")
		s.want(200, "alice", "GET", v3+"account/whoami", "")
		w := s.do("GET", v3+"account/whoami", "")
		if w.Code != 429 || w.Header().Get("Retry-After") == "" {
			t.Errorf("got %d %v", w.Code, w.Header())
		}
		as := s.appservice("irc")
		for i := range 5 {
			as.want(200, "ircbot", "GET", v3+"account/whoami", "") // the sender is free
			as.want(200, "irc_", "POST", v3+"register", fmt.Sprintf(`{"type":"m.login.application_service","username":"irc_%d","inhibit_login":true}`, i))
		}
		s.nobody().want(401, "session", "POST", v3+"register", `{}`)
		s.nobody().want(429, "M_LIMIT_EXCEEDED", "POST", v3+"register", `{}`)
	})
}
