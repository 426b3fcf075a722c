package canonjson

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestCanonical(t *testing.T) {
	tests := []struct{ name, in, want string }{
		// The examples of the specification.
		{"empty", "{}", "{}"},
		{"one two", "{\n    \"one\": 1,\n    \"two\": \"Two\"\n}", `{"one":1,"two":"Two"}`},
		{"order", "{\n    \"b\": \"2\",\n    \"a\": \"1\"\n}", `{"a":"1","b":"2"}`},
		{"order, compact", `{"b":"2","a":"1"}`, `{"a":"1","b":"2"}`},
		{"nested", `{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {"display_name": "John Doe",
			"three_pids": [{"medium": "email", "address": "john.doe@example.org"}, {"medium": "msisdn", "address": "123456789"}]}}}`,
			`{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}`},
		{"not ASCII", `{"a": "日本語"}`, `{"a":"日本語"}`},
		{"order, not ASCII", `{"本": 2, "日": 1}`, `{"日":1,"本":2}`},
		{"needless escape", `{"a": "\u65E5"}`, `{"a":"日"}`},
		{"null", `{"a": null}`, `{"a":null}`},
		{"numbers", `{"a": -0, "b": 1e10}`, `{"a":0,"b":10000000000}`},

		{"scalars at the top", " true ", "true"},
		{"short escapes", `"\b\f\n\r\t\"\\\/"`, `"\b\f\n\r\t\"\\/"`},
		{"long escapes for short ones", `"\u0008\u000c\u000A\u000d\u0009\u0022\u005C\u002f"`, `"\b\f\n\r\t\"\\/"`},
		{"control characters", `"\u0000\u000B\u001F\u007f"`, "\"\\u0000\\u000b\\u001f\u007f\""},
		{"surrogate pair", `"\ud83d\uDE00"`, `"😀"`},
		{"line separators stay", "\"\u2028\u2029<>&\"", "\"\u2028\u2029<>&\""},
		{"replacement character stays", "\"\uFFFD\"", "\"\uFFFD\""},
		{"code points, not UTF-16", `{"\ud83d\ude00":1,"\uffff":2}`, "{\"\uffff\":2,\"😀\":1}"},
		{"prefix first", `{"aa":1,"a":2,"":3}`, `{"":3,"a":2,"aa":1}`},
		{"escaped keys by character", `{"a\"":1,"a\n":2,"a!":3,"a\u0001":4,"a\\":5,"aZ":6}`,
			`{"a\u0001":4,"a\n":2,"a!":3,"a\"":1,"aZ":6,"a\\":5}`},
		{"case matters", `{"b":1,"B":2}`, `{"B":2,"b":1}`},
		{"order inside of order", `{"b":{"d":1,"c":[{"f":1,"e":2}]},"a":{}}`, `{"a":{},"b":{"c":[{"e":2,"f":1}],"d":1}}`},
		{"largest", `[9007199254740991,-9007199254740991]`, `[9007199254740991,-9007199254740991]`},
		{"integers otherwise written", `[1.0,10E-1,0.5e1,0e99,-0.0,1E+2,9007199254740991.0,90071992547409910e-1]`,
			`[1,1,5,0,0,100,9007199254740991,9007199254740991]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Canonical([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// refused are texts that every form refuses, with the byte where it finds out.
var refused = []struct {
	name, in string
	offset   int
}{
	{"nothing", "", 0},
	{"space", "  ", 2},
	{"two values", "{} {}", 3},
	{"comma at the end", `{"a":1,}`, 7},
	{"comma at the end of an array", `[1,]`, 3},
	{"comma first", `[,1]`, 1},
	{"no comma", `[1 2]`, 3},
	{"no comma between members", `{"a":1 "b":2}`, 7},
	{"no colon", `{"a" 1}`, 5},
	{"key without quotes", `{a:1}`, 1},
	{"number as a key", `{1:1}`, 1},
	{"open object", `{"a":1`, 6},
	{"open array", `[1`, 2},
	{"bracket alone", `[`, 1},
	{"brace alone", `{`, 1},
	{"key alone", `{"a"`, 4},
	{"key and colon", `{"a":`, 5},
	{"open array behind a comma", `[1,`, 3},
	{"open string", `"abc`, 4},
	{"open escape", `"abc\`, 4},
	{"single quotes", `'a'`, 0},
	{"word", `nul`, 0},
	{"word in capitals", `True`, 0},
	{"longer word", `nullx`, 4},
	{"NaN", `NaN`, 0},
	{"Infinity", `-Infinity`, 1},
	{"leading zero", `01`, 2},
	{"leading zero behind minus", `-01`, 3},
	{"plus", `+1`, 0},
	{"point first", `.5`, 0},
	{"point last", `1.`, 2},
	{"empty exponent", `1e`, 2},
	{"empty exponent with sign", `1e+`, 3},
	{"hexadecimal", `0x10`, 1},
	{"minus alone", `-`, 1},
	{"comment", `/**/1`, 0},
	{"line break in a string", "\"a\nb\"", 2},
	{"NUL in a string", "\"a\x00b\"", 2},
	{"NUL behind", "1\x00", 1},
	{"unknown escape", `"\x41"`, 1},
	{"short hexadecimal escape", `"\u12"`, 1},
	{"bad hexadecimal escape", `"\u12g4"`, 1},
	{"lone high surrogate", `"\ud83d"`, 1},
	{"lone low surrogate", `"\ude00"`, 1},
	{"two high surrogates", `"\ud83d\ud83d"`, 1},
	{"surrogate before text", `"\ud83dxxxxxx"`, 1},
	{"invalid UTF-8", "\"\xff\"", 1},
	{"overlong UTF-8", "\"\xc0\x80\"", 1},
	{"surrogate in UTF-8", "\"\xed\xa0\x80\"", 1},
	{"cut UTF-8", "\"\xe6\x97\"", 1},
	{"UTF-8 above U+10FFFF", "\"\xf4\x90\x80\x80\"", 1},
	{"byte order mark", "\xef\xbb\xbf{}", 0},
	{"other space", "\u00a01", 0},
	{"duplicate key", `{"a":1,"a":1}`, 12},
	{"duplicate key apart", `{"a":1,"b":2,"a":1}`, 18},
	{"duplicate key by an escape", `{"a":1,"\u0061":1}`, 17},
	{"duplicate key inside", `[{"b":{"a":1,"a":2}}]`, 18},
	{"duplicate empty key", `{"":1,"":1}`, 10},
	{"too deep", strings.Repeat("[", 101) + strings.Repeat("]", 101), 100},
	{"too deep, mixed", strings.Repeat(`{"a":[`, 51) + strings.Repeat("]}", 51), 300},
	{"endless depth", strings.Repeat("[", 1<<20), 100},
}

func TestRefused(t *testing.T) {
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			for name, f := range map[string]func([]byte) ([]byte, error){
				"Canonical": Canonical, "Enforced": Enforced, "Relaxed": Relaxed,
				"Valid": func(b []byte) ([]byte, error) { return nil, Valid(b) },
			} {
				got, err := f([]byte(tt.in))
				var e *Error
				if !errors.As(err, &e) {
					t.Fatalf("%s: got %s and error %v", name, got, err)
				}
				if e.Offset != tt.offset {
					t.Errorf("%s: %v, want it at byte %d", name, err, tt.offset)
				}
			}
			if _, err := Members(nil, []byte(tt.in), Any); err == nil {
				t.Error("Members took it")
			}
		})
	}
}

func TestDeepest(t *testing.T) {
	for _, in := range []string{
		strings.Repeat("[", 100) + strings.Repeat("]", 100),
		strings.Repeat(`{"a":[`, 50) + strings.Repeat("]}", 50),
		strings.Repeat("[ ", 100) + strings.Repeat("]", 100),
		"[" + strings.Repeat("[],", 500) + "{}]",
	} {
		if _, err := Canonical([]byte(in)); err != nil {
			t.Errorf("%.20s…: %v", in, err)
		}
	}
}

func TestNumbers(t *testing.T) {
	tests := []struct{ in, whole, integers, any string }{ // "" is a refusal
		{"0", "0", "0", "0"},
		{"-0", "0", "0", "0"},
		{"-1", "-1", "-1", "-1"},
		{"9007199254740991", "9007199254740991", "9007199254740991", "9007199254740991"},
		{"9007199254740992", "", "", "9007199254740992"},
		{"-9007199254740992", "", "", "-9007199254740992"},
		{"9999999999999999", "", "", "9999999999999999"},
		{"10000000000000000", "", "", "10000000000000000"},
		{"123456789012345678901234567890", "", "", "123456789012345678901234567890"},
		{"1.0", "1", "", "1.0"},
		{"1e2", "100", "", "100.0"},
		{"-1.5", "", "", "-1.5"},
		{"1.50", "", "", "1.5"},
		{"-0.0", "0", "", "-0.0"},
		{"9007199254740991.5", "", "", "9007199254740992.0"},
		{"0.1", "", "", "0.1"},
		{"0.0001", "", "", "0.0001"},
		{"0.00001", "", "", "1e-05"},
		{"1e15", "1000000000000000", "", "1000000000000000.0"},
		{"1e16", "", "", "1e+16"},
		{"1.5E300", "", "", "1.5e+300"},
		{"1e400", "", "", ""},
		{"1e-400", "", "", "0.0"},
		{"1e99999999999999999999", "", "", ""},
		{"5e-1", "", "", "0.5"},
		{"123456789.123456789", "", "", "123456789.12345679"},
	}
	for _, tt := range tests {
		for form, want := range map[Numbers]string{Whole: tt.whole, Integers: tt.integers, Any: tt.any} {
			got, err := Encode([]byte(tt.in), form)
			if want == "" && err == nil || want != "" && err != nil || string(got) != want {
				t.Errorf("%s in form %d: got %q and %v, want %q", tt.in, form, got, err, want)
			}
		}
		if err := Valid([]byte(tt.in)); err != nil {
			t.Errorf("Valid(%s): %v", tt.in, err)
		}
	}
}

func TestCanonicalKeepsCanonical(t *testing.T) {
	in := []byte(`{"a":[1,-2,"x\n\u001f\"\\",true,null,false,{}],"b":[],"é":0}`)
	got, err := Canonical(in)
	if err != nil {
		t.Fatal(err)
	}
	if &got[0] != &in[0] {
		t.Error("canonical bytes were copied")
	}
	if n := testing.AllocsPerRun(10, func() { _, _ = Canonical(in) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMarshal(t *testing.T) {
	got, err := Marshal(map[string]any{"b": "<&>\u2028", "a": []int{1}, "c": struct {
		Z int    `json:"z"`
		A string `json:"a"`
	}{1, "é"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := "{\"a\":[1],\"b\":\"<&>\u2028\",\"c\":{\"a\":\"é\",\"z\":1}}"; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := Marshal(1.5); err == nil {
		t.Error("a float was taken")
	}
	if _, err := Marshal(func() {}); err == nil {
		t.Error("a function was taken")
	}
}

func TestMembers(t *testing.T) {
	in := ` { "b" : { "d" : 1 , "c" : [ ] } , "a\u0062" : "\u65e5" , "é":1, "a\n":2 } `
	got, err := Members(nil, []byte(in), Whole)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, m := range got {
		keys = append(keys, string(m.Key)+"="+string(m.Value))
	}
	want := []string{`a\n=2`, `ab="日"`, `b={"c":[],"d":1}`, `é=1`}
	if !slices.Equal(keys, want) {
		t.Errorf("got %q, want %q", keys, want)
	}
	if obj := Object(nil, got, func(key []byte) bool { return string(key) == "ab" }); string(obj) != `{"a\n":2,"b":{"c":[],"d":1},"é":1}` {
		t.Errorf("without ab: %s", obj)
	}
	if got, err := Members(nil, []byte(" {} "), Whole); err != nil || len(got) != 0 {
		t.Errorf("empty object: %v, %v", got, err)
	}
	for _, in := range []string{`[]`, `null`, `"a"`, `1`, `{"a":1.5}`, `{"b":1,"a":2,"b":3}`, `{"a":1}x`, `{"a":1,}`, `{,}`} {
		if got, err := Members(nil, []byte(in), Whole); err == nil {
			t.Errorf("Members(%s) = %v", in, got)
		}
	}
}
