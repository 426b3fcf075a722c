// Package words cuts text into the words by which it is found, and tells whether
// a text is what somebody searches for. Letters count alike in either case, with
// and without accents and in all of their widths. Scripts that put no space between
// words, such as Chinese, Japanese and Thai, are found by any part of them. It knows
// no language: there are no stems and no words that are left out. It keeps no index.
package words

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/runes"
	"golang.org/x/text/transform"
	"golang.org/x/text/unicode/norm"
)

const (
	// longest bounds a word, in bytes; what is behind is not looked at.
	longest = 64

	// mostKeys bounds the keys of one text: those behind are not found.
	mostKeys = 4096

	// shortestStem is how many letters a word of a search needs to find longer ones
	// that begin with it.
	shortestStem = 3
)

// Fold gives a text the form in which texts are compared.
func Fold(text string) string {
	ascii := true
	for i := 0; i < len(text) && ascii; i++ {
		ascii = text[i] < utf8.RuneSelf
	}
	if ascii {
		return strings.ToLower(text)
	}
	fold := transform.Chain(norm.NFKD, runes.Remove(runes.Predicate(dropped)), cases.Fold(), norm.NFKC, runes.Map(plain))
	folded, _, err := transform.String(fold, text)
	if err != nil {
		return strings.ToLower(text)
	}
	return folded
}

// accents are the marks that people leave out when they search: those of Latin,
// Greek and Cyrillic letters, and the vowels of Hebrew and Arabic.
var accents = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x300, Hi: 0x36f, Stride: 1}, {Lo: 0x483, Hi: 0x487, Stride: 1}, {Lo: 0x591, Hi: 0x5c7, Stride: 1},
		{Lo: 0x610, Hi: 0x61a, Stride: 1}, {Lo: 0x640, Hi: 0x640, Stride: 1}, {Lo: 0x64b, Hi: 0x65f, Stride: 1},
		{Lo: 0x670, Hi: 0x670, Stride: 1},
	},
}

// zeroWidthSpace is invisible, but an end of words.
const zeroWidthSpace = '\u200b'

// dropped tells whether a character says nothing.
func dropped(r rune) bool {
	return unicode.Is(accents, r) || unicode.Is(unicode.Variation_Selector, r) || r != zeroWidthSpace && unicode.Is(unicode.Cf, r)
}

// plain are letters whose strokes and lost dots Unicode does not take apart.
func plain(r rune) rune {
	switch r {
	case 'ø':
		return 'o'
	case 'ł':
		return 'l'
	case 'đ':
		return 'd'
	case 'ħ':
		return 'h'
	case 'ı':
		return 'i'
	}
	return r
}

// kind is what a character is a part of.
type kind uint8

const (
	gap    kind = iota // between words
	word               // of letters, marks and digits
	dense              // of a script without spaces
	symbol             // alone a word, such as an emoji
)

var denseScripts = []*unicode.RangeTable{
	unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Bopomofo, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar,
}

// prolonged is the Japanese sign of a long vowel, which belongs to no one script.
const prolonged = 'ー'

func kindOf(r rune) kind {
	switch {
	case r < utf8.RuneSelf:
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' {
			return word
		}
		return gap
	case r == utf8.RuneError:
		return gap
	case !unicode.In(r, unicode.L, unicode.M, unicode.N):
		if unicode.Is(unicode.So, r) {
			return symbol
		}
		return gap
	case r == prolonged || unicode.In(r, denseScripts...):
		return dense
	}
	return word
}

// part is a word of a text, or a run of a script without spaces.
type part struct {
	kind kind
	text string
}

// parts cuts a text.
func parts(text string) []part {
	var list []part
	start, in := 0, gap
	end := func(i int) {
		if in != gap {
			list = append(list, part{in, text[start:i]})
		}
	}
	for i, r := range text {
		k := kindOf(r)
		if k == in && k != symbol || in == dense && unicode.Is(unicode.M, r) {
			continue
		}
		end(i)
		start, in = i, k
	}
	end(len(text))
	return list
}

// short is the part of a word that is looked at.
func short(text string) string { return cut(text, longest) }

// cut is the beginning of a text, at most n bytes.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// Keys are the words under which a text is to be kept in an index, each of them
// once: letters, marks and digits or symbols, no spaces.
func Keys(text string) []string {
	var list []string
	have := map[string]bool{}
	add := func(key string) {
		if !have[key] && len(list) < mostKeys {
			have[key] = true
			list = append(list, key)
		}
	}
	for _, p := range parts(Fold(text)) {
		if p.kind != dense {
			add(short(p.text))
			continue
		}
		for i := range p.text {
			add(pair(p.text[i:]))
		}
	}
	return list
}

// pair is the first two characters of a text.
func pair(text string) string {
	_, n := utf8.DecodeRuneInString(text)
	_, m := utf8.DecodeRuneInString(text[n:])
	return text[:n+m]
}

// Key is what an index is asked for.
type Key struct {
	Text   string
	Prefix bool // all keys that begin so will do
}

// Term is what somebody searches for.
type Term struct {
	parts []part
}

// Parse reads what somebody searches for.
func Parse(term string) Term {
	t := Term{parts(cut(Fold(term), mostTerm))}
	for i := range t.parts {
		if t.parts[i].kind != dense {
			t.parts[i].text = short(t.parts[i].text)
		}
	}
	return t
}

// mostTerm bounds what somebody searches for, in bytes; what is behind is not
// looked at.
const mostTerm = 500

// Keys are those that a text must all have for the term to be found in it. There
// are none if the term has no words, and so finds nothing.
func (t Term) Keys() []Key {
	var list []Key
	add := func(k Key) {
		if !slices.Contains(list, k) {
			list = append(list, k)
		}
	}
	for _, p := range t.parts {
		if p.kind != dense {
			add(Key{p.text, p.stem()})
			continue
		}
		last := 0
		for i := range p.text {
			last = i
		}
		if last == 0 {
			add(Key{p.text, true})
		}
		for i := range p.text[:last] {
			add(Key{pair(p.text[i:]), false})
		}
	}
	return list
}

// stem tells whether a word of a search finds longer ones.
func (p part) stem() bool { return p.kind == word && utf8.RuneCountInString(p.text) >= shortestStem }

// finds is how well a part of a term matches a part of a text: 1 for a word as it
// is, less for its beginning, 0 not at all; for a run how often it is there.
func (p part) finds(in part) float64 {
	switch {
	case p.kind != in.kind:
		return 0
	case p.kind == dense:
		return float64(strings.Count(in.text, p.text))
	case short(in.text) == p.text:
		return 1
	case p.stem() && strings.HasPrefix(in.text, p.text):
		return 0.5
	}
	return 0
}

// How much the number of times that a word is there counts, and the length of the
// text against the usual one: the formula is BM25 without the frequency of words in
// other texts.
const (
	saturation  = 1.2
	lengthShare = 0.75
	usualLength = 12
	asPhrase    = 1.5 // more for words that follow each other as in the term
)

// Rank is how closely a text matches the term: 0 if not all of its words are there,
// more the more often they are, the more exactly, and the shorter the text.
func (t Term) Rank(text string) float64 {
	in := parts(Fold(text))
	if len(t.parts) == 0 {
		return 0
	}
	length := 1 - lengthShare + lengthShare*float64(len(in))/usualLength
	rank := 0.0
	for _, p := range t.parts {
		n := 0.0
		for _, w := range in {
			n += p.finds(w)
		}
		if n == 0 {
			return 0
		}
		rank += n * (saturation + 1) / (n + saturation*length)
	}
	if len(t.parts) > 1 && t.phrase(in) {
		rank *= asPhrase
	}
	return rank
}

// phrase tells whether the parts of the term follow each other in a text.
func (t Term) phrase(in []part) bool {
	for i := range len(in) - len(t.parts) + 1 {
		if !slices.ContainsFunc(t.parts, func(p part) bool {
			found := p.finds(in[i]) > 0
			i++
			return !found
		}) {
			return true
		}
	}
	return false
}

// Found lists the words of a text, as they stand there in small letters, that the
// term found.
func (t Term) Found(text string) []string {
	var list []string
	for _, raw := range parts(text) {
		for _, in := range parts(Fold(raw.text)) {
			for _, p := range t.parts {
				if p.finds(in) == 0 {
					continue
				}
				found := strings.ToLower(raw.text)
				if p.kind == dense {
					found = p.text
				}
				if !slices.Contains(list, found) {
					list = append(list, found)
				}
			}
		}
	}
	return list
}
