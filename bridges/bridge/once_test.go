package bridge

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"maunium.net/go/mautrix/event"
)

// paths is a homeserver that keeps what it was asked.
type paths []string

// RoundTrip implements http.RoundTripper.
func (p *paths) RoundTrip(r *http.Request) (*http.Response, error) {
	*p = append(*p, r.URL.RequestURI())
	return taken(r), nil
}

// TestOnce has the same message sent by two processes.
func TestOnce(t *testing.T) {
	const room = "http://homeserver.invalid/_matrix/client/v3/rooms/%21a%2Fb:c/"
	send := func(ctx context.Context, p *paths, rest string) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodPut, room+rest, nil)
		if err == nil {
			_, err = onceWire{p}.RoundTrip(r) //nolint:bodyclose // is a string
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var first, second, other, plain paths
	ctx := Once(t.Context(), "a message")
	send(ctx, &first, "send/m.room.message/1?ts=5")
	send(ctx, &first, "send/m.room.message/1?ts=5")
	send(ctx, &first, "send/m.room.message/2?ts=5")
	ctx = Once(t.Context(), "a message")
	send(ctx, &second, "send/m.room.message/8?ts=5")
	send(ctx, &second, "send/m.room.message/9?ts=5")
	send(Once(t.Context(), "another"), &other, "send/m.room.message/1?ts=5")
	send(t.Context(), &plain, "send/m.room.message/1?ts=5")
	send(ctx, &plain, "state/m.room.topic")
	if first[0] != first[1] || first[0] == first[2] || first[0] != second[0] || first[2] != second[1] || other[0] == first[0] {
		t.Errorf("the requests are\n%v\n%v\n%v", first, second, other)
	}
	if !strings.HasPrefix(first[0], "/_matrix/client/v3/rooms/%21a%2Fb:c/send/m.room.message/once-") || !strings.HasSuffix(first[0], "?ts=5") {
		t.Errorf("the request is %s", first[0])
	}
	if !strings.HasSuffix(plain[0], "/1?ts=5") || !strings.HasSuffix(plain[1], "m.room.topic") {
		t.Errorf("what is no such message became %v", plain)
	}
}

// TestOnceMark has messages sent that bear their names themselves.
func TestOnceMark(t *testing.T) {
	var got []string
	wire := onceWire{roundTripper(func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		got = append(got, fmt.Sprint(r.URL.Path, " ", string(body), " ", r.ContentLength))
		return taken(r), err
	})}
	text, err := json.Marshal(OnceMark("a message", 2))
	if err != nil {
		t.Fatal(err)
	}
	marked := `{"body":"x",` + string(text[1:])
	for _, c := range [][3]string{
		{http.MethodPut, "/send/m.room.message/7", marked}, {http.MethodPut, "/send/m.room.message/7", `{"body":"x"}`},
		{http.MethodPost, "/batch_send", `{"events":[{"content":` + marked + `,"type":"m"},{"content":{}}],"forward":true}`},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c[0], "http://homeserver.invalid"+c[1], strings.NewReader(c[2]))
		if err == nil {
			_, err = wire.RoundTrip(r) //nolint:bodyclose // is a string
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"/send/m.room.message/" + onceID("a message", 2) + ` {"body":"x"} 12`, `/send/m.room.message/7 {"body":"x"} 12`,
		`/batch_send {"events":[{"content":{"body":"x"},"type":"m"},{"content":{}}],"forward":true} 78`}
	if !slices.Equal(got, want) {
		t.Errorf("the requests are %q, want %q", got, want)
	}
}

// roundTripper is a function that is a wire.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestAgain marks events that were cut off.
func TestAgain(t *testing.T) {
	for body, again := range map[string]bool{
		`{"type":"m.room.message","content":{"body":"x"}}`: true,
		`{"type":"m.room.message","content":null}`:         false,
		`{"type":"m.room.message"}`:                        false,
	} {
		marked, err := markAgain([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		var e event.Event
		if err := e.UnmarshalJSON(marked); err != nil {
			t.Fatal(err)
		}
		if Again(&e) != again {
			t.Errorf("%s became %s", body, marked)
		}
	}
}
