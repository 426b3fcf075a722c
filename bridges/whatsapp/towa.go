package whatsapp

import (
	"context"
	"slices"
	"strings"

	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/format"
	"maunium.net/go/mautrix/id"
)

// around puts a sign of WhatsApp's on both sides of a text. Blanks stay outside
// of it, because WhatsApp sees no sign there.
func around(sign string) format.TextConverter {
	return func(text string, _ format.Context) string {
		inner := strings.TrimSpace(text)
		if inner == "" {
			return text
		}
		begin := strings.Index(text, inner)
		return text[:begin] + sign + inner + sign + text[begin+len(inner):]
	}
}

// plainLinks writes a link: its text, and where it leads if that is not the same.
func plainLinks(text, href string, _ format.Context) string {
	if text == href || strings.TrimPrefix(strings.TrimPrefix(href, "https://"), "http://") == text || strings.TrimPrefix(href, "mailto:") == text {
		return text
	}
	return text + " (" + href + ")"
}

// toWhatsApp turns Matrix HTML into WhatsApp's formatting. Mention returns how a
// Matrix user is mentioned, or nothing.
func toWhatsApp(ctx context.Context, formatted string, mention func(id.UserID) string) string {
	parser := &format.HTMLParser{
		TabsToSpaces: 4, Newline: "\n", HorizontalLine: "\n---\n",
		BoldConverter: around("*"), ItalicConverter: around("_"), StrikethroughConverter: around("~"),
		MonospaceConverter:      around("`"),
		MonospaceBlockConverter: func(code, _ string, _ format.Context) string { return "```" + strings.Trim(code, "\n") + "```" },
		UnderlineConverter:      func(text string, _ format.Context) string { return text },
		LinkConverter:           plainLinks,
		PillConverter: func(name, mxid, event string, fctx format.Context) string {
			if strings.HasPrefix(mxid, "@") {
				if m := mention(id.UserID(mxid)); m != "" {
					return m
				}
			}
			return format.DefaultPillConverter(name, mxid, event, fctx)
		},
	}
	return parser.Parse(formatted, format.NewContext(ctx))
}

// textOf is the text of a Matrix message in WhatsApp's form, with the accounts
// that it mentions.
func (s *session) textOf(ctx context.Context, content *event.MessageEventContent) (text string, mentioned []string) {
	mention := func(user id.UserID) string {
		lid := s.personOf(ctx, user)
		if lid == "" {
			return ""
		}
		jid := lidOf(lid)
		if !slices.Contains(mentioned, jid.String()) {
			mentioned = append(mentioned, jid.String())
		}
		return "@" + jid.User
	}
	text = content.Body
	if content.Format == event.FormatHTML && content.FormattedBody != "" {
		text = toWhatsApp(ctx, content.FormattedBody, mention)
	}
	if content.MsgType == event.MsgEmote {
		text = "_" + text + "_"
	}
	return text, mentioned
}

// personOf is the account of a Matrix user: that of a ghost, or of somebody who
// is logged in.
func (s *session) personOf(ctx context.Context, user id.UserID) networkid.UserID {
	if ghost, is := s.connector.br.Matrix.ParseGhostMXID(user); is {
		return ghost
	}
	if user == s.login.UserMXID {
		return s.GetUserID()
	}
	u, err := s.connector.br.GetExistingUserByMXID(ctx, user)
	if err != nil || u == nil {
		return ""
	}
	for _, login := range u.GetUserLogins() {
		return networkid.UserID(login.ID)
	}
	return ""
}
