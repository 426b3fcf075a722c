package words

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFold(t *testing.T) {
	for text, want := range map[string]string{
		"Hello": "hello", "ÀÉÎ õü": "aei ou", "Straße": "strasse", "ｆｕｌｌ　Ｗidth": "full width", "ﬁn": "fin", "Ёлка": "елка",
		"ｶﾞﾗｽ": "ガラス", "か\u3099": "が", "서울": "서울", "Łódź": "lodz", "İstanbul ılık": "istanbul ilik", "שָׁלוֹם": "שלום", "مُحَمَّد": "محمد",
		"ΣΊΣΥΦΟΣ": "σισυφοσ", "a\u00adb": "ab", "❤\ufe0f": "❤", "क्षि": "क्षि",
	} {
		if got := Fold(text); got != want {
			t.Errorf("Fold(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestKeys(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "",
		"Hello, world! hello":           "hello world",
		"don't":                         "don t",
		"see https://a.test/b_c?d=1":    "see https a test b c d 1",
		"東京都":                           "東京 京都 都",
		"X線で3回":                         "x 線で で 3 回",
		"コーヒー🎉🎉":                        "コー ーヒ ヒー ー 🎉",
		"สวัสดี":                        "สว วั ัส สด ดี ี",
		"서울 에서":                         "서울 울 에서 서",
		"!12 #body":                     "12 body",
		"... \u200b\u0000 --":           "",
		strings.Repeat("ab", longest):   strings.Repeat("ab", longest/2),
		"👩\u200d👩\u200d👧 a\u0301b \xff": "👩 👧 ab",
	} {
		if got := strings.Join(Keys(text), " "); got != want {
			t.Errorf("Keys(%q) = %q, want %q", text, got, want)
		}
	}
	var many strings.Builder
	for i := range rune(20_000) {
		many.WriteRune(0x4e00 + i)
	}
	if n := len(Keys(many.String())); n != mostKeys {
		t.Errorf("%d keys", n)
	}
}

func TestRank(t *testing.T) {
	for _, c := range []struct{ term, better, worse string }{
		{"fox", "the quick fox", "the quick hare"},
		{"quick fox", "the fox is quick", "the fox is slow"},
		{"quick fox", "the quick fox", "the fox is quick"},
		{"fox", "a fox, a fox", "a fox, a dog"},
		{"fox", "a fox", "a fox and so much else that has nothing to do with it at all"},
		{"messag", "messages", "mess"},
		{"message", "a message", "a messages"},
		{"me", "me", "message"},
		{"cafe", "CAFÉ", "caf"},
		{"東京", "東京都に住む", "京都と東"},
		{"京都", "東京都", "東京の都"},
		{"猫", "黒猫がいる", "犬がいる"},
		{"サーバ", "ｻｰﾊﾞｰ", "サバ"},
		{"서울", "서울에서 만나", "부산에서 만나"},
		{"ดี", "สวัสดี", "สวัส"},
		{"🎉", "yeah🎉🎊", "yeah 🎊"},
		{"ночь", "белая НОЧЬ", "белый день"},
	} {
		term := Parse(c.term)
		better, worse := term.Rank(c.better), term.Rank(c.worse)
		if better <= worse || better == 0 {
			t.Errorf("%q finds %q by %v and %q by %v", c.term, c.better, better, c.worse, worse)
		}
	}
	if Parse("?!").Rank("?!") != 0 || len(Parse("?!").Keys()) != 0 {
		t.Error("a term without words finds something")
	}
}

func TestFound(t *testing.T) {
	for _, c := range []struct{ term, text, want string }{
		{"messag cafe", "Two MESSAGES of the Café, messages", "messages café"},
		{"東京", "大東京都", "東京"},
		{"x", "y", ""},
	} {
		if got := strings.Join(Parse(c.term).Found(c.text), " "); got != c.want {
			t.Errorf("%q in %q: %q, want %q", c.term, c.text, got, c.want)
		}
	}
}

// indexed tells whether an index with the keys of a text finds it.
func indexed(keys []string, asked []Key) bool {
	return !slices.ContainsFunc(asked, func(k Key) bool {
		return !slices.ContainsFunc(keys, func(key string) bool { return key == k.Text || k.Prefix && strings.HasPrefix(key, k.Text) })
	})
}

// FuzzWords: what Rank finds, the index finds too; a text finds itself; and keys
// have the characters that indexes take.
func FuzzWords(f *testing.F) {
	for _, s := range [][2]string{{"quick fox", "the quick FOX"}, {"東京", "東京都"}, {"a\u0301", "á b"}, {"ー", "コーヒー"}, {"ｶﾞ", "ガラス"}, {"\xff", "\x00!"}, {"ß", "SS"}, {"ัส", "สวัสดี"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, term, text string) {
		keys := Keys(text)
		for _, k := range keys {
			if k == "" || !utf8.ValidString(k) || strings.ContainsAny(k, " \t\n\x00\"'\\!#*()&|:") || len(k) > longest {
				t.Fatalf("%q has the key %q", text, k)
			}
		}
		if len(keys) == mostKeys {
			return
		}
		asked := Parse(term)
		if asked.Rank(text) > 0 && !indexed(keys, asked.Keys()) {
			t.Fatalf("%q is in %q, but not in its index: %v, %q", term, text, asked.Keys(), keys)
		}
		itself := Parse(text)
		if len(Fold(text)) > mostTerm {
			return
		}
		if found := itself.Rank(text) > 0; found != (len(keys) > 0) {
			t.Fatalf("%q finds itself: %v, keys %q", text, found, keys)
		}
	})
}
