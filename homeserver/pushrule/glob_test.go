package pushrule

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestGlobAll(t *testing.T) {
	tests := []struct {
		pattern, text string
		want          bool
	}{
		// The specification's examples.
		{"lunc?*", "Lunch plans", true},
		{"lunc?*", "LUNCH", true},
		{"lunc?*", " lunch", false},
		{"lunc?*", "lunc", false},

		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"**", "x", true},
		{"?", "", false},
		{"?", "é", true},
		{"?", "日本", false},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"a*b*c", "aXbXbc", true},
		{"a*b*c", "acb", false},
		{"*.example.*", "chat.EXAMPLE.org", true},
		{"ÅNGSTRÖM", "ångström", true},
		{"ς", "Σ", true}, // three sigmas are one letter
		{"k", "\u212a", false},
		{"[a]", "a", false},
		{`\*`, `\x`, true},
		{"a.c", "abc", false},
	}
	for _, tt := range tests {
		if got := compileGlob(tt.pattern).all(fold(tt.text)); got != tt.want {
			t.Errorf("%q on %q: got %v", tt.pattern, tt.text, got)
		}
	}
}

func TestGlobWords(t *testing.T) {
	tests := []struct {
		pattern, body string
		want          bool
	}{
		// The specification's examples.
		{"ex*ple", "An example event.", true},
		{"ex*ple", "exple", true},
		{"ex*ple", "An exciting triple-whammy", true},
		{"tea", "It's time for tea", true},
		{"cake*lie", "the cake is a lie!", true},

		{"tea", "steam", false},
		{"tea", "tea_pot", false},
		{"tea", "teapot and tea", true},
		{"tea", "tea2", false},
		{"tea", "(TEA)", true},
		{"te?", "for tea!", true},
		{"te?", "team", false},
		{"@bar", "foo@bar", true},
		{"foo@", "foo@bar", true},
		{"naïve", "a naïve-ish thing", true},
		{"na", "naïve", true}, // "ï" is in none of the sets
		{"佐藤", "佐藤さん", true},
		{"*", "", true},
		{"*", "anything", true},
		{"*b", "ab abc", true},
		{"b*", "ab", false},
		{"b*", "a b", true},
	}
	for _, tt := range tests {
		if got := compileGlob(tt.pattern).words(fold(tt.body)); got != tt.want {
			t.Errorf("%q in %q: got %v", tt.pattern, tt.body, got)
		}
	}
}

// slowGlob is the definition of globbing, with no thought about speed.
func slowGlob(pattern, text []rune) bool {
	if len(pattern) == 0 {
		return len(text) == 0
	}
	switch pattern[0] {
	case '*':
		return slowGlob(pattern[1:], text) || len(text) > 0 && slowGlob(pattern, text[1:])
	case '?':
		return len(text) > 0 && slowGlob(pattern[1:], text[1:])
	}
	return len(text) > 0 && pattern[0] == text[0] && slowGlob(pattern[1:], text[1:])
}

// slowWords tries every part of the text.
func slowWords(pattern, text string) bool {
	for i := 0; i <= len(text); i++ {
		for j := i; j <= len(text); j++ {
			if utf8.ValidString(text[:i]) && utf8.ValidString(text[:j]) && boundary(text, i) && boundary(text, j) &&
				slowGlob([]rune(pattern), []rune(text[i:j])) {
				return true
			}
		}
	}
	return false
}

// FuzzGlob checks both kinds of matching against their definitions.
func FuzzGlob(f *testing.F) {
	for _, s := range [][2]string{{"lunc?*", "Lunch"}, {"ex*ple", "An exciting triple-whammy"}, {"*a?*b", "xaébb"}, {"??", "日本"}, {"a*a", "a"}, {"", "ab c"}, {"K", "\u212a"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 12 || len(text) > 24 || !utf8.ValidString(pattern) || !utf8.ValidString(text) || strings.Count(pattern, "*") > 4 {
			return
		}
		g, p, s := compileGlob(pattern), fold(pattern), fold(text)
		if got, want := g.all(s), slowGlob([]rune(p), []rune(s)); got != want {
			t.Errorf("%q on %q: got %v, want %v", pattern, text, got, want)
		}
		if got, want := g.words(s), slowWords(p, s); got != want {
			t.Errorf("%q in %q: got %v, want %v", pattern, text, got, want)
		}
	})
}

// FuzzFold checks that folding moves no boundary and is done after one time.
func FuzzFold(f *testing.F) {
	f.Add("Straße ΣΊΣΥΦΟΣ K\u212a ſ İ")
	f.Fuzz(func(t *testing.T, s string) {
		folded := fold(s)
		if again := fold(folded); again != folded {
			t.Errorf("%q folds to %q and then to %q", s, folded, again)
		}
		if !utf8.ValidString(s) {
			return
		}
		a, b := []rune(s), []rune(folded)
		if len(a) != len(b) {
			t.Fatalf("%q folds to %q", s, folded)
		}
		for i := range a {
			if nameWord(a[i]) != nameWord(b[i]) {
				t.Errorf("%q became %q", a[i], b[i])
			}
		}
	})
}

func nameWord(r rune) bool { return r < utf8.RuneSelf && word(byte(r)) }

func TestContainsName(t *testing.T) {
	tests := []struct {
		body, name string
		want       bool
	}{
		{"hi Alice!", "alice", true},
		{"malice", "alice", false},
		{"alices and alice", "Alice", true},
		{"ÆGIR: ping", "Ægir", true},
		{"Ægirsson", "Ægir", false},
		{"Zoéla", "Zoé", false},
		{"Zoe\u0301", "Zoe", false}, // an accent of its own character
		{"привет, МАРИЯ", "Мария", true},
		{"Мариям", "Мария", false},
		{"佐藤さん、お願いします", "佐藤", true}, // no spaces between words
		{"a*b", "*", true},          // a name is no pattern
		{"ab", "*", false},
		{"aaaa aaa", "aaa", true},
		{"anything", "", false},
		{"", "Alice", false},
	}
	for _, tt := range tests {
		if got := containsName(fold(tt.body), tt.name); got != tt.want {
			t.Errorf("%q in %q: got %v", tt.name, tt.body, got)
		}
	}
}
