package identity_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/identity"
	"switchboard/homeserver/matrix"
)

// peer is an identity server whose answers the test sets, by "METHOD /path".
type peer struct {
	*httptest.Server
	answers map[string]string // "400 {…}"; without a status 200
	asked   []string          // "METHOD /path?query token body"
}

func newPeer(t *testing.T) (*peer, *identity.Client, identity.Server) {
	p := &peer{answers: map[string]string{}}
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := json.RawMessage{}
		json.NewDecoder(r.Body).Decode(&body)
		path := strings.TrimPrefix(r.URL.Path, "/_matrix/identity/v2/")
		p.asked = append(p.asked, strings.TrimSpace(fmt.Sprintf("%s %s?%s %s %s", r.Method, path, r.URL.RawQuery, r.Header.Get("Authorization"), body)))
		answer := p.answers[r.Method+" "+path]
		status := 200
		if _, err := fmt.Sscanf(answer, "%d ", &status); err == nil {
			answer = answer[4:]
		}
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(p.Close)
	server := identity.Server{Name: matrix.ServerName(strings.TrimPrefix(p.URL, "https://")), Token: "secret"}
	return p, &identity.Client{HTTP: p.Client()}, server
}

// TestLookup uses the example of the specification of identity servers: the hash
// of alice@example.com with the pepper matrixrocks.
func TestLookup(t *testing.T) {
	const hash = "4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc"
	p, c, server := newPeer(t)
	p.answers["GET hash_details"] = `{"algorithms":["none","sha256"],"lookup_pepper":"matrixrocks"}`
	p.answers["POST lookup"] = `{"mappings":{"` + hash + `":"@alice:a.test","other":"@eve:e.test"}}`
	for _, address := range []string{"alice@example.com", "Alice@Example.COM"} {
		p.asked = nil
		user, err := c.Lookup(t.Context(), server, identity.Address{Medium: "email", Address: address})
		if err != nil || user != "@alice:a.test" {
			t.Errorf("%q, %v", user, err)
		}
		want := `GET hash_details? Bearer secret|POST lookup? Bearer secret {"addresses":["` + hash + `"],"algorithm":"sha256","pepper":"matrixrocks"}`
		if got := strings.Join(p.asked, "|"); got != want {
			t.Errorf("asked\ngot  %s\nwant %s", got, want)
		}
	}
	p.answers["POST lookup"] = `{"mappings":{}}`
	if user, err := c.Lookup(t.Context(), server, identity.Address{Medium: "email", Address: "b@b"}); user != "" || err != nil {
		t.Errorf("unknown address: %q, %v", user, err)
	}
	p.answers["POST lookup"] = `400 {"errcode":"M_INVALID_PEPPER","error":"again"}`
	p.asked = nil
	if _, err := c.Lookup(t.Context(), server, identity.Address{Medium: "email", Address: "b@b"}); err == nil || len(p.asked) != 4 {
		t.Errorf("a pepper that never fits: %v after %d requests", err, len(p.asked))
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		code         matrix.Code
		status       int
	}{
		{"its token is not ours", `401 {"errcode":"M_UNAUTHORIZED","error":"unknown token"}`, matrix.Forbidden, 403},
		{"nor a reason to log out", `401 {"errcode":"M_UNKNOWN_TOKEN"}`, matrix.Forbidden, 403},
		{"terms", `403 {"errcode":"M_TERMS_NOT_SIGNED"}`, "M_TERMS_NOT_SIGNED", 403},
		{"too fast", `429 {"errcode":"M_LIMIT_EXCEEDED"}`, matrix.LimitExceeded, 429},
		{"broken", `500 oops`, matrix.Unknown, 502},
		{"no JSON", `200 <html>`, matrix.Unknown, 502},
		{"no way to hide", `{"algorithms":["none"]}`, matrix.Unknown, 502},
		{"too long", `{"algorithms":["` + strings.Repeat("x", 300<<10) + `"]}`, matrix.Unknown, 502},
		{"no such list", `404 {}`, matrix.Forbidden, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, c, server := newPeer(t)
			p.answers["GET hash_details"] = tt.answer
			_, err := c.Lookup(t.Context(), server, identity.Address{Medium: "email", Address: "a@a"})
			var e *matrix.Error
			if !errors.As(err, &e) || e.Code != tt.code || e.HTTPStatus() != tt.status || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestStoreInvite(t *testing.T) {
	p, c, server := newPeer(t)
	in := identity.Invite{Address: identity.Address{Medium: "email", Address: "a@a"}, Room: "!r:a.test", Sender: "@alice:a.test", Name: "Tea"}
	for answer, good := range map[string]bool{
		`{"token":"t","display_name":"a…","public_keys":[{"public_key":"k","key_validity_url":"https://x/v"}]}`: true,
		`{"token":"t","public_keys":[]}`:                  false,
		`{"token":"","public_keys":[{"public_key":"k"}]}`: false,
		`{}`: false,
	} {
		p.answers["POST store-invite"] = answer
		stored, err := c.StoreInvite(t.Context(), server, in)
		if (err == nil) != good {
			t.Errorf("%s: %v", answer, err)
		}
		if good && (stored.Token != "t" || stored.Keys[0] != identity.PublicKey{Key: "k", URL: "https://x/v"}) {
			t.Errorf("%+v", stored)
		}
	}
	if want := `{"medium":"email","address":"a@a","room_id":"!r:a.test","sender":"@alice:a.test","room_name":"Tea"}`; !strings.HasSuffix(p.asked[0], want) {
		t.Errorf("asked %s, want %s", p.asked[0], want)
	}
}

func TestValid(t *testing.T) {
	p, c, _ := newPeer(t)
	p.answers["GET pubkey/isvalid"] = `{"valid":true}`
	url := p.URL + "/_matrix/identity/v2/pubkey/isvalid?x=1"
	if ok, err := c.Valid(t.Context(), identity.PublicKey{Key: "a+/b", URL: url}); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if got := p.asked[0]; got != "GET pubkey/isvalid?public_key=a%2B%2Fb&x=1" {
		t.Errorf("asked %s", got)
	}
	p.answers["GET pubkey/isvalid"] = `{"valid":false}`
	if ok, err := c.Valid(t.Context(), identity.PublicKey{Key: "k", URL: url}); ok || err != nil {
		t.Errorf("a withdrawn key: %v, %v", ok, err)
	}
	for _, bad := range []string{"", "http://a.test/", "file:///etc/passwd", "https:", "::"} {
		if ok, err := c.Valid(t.Context(), identity.PublicKey{Key: "k", URL: bad}); ok || err == nil {
			t.Errorf("%q was asked", bad)
		}
	}
}

// TestGuard asks as the server does: nobody makes it ask its own network.
func TestGuard(t *testing.T) {
	p, _, server := newPeer(t)
	c := &identity.Client{HTTP: fedclient.NewDialer(fedclient.DefaultOutboundConfig(), nil).Client(time.Minute)}
	_, err := c.Lookup(t.Context(), server, identity.Address{Medium: "email", Address: "a@a"})
	if !errors.Is(err, fedclient.ErrRefused) || len(p.asked) != 0 {
		t.Errorf("got %v after %q", err, p.asked)
	}
}

func TestCheck(t *testing.T) {
	good := identity.Invitee{Server: identity.Server{Name: "id.test", Token: "x"}, Address: identity.Address{Medium: "email", Address: "a@a"}}
	for name, tt := range map[string]struct {
		change func(*identity.Invitee)
		code   matrix.Code
	}{
		"good":       {func(*identity.Invitee) {}, ""},
		"no server":  {func(i *identity.Invitee) { i.Name = "" }, matrix.MissingParam},
		"no token":   {func(i *identity.Invitee) { i.Token = "" }, matrix.MissingParam},
		"no medium":  {func(i *identity.Invitee) { i.Medium = "" }, matrix.MissingParam},
		"no address": {func(i *identity.Invitee) { i.Address.Address = "" }, matrix.MissingParam},
		"a URL":      {func(i *identity.Invitee) { i.Name = "https://id.test" }, matrix.InvalidParam},
		"a path":     {func(i *identity.Invitee) { i.Name = "id.test/x" }, matrix.InvalidParam},
	} {
		i := good
		tt.change(&i)
		var e *matrix.Error
		if err := i.Check(); (err == nil) != (tt.code == "") || errors.As(err, &e) && e.Code != tt.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}
