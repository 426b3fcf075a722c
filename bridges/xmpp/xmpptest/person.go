package xmpptest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"mellium.im/sasl"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
)

// Person is somebody on the server.
type Person struct {
	JID     string // of the account
	t       *testing.T
	session *xmpp.Session
	writing sync.Mutex

	mu   sync.Mutex // tier 1; guards what follows
	seen []Stanza
}

// Stanza is a stanza as a client reads it.
type Stanza struct {
	XMLName xml.Name
	From    string `xml:"from,attr"`
	To      string `xml:"to,attr"`
	ID      string `xml:"id,attr"`
	Type    string `xml:"type,attr"`

	Body     string `xml:"body"`
	Subject  string `xml:"subject"`
	StanzaID struct {
		ID string `xml:"id,attr"`
		By string `xml:"by,attr"`
	} `xml:"urn:xmpp:sid:0 stanza-id"`
	URL     string `xml:"jabber:x:oob x>url"`
	Replace struct {
		ID string `xml:"id,attr"`
	} `xml:"urn:xmpp:message-correct:0 replace"`
	Reply struct {
		ID string `xml:"id,attr"`
		To string `xml:"to,attr"`
	} `xml:"urn:xmpp:reply:0 reply"`
	Fallback []struct {
		For  string `xml:"for,attr"`
		Body *struct {
			Start int `xml:"start,attr"`
			End   int `xml:"end,attr"`
		} `xml:"body"`
	} `xml:"urn:xmpp:fallback:0 fallback"`
	Reactions *struct {
		ID   string   `xml:"id,attr"`
		List []string `xml:"reaction"`
	} `xml:"urn:xmpp:reactions:0 reactions"`
	Retract *struct {
		ID string `xml:"id,attr"`
	} `xml:"urn:xmpp:message-retract:1 retract"`
	Displayed *struct {
		ID string `xml:"id,attr"`
	} `xml:"urn:xmpp:chat-markers:0 displayed"`
	Received *struct {
		ID string `xml:"id,attr"`
	} `xml:"urn:xmpp:receipts received"`
	Composing *struct{} `xml:"http://jabber.org/protocol/chatstates composing"`
	Slot      struct {
		Put struct {
			URL     string `xml:"url,attr"`
			Headers []struct {
				Name  string `xml:"name,attr"`
				Value string `xml:",chardata"`
			} `xml:"header"`
		} `xml:"put"`
		Get struct {
			URL string `xml:"url,attr"`
		} `xml:"get"`
	} `xml:"urn:xmpp:http:upload:0 slot"`
	Moderated *struct {
		ID string `xml:"id,attr"`
	} `xml:"urn:xmpp:fasten:0 apply-to"`
	Room *struct {
		Status []struct {
			Code string `xml:"code,attr"`
		} `xml:"status"`
		Item struct {
			Affiliation string `xml:"affiliation,attr"`
			Role        string `xml:"role,attr"`
			Nick        string `xml:"nick,attr"`
			Reason      string `xml:"reason"`
		} `xml:"item"`
		Invite *struct {
			Reason string `xml:"reason"`
		} `xml:"invite"`
	} `xml:"http://jabber.org/protocol/muc#user x"`
	Conference []struct {
		JID      string `xml:"jid,attr"`
		AutoJoin string `xml:"autojoin,attr"`
	} `xml:"jabber:iq:private query>storage>conference"`
}

// Person logs somebody in until the server's test ends.
func (s *Server) Person(name string) *Person {
	t := s.t
	t.Helper()
	account := s.Account(name)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	text, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	conn, err := net.Dial("tcp", s.Address)
	if err != nil {
		t.Fatal(err)
	}
	session, err := xmpp.NewClientSession(ctx, jid.MustParse(account), conn,
		xmpp.StartTLS(&tls.Config{ServerName: Domain, RootCAs: roots, MinVersion: tls.VersionTLS12}),
		xmpp.SASL("", Password, sasl.ScramSha256, sasl.ScramSha1, sasl.Plain), xmpp.BindResource())
	if err != nil {
		t.Fatalf("%s can not log in: %v", account, err)
	}
	p := &Person{JID: account, t: t, session: session}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.read()
	}()
	t.Cleanup(func() {
		_ = session.Close()
		_ = conn.Close()
		<-done
	})
	p.Send(`<presence/>`)
	return p
}

func (p *Person) read() {
	r := p.session.TokenReader()
	defer r.Close()
	d := xml.NewTokenDecoder(r)
	for {
		t, err := d.Token()
		if err != nil {
			return
		}
		start, ok := t.(xml.StartElement)
		if !ok {
			continue
		}
		var s Stanza
		if err := d.DecodeElement(&s, &start); err != nil {
			return
		}
		if s.XMLName.Local == "iq" && s.Type == "get" { // a client must answer
			p.Send(`<iq type="error" id="%s" to="%s"><error type="cancel"><service-unavailable xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`, s.ID, s.From)
		}
		p.mu.Lock()
		p.seen = append(p.seen, s)
		p.mu.Unlock()
	}
}

// Send writes XML; the arguments are escaped.
func (p *Person) Send(format string, args ...string) {
	escaped := make([]any, len(args))
	for i, a := range args {
		var b bytes.Buffer
		_ = xml.EscapeText(&b, []byte(a))
		escaped[i] = b.String()
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	_, _ = fmt.Fprintf(p.session.Conn(), format, escaped...) // a broken connection shows in what does not come
}

// Stanzas is everything that has come so far.
func (p *Person) Stanzas() []Stanza {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Stanza(nil), p.seen...)
}

// patience is how long something may take that must happen.
const patience = 2 * time.Minute

// Await waits for a stanza.
func (p *Person) Await(what string, match func(Stanza) bool) Stanza {
	p.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, s := range p.Stanzas() {
			if match(s) {
				return s
			}
		}
	}
	for _, s := range p.Stanzas() {
		p.t.Logf("%s saw %s from %s type %q: %q", p.JID, s.XMLName.Local, s.From, s.Type, s.Body)
	}
	p.t.Fatalf("%s waited in vain: %s", p.JID, what)
	return Stanza{}
}

// Enter goes into a room.
func (p *Person) Enter(room, nick string) {
	p.t.Helper()
	p.Send(`<presence to="%s/%s"><x xmlns="http://jabber.org/protocol/muc"><history maxstanzas="0"/></x></presence>`, room, nick)
	p.Await("to be in "+room, func(s Stanza) bool {
		return s.XMLName.Local == "presence" && s.From == room+"/"+nick && s.Room != nil && s.Type == ""
	})
}

// Upload puts a file on the server and returns its address.
func (p *Person) Upload(name, mimeType string, data []byte) string {
	p.t.Helper()
	id := fmt.Sprintf("upload-%d", time.Now().UnixNano())
	p.Send(`<iq type="get" id="%s" to="`+Upload+`"><request xmlns="urn:xmpp:http:upload:0" filename="%s" size="%s" content-type="%s"/></iq>`,
		id, name, fmt.Sprint(len(data)), mimeType)
	s := p.Await("a place for a file", func(s Stanza) bool { return s.ID == id })
	r, err := http.NewRequest(http.MethodPut, s.Slot.Put.URL, bytes.NewReader(data))
	if err != nil {
		p.t.Fatalf("%v: %q", err, s.Slot.Put.URL)
	}
	r.Header.Set("Content-Type", mimeType)
	for _, h := range s.Slot.Put.Headers {
		r.Header.Set(h.Name, h.Value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		p.t.Fatalf("upload: %s", resp.Status)
	}
	http.DefaultClient.CloseIdleConnections()
	return s.Slot.Get.URL
}

// Fetch gets a file.
func (p *Person) Fetch(address string) []byte {
	p.t.Helper()
	resp, err := http.Get(address) //nolint:gosec // of the test's own server
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %s %v", address, resp.Status, err)
	}
	http.DefaultClient.CloseIdleConnections()
	return data
}

// Text is the body without what is only for clients that know no replies.
func (s Stanza) Text() string {
	for _, f := range s.Fallback {
		if f.Body != nil {
			runes := []rune(s.Body)
			if f.Body.End <= len(runes) {
				return string(runes[f.Body.End:])
			}
		}
	}
	return strings.TrimSpace(s.Body)
}
