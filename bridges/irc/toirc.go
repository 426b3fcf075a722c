package irc

import (
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// maxDepth bounds how deep elements of a message may nest; what is deeper is
// left out.
const maxDepth = 100

// toIRC turns the HTML of a Matrix message into lines with IRC formatting.
// Mention returns the nick to write for a user ID, or "" to write the link's
// text.
func toIRC(formatted string, mention func(userID string) string) string {
	root, err := html.Parse(strings.NewReader(formatted))
	if err != nil {
		return ""
	}
	w := &ircWriter{mention: mention}
	w.children(root, look{}, 0)
	return w.text()
}

// plainToIRC prepares a text without formatting: no control character of it
// reaches IRC, where it would be formatting or CTCP.
func plainToIRC(body string) string {
	body = strings.ReplaceAll(strings.ReplaceAll(body, "\r\n", "\n"), "\r", "\n")
	return strings.Map(func(r rune) rune {
		if r == '\n' {
			return r
		}
		return printable(r)
	}, body)
}

// look is the formatting of a piece of text. Colours are numbers plus one, so
// that zero means none.
type look struct {
	bold, italic, underline, strike, mono bool
	fg, bg                                int
	pre                                   bool // white space counts
	quote                                 int  // depth of quotes
	list                                  *list
}

// list is an open list.
type list struct {
	ordered bool
	next    int
	depth   int
}

// ircWriter writes text and the codes at which its look changes.
type ircWriter struct {
	out     strings.Builder
	mention func(string) string
	now     look // what the codes so far add up to
	atStart bool // of a line
	space   bool // a space is due before the next word
	started bool
}

// text is everything so far, with all formatting ended.
func (w *ircWriter) text() string {
	w.change(look{})
	return strings.Trim(w.out.String(), "\n ")
}

func (w *ircWriter) children(n *html.Node, l look, depth int) {
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		w.node(c, l, depth)
	}
}

func (w *ircWriter) node(n *html.Node, l look, depth int) {
	if depth > maxDepth {
		return
	}
	switch n.Type {
	case html.TextNode:
		w.write(n.Data, l)
	case html.ElementNode:
		w.element(n, l, depth+1)
	case html.DocumentNode:
		w.children(n, l, depth+1)
	}
}

// element writes an element of the set that Matrix allows.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mroommessage-msgtypes
func (w *ircWriter) element(n *html.Node, l look, depth int) {
	switch n.DataAtom {
	case atom.Strong, atom.B, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Th, atom.Summary:
		l.bold = true
	case atom.Em, atom.I:
		l.italic = true
	case atom.U, atom.Ins:
		l.underline = true
	case atom.Del, atom.S, atom.Strike:
		l.strike = true
	case atom.Code:
		l.mono = true
	case atom.Pre:
		l.mono, l.pre = true, true
	case atom.Blockquote:
		l.quote++
	case atom.Ul, atom.Ol:
		l.list = newList(n, l.list)
	}
	switch n.DataAtom {
	case atom.Head, atom.Script, atom.Style:
		return
	case atom.Br:
		w.newline()
		return
	case atom.Hr:
		w.block(func() { w.write("---", l) })
		return
	case atom.Img:
		w.image(n, l)
		return
	case atom.A:
		w.link(n, l, depth)
		return
	case atom.Span, atom.Font:
		l = coloured(n, l)
	case atom.Li:
		w.item(n, l, depth)
		return
	case atom.Td, atom.Th:
		if n.PrevSibling != nil {
			w.write(" | ", look{quote: l.quote})
		}
	case atom.P, atom.Div, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Pre, atom.Blockquote,
		atom.Ul, atom.Ol, atom.Table, atom.Tr, atom.Details, atom.Summary:
		w.block(func() { w.children(n, l, depth) })
		return
	}
	if n.Data == "mx-reply" {
		return
	}
	w.children(n, l, depth)
}

func newList(n *html.Node, outer *list) *list {
	out := &list{ordered: n.DataAtom == atom.Ol, next: 1}
	if outer != nil {
		out.depth = outer.depth + 1
	}
	if start, err := strconv.Atoi(attribute(n, "start")); err == nil {
		out.next = start
	}
	return out
}

// item writes an item of a list on a line of its own.
func (w *ircWriter) item(n *html.Node, l look, depth int) {
	w.block(func() {
		if li := l.list; li != nil {
			mark := "• "
			if li.ordered {
				mark = strconv.Itoa(li.next) + ". "
				li.next++
			}
			indented := l
			indented.pre = true
			w.write(strings.Repeat("  ", min(li.depth, 8))+mark, indented)
			w.space = false
		}
		w.children(n, l, depth)
	})
}

// image writes the text of an image, such as a custom emoji.
func (w *ircWriter) image(n *html.Node, l look) {
	for _, name := range []string{"alt", "title"} {
		if v := attribute(n, name); v != "" {
			w.write(v, l)
			return
		}
	}
}

// link writes a mention as a nick, and any other link as its text and address.
func (w *ircWriter) link(n *html.Node, l look, depth int) {
	href := attribute(n, "href")
	if user := linkedUser(href); user != "" {
		if nick := w.mention(user); nick != "" {
			w.write(nick, l)
			return
		}
		w.children(n, l, depth)
		return
	}
	text := strings.TrimSpace(textOf(n, 0))
	if strings.HasPrefix(href, "https://matrix.to/") && text != "" || href == "" {
		w.children(n, l, depth)
		return
	}
	if text == "" || text == href || strings.TrimPrefix(text, "mailto:") == strings.TrimPrefix(href, "mailto:") ||
		"http://"+text == href || "https://"+text == href {
		w.write(href, l)
		return
	}
	w.children(n, l, depth)
	w.write(" <"+href+">", l)
}

// linkedUser returns the user ID in a matrix.to or matrix: address of a user.
func linkedUser(href string) string {
	if rest, ok := strings.CutPrefix(href, "https://matrix.to/#/"); ok {
		rest, _, _ = strings.Cut(rest, "?")
		if id := unescape(rest); strings.HasPrefix(id, "@") {
			return id
		}
	}
	if rest, ok := strings.CutPrefix(href, "matrix:u/"); ok {
		rest, _, _ = strings.Cut(rest, "?")
		return "@" + unescape(rest)
	}
	return ""
}

// unescape undoes the percent-encoding of a part of an address. A part that is
// not well encoded is returned as it is.
func unescape(s string) string {
	if out, err := url.PathUnescape(s); err == nil {
		return out
	}
	return s
}

// coloured adds the colours of a span or font element.
func coloured(n *html.Node, l look) look {
	for _, name := range []string{"data-mx-color", "color"} {
		if c, ok := nearest(attribute(n, name)); ok {
			l.fg = c + 1
		}
	}
	if c, ok := nearest(attribute(n, "data-mx-bg-color")); ok {
		l.bg = c + 1
	}
	for _, a := range n.Attr {
		if a.Key == "data-mx-spoiler" {
			l.fg, l.bg = 2, 2 // black on black
		}
	}
	return l
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func textOf(n *html.Node, depth int) string {
	if n.Type == html.TextNode {
		return n.Data
	}
	if depth > maxDepth {
		return ""
	}
	var b strings.Builder
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		b.WriteString(textOf(c, depth+1))
	}
	return b.String()
}

// block writes what f writes on lines of its own.
func (w *ircWriter) block(f func()) {
	w.breakLine()
	f()
	w.breakLine()
}

// breakLine ends the line unless it is empty.
func (w *ircWriter) breakLine() {
	if w.started && !w.atStart {
		w.newline()
	}
}

// newline ends the line. Formatting never spans lines, because each is a
// message of its own.
func (w *ircWriter) newline() {
	w.change(look{})
	w.out.WriteByte('\n')
	w.atStart, w.space = true, false
}

// write writes text, with its white space folded unless it counts.
func (w *ircWriter) write(s string, l look) {
	s = plainToIRC(s)
	if l.pre {
		for i, line := range strings.Split(strings.TrimSuffix(s, "\n"), "\n") {
			if i > 0 {
				w.newline()
			}
			w.word(line, l)
		}
		return
	}
	for i, word := range strings.FieldsFunc(s, isBlank) {
		if i > 0 || isBlank(rune(s[0])) {
			w.space = true
		}
		w.word(word, l)
	}
	if s != "" && isBlank(rune(s[len(s)-1])) {
		w.space = true
	}
}

func isBlank(r rune) bool { return r == ' ' || r == '\n' }

// word writes a piece of text that is not folded any more.
func (w *ircWriter) word(s string, l look) {
	if s == "" {
		return
	}
	if w.atStart || !w.started {
		for range min(l.quote, 5) {
			w.out.WriteString("> ")
		}
	} else if w.space {
		w.change(shared(w.now, l))
		w.out.WriteByte(' ')
	}
	w.started, w.atStart, w.space = true, false, false
	w.change(l)
	if strings.IndexByte("0123456789,", s[0]) >= 0 && w.endsInColour() {
		w.out.WriteString("\x02\x02") // or the digit would be a part of the colour
	}
	w.out.WriteString(s)
}

// shared is the look of a space between two words: what both have.
func shared(a, b look) look {
	out := look{
		bold: a.bold && b.bold, italic: a.italic && b.italic, underline: a.underline && b.underline,
		strike: a.strike && b.strike, mono: a.mono && b.mono,
	}
	if a.fg == b.fg && a.bg == b.bg {
		out.fg, out.bg = a.fg, a.bg
	}
	return out
}

func (w *ircWriter) endsInColour() bool {
	s := w.out.String()
	i := strings.LastIndexByte(s, '\x03')
	return i >= 0 && strings.Trim(s[i+1:], "0123456789,") == ""
}

// change writes the codes that lead from the present look to l.
func (w *ircWriter) change(l look) {
	n := &w.now
	for _, c := range []struct {
		code byte
		have *bool
		want bool
	}{
		{'\x02', &n.bold, l.bold}, {'\x1d', &n.italic, l.italic}, {'\x1f', &n.underline, l.underline},
		{'\x1e', &n.strike, l.strike}, {'\x11', &n.mono, l.mono},
	} {
		if *c.have != c.want {
			w.out.WriteByte(c.code)
			*c.have = c.want
		}
	}
	if n.fg == l.fg && n.bg == l.bg {
		return
	}
	if n.fg > 0 && l.fg == 0 || n.bg > 0 && l.bg == 0 { // only a bare code takes a colour back
		w.out.WriteByte('\x03')
	}
	n.fg, n.bg = l.fg, l.bg
	switch {
	case l.fg > 0 && l.bg > 0:
		w.out.WriteString("\x03" + two(l.fg-1) + "," + two(l.bg-1))
	case l.fg > 0:
		w.out.WriteString("\x03" + two(l.fg-1))
	case l.bg > 0:
		w.out.WriteString("\x0399," + two(l.bg-1))
	}
}

func two(n int) string {
	if n < 10 {
		return "0" + strconv.Itoa(n)
	}
	return strconv.Itoa(n)
}

// nearest returns the number of the colour among the first sixteen, which every
// client knows, that is nearest to a value like "#ff0000".
func nearest(s string) (int, bool) {
	r, g, b, ok := rgb(strings.TrimPrefix(s, "#"))
	if !ok {
		return 0, false
	}
	best, at := 1<<30, 0
	for i, c := range colours[:16] {
		x, y, z, _ := rgb(c)
		if d := (r-x)*(r-x) + (g-y)*(g-y) + (b-z)*(b-z); d < best {
			best, at = d, i
		}
	}
	return at, true
}

func rgb(s string) (r, g, b int, ok bool) {
	n, err := strconv.ParseUint(s, 16, 32)
	if err != nil || len(s) != 6 {
		return 0, 0, 0, false
	}
	return int(n >> 16), int(n >> 8 & 0xff), int(n & 0xff), true
}
