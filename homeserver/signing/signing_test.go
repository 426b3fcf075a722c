package signing

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
)

// testKey is the key of the specification's test vectors.
func testKey(t testing.TB) Key {
	t.Helper()
	k, err := ParseKey("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSignJSON(t *testing.T) {
	tests := []struct{ name, in, want string }{
		// The test vectors of the specification.
		{"empty", `{}`, `{"signatures":{"domain":{"ed25519:1":"K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"}}}`},
		{"values", "{\n    \"one\": 1,\n    \"two\": \"Two\"\n}", `{"one":1,"signatures":{"domain":{"ed25519:1":"KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"}},"two":"Two"}`},

		{"unsigned and other signatures stay", `{"unsigned":{"age":1},"two":"Two","signatures":{"a":{"ed25519:x":"y"},"domain":{"ed25519:0":"z"}},"one":1}`,
			`{"one":1,"signatures":{"a":{"ed25519:x":"y"},"domain":{"ed25519:0":"z","ed25519:1":"KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"}},"two":"Two","unsigned":{"age":1}}`},
		{"signed again", `{"signatures":{"domain":{"ed25519:1":"old"},"x":{}}}`,
			`{"signatures":{"domain":{"ed25519:1":"K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"},"x":{}}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := testKey(t)
			got, err := SignJSON([]byte(tt.in), "domain", k)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if err := VerifyJSON(got, "domain", "ed25519:1", k.Public()); err != nil {
				t.Error(err)
			}
		})
	}
	for _, bad := range []string{``, `[]`, `{"a":1.5}`, `{"signatures":[]}`, `{"signatures":{"domain":1}}`, `{"a":1,"a":2}`} {
		if got, err := SignJSON([]byte(bad), "domain", testKey(t)); err == nil {
			t.Errorf("%s was signed: %s", bad, got)
		}
	}
}

func TestVerifyJSON(t *testing.T) {
	k := testKey(t)
	other, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := SignJSON([]byte(`{"one":1,"two":"Two"}`), "domain", k)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, old, new string // a change to the signed object
		entity, keyID  string
		pub            ed25519.PublicKey
		want           error
	}{
		{"right", "", "", "domain", k.ID, k.Public(), nil},
		{"unsigned is not covered", `{"one"`, `{"unsigned":[{}],"one"`, "domain", k.ID, k.Public(), nil},
		{"other form of the same", `"Two"`, ` "\u0054wo"`, "domain", k.ID, k.Public(), nil},
		{"padded", `Bw"`, `Bw=="`, "domain", k.ID, k.Public(), nil},
		{"other signatures do not matter", `{"domain"`, `{"z":[],"domain"`, "domain", k.ID, k.Public(), nil},
		{"changed value", `"Two"`, `"two"`, "domain", k.ID, k.Public(), ErrWrong},
		{"added value", `{"one"`, `{"a":1,"one"`, "domain", k.ID, k.Public(), ErrWrong},
		{"changed signature", `"KqmL`, `"KqmM`, "domain", k.ID, k.Public(), ErrWrong},
		{"cut signature", `Bw"`, `"`, "domain", k.ID, k.Public(), ErrWrong},
		{"signature that is no base64", `"KqmL`, `"!qmL`, "domain", k.ID, k.Public(), ErrWrong},
		{"other key", "", "", "domain", k.ID, other.Public(), ErrWrong},
		{"cut key", "", "", "domain", k.ID, k.Public()[:31], ErrWrong},
		{"no key", "", "", "domain", k.ID, nil, ErrWrong},
		{"other entity", "", "", "Domain", k.ID, k.Public(), ErrUnsigned},
		{"other key ID", "", "", "domain", "ed25519:2", k.Public(), ErrUnsigned},
		{"other algorithm", `"ed25519:1"`, `"ed448:1"`, "domain", "ed448:1", k.Public(), ErrUnsigned},
		{"signature is no string", `"ed25519:1":"KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"`, `"ed25519:1":1`, "domain", k.ID, k.Public(), ErrUnsigned},
		{"signatures are no object", `"signatures":{`, `"signatures":[],"x":{`, "domain", k.ID, k.Public(), ErrUnsigned},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			obj := strings.Replace(string(signed), tt.old, tt.new, 1)
			if tt.old != "" && obj == string(signed) {
				t.Fatalf("%s is not in %s", tt.old, signed)
			}
			if err := VerifyJSON([]byte(obj), tt.entity, tt.keyID, tt.pub); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if err := VerifyJSON([]byte(`{"a":1,"a":1}`), "domain", k.ID, k.Public()); err == nil || errors.Is(err, ErrUnsigned) {
		t.Errorf("duplicate keys: %v", err)
	}
}

// TestEntityWithEscapes signs for an entity whose name needs escapes, as
// historical user IDs may.
func TestEntityWithEscapes(t *testing.T) {
	k := testKey(t)
	signed := []byte(`{"a":1}`)
	for _, entity := range []string{"@z:b", `@"x\:b`, "@\n:b", "@a:b"} {
		s, err := AddSignature(nil, entity, k.ID, "x")
		if err != nil {
			t.Fatal(err)
		}
		if got := Entities(s); len(got) != 1 || got[0] != entity {
			t.Errorf("entities of %s: %q", s, got)
		}
		if signed, err = SignJSON(signed, matrix.ServerName(entity), k); err != nil {
			t.Fatal(err)
		}
	}
	for _, entity := range []string{"@z:b", `@"x\:b`, "@\n:b", "@a:b"} {
		if err := VerifyJSON(signed, entity, k.ID, k.Public()); err != nil {
			t.Errorf("%q: %v", entity, err)
		}
	}
	all, err := AddSignature([]byte(`{"@a\n:b":{},"@a!:b":{}}`), "@a\"", "k", "s")
	if want := `{"@a\n:b":{},"@a!:b":{},"@a\"":{"k":"s"}}`; err != nil || string(all) != want {
		t.Errorf("got %s, %v, want %s", all, err, want)
	}
}

func TestParseKey(t *testing.T) {
	k := testKey(t)
	if k.ID != "ed25519:1" || k.Version() != "1" {
		t.Errorf("ID is %s", k.ID)
	}
	made, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []Key{k, made} {
		again, err := ParseKey("\n " + k.String() + "\n")
		if err != nil || again.ID != k.ID || !again.Private.Equal(k.Private) {
			t.Errorf("%s came back as %s, %v", k.ID, again.ID, err)
		}
	}
	for _, bad := range []string{
		"", "ed25519", "ed25519 1", "ed25519 1 a", "ed448 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1",
		"ed25519 a:b YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3X",
		"ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1 x", "ed25519 ä YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1",
	} {
		if k, err := ParseKey(bad); err == nil {
			t.Errorf("ParseKey(%q) = %s", bad, k.ID)
		}
	}
}

// TestKeyIsSecret checks that printing a key, or what holds one, does not show it.
func TestKeyIsSecret(t *testing.T) {
	k := testKey(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, k); got != k.ID {
			t.Errorf("%s prints %s", verb, got)
		}
		if got := fmt.Sprintf(verb, []Key{k}); !strings.Contains(got, k.ID) || len(got) > 40 {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

func TestBase64(t *testing.T) {
	for in, want := range map[string]string{"": "", "f": "Zg", "fo": "Zm8", "foo": "Zm9v", "foob": "Zm9vYg", "fooba": "Zm9vYmE", "foobar": "Zm9vYmFy", "\xfb\xff": "+/8"} {
		if got := EncodeBase64([]byte(in)); got != want {
			t.Errorf("%q became %s, want %s", in, got, want)
		}
		padded := want + strings.Repeat("=", (4-len(want)%4)%4)
		for _, s := range []string{want, padded, strings.NewReplacer("+", "-", "/", "_").Replace(want)} {
			if got, err := DecodeBase64(s); err != nil || !bytes.Equal(got, []byte(in)) {
				t.Errorf("%s became %q, %v", s, got, err)
			}
		}
	}
	for _, bad := range []string{"a", "Zg\n", "Z g", "Zg=x", "+_8", "ä"} {
		if got, err := DecodeBase64(bad); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

// FuzzParseKey checks that an accepted key comes back from its own text.
func FuzzParseKey(f *testing.F) {
	f.Add("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
	f.Add("ed25519 a_b YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW-3XA1=")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseKey(s)
		if err != nil {
			return
		}
		again, err := ParseKey(k.String())
		if err != nil || again.ID != k.ID || !again.Private.Equal(k.Private) {
			t.Errorf("%q came back as %s, %v", s, again.ID, err)
		}
	})
}

// FuzzSignJSON checks that whatever can be signed verifies, and that signing it
// again changes nothing.
func FuzzSignJSON(f *testing.F) {
	for _, s := range []string{`{}`, `{"b":[1,{"d":"\u0000","c":null}],"a":"é"}`, `{"signatures":{"domain":{"x":1}},"unsigned":1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, obj []byte) {
		k := testKey(t)
		signed, err := SignJSON(obj, "domain", k)
		if err != nil {
			return
		}
		if err := VerifyJSON(signed, "domain", k.ID, k.Public()); err != nil {
			t.Fatalf("%s: %v", signed, err)
		}
		again, err := SignJSON(signed, "domain", k)
		if err != nil || !bytes.Equal(again, signed) {
			t.Fatalf("%s was signed again as %s, %v", signed, again, err)
		}
	})
}

func BenchmarkVerifyJSON(b *testing.B) {
	k := testKey(b)
	signed, err := SignJSON([]byte(`{"one":1,"two":"Two","three":["`+strings.Repeat("x", 500)+`"]}`), "domain", k)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := VerifyJSON(signed, "domain", k.ID, k.Public()); err != nil {
			b.Fatal(err)
		}
	}
}
