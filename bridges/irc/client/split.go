package client

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The control characters of IRC formatting.
// See https://modern.ircdocs.horse/formatting.
const (
	codeBold      = '\x02'
	codeColour    = '\x03'
	codeHexColour = '\x04'
	codeReset     = '\x0f'
	codeMono      = '\x11'
	codeReverse   = '\x16'
	codeItalic    = '\x1d'
	codeStrike    = '\x1e'
	codeUnderline = '\x1f'
)

// minLine is the least length Split works with: room for one character behind
// every formatting code that may have to be repeated.
const minLine = 64

// Split cuts a text into lines of at most max bytes (at least 64). It cuts at
// line breaks, which vanish, else behind a space, else between characters, and
// never inside a formatting code. Formatting that is on at a cut is switched on
// again in the next line. Empty lines are left out. NUL, CR and bytes that are
// no UTF-8 do not survive.
func Split(text string, max int) []string {
	max = lineMax(max)
	var lines []string
	for part := range strings.SplitSeq(Clean(text), "\n") {
		lines = appendLines(lines, part, max)
	}
	return lines
}

func lineMax(n int) int {
	if n < minLine {
		return minLine
	}
	return n
}

// Clean removes from a text what no IRC line may hold: NUL is dropped, CR LF
// and CR become LF, and bytes that are no UTF-8 become U+FFFD.
func Clean(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if !strings.ContainsAny(text, "\r\x00") {
		return text
	}
	return strings.NewReplacer("\r\n", "\n", "\r", "\n", "\x00", "").Replace(text)
}

// OneLine is Clean for a text that must stay one line: breaks become spaces.
func OneLine(text string) string {
	return strings.TrimSpace(strings.ReplaceAll(Clean(text), "\n", " "))
}

// appendLines cuts one paragraph.
func appendLines(lines []string, s string, max int) []string {
	var style style
	for !blank(s) {
		prefix := style.String()
		if style.mayEat(s[0]) {
			prefix += string(codeBold) + string(codeBold) // keeps a digit apart from the colour before it
		}
		n := cut(s, max-len(prefix))
		lines = append(lines, prefix+s[:n])
		style.apply(s[:n])
		s = s[n:]
	}
	return lines
}

// cut returns how many bytes of s make the next line of at most max bytes.
func cut(s string, max int) int {
	if len(s) <= max {
		return len(s)
	}
	end, space := 0, 0
	for end < len(s) {
		n := unitLen(s[end:])
		if end+n > max {
			break
		}
		end += n
		if s[end-1] == ' ' {
			space = end
		}
	}
	if space > max/2 {
		return space
	}
	if end == 0 { // a unit longer than a line: cut it between characters
		for end < len(s) {
			_, n := utf8.DecodeRuneInString(s[end:])
			if end+n > max {
				break
			}
			end += n
		}
	}
	return end
}

// unitLen is the length of what must not be cut at the start of s: a colour
// code with its numbers, or a character with the marks that join it.
func unitLen(s string) int {
	if n := codeLen(s); n > 0 {
		return n
	}
	_, n := utf8.DecodeRuneInString(s)
	for n < len(s) {
		r, m := utf8.DecodeRuneInString(s[n:])
		switch {
		case r == '\u200d': // zero width joiner takes the next character along
			_, k := utf8.DecodeRuneInString(s[n+m:])
			n += m + k
		case unicode.In(r, unicode.Mn, unicode.Me) || 0x1f3fb <= r && r <= 0x1f3ff:
			n += m
		default:
			return n
		}
	}
	return n
}

// codeLen is the length of the formatting code at the start of s, 0 if there
// is none.
func codeLen(s string) int {
	switch s[0] {
	case codeBold, codeReset, codeMono, codeReverse, codeItalic, codeStrike, codeUnderline:
		return 1
	case codeColour:
		n := 1 + digits(s[1:], 2)
		if n > 1 && n+1 < len(s) && s[n] == ',' {
			if d := digits(s[n+1:], 2); d > 0 {
				n += 1 + d
			}
		}
		return n
	case codeHexColour:
		n := 1
		if isHex6(s[1:]) {
			n += 6
			if len(s) > n && s[n] == ',' && isHex6(s[n+1:]) {
				n += 7
			}
		}
		return n
	}
	return 0
}

func digits(s string, max int) int {
	n := 0
	for n < max && n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return n
}

func isHex6(s string) bool {
	if len(s) < 6 {
		return false
	}
	for i := range 6 {
		c := s[i] | 0x20
		if !('0' <= s[i] && s[i] <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}

// blank reports whether nothing of s can be seen. It stops at the first
// visible character.
func blank(s string) bool {
	for s != "" {
		if n := codeLen(s); n > 0 {
			s = s[n:]
			continue
		}
		r, n := utf8.DecodeRuneInString(s)
		if !unicode.IsSpace(r) {
			return false
		}
		s = s[n:]
	}
	return true
}

// stripCodes returns s without formatting codes.
func stripCodes(s string) string {
	var b strings.Builder
	for s != "" {
		if n := codeLen(s); n > 0 {
			s = s[n:]
			continue
		}
		i := 1
		for i < len(s) && s[i] >= 0x20 {
			i++
		}
		b.WriteString(s[:i])
		s = s[i:]
	}
	return b.String()
}

// style is the formatting that is on at some place of a text.
type style struct {
	on     map[byte]bool
	colour string // the whole code, or empty
	hex    string
}

// apply follows the codes of s.
func (st *style) apply(s string) {
	for s != "" {
		n := codeLen(s)
		if n == 0 {
			s = s[1:]
			continue
		}
		switch c := s[0]; c {
		case codeReset:
			*st = style{}
		case codeColour:
			st.colour, st.hex = joinColour(st.colour, s[:n]), ""
		case codeHexColour:
			st.colour, st.hex = "", s[:n]
			if n == 1 {
				st.hex = ""
			}
		default:
			if st.on == nil {
				st.on = make(map[byte]bool)
			}
			st.on[c] = !st.on[c]
		}
		s = s[n:]
	}
}

// joinColour is the colour after a code: a lone foreground keeps the
// background, an empty code ends both.
func joinColour(old, code string) string {
	if len(code) == 1 {
		return ""
	}
	if strings.Contains(code, ",") {
		return code
	}
	if _, back, ok := strings.Cut(old, ","); ok {
		return code + "," + back
	}
	return code
}

// mayEat reports whether a client would take c, right behind the codes of the
// style, for a part of the colour's number.
func (st *style) mayEat(c byte) bool {
	return st.colour != "" && (c == ',' || '0' <= c && c <= '9') || st.hex != "" && c == ','
}

// String returns the codes that switch the style on, the colour last.
func (st *style) String() string {
	var b strings.Builder
	for _, c := range []byte{codeBold, codeItalic, codeUnderline, codeStrike, codeMono, codeReverse} {
		if st.on[c] {
			b.WriteByte(c)
		}
	}
	b.WriteString(st.colour)
	b.WriteString(st.hex)
	return b.String()
}
