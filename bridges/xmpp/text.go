package xmpp

import (
	"context"
	"html"
	"strings"
	"unicode"
	"unicode/utf8"

	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/format"
	"maunium.net/go/mautrix/id"
	"mellium.im/xmpp/jid"
)

// around puts a sign of XEP-0393 on both sides of a text. Blanks stay outside of
// it, because a sign is none there.
func around(sign string) format.TextConverter {
	return func(text string, _ format.Context) string {
		inner := strings.TrimSpace(text)
		if inner == "" || strings.Contains(inner, "\n") {
			return text
		}
		begin := strings.Index(text, inner)
		return text[:begin] + sign + inner + sign + text[begin+len(inner):]
	}
}

// toXMPP turns Matrix HTML into message styling (XEP-0393). Mention returns how
// a Matrix user is called, or nothing.
func toXMPP(ctx context.Context, formatted string, mention func(id.UserID) string) string {
	parser := &format.HTMLParser{
		TabsToSpaces: 4, Newline: "\n", HorizontalLine: "\n---\n",
		BoldConverter: around("*"), ItalicConverter: around("_"), StrikethroughConverter: around("~"), MonospaceConverter: around("`"),
		MonospaceBlockConverter: func(code, _ string, _ format.Context) string { return "```\n" + strings.Trim(code, "\n") + "\n```" },
		UnderlineConverter:      func(text string, _ format.Context) string { return text },
		LinkConverter: func(text, href string, _ format.Context) string {
			if text == href || strings.TrimPrefix(strings.TrimPrefix(href, "https://"), "http://") == text || strings.TrimPrefix(href, "mailto:") == text {
				return text
			}
			return text + " (" + href + ")"
		},
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

// textOf is the text of a Matrix message for a chat.
func (s *session) textOf(ctx context.Context, chat jid.JID, content *event.MessageEventContent) string {
	text := content.Body
	if content.Format == event.FormatHTML && content.FormattedBody != "" {
		text = toXMPP(ctx, content.FormattedBody, func(user id.UserID) string { return s.called(chat, user) })
	}
	if content.MsgType == event.MsgLocation && content.GeoURI != "" {
		text = strings.TrimSpace(text + " " + content.GeoURI)
	}
	if content.MsgType == event.MsgEmote {
		text = "/me " + text
	}
	return text
}

// marks are the signs of XEP-0393, with the elements for them.
var marks = map[byte]string{'*': "strong", '_': "em", '~': "del", '`': "code"}

// toHTML turns message styling into HTML. It returns nothing for a text that has
// none.
func toHTML(text string) string {
	out := blocks(strings.Split(text, "\n"), 0)
	if out == strings.ReplaceAll(html.EscapeString(text), "\n", "<br>") {
		return ""
	}
	return out
}

// maxQuotes bounds how deep quotations nest.
const maxQuotes = 8

// blocks formats lines: code, quotations and the rest.
func blocks(lines []string, depth int) string {
	var b strings.Builder
	after := true // at the beginning, or behind a block
	for i := 0; i < len(lines); {
		line := lines[i]
		if strings.HasPrefix(line, "```") {
			end := i + 1
			for end < len(lines) && lines[end] != "```" {
				end++
			}
			b.WriteString("<pre><code>" + html.EscapeString(strings.Join(lines[i+1:min(end, len(lines))], "\n")) + "</code></pre>")
			i, after = end+1, true
			continue
		}
		if strings.HasPrefix(line, ">") && depth < maxQuotes {
			var quoted []string
			for ; i < len(lines) && strings.HasPrefix(lines[i], ">"); i++ {
				quoted = append(quoted, strings.TrimPrefix(lines[i][1:], " "))
			}
			b.WriteString("<blockquote>" + blocks(quoted, depth+1) + "</blockquote>")
			after = true
			continue
		}
		if !after {
			b.WriteString("<br>")
		}
		b.WriteString(inline(line, 0))
		after = false
		i++
	}
	return b.String()
}

// inline formats the inside of a line. A sign opens at the beginning, behind a
// blank or behind another sign, and never before a blank; it closes behind
// anything but a blank.
func inline(line string, depth int) string {
	var b strings.Builder
	for i := 0; i < len(line); {
		tag, is := marks[line[i]]
		if is && depth < maxQuotes && opens(line, i) {
			if end := closing(line, i); end > 0 {
				inside := html.EscapeString(line[i+1 : end])
				if tag != "code" {
					inside = inline(line[i+1:end], depth+1)
				}
				b.WriteString("<" + tag + ">" + inside + "</" + tag + ">")
				i = end + 1
				continue
			}
		}
		_, size := utf8.DecodeRuneInString(line[i:])
		b.WriteString(html.EscapeString(line[i : i+size]))
		i += size
	}
	return b.String()
}

func opens(s string, i int) bool {
	before, _ := utf8.DecodeLastRuneInString(s[:i])
	after, _ := utf8.DecodeRuneInString(s[i+1:])
	_, sign := marks[s[max(i-1, 0)]]
	return (i == 0 || unicode.IsSpace(before) || sign && s[i-1] != s[i]) && i+1 < len(s) && !unicode.IsSpace(after)
}

// closing returns where the sign at i is closed, or -1.
func closing(s string, i int) int {
	for j := i + 2; j < len(s); j++ {
		before, _ := utf8.DecodeLastRuneInString(s[:j])
		if s[j] == s[i] && !unicode.IsSpace(before) {
			return j
		}
	}
	return -1
}

// content is a text of XMPP as a Matrix message.
func (s *session) content(chat jid.JID, text string) *event.MessageEventContent {
	c := &event.MessageEventContent{MsgType: event.MsgText, Mentions: &event.Mentions{}}
	if rest, ok := strings.CutPrefix(text, "/me "); ok {
		c.MsgType, text = event.MsgEmote, rest
	}
	c.Body = text
	if formatted := toHTML(text); formatted != "" {
		c.Format, c.FormattedBody = event.FormatHTML, formatted
	}
	c.Mentions.UserIDs = s.mentioned(chat, text)
	return c
}

// hasWord reports whether a word stands in a text by itself.
func hasWord(text, word string) bool {
	letter := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
	text, word = strings.ToLower(text), strings.ToLower(word)
	for from := 0; ; {
		i := strings.Index(text[from:], word)
		if i < 0 {
			return false
		}
		i += from
		before, _ := utf8.DecodeLastRuneInString(text[:i])
		after, _ := utf8.DecodeRuneInString(text[i+len(word):])
		if !letter(before) && !letter(after) {
			return true
		}
		from = i + len(word)
	}
}

// replyTo is the message that another one answers, or nil.
func replyTo(chat jid.JID, id string) *networkid.MessageOptionalPartID {
	if id == "" {
		return nil
	}
	return &networkid.MessageOptionalPartID{MessageID: messageID(chat, id)}
}
