package irc

import (
	"html"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ergochat/irc-go/ircfmt"
	nethtml "golang.org/x/net/html"
)

func nobody(string) string { return "" }

func TestToIRC(t *testing.T) {
	mention := func(id string) string {
		if id == "@irc_test.bob:a.test" {
			return "bob"
		}
		return ""
	}
	tests := []struct{ name, in, want string }{
		{"plain", "a  b\n c", "a b c"},
		{"bold and more", "<b>b</b> <em>i</em> <u>u</u> <del>s</del> <code>c</code>", "\x02b\x02 \x1di\x1d \x1fu\x1f \x1es\x1e \x11c\x11"},
		{"nested", "<b>a<i>b</i></b>c", "\x02a\x1db\x02\x1dc"},
		{"entities", "&lt;b&gt; &amp;", "<b> &"},
		{"paragraphs", "<p>a</p><p>b<br/>c</p>", "a\nb\nc"},
		{"list", "<ul><li>a</li><li>b<ol start=3><li>c</li><li>d</li></ol></li></ul>", "• a\n• b\n  3. c\n  4. d"},
		{"quote", "<blockquote>a<br>b</blockquote>c", "> a\n> b\nc"},
		{"code block", "<pre><code>if x {\n\ty()\n}\n</code></pre>end", "\x11if x {\x11\n\x11 y()\x11\n\x11}\x11\nend"},
		{"link", `see <a href="https://a.test/x">this</a>.`, "see this <https://a.test/x>."},
		{"bare link", `<a href="https://a.test/">https://a.test/</a>`, "https://a.test/"},
		{"mention", `<a href="https://matrix.to/#/@irc_test.bob:a.test">Robert</a>: hi`, "bob: hi"},
		{"encoded mention", `<a href="https://matrix.to/#/%40irc_test.bob%3Aa.test">Robert</a>: hi`, "bob: hi"},
		{"mention of a stranger", `<a href="https://matrix.to/#/@eve:a.test">Eve</a>: hi`, "Eve: hi"},
		{"colour", `<font color="#ff0000">r</font>n`, "\x0304r\x03n"},
		{"colour before a digit", `<span data-mx-color="#ff0000">1</span>2`, "\x0304\x02\x021\x03\x02\x022"},
		{"background", `<span data-mx-color="#ffffff" data-mx-bg-color="#000000">x</span>`, "\x0300,01x\x03"},
		{"spoiler", `<span data-mx-spoiler>secret</span> x`, "\x0301,01secret\x03 x"},
		{"reply fallback", `<mx-reply><blockquote>old</blockquote></mx-reply>new`, "new"},
		{"emoji", `<img data-mx-emoticon alt=":cat:" src="mxc://a/b">`, ":cat:"},
		{"control characters", "a\x01ACTION\x02 b\x00", "aACTION b"},
		{"script", "<script>alert(1)</script>x<style>y</style>", "x"},
		{"table", "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>", "\x02a\x02 | \x02b\x02\n1 | 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := toIRC(tt.in, mention); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestFromIRC(t *testing.T) {
	tests := []struct{ name, in, plain, html string }{
		{"plain", "a <b> & c", "a <b> & c", ""},
		{"bold", "a\x02b\x02c", "abc", "a<strong>b</strong>c"},
		{"all", "\x02\x1d\x1f\x1e\x11x", "x", "<strong><em><u><del><code>x</code></del></u></em></strong>"},
		{"reset", "\x02a\x0fb", "ab", "<strong>a</strong>b"},
		{"colours", "\x0304,12a\x03b", "ab", `<span data-mx-color="#ff0000" data-mx-bg-color="#0000fc">a</span>b`},
		{"reverse", "\x0304,12\x16a", "a", `<span data-mx-color="#0000fc" data-mx-bg-color="#ff0000">a</span>`},
		{"spoiler", "\x0301,01a\x03b", "ab", `<span data-mx-spoiler>a</span>b`},
		{"hex colour", "\x04ff0000a\x04b", "ab", ""},
		{"escaped", "\x02<script>\x02", "<script>", "<strong>&lt;script&gt;</strong>"},
		{"link", "\x02see\x02 (https://a.test/x?a=1&b=\"). ", `see (https://a.test/x?a=1&b="). `,
			`<strong>see</strong> (<a href="https://a.test/x?a=1&amp;b=">https://a.test/x?a=1&amp;b=</a>&#34;). `},
		{"control characters", "a\x01b\x07\x7fc", "abc", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if plain, html := fromIRC(tt.in); plain != tt.plain || html != tt.html {
				t.Errorf("got  %q, %q\nwant %q, %q", plain, html, tt.plain, tt.html)
			}
		})
	}
}

// allowedTag is what the HTML of a message from IRC may hold besides text.
var allowedTag = regexp.MustCompile(`^</?(strong|em|u|del|code|span|a)( (data-mx-(color|bg-color)="#[0-9a-f]{6}"|data-mx-spoiler(="")?|href="https?://[^"]*"))*>$`)

// FuzzFromIRC checks that nothing in a text becomes an element, and that the
// text of the HTML is the plain text.
func FuzzFromIRC(f *testing.F) {
	f.Add("\x02bold \x0304,12<script>\x0f https://a.test/<b>\" onclick=x \x16\x1d\x11`")
	f.Add("\x0399,99\x03\x0316,98x\x04abcdef,123456")
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			t.Skip()
		}
		plain, formatted := fromIRC(text)
		if strings.ContainsFunc(plain, func(r rune) bool { return r < ' ' }) {
			t.Errorf("control character in %q", plain)
		}
		if formatted == "" {
			return
		}
		var b strings.Builder
		z := nethtml.NewTokenizer(strings.NewReader(formatted))
		for z.Next() != nethtml.ErrorToken {
			tok := z.Token()
			if tok.Type == nethtml.TextToken {
				b.WriteString(tok.Data)
			} else if !allowedTag.MatchString(tok.String()) && !allowedTag.MatchString(html.UnescapeString(tok.String())) {
				t.Errorf("element %q in %q", tok, formatted)
			}
		}
		if b.String() != plain {
			t.Errorf("the HTML says %q, the text %q", b.String(), plain)
		}
	})
}

// FuzzToIRC checks that no control character of a message reaches IRC, only
// those of our own formatting, and that formatting ends with each line.
func FuzzToIRC(f *testing.F) {
	f.Add("<b>a</b>\x01\x02<font color=#ff0000>1<br>2</font><pre>\x03\r\n</pre>")
	f.Add("<ul><li><blockquote><a href=\"https://matrix.to/#/@a:b\">x")
	f.Fuzz(func(t *testing.T, in string) {
		out := toIRC(in, nobody)
		for _, line := range strings.Split(out, "\n") {
			if strings.ContainsFunc(line, func(r rune) bool {
				return r < ' ' && !strings.ContainsRune("\x02\x03\x11\x1d\x1e\x1f", r)
			}) {
				t.Errorf("%q became %q", in, line)
			}
			chunks := ircfmt.Split(line + "\x00end")
			if last := chunks[len(chunks)-1]; last.IsFormatted() && line != strings.Split(out, "\n")[strings.Count(out, "\n")] {
				t.Errorf("formatting does not end with the line %q", line)
			}
		}
		if again := plainToIRC(out); strings.ContainsAny(again, "\x01\x02\r") {
			t.Errorf("plainToIRC left %q", again)
		}
	})
}

// FuzzRoundTrip checks that bold, italic and the like survive the way to Matrix
// and back.
func FuzzRoundTrip(f *testing.F) {
	f.Add("a \x02b\x02 c\x1dd\x1d \x0304,05e f")
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || strings.ContainsAny(text, "\x04\x16") || strings.Contains(text, "://") {
			t.Skip()
		}
		_, formatted := fromIRC(text)
		if formatted == "" {
			return
		}
		want, got := styles(text), styles(toIRC(formatted, nobody))
		if want != got {
			t.Errorf("%q became %q and then %q", text, formatted, got)
		}
	})
}

// styles describes which visible characters of a text are formatted how.
func styles(text string) string {
	var b strings.Builder
	for _, c := range ircfmt.Split(text) {
		for _, r := range c.Content {
			if printable(r) < 0 || r == ' ' || r == '\t' || r == '\n' {
				continue
			}
			b.WriteRune(r)
			for _, on := range []bool{c.Bold, c.Italic, c.Underline, c.Strikethrough, c.Monospace} {
				if on {
					b.WriteByte('1')
				} else {
					b.WriteByte('0')
				}
			}
		}
	}
	return b.String()
}
