package pushrule

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// fold maps text to a form in which two texts that differ only in case are
// equal. ASCII folds only to ASCII and everything else only to non-ASCII, so
// that folding never moves a word boundary.
func fold(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return s[:i] + foldSlow(s[i:])
		}
	}
	return s
}

func foldSlow(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for _, r := range s {
		b.WriteRune(foldRune(r))
	}
	return b.String()
}

// foldRune picks one rune of all that differ from r only in case.
func foldRune(r rune) rune {
	if r < utf8.RuneSelf {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}
	least := r
	for o := unicode.SimpleFold(r); o != r; o = unicode.SimpleFold(o) {
		if o >= utf8.RuneSelf && o < least {
			least = o
		}
	}
	return least
}

// word tells whether c belongs to a word in the sense of content.body
// patterns. All bytes of a non-ASCII character do not.
func word(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}

// boundary tells whether a match in s may begin or end at byte i: at the ends,
// and beside any character that belongs to no word.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#conditions-1
func boundary(s string, i int) bool {
	return i == 0 || i == len(s) || !word(s[i-1]) || !word(s[i])
}

// unspaced are scripts that do not put spaces between words.
var unspaced = []*unicode.RangeTable{
	unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar,
}

// nameRune tells whether r joins with its neighbours to one word, in any
// script. A display name is not found inside such a word.
func nameRune(r rune) bool {
	if r < utf8.RuneSelf {
		return word(byte(r))
	}
	return (unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsDigit(r)) && !unicode.In(r, unspaced...)
}

// nameBoundary is boundary for display names, in any script.
func nameBoundary(s string, i int) bool {
	if i == 0 || i == len(s) {
		return true
	}
	before, _ := utf8.DecodeLastRuneInString(s[:i])
	after, _ := utf8.DecodeRuneInString(s[i:])
	return !nameRune(before) || !nameRune(after)
}

// containsName tells whether the folded body contains name as whole words.
func containsName(body, name string) bool {
	name = fold(name)
	if name == "" {
		return false
	}
	for from := 0; ; {
		i := strings.Index(body[from:], name)
		if i < 0 {
			return false
		}
		i += from
		if nameBoundary(body, i) && nameBoundary(body, i+len(name)) {
			return true
		}
		_, n := utf8.DecodeRuneInString(body[i:])
		from = i + n
	}
}
