package client

import (
	"strconv"
	"strings"
	"time"

	"mellium.im/xmpp/jid"
)

// Message is a message with everything that clients put into one.
type Message struct {
	From, To jid.JID
	Type     string // chat, groupchat, normal, headline, error
	ID       string // as its sender named it
	Archive  string // as the archive names it: that of the room, or of the account
	Time     time.Time
	Sent     bool // by the account, from another client
	Old      bool // from an archive or the history of a room

	Body       string
	Subject    *string
	URL        string // of a file (XEP-0066)
	ReplyTo    string
	Replaces   string
	Retracts   string
	Moderated  bool // the room retracts, for a moderator
	ReactsTo   string
	Reactions  []string
	Received   string  // the message that has arrived there
	Displayed  string  // the message up to which all was read
	State      string  // composing, paused, active, inactive, gone
	Occupant   string  // the sender's ID in the room (XEP-0421)
	Account    jid.JID // of the sender, if the archive of a room tells it
	WantsEcho  bool    // a receipt is wanted
	Encryption string  // that we can not undo, by name
	Error      *StanzaError
}

// Peer is the other side of a message between two: an account, or somebody in a
// room who is written to in private.
func (m *Message) Peer() jid.JID {
	if m.Sent {
		return m.To
	}
	return m.From
}

// onMessage unpacks a message and tells it.
func (c *Client) onMessage(e *Element) {
	if result := e.Get(nsMAM, "result"); result != nil {
		c.onResult(e, result)
		return
	}
	at := time.Now()
	sent := false
	for _, kind := range []string{"sent", "received"} {
		if carbon := e.Get(nsCarbons, kind); carbon != nil {
			if !c.fromServer(e) {
				return // anybody could say so
			}
			inner, stamp := forwarded(carbon)
			if inner == nil {
				return
			}
			if !stamp.IsZero() {
				at = stamp
			}
			e, sent = inner, kind == "sent"
		}
	}
	if c.onPublished(e) || c.onInvitation(e) {
		return
	}
	if m := c.parse(e, at); m != nil {
		m.Sent = sent
		c.handle(m)
	}
}

// forwarded returns the message inside (XEP-0297), with its time.
func forwarded(e *Element) (*Element, time.Time) {
	f := e.Get(nsForward, "forwarded")
	return f.Get(nsClient, "message"), stamp(f.Get(nsDelay, "delay"))
}

func stamp(delay *Element) time.Time {
	t, err := time.Parse(time.RFC3339Nano, delay.At("stamp"))
	if err != nil {
		return time.Time{}
	}
	return t
}

// parse reads a message. It returns nil if the message has no valid sender.
func (c *Client) parse(e *Element, at time.Time) *Message {
	from := e.At("from")
	if from == "" {
		from = c.Account().String()
	}
	m := &Message{Type: e.At("type"), ID: e.At("id"), Time: at}
	var err error
	if m.From, err = jid.Parse(from); err != nil {
		return nil
	}
	if m.To, err = jid.Parse(e.At("to")); err != nil {
		m.To = c.Account()
	}
	if m.Type == "" {
		m.Type = "normal"
	}
	if m.Type == "error" {
		m.Error = stanzaError(e)
		return m
	}
	group := m.Type == "groupchat"
	by := c.Account().String()
	if group {
		by = m.From.Bare().String()
	}
	for _, s := range e.All(nsIDs, "stanza-id") {
		if s.At("by") == by { // that of anybody else says nothing
			m.Archive = s.At("id")
		}
	}
	for _, d := range e.All(nsDelay, "delay") {
		if t := stamp(d); !t.IsZero() {
			m.Time = t
			m.Old = group
		}
	}
	if o := e.Get(nsIDs, "origin-id").At("id"); o != "" && m.ID == "" {
		m.ID = o
	}
	m.Body = e.Get(nsClient, "body").Content()
	if s := e.Get(nsClient, "subject"); s != nil {
		m.Subject = &s.Text
	}
	m.meta(e, group)
	return m
}

// meta reads what surrounds the text.
func (m *Message) meta(e *Element, group bool) {
	m.URL = e.Get(nsOOB, "x").Get(nsOOB, "url").Content()
	m.Replaces = e.Get(nsCorrect, "replace").At("id")
	m.Occupant = e.Get(nsOccupant, "occupant-id").At("id")
	m.Received = e.Get(nsReceipts, "received").At("id")
	m.WantsEcho = e.Get(nsReceipts, "request") != nil && !group
	for _, name := range []string{"displayed", "acknowledged"} {
		if d := e.Get(nsMarkers, name); d != nil {
			m.Displayed = d.At("id")
		}
	}
	for _, state := range []string{"composing", "paused", "active", "inactive", "gone"} {
		if e.Get(nsStates, state) != nil {
			m.State = state
		}
	}
	if r := e.Get(nsReact, "reactions"); r != nil {
		m.ReactsTo = r.At("id")
		for _, one := range r.All(nsReact, "reaction") {
			m.Reactions = append(m.Reactions, strings.TrimSpace(one.Text))
		}
	}
	m.retraction(e)
	if r := e.Get(nsReply, "reply"); r != nil {
		m.ReplyTo = r.At("id")
	}
	for _, f := range e.All(nsFallback, "fallback") {
		if f.At("for") == nsReply && m.ReplyTo != "" {
			m.Body = withoutFallback(m.Body, f.Get(nsFallback, "body"))
		}
	}
	if enc := e.Get(nsEncrypt, "encryption"); enc != nil {
		if m.Encryption = enc.At("name"); m.Encryption == "" {
			m.Encryption = enc.At("namespace")
		}
	}
}

// retraction reads the two forms of XEP-0424, and XEP-0425.
func (m *Message) retraction(e *Element) {
	if r := e.Get(nsRetract, "retract"); r != nil {
		m.Retracts = r.At("id")
		m.Moderated = r.Get(nsModerate, "moderated") != nil
	} else if f := e.Get(nsFasten, "apply-to"); f != nil {
		moderated := f.Get(nsModerate0, "moderated")
		if f.Get(nsRetract0, "retract") != nil || moderated.Get(nsRetract0, "retract") != nil {
			m.Retracts, m.Moderated = f.At("id"), moderated != nil
		}
	}
	if m.Retracts != "" {
		m.Body = "" // what is for clients that know no retractions
	}
}

// withoutFallback cuts out the part of a text that is for clients which do not
// know what the message says besides. Positions count characters.
func withoutFallback(text string, part *Element) string {
	if part == nil || part.At("start") == "" {
		return ""
	}
	runes := []rune(text)
	start, err := strconv.Atoi(part.At("start"))
	end, err2 := strconv.Atoi(part.At("end"))
	if err != nil || err2 != nil || start < 0 || end < start || end > len(runes) {
		return text
	}
	return string(runes[:start]) + string(runes[end:])
}

// StanzaError is what the other side, or a server on the way, says to a stanza.
type StanzaError struct {
	Type      string // auth, cancel, continue, modify, wait
	Condition string // such as item-not-found
	Text      string // in the server's words; may be empty
}

// Error is the server's text, or the condition in words.
func (e *StanzaError) Error() string {
	if e.Text != "" {
		return e.Text
	}
	if text, ok := conditions[e.Condition]; ok {
		return text
	}
	return strings.ReplaceAll(e.Condition, "-", " ")
}

// conditions are those that people meet, in words.
var conditions = map[string]string{
	"service-unavailable":     "there is nobody of that name, or their server does not take messages for them",
	"item-not-found":          "that does not exist",
	"remote-server-not-found": "their server can not be found",
	"remote-server-timeout":   "their server does not answer",
	"recipient-unavailable":   "they are not there at present",
	"not-acceptable":          "you are not in that room, or it does not accept this",
	"forbidden":               "you are not allowed to do that",
	"not-allowed":             "that is not allowed here",
	"not-authorized":          "a password is needed, or the one given is wrong",
	"registration-required":   "that room is for members only",
	"conflict":                "the nick is taken",
	"resource-constraint":     "the server is busy, or a limit is reached",
	"policy-violation":        "the server's rules forbid it",
}

// stanzaError returns the error in a stanza, or nil.
func stanzaError(e *Element) *StanzaError {
	if e.At("type") != "error" {
		return nil
	}
	x := e.Get(nsClient, "error")
	out := &StanzaError{Type: x.At("type"), Condition: "undefined-condition", Text: x.Get(nsStanzas, "text").Content()}
	if x != nil {
		for _, c := range x.Children {
			if c.Space == nsStanzas && c.Local != "text" {
				out.Condition = c.Local
			}
		}
	}
	return out
}
