package jitsi

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// bosh is a session with Jitsi's Prosody over HTTP, as browsers have it
// (XEP-0124, XEP-0206), as far as joining goes.
type bosh struct {
	http *http.Client
	url  string // with the room and the token
	to   string // domain of Prosody's virtual host
	sid  string
	rid  int64
}

// Namespaces of the protocol.
const (
	nsSASL  = "urn:ietf:params:xml:ns:xmpp-sasl"
	nsBind  = "urn:ietf:params:xml:ns:xmpp-bind"
	nsExtra = "urn:xmpp:extdisco:2"
)

// element is any XML element.
type element struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Text     string     `xml:",chardata"`
	Children []*element `xml:",any"`
}

// attr is an attribute; absent is "".
func (e *element) attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// find is the first element below e with a name, in any depth; nil if there is
// none.
func (e *element) find(name string) *element {
	for _, c := range e.Children {
		if c.XMLName.Local == name {
			return c
		}
		if f := c.find(name); f != nil {
			return f
		}
	}
	return nil
}

// refusal is Prosody's answer to somebody who may not join.
type refusal struct{ condition, text string }

// Error implements error.
func (r *refusal) Error() string { return strings.TrimSpace(r.condition + " " + r.text) }

// exchange sends what belongs into a body, with more attributes for it, and
// waits for the answer.
func (b *bosh) exchange(ctx context.Context, attrs, content string) (*element, error) {
	b.rid++
	session := fmt.Sprintf(` sid=%q`, b.sid)
	if b.sid == "" {
		session = ""
	}
	text := fmt.Sprintf(`<body xmlns="http://jabber.org/protocol/httpbind" xmlns:xmpp="urn:xmpp:xbosh" rid="%d"%s%s>%s</body>`, b.rid, session, attrs, content)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url, strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	answer, _, err := fetch(b.http, r)
	if err != nil {
		return nil, err
	}
	var body element
	if err := xml.NewDecoder(bytes.NewReader(answer)).Decode(&body); err != nil || body.XMLName.Local != "body" {
		return nil, errors.New("the answer is no XMPP over HTTP")
	}
	if body.attr("type") == "terminate" {
		return nil, fmt.Errorf("the session was ended: %s", body.attr("condition"))
	}
	return &body, nil
}

// await is exchange for an answer that holds an element with one of some names.
func (b *bosh) await(ctx context.Context, attrs, content string, names ...string) (*element, error) {
	for range 3 { // what is late comes in answer to an empty body
		body, err := b.exchange(ctx, attrs, content)
		if err != nil {
			return nil, err
		}
		if sid := body.attr("sid"); sid != "" {
			b.sid = sid
		}
		for _, name := range names {
			if e := body.find(name); e != nil {
				return e, nil
			}
		}
		attrs, content = "", ""
	}
	return nil, fmt.Errorf("no answer to the request for %s", names[0])
}

// join opens a session as a browser does that opens a call. The error is a
// *refusal if Prosody does not let it in.
func (b *bosh) join(ctx context.Context) error {
	b.rid = rand.Int64N(1 << 40)
	opening := fmt.Sprintf(` to=%q xml:lang="en" wait="20" hold="1" ver="1.6" xmpp:version="1.0" content="text/xml; charset=utf-8"`, b.to)
	offer, err := b.await(ctx, opening, "", "mechanisms")
	if err != nil {
		return err
	}
	anonymous := false
	for _, m := range offer.Children {
		anonymous = anonymous || m.Text == "ANONYMOUS"
	}
	if !anonymous {
		return &refusal{"Prosody asks for a name and a password", ""}
	}
	answer, err := b.await(ctx, "", fmt.Sprintf(`<auth xmlns=%q mechanism="ANONYMOUS"/>`, nsSASL), "success", "failure")
	if err != nil {
		return err
	}
	if answer.XMLName.Local == "success" {
		return nil
	}
	var r refusal
	for _, c := range answer.Children {
		if c.XMLName.Local == "text" {
			r.text = c.Text
		} else {
			r.condition = c.XMLName.Local
		}
	}
	return &r
}

// relay is a STUN or TURN server that Jitsi gives to those who join.
type relay struct {
	kind, host, port, transport string
	username, password          string
}

// String is the address of a relay, such as turn:turn.example.org:3478?transport=udp.
func (r relay) String() string {
	s := r.kind + ":" + r.host
	if r.port != "" {
		s += ":" + r.port
	}
	if r.transport != "" {
		s += "?transport=" + r.transport
	}
	return s
}

// signed tells whether its password is the one that one of the secrets makes of
// its user name, as TURN servers have it that share a secret with Jitsi.
func (r relay) signed(secrets []string) bool {
	return slices.ContainsFunc(secrets, func(secret string) bool {
		mac := hmac.New(sha1.New, []byte(secret))
		mac.Write([]byte(r.username))
		return r.password == base64.StdEncoding.EncodeToString(mac.Sum(nil))
	})
}

// relays asks for them (XEP-0215), in a session that has joined.
func (b *bosh) relays(ctx context.Context) ([]relay, error) {
	if _, err := b.await(ctx, fmt.Sprintf(` to=%q xmpp:restart="true"`, b.to), "", "features"); err != nil {
		return nil, err
	}
	if _, err := b.await(ctx, "", fmt.Sprintf(`<iq xmlns="jabber:client" type="set" id="bind"><bind xmlns=%q/></iq>`, nsBind), "iq"); err != nil {
		return nil, err
	}
	answer, err := b.await(ctx, "", fmt.Sprintf(`<iq xmlns="jabber:client" type="get" id="relays" to=%q><services xmlns=%q/></iq>`, b.to, nsExtra), "iq")
	if err != nil {
		return nil, err
	}
	var list []relay
	if services := answer.find("services"); services != nil {
		for _, s := range services.Children {
			list = append(list, relay{s.attr("type"), s.attr("host"), s.attr("port"), s.attr("transport"), s.attr("username"), s.attr("password")})
		}
	}
	return list, nil
}

// leave ends the session. Nobody waits for the answer.
func (b *bosh) leave(ctx context.Context) {
	if b.sid != "" {
		b.exchange(ctx, ` type="terminate"`, "") // Prosody ends it in time, too
	}
}

// newBosh prepares a session at a Jitsi server for a room, with a token or "".
func newBosh(client *http.Client, at *url.URL, domain, room, token string) *bosh {
	query := url.Values{"room": {room}}
	if token != "" {
		query.Set("token", token)
	}
	u := *at
	u.Path, u.RawQuery = "/http-bind", query.Encode()
	return &bosh{http: client, url: u.String(), to: domain}
}
