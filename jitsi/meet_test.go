package jitsi

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"switchboard/homeserver/matrix"
)

// meet is a stand-in for a Jitsi Meet server, from the pages down to Prosody
// with mod_auth_matrix_user_verification, as far as joining goes. Its knobs are
// the ways in which such servers are set up wrongly.
type meet struct {
	t        *testing.T
	domain   string // host and port
	http     *http.Client
	version  int
	uvs      *http.Client
	uvsURL   string
	secret   string // MATRIX_UVS_AUTH_TOKEN
	anybody  bool   // is let in
	files    map[string]string
	noCORS   bool
	turn     string       // host; "": none
	password string       // for it
	bind     http.Handler // Prosody; this stand-in itself where nothing else is said

	mu       sync.Mutex            // tier 1; guards sessions
	sessions map[string]url.Values // by sid: how they were begun
}

// xmppHost is the domain of the virtual host, which is not that of the pages.
const xmppHost = "meet.jitsi"

// newMeet starts a server that asks a homeserver and is set up well.
func newMeet(t *testing.T, h *host) *meet {
	t.Helper()
	m := &meet{
		t: t, version: 9139, uvs: h.http, uvsURL: h.url + Path, secret: h.verifier.Token, turn: "turn.test", password: "yjiEjTpBuDCVgVDSa1uPeMHFzYA=", sessions: map[string]url.Values{},
		files: map[string]string{
			"/config.js":  "var config = {};\nconfig.hosts = {};\nconfig.hosts.domain = '" + xmppHost + "';\n",
			WellKnownPath: `{"auth": "openidtoken-jwt"}`,
		},
	}
	m.bind = http.HandlerFunc(m.prosody)
	server := httptest.NewUnstartedServer(http.HandlerFunc(m.serve))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	m.domain, m.http = strings.TrimPrefix(server.URL, "https://"), server.Client()
	return m
}

func (m *meet) serve(w http.ResponseWriter, r *http.Request) {
	file, ok := m.files[r.URL.Path]
	switch {
	case r.URL.Path == "/http-bind":
		m.bind.ServeHTTP(w, r)
	case r.URL.Path == "/":
		fmt.Fprintf(w, `<html><script src="libs/lib-jitsi-meet.min.js?v=%[1]d"></script><script src="libs/app.bundle.min.js?v=%[1]d"></script></html>`, m.version)
	case ok:
		if !m.noCORS {
			w.Header().Set("Access-Control-Allow-Origin", "*")
		}
		io.WriteString(w, file)
	default:
		http.NotFound(w, r)
	}
}

// prosody speaks XMPP over HTTP with somebody who joins.
func (m *meet) prosody(w http.ResponseWriter, r *http.Request) {
	var body element
	if err := xml.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, "no XML", http.StatusBadRequest)
		return
	}
	m.mu.Lock()
	begun, ok := m.sessions[body.attr("sid")]
	if body.attr("sid") == "" {
		m.sessions[body.attr("rid")] = r.URL.Query()
	}
	m.mu.Unlock()
	answer := func(attrs, content string) {
		fmt.Fprintf(w, `<body xmlns="http://jabber.org/protocol/httpbind" xmlns:stream="http://etherx.jabber.org/streams"%s>%s</body>`, attrs, content)
	}
	switch iq := body.find("iq"); {
	case body.attr("sid") == "" && body.attr("to") != xmppHost, !ok && body.attr("sid") != "":
		answer(` type="terminate" condition="host-unknown"`, "")
	case body.attr("sid") == "":
		answer(fmt.Sprintf(` sid=%q`, body.attr("rid")), `<stream:features><mechanisms xmlns="`+nsSASL+`"><mechanism>ANONYMOUS</mechanism></mechanisms></stream:features>`)
	case body.attr("type") == "terminate":
		answer(` type="terminate"`, "")
	case body.find("auth") != nil:
		if reason := m.verify(begun.Get("room"), begun.Get("token")); reason != "" {
			answer("", `<failure xmlns="`+nsSASL+`"><access-denied/><text>`+reason+`</text></failure>`)
			return
		}
		answer("", `<success xmlns="`+nsSASL+`"/>`)
	case body.attr("restart") == "true":
		answer("", `<stream:features><bind xmlns="`+nsBind+`"/></stream:features>`)
	case iq.find("bind") != nil:
		answer("", `<iq xmlns="jabber:client" type="result" id="bind"><bind xmlns="`+nsBind+`"><jid>x@meet.jitsi/y</jid></bind></iq>`)
	case m.turn != "":
		answer("", `<iq xmlns="jabber:client" type="result" id="relays"><services xmlns="`+nsExtra+`"><service type="stun" host="`+m.turn+`" port="3478"/>`+
			`<service type="turns" host="`+m.turn+`" port="5349" transport="tcp" username="1795244292" password="`+m.password+`"/></services></iq>`)
	default:
		answer("", `<iq xmlns="jabber:client" type="error" id="relays"><error type="cancel"/></iq>`)
	}
}

// verify tells why somebody may not join; "" if nothing is against it.
func (m *meet) verify(conference, token string) string {
	if m.anybody {
		return ""
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "no token"
	}
	var claims struct {
		Context struct{ Matrix map[string]string }
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return "the token cannot be read"
	}
	given := claims.Context.Matrix
	room, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(conference))
	if err != nil || string(room) != given["room_id"] {
		return "Jitsi room does not match Matrix room"
	}
	question, err := json.Marshal(map[string]string{"token": given["token"], "room_id": given["room_id"], "matrix_server_name": given["server_name"]})
	if err != nil {
		m.t.Error(err)
	}
	r, err := http.NewRequest(http.MethodPost, m.uvsURL+"/verify/user_in_room", bytes.NewReader(question))
	if err != nil {
		m.t.Error(err)
		return "error"
	}
	r.Header.Set("Content-Type", "application/json")
	if m.secret != "" {
		r.Header.Set("Authorization", "Bearer "+m.secret)
	}
	resp, err := m.uvs.Do(r)
	if err != nil {
		return "the homeserver does not answer"
	}
	defer resp.Body.Close()
	var answer struct {
		Results struct {
			User   bool
			Member bool `json:"room_membership"`
		}
	}
	if resp.StatusCode != http.StatusOK || json.NewDecoder(resp.Body).Decode(&answer) != nil || !answer.Results.User || !answer.Results.Member {
		return "Token invalid or not in room"
	}
	return ""
}

// joins tries to join the call of a room as a client does, and tells whether
// that was possible.
func (m *meet) joins(room matrix.RoomID, token string) bool {
	m.t.Helper()
	b := newBosh(m.http, &url.URL{Scheme: "https", Host: m.domain}, xmppHost, strings.ToLower(Conference(room)), token)
	defer b.leave(m.t.Context())
	err := b.join(m.t.Context())
	if _, refused := err.(*refusal); err != nil && !refused {
		m.t.Fatalf("join: %v", err)
	}
	return err == nil
}
