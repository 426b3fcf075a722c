package client

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ergochat/irc-go/ircfmt"
)

func TestSplit(t *testing.T) {
	long := strings.Repeat("word ", 30)
	tests := []struct {
		name, in string
		max      int
		want     []string
	}{
		{"short", "hello", 100, []string{"hello"}},
		{"lines", "one\ntwo\r\n\n\rthree", 100, []string{"one", "two", "three"}},
		{"nothing", " \n\x02\x02\n", 100, nil},
		{"nul", "a\x00b", 100, []string{"ab"}},
		{"not UTF-8", "a\xffb", 100, []string{"a\uFFFDb"}},
		{"behind a space", long, 100, []string{strings.Repeat("word ", 20), strings.Repeat("word ", 10)}},
		{"no space", strings.Repeat("x", 150), 100, []string{strings.Repeat("x", 100), strings.Repeat("x", 50)}},
		{"between characters", strings.Repeat("ä", 60), 101, []string{strings.Repeat("ä", 50), strings.Repeat("ä", 10)}},
		{"joined characters", strings.Repeat("x", 95) + "e\u0301e\u0301", 100, []string{strings.Repeat("x", 95) + "e\u0301", "e\u0301"}},
		{"format goes on", "\x02" + strings.Repeat("x", 120), 100, []string{"\x02" + strings.Repeat("x", 99), "\x02" + strings.Repeat("x", 21)}},
		{"format ended", "\x02b\x02" + strings.Repeat("x", 120), 100, []string{"\x02b\x02" + strings.Repeat("x", 97), strings.Repeat("x", 23)}},
		{"colour before a digit", "\x034" + strings.Repeat("x", 98) + "1", 100, []string{"\x034" + strings.Repeat("x", 98), "\x034\x02\x021"}},
		{"colour is whole", strings.Repeat("x", 97) + "\x0304,05y", 100, []string{strings.Repeat("x", 97), "\x0304,05y"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Split(tt.in, tt.max); !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// FuzzSplit checks that lines fit, hold nothing that would end or break a
// line, and together still say the same.
func FuzzSplit(f *testing.F) {
	f.Add("hello\r\nworld", 100)
	f.Add("\x02bold \x1d\x0304,12"+strings.Repeat("wörd ", 40)+"\x03 plain", 64)
	f.Add(strings.Repeat("👩\u200d👩\u200d👧", 30), 70)
	f.Add("\x04ff0000,00ff00"+strings.Repeat("1,2", 50), 64)
	f.Add(strings.Repeat("\u0301", 200), 64)
	f.Fuzz(func(t *testing.T, text string, max int) {
		lines := Split(text, max)
		var all strings.Builder
		for _, l := range lines {
			if len(l) > lineMax(max) {
				t.Errorf("line of %d bytes, allowed are %d: %q", len(l), lineMax(max), l)
			}
			if strings.ContainsAny(l, "\r\n\x00") {
				t.Errorf("a line breaks out: %q", l)
			}
			if !utf8.ValidString(l) {
				t.Errorf("no UTF-8: %q", l)
			}
			if strings.TrimSpace(stripCodes(l)) == "" {
				t.Errorf("empty line: %q", l)
			}
			all.WriteString(stripCodes(l))
		}
		var want strings.Builder
		for _, p := range strings.Split(Clean(text), "\n") {
			want.WriteString(stripCodes(p))
		}
		// White space may vanish at the end of a paragraph.
		squeeze := func(s string) string { return strings.Join(strings.Fields(s), "") }
		if squeeze(all.String()) != squeeze(want.String()) {
			t.Errorf("said %q, want %q", all.String(), want.String())
		}
	})
}

// FuzzStripCodes compares with the library, which knows all codes but the hex
// colour.
func FuzzStripCodes(f *testing.F) {
	f.Add("\x02a\x0304,5b\x03,c\x0f\x11\x16\x1d\x1e\x1fd")
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsRune(s, codeHexColour) {
			t.Skip()
		}
		if got, want := stripCodes(s), ircfmt.Strip(s); got != want {
			t.Errorf("%q became %q, want %q", s, got, want)
		}
	})
}
