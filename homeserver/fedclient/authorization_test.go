package fedclient

import (
	"net/http"
	"strings"
	"testing"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

func TestParseXMatrix(t *testing.T) {
	full := xmatrix{"a.test", "b.test", "ed25519:1", "c2ln"}
	tests := []struct {
		name, in string
		want     xmatrix // zero: refused
	}{
		{"as we send it", `origin="a.test",destination="b.test",key="ed25519:1",sig="c2ln"`, full},
		{"tokens", `origin=a.test,destination=b.test,key=ed25519:1,sig=c2ln`, full},
		{"another order and case", `SIG="c2ln",Key="ed25519:1",DESTINATION="b.test",Origin="a.test"`, full},
		{"space around commas", "origin=\"a.test\" ,\tdestination=\"b.test\"\t , key=\"ed25519:1\",sig=\"c2ln\"  ", full},
		{"space before", `    origin="a.test",destination="b.test",key="ed25519:1",sig="c2ln"`, full},
		{"space around =", `origin = "a.test",destination= b.test,key ="ed25519:1",sig="c2ln"`, full},
		{"empty elements", `,,origin="a.test",, destination="b.test",key="ed25519:1",sig="c2ln",`, full},
		{"backslashes", `origin="a\.t\e\st",destination="b.test",key="ed\25519:1",sig="c2ln"`, full},
		{"unknown parameters", `origin="a.test",destination="b.test",x="a, b=\"c\"",key="ed25519:1",y=z,sig="c2ln"`, full},
		{"ports", `origin="a.test:8448",destination=[::1]:8448,key=ed25519:1,sig=c2ln`, xmatrix{"a.test:8448", "[::1]:8448", "ed25519:1", "c2ln"}},
		{"padding and alphabet without quotes", `origin=a.test,key=ed25519:1,sig=ab/c+d==`, xmatrix{"a.test", "", "ed25519:1", "ab/c+d=="}},
		{"no destination", `origin="a.test",key="ed25519:1",sig="c2ln"`, xmatrix{"a.test", "", "ed25519:1", "c2ln"}},
		{"signature by its other name", `origin="a.test",key="ed25519:1",signature="c2ln"`, xmatrix{"a.test", "", "ed25519:1", "c2ln"}},

		{"nothing", ``, xmatrix{}},
		{"no origin", `destination="b.test",key="ed25519:1",sig="c2ln"`, xmatrix{}},
		{"no key", `origin="a.test",destination="b.test",sig="c2ln"`, xmatrix{}},
		{"no signature", `origin="a.test",destination="b.test",key="ed25519:1"`, xmatrix{}},
		{"empty signature", `origin="a.test",destination="b.test",key="ed25519:1",sig=""`, xmatrix{}},
		{"two origins", `origin="a.test",origin="c.test",key="ed25519:1",sig="c2ln"`, xmatrix{}},
		{"the same origin twice", `origin="a.test",ORIGIN="a.test",key="ed25519:1",sig="c2ln"`, xmatrix{}},
		{"origin is no name", `origin="a test",key="ed25519:1",sig="c2ln"`, xmatrix{}},
		{"empty destination", `origin="a.test",destination="",key="ed25519:1",sig="c2ln"`, xmatrix{}},
		{"no comma", `origin="a.test" destination="b.test",key="ed25519:1",sig="c2ln"`, xmatrix{}},
		{"text behind quotes", `origin="a.test"x,key="ed25519:1",sig="c2ln"`, xmatrix{}},
		{"open quotes", `origin="a.test",key="ed25519:1",sig="c2ln`, xmatrix{}},
		{"open escape", `origin="a.test",key="ed25519:1",sig="c2ln\`, xmatrix{}},
		{"quote in a token", `origin=a"b,key="ed25519:1",sig="c2ln"`, xmatrix{}},
		{"no value", `origin,key="ed25519:1",sig="c2ln"`, xmatrix{}},
		{"empty value", `origin=,key="ed25519:1",sig="c2ln"`, xmatrix{}},
		{"no name", `="a.test",key="ed25519:1",sig="c2ln"`, xmatrix{}},
		{"control character", "origin=\"a.test\",x=\"\x01\",key=\"ed25519:1\",sig=\"c2ln\"", xmatrix{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseXMatrix(tt.in)
			if got != tt.want || (err == nil) != (tt.want != xmatrix{}) {
				t.Errorf("%q: %+v, %v; want %+v", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestParseAuthorizations(t *testing.T) {
	const one, two = `origin="a.test",destination="b.test",key="ed25519:1",sig="c2ln"`, `origin="a.test",destination="b.test",key="ed25519:2",sig="c2ln"`
	tests := []struct {
		name  string
		lines []string
		want  int // headers; 0: refused
	}{
		{"one", []string{"X-Matrix " + one}, 1},
		{"another case of the scheme", []string{"x-MATRIX   " + one}, 1},
		{"two", []string{"X-Matrix " + one, "X-Matrix " + two}, 2},
		{"another scheme beside it", []string{"Bearer token", "X-Matrix " + one}, 1},
		{"none", nil, 0},
		{"another scheme", []string{"Bearer " + one}, 0},
		{"no space", []string{"X-Matrix" + one}, 0},
		{"two origins", []string{"X-Matrix " + one, "X-Matrix " + strings.Replace(two, "a.test", "c.test", 1)}, 0},
		{"two destinations", []string{"X-Matrix " + one, "X-Matrix " + strings.Replace(two, "b.test", "c.test", 1)}, 0},
		{"one bad", []string{"X-Matrix " + one, "X-Matrix origin"}, 0},
		{"too many", strings.Split(strings.Repeat("X-Matrix "+one+"\n", maxAuthorizations+1), "\n"), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			for _, line := range tt.lines {
				h.Add("Authorization", line)
			}
			got, err := parseAuthorizations(h)
			if len(got) != tt.want || (err == nil) != (tt.want > 0) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// FuzzXMatrix checks that an accepted header, written as we write headers, is
// read as the same again.
func FuzzXMatrix(f *testing.F) {
	for _, s := range []string{
		`origin="a.test",destination="b.test",key="ed25519:1",sig="c2ln"`, `origin=a.test,key=ed25519:1,sig=ab==`, `origin="a\.test",,key=1 , sig="\""`,
		`signature=a,origin=[::1]:1,key=k`,
	} {
		f.Add(s)
	}
	quote := func(s string) string {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
	}
	f.Fuzz(func(t *testing.T, s string) {
		x, err := parseXMatrix(s)
		if err != nil {
			return
		}
		for _, name := range []matrix.ServerName{x.origin, x.destination} {
			if _, err := matrix.ParseServerName(string(name)); err != nil && name != "" {
				t.Errorf("%q: %v", s, err)
			}
		}
		line := "origin=" + quote(string(x.origin)) + ",key=" + quote(x.key) + ",sig=" + quote(x.signature)
		if x.destination != "" {
			line += ",destination=" + quote(string(x.destination))
		}
		again, err := parseXMatrix(line)
		if err != nil || again != x {
			t.Errorf("%q: %+v came back from %q as %+v, %v", s, x, line, again, err)
		}
	})
}

// TestSignedRequest compares with the signing of JSON that the specification
// describes.
func TestSignedRequest(t *testing.T) {
	key := newKey(t)
	for _, body := range []string{"", `{"b":1,"a":[1.5,"é"]}`} {
		object := map[string]any{"method": "PUT", "uri": "/_matrix/x?a=%20", "origin": "a.test", "destination": "b.test"}
		var content []byte
		if body != "" {
			var err error
			if content, err = canonjson.Relaxed([]byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		line, err := authorization(key, "a.test", "b.test", "PUT", "/_matrix/x?a=%20", content)
		if err != nil {
			t.Fatal(err)
		}
		x, err := parseXMatrix(strings.TrimPrefix(line, "X-Matrix "))
		if err != nil || x.origin != "a.test" || x.destination != "b.test" || x.key != key.ID {
			t.Fatalf("%q: %+v, %v", line, x, err)
		}
		if strings.ContainsAny(line[len("X-Matrix "):], " \t\\") {
			t.Errorf("%q is nothing for older servers", line)
		}
		object["signatures"] = map[string]any{"a.test": map[string]string{x.key: x.signature}}
		if body != "" {
			object["content"] = map[string]any{"b": 1, "a": []any{1, "é"}}
			continue // floats are nothing for the strict check below
		}
		raw, err := canonjson.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		if err := signing.VerifyJSON(raw, "a.test", key.ID, key.Public()); err != nil {
			t.Error(err)
		}
	}
	if _, err := authorization(key, `a"`, "b.test", "GET", "/", nil); err == nil {
		t.Error("a quote in a name")
	}
}
