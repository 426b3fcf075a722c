package canonjson

import (
	"math"
	"testing"
)

func TestLookup(t *testing.T) {
	const obj = `{"a":1,"b\n":2,"c":{"d":[1,{"e":"}\"]"}],"x":1},"d":"y","é":[]}`
	tests := []struct{ key, want string }{
		{"a", "1"}, {`b\n`, "2"}, {"c", `{"d":[1,{"e":"}\"]"}],"x":1}`}, {"d", `"y"`}, {"é", "[]"}, {"x", ""}, {"e", ""}, {"", ""},
	}
	for _, tt := range tests {
		if got, ok := Lookup([]byte(obj), tt.key); string(got) != tt.want || ok != (tt.want != "") {
			t.Errorf("Lookup %q: %s, %v, want %s", tt.key, got, ok, tt.want)
		}
	}
	for _, bad := range []string{"", "{", "{}", "[]", `"a"`, `{"a"`, `{"a":`, `{"a":}`, `{"a"x1}`, `{a:1}`, `{"b":1,a`} {
		if got, ok := Lookup([]byte(bad), "a"); ok {
			t.Errorf("Lookup in %s: %s", bad, got)
		}
	}
}

func TestElements(t *testing.T) {
	tests := []struct {
		array string
		want  []string
	}{
		{`[]`, nil}, {`[1]`, []string{"1"}}, {`["a,]",[1,2],{"b":[]},null]`, []string{`"a,]"`, "[1,2]", `{"b":[]}`, "null"}},
		{``, nil}, {`{}`, nil}, {`[`, nil}, {`["a`, nil},
	}
	for _, tt := range tests {
		i := 0
		for v := range Elements([]byte(tt.array)) {
			if i >= len(tt.want) || string(v) != tt.want[i] {
				t.Fatalf("%s: element %d is %s", tt.array, i, v)
			}
			i++
		}
		if i != len(tt.want) {
			t.Errorf("%s: %d elements", tt.array, i)
		}
	}
}

func TestInt(t *testing.T) {
	tests := []struct {
		in   string
		want int64
		ok   bool
	}{
		{"0", 0, true}, {"-1", -1, true}, {"9007199254740991", MaxInt, true}, {"9223372036854775807", math.MaxInt64, true},
		{"-9223372036854775808", math.MinInt64, true}, {"9223372036854775808", 0, false}, {"99999999999999999999", 0, false},
		{"1.5", 0, false}, {"1e3", 0, false}, {`"1"`, 0, false}, {"", 0, false}, {"-", 0, false}, {"null", 0, false}, {"[1]", 0, false},
	}
	for _, tt := range tests {
		if got, ok := Int([]byte(tt.in)); ok != tt.ok || ok && got != tt.want {
			t.Errorf("Int(%s) = %d, %v", tt.in, got, ok)
		}
	}
}

func TestText(t *testing.T) {
	for _, s := range []string{"", "abc", "a\"b\\c", "\x00\x1f\b\f\n\r\t", "日本語 😀", "\u007f\u2028/"} {
		quoted := AppendText(nil, s)
		if end, _ := scanString(quoted, 0); end != len(quoted) {
			t.Errorf("%q became %s, which is not canonical", s, quoted)
		}
		if got, ok := Text(quoted); !ok || got != s {
			t.Errorf("%q came back as %q", s, got)
		}
	}
	if got := AppendText([]byte("x"), "a\xffb\xe6\x97"); string(got) != "x\"a\uFFFDb\uFFFD\uFFFD\"" {
		t.Errorf("invalid UTF-8 became %s", got)
	}
	for _, bad := range []string{"", `"`, "1", "null", "{}", `"a`} {
		if got, ok := Text([]byte(bad)); ok {
			t.Errorf("Text(%s) = %q", bad, got)
		}
	}
}
