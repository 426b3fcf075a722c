package matrix

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"a", "a", true}, {"a", "A", false}, {"a", "ab", false}, {"*", "", true}, {"*", "abc", true},
		{"?", "", false}, {"?", "é", true}, {"??", "é", false}, {"a*", "abc", true}, {"*c", "abc", true}, {"*b", "abc", false}, {"a*c", "abcbc", true},
		{"*.evil.example", "a.evil.example", true}, {"*.evil.example", "evil.example", false}, {"@*:evil.example", "@spam:evil.example", true},
		{"a?c*e", "abcde", true}, {"a**b", "ab", true}, {"*a*b*", "xxaxxbxx", true}, {"*a*b*", "xxbxxaxx", false}, {"[a]", "a", false},
	} {
		if got := Glob(tt.pattern, tt.s); got != tt.want {
			t.Errorf("Glob(%q, %q) = %v", tt.pattern, tt.s, got)
		}
	}
}

// FuzzGlob compares with regular expressions.
func FuzzGlob(f *testing.F) {
	f.Add("a*b?c", "axxbyc")
	f.Add("*?*", "é")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if !utf8.ValidString(pattern) || !utf8.ValidString(s) || len(pattern) > 100 {
			return
		}
		expr := regexp.QuoteMeta(pattern)
		expr = strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(expr)
		if want := regexp.MustCompile(`(?s)^` + expr + `$`).MatchString(s); Glob(pattern, s) != want {
			t.Errorf("Glob(%q, %q) = %v", pattern, s, !want)
		}
	})
}
