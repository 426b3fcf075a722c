package whatsapp

import (
	"cmp"
	"context"
	"fmt"
	"html"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.mau.fi/whatsmeow/types"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge"
)

// marks are WhatsApp's signs for formatting, with the elements for them.
var marks = map[byte]string{'*': "strong", '_': "em", '~': "del", '`': "code"}

// toHTML turns WhatsApp's formatting into HTML. It returns nothing for a text
// that has none.
func toHTML(text string) string {
	var b strings.Builder
	for i, block := range strings.Split(text, "```") {
		if i%2 == 1 && strings.Count(text, "```") > i { // between two of them
			code := strings.TrimPrefix(block, "\n")
			b.WriteString("<pre><code>" + html.EscapeString(code) + "</code></pre>")
			continue
		}
		if i%2 == 1 {
			block = "```" + block
		}
		b.WriteString(blocks(block))
	}
	if out := b.String(); out != plainHTML(text) {
		return out
	}
	return ""
}

// plainHTML is the HTML of a text without formatting.
func plainHTML(text string) string {
	return strings.ReplaceAll(html.EscapeString(text), "\n", "<br>")
}

var numbered = regexp.MustCompile(`^(\d{1,3})\. (.+)$`)

// kindOf tells what a line belongs to: a quotation, a list, or nothing.
func kindOf(line string) (kind, rest string) {
	switch {
	case strings.HasPrefix(line, "> "):
		return "blockquote", line[2:]
	case strings.HasPrefix(line, "- "), strings.HasPrefix(line, "* "):
		return "ul", line[2:]
	}
	if m := numbered.FindStringSubmatch(line); m != nil {
		return "ol", m[2]
	}
	return "", line
}

// blocks formats lines: quotations, lists and paragraphs.
func blocks(text string) string {
	lines := strings.Split(text, "\n")
	var b strings.Builder
	after := true // at the beginning, or behind a block
	for i := 0; i < len(lines); {
		kind, _ := kindOf(lines[i])
		if kind == "" {
			if !after {
				b.WriteString("<br>")
			}
			b.WriteString(inline(lines[i]))
			after = false
			i++
			continue
		}
		var items []string
		start := i
		for ; i < len(lines); i++ {
			k, rest := kindOf(lines[i])
			if k != kind {
				break
			}
			items = append(items, inline(rest))
		}
		switch kind {
		case "blockquote":
			b.WriteString("<blockquote>" + strings.Join(items, "<br>") + "</blockquote>")
		case "ol":
			b.WriteString("<ol start=\"" + numbered.FindStringSubmatch(lines[start])[1] + "\"><li>" + strings.Join(items, "</li><li>") + "</li></ol>")
		default:
			b.WriteString("<ul><li>" + strings.Join(items, "</li><li>") + "</li></ul>")
		}
		after = true
	}
	return b.String()
}

// inline formats the inside of a line. A sign opens before a letter and at the
// beginning of a word, and closes behind a letter at the end of one.
func inline(line string) string {
	var b strings.Builder
	for i := 0; i < len(line); {
		tag, is := marks[line[i]]
		if is && opens(line, i) {
			if end := closing(line, i); end > 0 {
				inside := html.EscapeString(line[i+1 : end])
				if tag != "code" {
					inside = inline(line[i+1 : end])
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

func wordBefore(s string, i int) bool {
	r, _ := utf8.DecodeLastRuneInString(s[:i])
	return i > 0 && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

func wordAfter(s string, i int) bool {
	r, _ := utf8.DecodeRuneInString(s[i:])
	return i < len(s) && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

func opens(s string, i int) bool {
	return !wordBefore(s, i) && i+1 < len(s) && s[i+1] != ' ' && s[i+1] != s[i]
}

// closing returns where the sign at i is closed, or -1.
func closing(s string, i int) int {
	for j := i + 2; j < len(s); j++ {
		if s[j] == s[i] && s[j-1] != ' ' && !wordAfter(s, j+1) {
			return j
		}
	}
	return -1
}

// textContent is a text of WhatsApp as a Matrix message. The people it mentions
// stand in it by number; they are written by name.
func (s *session) textContent(ctx context.Context, text string, mentioned []string) *event.MessageEventContent {
	content := &event.MessageEventContent{MsgType: event.MsgText, Body: text, Mentions: &event.Mentions{}}
	formatted := toHTML(text)
	for _, m := range mentioned {
		jid, err := types.ParseJID(m)
		if err != nil {
			continue
		}
		lid, ok := s.lid(ctx, jid, types.EmptyJID)
		if !ok {
			continue
		}
		mxid, name := s.matrixUser(ctx, lid)
		if mxid == "" {
			continue
		}
		if !slices.Contains(content.Mentions.UserIDs, mxid) {
			content.Mentions.UserIDs = append(content.Mentions.UserIDs, mxid)
		}
		if formatted == "" {
			formatted = plainHTML(text)
		}
		token := "@" + jid.User
		content.Body = strings.ReplaceAll(content.Body, token, name)
		formatted = strings.ReplaceAll(formatted, token, fmt.Sprintf(`<a href="%s">%s</a>`, mxid.URI().MatrixToURL(), html.EscapeString(name)))
	}
	if formatted != "" {
		content.Format, content.FormattedBody = event.FormatHTML, formatted
	}
	return content
}

// matrixUser returns the Matrix user of a person and what to call them: the one
// who is logged in here with that account, or the ghost.
func (s *session) matrixUser(ctx context.Context, lid types.JID) (id.UserID, string) {
	if login := s.connector.br.GetCachedUserLoginByID(loginID(lid)); login != nil {
		return login.UserMXID, login.UserMXID.Localpart()
	}
	name := cmp.Or(bridge.Introduce(ctx, s.login, userID(lid), nil), "@"+lid.User)
	return s.connector.br.Matrix.GhostIntent(userID(lid)).GetMXID(), name
}
