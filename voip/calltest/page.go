package calltest

import (
	"cmp"
	"context"
	"crypto/rand"
	"embed"
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/edge"
	"switchboard/homeserver/matrix"
)

//go:embed static
var static embed.FS

// files are those of the page, by the path at which they are served.
var files = map[string]struct{ name, mime string }{
	"/calltest":            {"index.html", "text/html; charset=utf-8"},
	"/calltest/page.js":    {"page.js", "text/javascript; charset=utf-8"},
	"/calltest/test.js":    {"test.js", "text/javascript; charset=utf-8"},
	"/calltest/verdict.js": {"verdict.js", "text/javascript; charset=utf-8"},
	"/calltest/style.css":  {"style.css", "text/css; charset=utf-8"},
	"/calltest/icon.svg":   {"icon.svg", "image/svg+xml"},
}

// policy lets the page load nothing but its own files and talk to nobody but
// this server, and lets nobody frame it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; media-src 'self' blob:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// maxBody bounds what the page sends: an offer, as JSON.
const maxBody = 2 * maxSDP

// Page serves the page for the user's browser, below /calltest. Who wants to
// test must be a user of this server or have a one-time link.
func (s *Service) Page() http.Handler {
	mux := http.NewServeMux()
	for path, f := range files {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { serveFile(w, f.name, f.mime) })
	}
	for path, handle := range map[string]func(*Service, *edge.Call) (any, error){
		"POST /calltest/session": (*Service).postSession,
		"POST /calltest/open":    (*Service).postOpen,
		"POST /calltest/close":   (*Service).postClose,
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			body, err := handle(s, &edge.Call{Request: r, Limit: maxBody})
			edge.Answer(w, r, body, err)
		})
	}
	return edge.Handler(mux)
}

func serveFile(w http.ResponseWriter, name, mime string) {
	b, err := static.ReadFile("static/" + name)
	if err != nil {
		panic(err) // it is in the program, or the tests fail
	}
	h := w.Header()
	h.Set("Content-Type", mime)
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Security-Policy", policy)
	h.Set("Permissions-Policy", "microphone=(self), camera=(), geolocation=()")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	w.Write(b) //nolint:errcheck // the browser sees what is missing
}

// sessionAnswer is what the page must know for its tests.
type sessionAnswer struct {
	Session  string  `json:"session"`
	Expires  int64   `json:"expires_in"` // seconds
	User     string  `json:"user,omitempty"`
	Username string  `json:"username,omitempty"` // for the relay
	Password string  `json:"password,omitempty"`
	Trials   []trial `json:"trials"`
	First    uint16  `json:"first_port,omitempty"` // of relayed addresses
	Last     uint16  `json:"last_port,omitempty"`
}

// postSession begins a session, for a user by the access token or for anybody
// by a one-time link.
func (s *Service) postSession(c *edge.Call) (any, error) {
	var body struct {
		Link string `json:"link"`
	}
	if err := c.OptionalJSON(&body); err != nil {
		return nil, err
	}
	whom, err := s.admit(c, body.Link)
	if err != nil {
		return nil, err
	}
	name, err := s.begin(whom)
	if err != nil {
		return nil, err
	}
	zerolog.Ctx(c.Context()).Info().Str("user", whom).Bool("link", whom == "").Msg("somebody tests calls on the page")
	a := sessionAnswer{Session: name, Expires: int64(sessionLife / time.Second), User: whom, Trials: trials(c.Context(), nil, nil)}
	if s.Relay != nil {
		// A name of its own, so that nobody uses up what another one may have.
		credentials := s.Relay.TestCredentials("page-"+rand.Text()[:8], sessionLife)
		a.Username, a.Password = credentials.Username, credentials.Password
		a.Trials = trials(c.Context(), credentials.URIs, s.Relay.External())
		a.First, a.Last = s.Relay.Ports()
	} else if err := s.offerElsewhere(c.Context(), whom, &a); err != nil {
		return nil, err
	}
	if len(a.Trials) == 0 || a.Trials[0].Kind != "host" { // without an external address that is known
		a.Trials = append([]trial{{ID: "host", Kind: "host", URLs: []string{}}}, a.Trials...)
	}
	return a, nil
}

// offerElsewhere adds the ways through a relay that is not this server's. Its
// credentials are those with which users call, so that nobody else gets them.
func (s *Service) offerElsewhere(ctx context.Context, whom string, a *sessionAnswer) error {
	have, err := s.elsewhere(ctx, cmp.Or(whom, "calltest"))
	switch {
	case err != nil:
		return &matrix.Error{Code: matrix.Unknown, Status: http.StatusBadGateway, Cause: err,
			Text: "the relay of this server gives no password at this moment, so that calls fail, too; “switchboard doctor calls” on the server tells why"}
	case have == nil:
	case whom == "":
		a.Trials = append(a.Trials, trial{ID: "account", Kind: "account", URLs: []string{}})
	default:
		a.Username, a.Password = have.Username, have.Password
		a.Trials = trials(ctx, have.URIs, nil)
	}
	return nil
}

// admit tells who wants to test: the user, or "" for who has a good link.
func (s *Service) admit(c *edge.Call, link string) (string, error) {
	if link != "" {
		good, err := s.Redeem(c.Context(), link)
		if err == nil && !good {
			err = matrix.Errorf(matrix.Forbidden, "this link has been used, or it is too old; ask who gave it to you for another one")
		}
		return "", err
	}
	token, ok := strings.CutPrefix(c.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" {
		return "", matrix.Errorf(matrix.MissingToken, "log in first")
	}
	user, err := s.User(c.Context(), token)
	return string(user), err
}

// postOpen connects a peer with the browser. "delay" is when the voice goes
// back, in milliseconds.
func (s *Service) postOpen(c *edge.Call) (any, error) {
	var body struct {
		Session string `json:"session"`
		SDP     string `json:"sdp"`
		Delay   int    `json:"delay"`
	}
	if err := c.JSON(&body); err != nil {
		return nil, err
	}
	delay := time.Duration(min(max(body.Delay, 0), 2000)) * time.Millisecond
	peer, answer, err := s.join(c.Context(), body.Session, body.SDP, delay)
	if err != nil {
		return nil, err
	}
	return map[string]string{"peer": peer, "sdp": answer}, nil
}

// postClose ends a peer and tells what it saw.
func (s *Service) postClose(c *edge.Call) (any, error) {
	var body struct {
		Session string `json:"session"`
		Peer    string `json:"peer"`
	}
	if err := c.JSON(&body); err != nil {
		return nil, err
	}
	q, err := s.part(body.Session, body.Peer)
	if err != nil {
		return nil, err
	}
	return map[string]any{"received": q.received, "lost": q.lost, "path": q.theirs, "codec": q.codec}, nil
}
