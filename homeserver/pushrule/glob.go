package pushrule

import (
	"strings"
	"unicode/utf8"
)

// glob is a compiled glob-style pattern: the folded texts between its stars. A
// "?" in them stands for any one character.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#glob-style-matching
type glob []string

func compileGlob(pattern string) glob {
	parts := strings.Split(fold(pattern), "*")
	// Neighbouring stars are one star: drop the empty texts between them.
	g := parts[:1]
	for i, p := range parts[1:] {
		if p != "" || i == len(parts)-2 {
			g = append(g, p)
		}
	}
	return g
}

// all tells whether the whole of s, which is folded, matches.
func (g glob) all(s string) bool {
	first, last := g[0], g[len(g)-1]
	at := prefix(s, first)
	if at < 0 {
		return false
	}
	if len(g) == 1 {
		return at == len(s)
	}
	end := suffix(s, last)
	for _, part := range g[1 : len(g)-1] {
		_, n := find(s, part, at, anywhere)
		if n < 0 {
			return false
		}
		at = n
	}
	return at <= end
}

// words tells whether a part of s, which is folded, matches that begins and
// ends at a word boundary.
//
// As a star matches anything, the leftmost place for each text is as good as
// any other; only the first must begin, and only the last must end, at a
// boundary.
func (g glob) words(s string) bool {
	if len(g) == 1 {
		_, n := find(s, g[0], 0, bothEnds)
		return n >= 0
	}
	_, at := find(s, g[0], 0, leftEnd)
	for i := 1; at >= 0 && i < len(g)-1; i++ {
		_, at = find(s, g[i], at, anywhere)
	}
	if at < 0 {
		return false
	}
	_, at = find(s, g[len(g)-1], at, rightEnd)
	return at >= 0
}

// ends says which ends of a found text must be word boundaries.
type ends uint8

const (
	anywhere ends = 0
	leftEnd  ends = 1
	rightEnd ends = 2
	bothEnds ends = leftEnd | rightEnd
)

// find looks for the leftmost place of part in s from byte at on, and returns
// its range, or -1 twice.
func find(s, part string, at int, e ends) (from, to int) {
	literal := strings.IndexByte(part, '?') < 0
	for at <= len(s) {
		if literal {
			i := strings.Index(s[at:], part)
			if i < 0 {
				return -1, -1
			}
			at += i
		}
		n := prefix(s[at:], part)
		if n >= 0 && (e&leftEnd == 0 || boundary(s, at)) && (e&rightEnd == 0 || boundary(s, at+n)) {
			return at, at + n
		}
		if at == len(s) {
			break
		}
		_, size := utf8.DecodeRuneInString(s[at:])
		at += size
	}
	return -1, -1
}

// prefix returns the length of part at the start of s, or -1.
func prefix(s, part string) int {
	n := 0
	for i := 0; i < len(part); i++ {
		if n == len(s) {
			return -1
		}
		if part[i] == '?' {
			_, size := utf8.DecodeRuneInString(s[n:])
			n += size
			continue
		}
		if s[n] != part[i] {
			return -1
		}
		n++
	}
	return n
}

// suffix returns where part begins when it ends s, or -1.
func suffix(s, part string) int {
	n := len(s)
	for i := len(part) - 1; i >= 0; i-- {
		if n == 0 {
			return -1
		}
		if part[i] == '?' {
			_, size := utf8.DecodeLastRuneInString(s[:n])
			n -= size
			continue
		}
		n--
		if s[n] != part[i] {
			return -1
		}
	}
	return n
}
