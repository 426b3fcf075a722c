package matrix

import (
	"strings"
	"unicode/utf8"
)

// Glob tells whether all of s matches a pattern in which * stands for any
// characters and ? for one, in time that grows with the product of the lengths
// at most.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#glob-style-matching
func Glob(pattern, s string) bool {
	star, from := -1, 0 // the last star, and where what it stands for ends
	p, i := 0, 0
	for i < len(s) {
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && pattern[p] == '?':
			p++
			i += size
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			_, size := utf8.DecodeRuneInString(s[from:])
			from += size
			p, i = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
