package jitsi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Finding is one thing that a check found out.
type Finding struct {
	Well   bool
	Text   string // what is
	Advice string // what to do; "" if nothing need be done
}

// String is the finding in a line, or two.
func (f Finding) String() string {
	sign := "ok    "
	if !f.Well {
		sign = "wrong "
	}
	if f.Advice != "" {
		return sign + f.Text + "\n      " + f.Advice
	}
	return sign + f.Text
}

// Checker looks at a Jitsi server as a client does.
type Checker struct {
	Config Config
	HTTP   *http.Client

	// Verifier is the one that Jitsi asks. Nil leaves out whether Jitsi lets
	// members in, because this process is not the one that Jitsi asks.
	Verifier *Verifier

	// PublicURL is the address of the homeserver, as Jitsi should have it.
	PublicURL string

	// TURN is the host of our TURN server, and Secrets are those by which Jitsi
	// may make credentials for it. "" means that we have none.
	TURN    string
	Secrets []string
}

// oldest is the first version of Jitsi's web pages, that of the Docker images
// stable-7882, whose Prosody can load the module that asks the homeserver.
const oldest = 6644

// findings are gathered one after the other.
type findings []Finding

func (f *findings) well(format string, args ...any) {
	*f = append(*f, Finding{Well: true, Text: fmt.Sprintf(format, args...)})
}

func (f *findings) bad(advice, format string, args ...any) {
	*f = append(*f, Finding{Text: fmt.Sprintf(format, args...), Advice: advice})
}

// Run looks whether the Jitsi server answers, is new enough, asks for the
// authentication of members, and lets in members and nobody else.
func (c *Checker) Run(ctx context.Context) []Finding {
	var f findings
	if c.Config.Domain == "" {
		f.bad("set jitsi.domain in the configuration", "no Jitsi server is configured")
		return f
	}
	if c.page(ctx, &f) {
		domain := c.hosts(ctx, &f)
		c.announced(ctx, &f)
		c.doors(ctx, &f, domain)
	}
	return f
}

// get reads a file of the Jitsi server.
func (c *Checker) get(ctx context.Context, path string) ([]byte, http.Header, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.Config.Domain+path, nil)
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Origin", "https://app.element.io")
	return fetch(c.HTTP, r)
}

var bundle = regexp.MustCompile(`libs/app\.bundle\.min\.js\?v=(\d+)`)

// page looks at the start page, and tells whether going on has any sense.
func (c *Checker) page(ctx context.Context, f *findings) bool {
	body, _, err := c.get(ctx, "/")
	if err != nil {
		f.bad("Browsers must reach it there, with a certificate that they trust.", "https://%s/ does not answer: %v", c.Config.Domain, err)
		return false
	}
	found := bundle.FindSubmatch(body)
	if found == nil {
		f.bad("jitsi.domain must be the host of Jitsi Meet itself.", "https://%s/ is not the start page of Jitsi Meet", c.Config.Domain)
		return false
	}
	version, _ := strconv.Atoi(string(found[1])) // digits; more of them than fit are new enough, or nonsense
	if version < oldest {
		f.bad("Take the Docker images stable-7882 or newer: the Prosody of older ones cannot ask this server.", "https://%s/ is Jitsi Meet %d, which is too old", c.Config.Domain, version)
	} else {
		f.well("https://%s/ is Jitsi Meet %d", c.Config.Domain, version)
	}
	return true
}

var xmppDomain = regexp.MustCompile(`(?m)(?:config\.hosts\.domain\s*=|^\s*domain:)\s*['"]([^'"]+)['"]`)

// hosts finds the domain of Prosody's virtual host in Jitsi's configuration.
func (c *Checker) hosts(ctx context.Context, f *findings) string {
	body, _, err := c.get(ctx, "/config.js")
	if err != nil {
		f.bad("Clients read it before they join.", "config.js cannot be read: %v", err)
		return c.Config.Domain
	}
	if found := xmppDomain.FindSubmatch(body); found != nil {
		return string(found[1])
	}
	return c.Config.Domain
}

// announced looks whether clients are told to bring a proof.
func (c *Checker) announced(ctx context.Context, f *findings) {
	const advice = "Put deploy/jitsi/well-known there, or let the proxy of the Jitsi server send this path to the homeserver."
	body, header, err := c.get(ctx, WellKnownPath)
	var answer struct {
		Auth string `json:"auth"`
	}
	switch {
	case err != nil:
		f.bad(advice, "clients are not told to prove that they are in the room: %v", err)
	case json.Unmarshal(body, &answer) != nil || answer.Auth != Authentication:
		f.bad(advice, "%s does not say that clients prove by %s that they are in the room", WellKnownPath, Authentication)
	case header.Get("Access-Control-Allow-Origin") == "":
		f.bad("Send the header Access-Control-Allow-Origin: * with it.", "clients in browsers may not read %s", WellKnownPath)
	default:
		f.well("clients are told to prove that they are in the room")
	}
}

// door is an attempt to join.
type door struct {
	who, advice string
	room, token string
}

// doors tries who is let in.
func (c *Checker) doors(ctx context.Context, f *findings, domain string) {
	const authAdvice = "Set ENABLE_AUTH=1, ENABLE_GUESTS=0 and AUTH_TYPE=matrix at the Jitsi server."
	p, end := (&probes{}).begin("check.invalid")
	if c.Verifier != nil {
		p, end = c.Verifier.probes.begin(c.Verifier.ServerName)
	}
	defer end()
	forged, room := p.Credential, Conference(p.Room)
	forged.Token += "x"
	for _, d := range []door{
		{"somebody without a token", authAdvice, room, ""},
		{"somebody with a forged token", authAdvice, room, forged.JWT(c.Config.Domain)},
		{"a member of another room", authAdvice, Conference(p.Room + "x"), p.JWT(c.Config.Domain)},
	} {
		if !c.closed(ctx, f, domain, d) {
			return
		}
	}
	if c.Verifier == nil {
		f.bad("Start the server and check again.", "whether Jitsi lets members in can only be checked while the server runs")
		return
	}
	c.open(ctx, f, domain, p)
}

// bosh prepares a session in a room of the Jitsi server, whose clients write the
// names of rooms in small letters.
func (c *Checker) bosh(domain, room, token string) *bosh {
	return newBosh(c.HTTP, &url.URL{Scheme: "https", Host: c.Config.Domain}, domain, strings.ToLower(room), token)
}

// closed tries a door that must be shut. False: trying others has no sense.
func (c *Checker) closed(ctx context.Context, f *findings, domain string, d door) bool {
	b := c.bosh(domain, d.room, d.token)
	defer b.leave(ctx)
	var refused *refusal
	switch err := b.join(ctx); {
	case err == nil:
		f.bad(d.advice, "%s is let in", d.who)
	case errors.As(err, &refused):
		f.well("%s is refused", d.who)
	default:
		f.bad("Look into the log of Jitsi's web and prosody containers.", "Prosody does not answer at https://%s/http-bind: %v", c.Config.Domain, err)
		return false
	}
	return true
}

// open tries the door that must let a member in, and asks which relays members
// get.
func (c *Checker) open(ctx context.Context, f *findings, domain string, p *probe) {
	b := c.bosh(domain, Conference(p.Room), p.JWT(c.Config.Domain))
	defer b.leave(ctx)
	if err := b.join(ctx); err != nil {
		var known probe
		c.Verifier.probes.note(p.Token, func(p *probe) { known = *p })
		advice := "Set MATRIX_UVS_URL=" + c.PublicURL + Path + " at the Jitsi server, and see that its containers reach that address: it did not ask this server."
		switch {
		case known.unauthorized:
			advice = "Set MATRIX_UVS_AUTH_TOKEN at the Jitsi server to what jitsi.token is here: it showed another one."
		case known.asked:
			advice = "It asked this server and was told that the user is a member, so the reason is in the log of Jitsi's prosody container."
		}
		f.bad(advice, "a member is not let in: %v", err)
		return
	}
	f.well("a member is let in")
	c.relays(ctx, f, b)
}

// relays looks at the TURN servers that somebody gets who was let in.
func (c *Checker) relays(ctx context.Context, f *findings, b *bosh) {
	list, err := b.relays(ctx)
	var names []string
	for _, r := range list {
		if !strings.HasPrefix(r.kind, "turn") {
			continue
		}
		names = append(names, r.String())
		if r.host == c.TURN && !r.signed(c.Secrets) {
			f.bad("Set TURN_CREDENTIALS at the Jitsi server to one of voip.turn.shared_secrets here.", "our TURN server refuses those whom Jitsi sends to %s", r)
			return
		}
	}
	switch {
	case err != nil:
		f.bad("Look into the log of Jitsi's prosody container.", "which TURN servers members get cannot be found out: %v", err)
	case len(names) == 0:
		f.bad("Set TURN_HOST, TURNS_HOST and TURN_CREDENTIALS at the Jitsi server: without them some networks carry no calls.", "members get no TURN server")
	default:
		f.well("members get %s", strings.Join(names, ", "))
	}
}
