package event

import (
	"fmt"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// testKey is the key of the specification's test vectors.
func testKey(t testing.TB) signing.Key {
	t.Helper()
	k, err := signing.ParseKey("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func version(t testing.TB, id string) *matrix.RoomVersion {
	t.Helper()
	v, ok := matrix.Version(id)
	if !ok {
		t.Fatalf("no room version %s", id)
	}
	return v
}

// message is a typical message.
func message() Draft {
	id := func(n int) matrix.EventID {
		return matrix.EventID(fmt.Sprintf("$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5%02d", n))
	}
	return Draft{
		Room: "!Nhcu5BS-UMnFX7hBVfVSoXiD7OgH6iRT-xyIuqDnpYQ", Type: "m.room.message", Sender: "@alice:example.org",
		Content: []byte(`{"msgtype":"m.text","body":"Hello, this is a quite typical message of a typical length, with a <b>bit</b> of text & more.",` +
			`"format":"org.matrix.custom.html","formatted_body":"Hello, this is a quite typical message of a typical length, with a &lt;b&gt;bit&lt;/b&gt; of text &amp; more.",` +
			`"m.mentions":{"user_ids":["@bob:example.org"]}}`),
		PrevEvents: []matrix.EventID{id(1)}, AuthEvents: []matrix.EventID{id(2), id(3)}, Depth: 5, OriginServerTS: 1700000000004,
	}
}

func BenchmarkBuild(b *testing.B) {
	v, k, d := version(b, "12"), testKey(b), message()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(v, d, "example.org", k); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	k, msg := testKey(b), make([]byte, 500)
	b.ReportAllocs()
	for b.Loop() {
		k.Sign(msg)
	}
}

func BenchmarkParse(b *testing.B) {
	v := version(b, "12")
	p, err := Build(v, message(), "example.org", testKey(b))
	if err != nil {
		b.Fatal(err)
	}
	raw := append(append([]byte{}, p.JSON[:len(p.JSON)-1]...), `,"unsigned":{"age":5}}`...)
	b.ReportAllocs()
	for b.Loop() {
		if q, err := Parse(v, raw); err != nil || q.ID != p.ID {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	v := version(b, "12")
	p, err := Build(v, message(), "example.org", testKey(b))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(v, p.ID, p.JSON); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkClient(b *testing.B) {
	p, err := Build(version(b, "12"), message(), "example.org", testKey(b))
	if err != nil {
		b.Fatal(err)
	}
	unsigned := []byte(`{"age":5,"transaction_id":"m1"}`)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = p.Client(buf[:0], unsigned)
	}
}
