package push

import (
	_ "embed"
	"encoding/json"
	"fmt"
	html "html/template"
	"net/url"
	"strings"
	text "text/template"
	"time"
	"unicode"

	"switchboard/homeserver/event"
	"switchboard/homeserver/mail"
	"switchboard/homeserver/matrix"
)

// The bounds of what one e-mail says.
const (
	mostRooms    = 20
	mostMessages = 10  // of a room; the newest
	longestName  = 100 // characters, of rooms and people
	longestBody  = 500 // characters
)

// digest is what an e-mail says. Other people have written names and bodies, so
// that these are text and nothing else.
type digest struct {
	Server, User string
	Rooms        []shownRoom
	MoreRooms    int // that are not listed
	Count        int // messages in all
	Unsubscribe  string
}

type shownRoom struct {
	Name, Link string
	More       int // messages before the first of Messages
	Messages   []shownMessage
}

type shownMessage struct {
	Sender string
	Does   string // "sent an image"; "" for who says something
	Says   string
	Link   string
	Time   time.Time
}

// Indented is what somebody says so that it cannot pass as a line of the e-mail.
func (m shownMessage) Indented() string { return strings.ReplaceAll(m.Says, "\n", "\n    ") }

var (
	//go:embed digest.txt
	digestText string
	//go:embed digest.html
	digestHTML string

	textDigest = text.Must(text.New("digest.txt").Parse(digestText))
	htmlDigest = html.Must(html.New("digest.html").Parse(digestHTML))
)

// Subject is the subject of the e-mail.
func (d *digest) Subject() string {
	what := fmt.Sprintf("%d unread messages", d.Count)
	if d.Count == 1 {
		what = "A message from " + d.Rooms[0].Messages[0].Sender
		if d.Rooms[0].Messages[0].Does == "invites you" {
			what = "An invitation from " + d.Rooms[0].Messages[0].Sender
		}
	}
	if len(d.Rooms) == 1 && d.MoreRooms == 0 && !strings.HasSuffix(what, d.Rooms[0].Name) {
		what += " in " + d.Rooms[0].Name
	} else if n := len(d.Rooms) + d.MoreRooms; n > 1 {
		what += fmt.Sprintf(" in %d rooms", n)
	}
	return "[" + d.Server + "] " + what
}

// message writes the e-mail.
func (d *digest) message() (mail.Message, error) {
	var plain, rich strings.Builder
	if err := textDigest.Execute(&plain, d); err != nil {
		return mail.Message{}, fmt.Errorf("digest: %w", err)
	}
	if err := htmlDigest.Execute(&rich, d); err != nil {
		return mail.Message{}, fmt.Errorf("digest: %w", err)
	}
	return mail.Message{Subject: d.Subject(), Text: plain.String(), HTML: rich.String()}, nil
}

// link leads to a room, or to an event of it, in the client that the operator
// has set or at matrix.to.
func (m *Mail) link(room matrix.RoomID, id matrix.EventID) string {
	path := url.PathEscape(string(room))
	if id != "" {
		path += "/" + url.PathEscape(string(id))
	}
	if client := strings.TrimRight(m.Sender.Config.Client, "/"); client != "" {
		return client + "/#/room/" + path
	}
	return "https://matrix.to/#/" + path + "?via=" + url.QueryEscape(string(m.ServerName))
}

// words say what an event is: what its sender does, or the text of a message.
func words(e *event.PDU) (does, says string) {
	if e.Type != "m.room.message" {
		switch e.Type {
		case "m.room.encrypted":
			return "sent a message", "" // encrypted: nothing else is known
		case "m.sticker":
			return "sent a sticker", ""
		case "m.call.invite":
			return "calls you", ""
		}
		return "sent something new", ""
	}
	var content struct {
		Type string `json:"msgtype"`
		Body string `json:"body"`
	}
	if json.Unmarshal(e.Content, &content) != nil {
		return "sent a message", ""
	}
	body := tidy(withoutQuote(content.Body), longestBody)
	switch content.Type {
	case "m.text", "m.notice":
		return "", body
	case "m.emote":
		return strings.Join(strings.Fields(body), " "), ""
	case "m.image", "m.video", "m.audio", "m.file", "m.location":
		what := map[string]string{"m.image": "an image", "m.video": "a video", "m.audio": "a sound", "m.file": "a file", "m.location": "a place"}[content.Type]
		return "sent " + what, body
	}
	return "sent a message", body
}

// withoutQuote is a body without the quotation with which old clients begin a
// reply.
func withoutQuote(body string) string {
	rest := body
	for strings.HasPrefix(rest, "> ") {
		_, rest, _ = strings.Cut(rest, "\n")
	}
	if rest = strings.TrimSpace(rest); rest == "" {
		return body
	}
	return rest
}

// tidy is text as it may stand in an e-mail: without control characters but line
// breaks, without those that turn text around, and of a bounded length.
func tidy(s string, most int) string {
	s = strings.Map(func(c rune) rune {
		if c == '\n' {
			return c
		}
		if unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) || c == '\u2028' || c == '\u2029' {
			return -1
		}
		return c
	}, strings.ToValidUTF8(s, "�"))
	if most <= longestName { // a name
		s = strings.Join(strings.Fields(s), " ")
	}
	n := 0
	for i := range s {
		if n++; n > most {
			return s[:i] + "…"
		}
	}
	return s
}
