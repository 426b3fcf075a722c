package calltest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"switchboard/homeserver/matrix"
)

// pageClient asks the page's handler as a browser does.
type pageClient struct {
	t *testing.T
	*Service
	h http.Handler
}

func newPage(t *testing.T, relay Relay) *pageClient {
	s := newService(t, relay)
	s.User = func(_ context.Context, token string) (matrix.UserID, error) {
		if token == "good" {
			return "@alice:a.test", nil
		}
		return "", matrix.Errorf(matrix.UnknownToken, "unknown access token")
	}
	links := map[string]bool{"once": true}
	s.Redeem = func(_ context.Context, link string) (bool, error) {
		good := links[link]
		delete(links, link)
		return good, nil
	}
	return &pageClient{t, s, s.Page()}
}

// post sends a body and returns the answer; token may be "".
func (c *pageClient) post(path, token string, body any) (int, map[string]any) {
	c.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/calltest/"+path, bytes.NewReader(b)).WithContext(c.t.Context())
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, r)
	answer := map[string]any{}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		c.t.Fatalf("%s: %v in %s", path, err, w.Body)
	}
	return w.Code, answer
}

// want posts and fails if the answer is another one.
func (c *pageClient) want(status int, code, path, token string, body any) map[string]any {
	c.t.Helper()
	got, answer := c.post(path, token, body)
	if got != status || code != "" && answer["errcode"] != code {
		c.t.Fatalf("%s: %d %v, want %d %s", path, got, answer, status, code)
	}
	return answer
}

type body map[string]any

// TestPageFiles checks that every file of the page is served, under the policy.
func TestPageFiles(t *testing.T) {
	c := newPage(t, nil)
	for path := range files {
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK || w.Body.Len() == 0 || !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %d with %d bytes and %v", path, w.Code, w.Body.Len(), w.Header())
		}
	}
	served := map[string]bool{}
	for _, f := range files {
		served[f.name] = true
	}
	list, err := fs.ReadDir(static, "static")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if !served[f.Name()] {
			t.Errorf("%s is in the program but not served", f.Name())
		}
	}
}

// TestPageTrial goes through the page's requests as its script does.
func TestPageTrial(t *testing.T) {
	c := newPage(t, startRelay(t))
	a := c.want(200, "", "session", "good", body{})
	if a["user"] != "@alice:a.test" || a["password"] != "secret" {
		t.Errorf("the session is %v", a)
	}
	var ids []string
	for _, trial := range a["trials"].([]any) {
		ids = append(ids, trial.(map[string]any)["id"].(string))
	}
	if got := strings.Join(ids, " "); !strings.HasPrefix(got, "host-v4 srflx-v4") || !strings.Contains(got, "udp-v4") || !strings.Contains(got, "tcp-v4") {
		t.Errorf("the trials are %s", got)
	}
	caller := newCaller(t, webrtc.Configuration{}, webrtc.MimeTypeOpus)
	opened := c.want(200, "", "open", "", body{"session": a["session"], "sdp": caller.offer()})
	caller.accept(opened["sdp"].(string))
	await(t, caller.open, "the data channel")
	caller.talk()
	eventually(t, "sound comes back", func() bool { return caller.markers.Load() > 10 })
	end := body{"session": a["session"], "peer": opened["peer"]}
	if saw := c.want(200, "", "close", "", end); saw["received"].(float64) < 10 || saw["codec"] != "opus" || saw["path"] == "" {
		t.Errorf("the server saw %v", saw)
	}
	c.want(404, "M_NOT_FOUND", "close", "", end)
}

// TestPageElsewhere tests a relay that is not this server's, with a user's own
// credentials. Who came by a link gets none of them.
func TestPageElsewhere(t *testing.T) {
	c, relay := newPage(t, nil), startRelay(t)
	var failing error
	var asked []string
	c.Elsewhere = func(_ context.Context, user string) (*Credentials, error) {
		asked = append(asked, user)
		have := relay.TestCredentials("", 0)
		return &have, failing
	}
	ids := func(a map[string]any) (list []string) {
		for _, one := range a["trials"].([]any) {
			list = append(list, one.(map[string]any)["id"].(string))
		}
		return list
	}
	a := c.want(200, "", "session", "good", body{})
	if got := strings.Join(ids(a), " "); got != "host srflx-v4 udp-v4 tcp-v4" || a["username"] != "calltest" || asked[0] != "@alice:a.test" {
		t.Errorf("a user may try %s as %v; asked for %q", got, a["username"], asked)
	}
	guest := c.want(200, "", "session", "", body{"link": "once"})
	if got := strings.Join(ids(guest), " "); got != "host account" || guest["username"] != nil || guest["password"] != nil {
		t.Errorf("who came by a link gets %v", guest)
	}
	caller := newCaller(t, webrtc.Configuration{ICETransportPolicy: webrtc.ICETransportPolicyRelay, ICEServers: []webrtc.ICEServer{
		{URLs: relay.uris[1:], Username: "calltest", Credential: "secret"},
	}}, webrtc.MimeTypeOpus)
	opened := c.want(200, "", "open", "", body{"session": a["session"], "sdp": caller.offer()})
	if sdp := opened["sdp"].(string); !strings.Contains(sdp, "typ relay") {
		t.Errorf("the peer has no relayed address itself: %s", sdp)
	}
	caller.accept(opened["sdp"].(string))
	await(t, caller.open, "the data channel")

	failing = errors.New("down")
	if answer := c.want(502, "M_UNKNOWN", "session", "good", body{}); !strings.Contains(answer["error"].(string), "doctor calls") {
		t.Errorf("without credentials the page says %v", answer)
	}
}

// TestTrials keeps several relays apart, and names each way once.
func TestTrials(t *testing.T) {
	var ids []string
	for _, one := range trials(t.Context(), []string{
		"turn:192.0.2.1:3478?transport=udp", "turn:192.0.2.1", "turn:192.0.2.2:3478?transport=udp", "turns:turn.example.org:443?transport=tcp",
		"turns:turn.example.org:5349?transport=tcp", "turns:other.example.org:443?transport=tcp", "turn:[2001:db8::1]:3478?transport=tcp", "http://x",
	}, nil) {
		ids = append(ids, one.ID)
	}
	if got, want := strings.Join(ids, " "), "srflx-v4 srflx-v4-2 udp-v4 udp-v4-2 tcp-v6 tls-443 tls-5349 tls-443-2"; got != want {
		t.Errorf("the ways are %s, want %s", got, want)
	}
}

// TestPageRefuses sends what strangers and attackers would.
func TestPageRefuses(t *testing.T) {
	c := newPage(t, nil)
	c.Config.Peers = 8
	c.want(401, "M_MISSING_TOKEN", "session", "", body{})
	c.want(401, "M_UNKNOWN_TOKEN", "session", "of another server", body{})
	c.want(403, "M_FORBIDDEN", "session", "", body{"link": "guessed"})
	c.want(403, "M_FORBIDDEN", "session", "good", body{"link": "guessed"})
	session := c.want(200, "", "session", "", body{"link": "once"})["session"]
	c.want(403, "M_FORBIDDEN", "session", "", body{"link": "once"})

	offer := newCaller(t, webrtc.Configuration{}, webrtc.MimeTypeOpus).offer()
	c.want(401, "M_UNKNOWN_TOKEN", "open", "", body{"session": "guessed", "sdp": offer})
	c.want(413, "M_TOO_LARGE", "open", "", body{"session": session, "sdp": offer + strings.Repeat("a=x\r\n", 7000)})
	c.want(413, "M_TOO_LARGE", "open", "", body{"session": session, "sdp": strings.Repeat("x", 10*maxBody)})
	c.want(400, "M_BAD_JSON", "open", "", body{"session": session, "sdp": offer + strings.Repeat("a=candidate:1 1 udp 1 10.0.0.1 1 typ host\r\n", 100)})
	c.want(400, "M_BAD_JSON", "open", "", body{"session": session, "sdp": offer + strings.Repeat("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n", 100)})
	for _, sdp := range []string{"", "hello", "v=0\r\n", strings.Replace(offer, "a=fingerprint:", "a=x:", -1), strings.Replace(offer, "a=ice-ufrag:", "a=x:", -1)} {
		c.want(400, "M_BAD_JSON", "open", "", body{"session": session, "sdp": sdp})
	}
	c.mu.Lock()
	if len(c.peers)+c.opening != 0 {
		t.Errorf("%d places are taken after what was refused", len(c.peers)+c.opening)
	}
	c.mu.Unlock()

	for range peersAtOnce {
		c.want(200, "", "open", "", body{"session": session, "sdp": offer})
	}
	c.want(429, "M_LIMIT_EXCEEDED", "open", "", body{"session": session, "sdp": offer})
	other := c.want(200, "", "session", "good", body{})["session"]
	for range c.Config.Peers - peersAtOnce {
		c.want(200, "", "open", "", body{"session": other, "sdp": offer})
	}
	c.want(429, "M_LIMIT_EXCEEDED", "open", "", body{"session": other, "sdp": offer})

	// Another session of the same user ends the first one, and its peers.
	third := c.want(200, "", "session", "good", body{})["session"]
	c.want(401, "M_UNKNOWN_TOKEN", "open", "", body{"session": other, "sdp": offer})
	eventually(t, "the places are free again", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.peers) == peersAtOnce })
	c.want(200, "", "open", "", body{"session": third, "sdp": offer})

	c.mu.Lock()
	c.sessions[third.(string)].expires = time.Now().Add(-time.Second)
	c.mu.Unlock()
	c.want(401, "M_UNKNOWN_TOKEN", "open", "", body{"session": third, "sdp": offer})
}

// TestManySessions fills the list of sessions.
func TestManySessions(t *testing.T) {
	s := newService(t, nil)
	for range mostSessions {
		if _, err := s.begin(""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.begin(""); err == nil {
		t.Error("there is no end to sessions")
	}
	for _, one := range s.sessions {
		one.expires = time.Now().Add(-time.Second)
	}
	if _, err := s.begin(""); err != nil || len(s.sessions) != 1 {
		t.Errorf("with all expired: %v, %d are left", err, len(s.sessions))
	}
}
