package client

import (
	"strconv"
	"unicode/utf8"

	"mellium.im/xmpp/jid"
)

// Post is a message to be written.
type Post struct {
	To       jid.JID
	Group    bool   // into the room To
	ID       string // of the message
	Body     string
	URL      string // of a file; Body is then the same
	Quote    string // before Body, for clients that know no replies
	ReplyTo  string // the message that is answered
	Author   jid.JID
	Replaces string
}

// Element is the message as XML.
func (p Post) Element() *Element {
	e := p.envelope()
	e.Add(El(nsClient, "body", p.Quote+p.Body), El(nsStates, "active"), El(nsMarkers, "markable"))
	if !p.Group {
		e.Add(El(nsReceipts, "request"))
	}
	if p.URL != "" {
		e.Add(El(nsOOB, "x", El("", "url", p.URL)))
	}
	if p.Replaces != "" {
		e.Add(El(nsCorrect, "replace").Set("id", p.Replaces))
	}
	if p.ReplyTo != "" {
		e.Add(El(nsReply, "reply").Set("id", p.ReplyTo, "to", p.Author.String()))
		if p.Quote != "" {
			body := El("", "body").Set("start", "0", "end", strconv.Itoa(utf8.RuneCountInString(p.Quote)))
			e.Add(El(nsFallback, "fallback", body).Set("for", nsReply))
		}
	}
	return e
}

// envelope is a message without content.
func (p Post) envelope() *Element {
	kind := "chat"
	if p.Group {
		kind = "groupchat"
	}
	return El(nsClient, "message", El(nsIDs, "origin-id").Set("id", p.ID)).Set("to", p.To.String(), "type", kind, "id", p.ID)
}

// Reaction sets all our reactions to a message (XEP-0444).
func (p Post) Reaction(target string, emojis []string) *Element {
	r := El(nsReact, "reactions").Set("id", target)
	for _, emoji := range emojis {
		r.Add(El("", "reaction", emoji))
	}
	return p.envelope().Add(r, El(nsHints, "store"))
}

// Retraction takes a message back (XEP-0424).
func (p Post) Retraction(target string) *Element {
	return p.envelope().Add(
		El(nsRetract, "retract").Set("id", target), El(nsFallback, "fallback").Set("for", nsRetract),
		El(nsClient, "body", "This person attempted to retract a previous message, but it's unsupported by your client."), El(nsHints, "store"))
}

// Moderation asks a room to retract the message of somebody else (XEP-0425), in
// the form that the room knows.
func (i RoomInfo) Moderation(target, reason string) *Element {
	space, form := nsModerate, El(nsModerate, "moderate", El(nsRetract, "retract")).Set("id", target)
	out := form
	if !i.Moderates && i.Moderated0 {
		space, form = nsModerate0, El(nsModerate0, "moderate", El(nsRetract0, "retract"))
		out = El(nsFasten, "apply-to", form).Set("id", target)
	}
	if reason != "" {
		form.Add(El(space, "reason", reason))
	}
	return out
}

// Displayed says that everything up to a message was read (XEP-0333).
func (p Post) Displayed(target string) *Element {
	return p.envelope().Add(El(nsMarkers, "displayed").Set("id", target), El(nsHints, "store"))
}

// Received says that a message has arrived (XEP-0184).
func (p Post) Received(target string) *Element {
	return p.envelope().Add(El(nsReceipts, "received").Set("id", target), El(nsHints, "store"))
}

// State is a chat state (XEP-0085): composing or paused.
func (p Post) State(state string) *Element {
	return p.envelope().Add(El(nsStates, state), El(nsHints, "no-store"))
}

// Subject changes what a room is about.
func (p Post) Subject(text string) *Element {
	return El(nsClient, "message", El(nsClient, "subject", text)).Set("to", p.To.String(), "type", "groupchat", "id", p.ID)
}
