package fedclient

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
)

// readStream reads an object whose "list" is a list, "one" a value, and skips
// the rest.
func readStream(r io.Reader, most int) (list []string, one string, err error) {
	d := newDocument(r, most)
	err = d.members(func(key string) error {
		switch key {
		case "list":
			return d.list(func(v []byte) error {
				list = append(list, string(v))
				return nil
			})
		case "one":
			v, err := d.value()
			one = string(v)
			return err
		}
		return d.skip()
	})
	return list, one, err
}

func TestDocument(t *testing.T) {
	tests := []struct {
		in   string
		list []string
		one  string
		bad  bool
	}{
		{in: `{}`},
		{in: " \n{ \"list\" : [ ] , \"one\" : 1 } ", one: "1"},
		{in: `{"list":[{"a":[1,{"b":"]}"}]},"x\"],",-1.5e3,true,null,[[]]]}`, list: []string{`{"a":[1,{"b":"]}"}]}`, `"x\"],"`, "-1.5e3", "true", "null", "[[]]"}},
		{in: `{"skip":{"list":[1]},"skip too":[1,"\\"],"3":"x\\\"","4":12 ,"list":null,"one":{}}`, one: "{}"},
		{in: `{"\u006cist":[1]}`, list: []string{"1"}},
		{in: `{"one":"` + strings.Repeat("x", 900) + `"}`, one: `"` + strings.Repeat("x", 900) + `"`},

		{in: ``, bad: true}, {in: `[`, bad: true}, {in: `[]`, bad: true}, {in: `{`, bad: true}, {in: `{"list"`, bad: true}, {in: `{"list":`, bad: true},
		{in: `{"list":[`, bad: true}, {in: `{"list":[1`, bad: true}, {in: `{"list":[1,`, bad: true}, {in: `{"list":[1,]}`, bad: true}, {in: `{"list":[,1]}`, bad: true},
		{in: `{"list":{}}`, bad: true}, {in: `{"list":nul}`, bad: true}, {in: `{"list":[1]`, bad: true}, {in: `{"list":[1}`, bad: true}, {in: `{"a":1,}`, bad: true},
		{in: `{"a":"x`, bad: true}, {in: `{"a":"x\`, bad: true}, {in: `{"a" 1}`, bad: true}, {in: `{a:1}`, bad: true}, {in: `{"a":}`, bad: true},
		{in: `{"list":[1],"list":[2]}`, list: []string{"1"}, bad: true}, {in: `{"\ud800x":1,"a":[}`, bad: true},
		{in: `{"one":"` + strings.Repeat("x", 1100) + `"}`, bad: true}, {in: `{"list":[` + strings.Repeat("[", 2000), bad: true},
	}
	for _, tt := range tests {
		for name, r := range map[string]io.Reader{
			"at once": strings.NewReader(tt.in), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.in)), "with its end": iotest.DataErrReader(strings.NewReader(tt.in)),
		} {
			list, one, err := readStream(r, 1000)
			if (err != nil) != tt.bad || !tt.bad && (!slices.Equal(list, tt.list) || one != tt.one) {
				t.Errorf("%.60q %s: %q, %q, %v", tt.in, name, list, one, err)
			}
		}
	}
	if _, _, err := readStream(strings.NewReader(`{"one":"`+strings.Repeat("x", 1100)+`"}`), 1000); !errors.Is(err, ErrAnswerSize) {
		t.Errorf("a large value: %v", err)
	}
	if list, _, err := readStream(strings.NewReader(`{"large":"`+strings.Repeat("x", 1<<20)+`","list":[1]}`), 1000); err != nil || len(list) != 1 {
		t.Errorf("a large value that is skipped: %v", err)
	}
	failing := io.MultiReader(strings.NewReader(`{"list":[1`), iotest.ErrReader(io.ErrClosedPipe))
	if _, _, err := readStream(failing, 1000); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a stream that breaks: %v", err)
	}
}

// FuzzDocument checks that of valid JSON, in any pieces, exactly the values
// come out that encoding/json finds.
func FuzzDocument(f *testing.F) {
	for _, s := range []string{`{"list":[1,"a\"",{"b":[]}],"x":{"list":[2]}}`, `{"list":null}`, ` { } `, `{"list":[[[]]],"one":"\\"}`, `{"one":1e5,"list":[ -0.1 , true ]}`, `null}`} {
		f.Add([]byte(s), byte(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, step byte) {
		var r io.Reader = bytes.NewReader(in)
		switch step % 3 {
		case 1:
			r = iotest.OneByteReader(r)
		case 2:
			r = iotest.HalfReader(r)
		}
		list, one, err := readStream(r, 1<<20)
		var want struct {
			List []json.RawMessage
			One  json.RawMessage
		}
		var fields map[string]json.RawMessage // nil for null, which is no object
		dec := json.NewDecoder(bytes.NewReader(in))
		if dec.Decode(&fields) != nil || fields == nil || json.Unmarshal(orNull(fields["list"]), &want.List) != nil || len(fields) > 900 {
			return // no object, or no list: only that it ends counts
		}
		if duplicates(in) {
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", in, err)
		}
		var got []json.RawMessage
		for _, v := range list {
			got = append(got, json.RawMessage(v))
		}
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want.List) || one != string(fields["one"]) {
			t.Errorf("%q: %q, %q; want %q, %q", in, got, one, want.List, fields["one"])
		}
	})
}

func orNull(raw json.RawMessage) json.RawMessage {
	if raw == nil {
		return json.RawMessage("null")
	}
	return raw
}

// duplicates tells whether the first object has a key twice.
func duplicates(in []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(in))
	if _, err := dec.Token(); err != nil {
		return true
	}
	seen := map[string]bool{}
	for dec.More() {
		key, err := dec.Token()
		name, ok := key.(string)
		if err != nil || !ok || seen[name] {
			return true
		}
		seen[name] = true
		var v json.RawMessage
		if dec.Decode(&v) != nil {
			return true
		}
	}
	return false
}

// joinAnswer writes the answer to a join.
func joinAnswer(w io.Writer, state, auth int, rest string) {
	_, _ = io.WriteString(w, `{"state":[`)
	for i := range state {
		if i > 0 {
			_, _ = io.WriteString(w, ",")
		}
		_, _ = fmt.Fprintf(w, `{"n":%d}`, i)
	}
	_, _ = io.WriteString(w, `],"auth_chain":[`)
	for i := range auth {
		if i > 0 {
			_, _ = io.WriteString(w, ",")
		}
		_, _ = fmt.Fprintf(w, `{"n":%d}`, i)
	}
	_, _ = io.WriteString(w, "]"+rest+"}")
}

// testJoin is a join of ours.
func testJoin(t *testing.T, c *Client) *event.PDU {
	key := "@alice:us.test"
	return built(t, "11", event.Draft{
		Room: "!r:b.test", Type: event.TypeMember, Sender: "@alice:us.test", StateKey: &key, OriginServerTS: 1, Content: json.RawMessage(`{"membership":"join"}`),
	}, us, c.key)
}

func TestSendJoin(t *testing.T) {
	var signed *event.PDU
	key := newKey(t)
	_, c := asker(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("omit_members") != "true" || r.Method != http.MethodPut || !strings.HasPrefix(r.URL.Path, "/_matrix/federation/v2/send_join/!r:b.test/$") {
			t.Errorf("asked %s %s", r.Method, r.URL)
		}
		joinAnswer(w, 3, 2, fmt.Sprintf(`,"origin":"b.test","members_omitted":true,"servers_in_room":["b.test","no name","c.test"],"event":%s`, signed.JSON))
	})
	join := testJoin(t, c)
	signed, err := join.Sign("b.test", key)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	answer, err := c.SendJoin(t.Context(), "b.test", join, true, func(part Part, raw json.RawMessage) error {
		got = append(got, fmt.Sprint(part, string(raw)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{`0{"n":0}`, `0{"n":1}`, `0{"n":2}`, `1{"n":0}`, `1{"n":1}`}; !slices.Equal(got, want) {
		t.Errorf("events %q", got)
	}
	if !answer.MembersOmitted || !reflect.DeepEqual(answer.Servers, []matrix.ServerName{"b.test", "c.test"}) {
		t.Errorf("%+v", answer)
	}
	if answer.Event.VerifySignature("b.test", key.ID, key.Public()) != nil || answer.Event.ID != join.ID {
		t.Error("the signature of the other server is lost")
	}

	// An error of the caller ends the reading and comes out as it is.
	mine := errors.New("enough")
	_, err = c.SendJoin(t.Context(), "b.test", join, true, func(Part, json.RawMessage) error { return mine })
	var bad *AnswerError
	if !errors.Is(err, mine) || errors.As(err, &bad) {
		t.Errorf("%v", err)
	}

	// An event that is another one is nothing.
	other := built(t, "11", event.Draft{Room: "!r:b.test", Type: "m.x", Sender: "@b:b.test"}, "b.test", key)
	signed = other
	answer, err = c.SendJoin(t.Context(), "b.test", join, true, func(Part, json.RawMessage) error { return nil })
	if err != nil || answer.Event != join {
		t.Errorf("%+v, %v", answer, err)
	}
}

// TestStreamsHostile has servers whose answers are long and bad.
func TestStreamsHostile(t *testing.T) {
	endless := func(piece string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"state":[{}`)
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, piece); err != nil {
					return
				}
			}
		}
	}
	var bad *AnswerError
	var gone *UnreachableError
	tests := []struct {
		name   string
		h      http.HandlerFunc
		target any
		size   bool
	}{
		{"endless events", endless(strings.Repeat(`,{}`, 1000)), &bad, true},
		{"an endless event", endless(strings.Repeat(`,{"x":"`+strings.Repeat("x", 10000), 1)), &bad, true},
		{"endless depth", endless(strings.Repeat(`,[`, 1000)), &bad, true},
		{"stands still", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"state":[{}`)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, &gone, false},
		{"breaks off", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"state":[{}`)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, &gone, false},
		{"ends early", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"state":[{}`) }, &bad, false},
		{"no object", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[]`) }, &bad, false},
		{"events that are none", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"state":[1]}`) }, &bad, false},
		{"twice", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"state":[],"state":[]}`) }, &bad, false},
		{"another type", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"members_omitted":"yes"}`)
		}, &bad, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, c := asker(t, func(c *Config) { c.MaxState = 4 << 20 }, tt.h)
			if tt.name == "stands still" {
				c.tick = func() *time.Ticker { return time.NewTicker(50 * time.Millisecond) }
			}
			_, err := c.SendJoin(t.Context(), "b.test", testJoin(t, c), false, func(Part, json.RawMessage) error { return nil })
			if !errors.As(err, tt.target) || errors.Is(err, ErrAnswerSize) != tt.size {
				t.Errorf("%v", err)
			}
			at, err := c.RetryAt(t.Context(), "b.test")
			if counts := tt.target == any(&gone); err != nil || at.IsZero() == counts {
				t.Errorf("retry at %v, %v", at, err)
			}
		})
	}
}

// TestSlowReaders checks that an answer which waits for us does not stand
// still.
func TestSlowReaders(t *testing.T) {
	_, c := asker(t, nil, func(w http.ResponseWriter, _ *http.Request) { joinAnswer(w, 3, 0, "") })
	ticks := ticking(c)
	_, err := c.SendJoin(t.Context(), "b.test", testJoin(t, c), false, func(Part, json.RawMessage) error {
		for range 5 {
			select {
			case ticks <- time.Time{}:
			case <-time.After(time.Minute):
				return errors.New("nobody watches any more")
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRoomStateIDs(t *testing.T) {
	body := `{"pdu_ids":["$a","$b"],"auth_chain_ids":null,"x":[1]}`
	_, c := asker(t, nil, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
	state, auth, err := c.RoomStateIDs(t.Context(), "b.test", "!r:b.test", "$e")
	if err != nil || !slices.Equal(state, []matrix.EventID{"$a", "$b"}) || auth != nil {
		t.Errorf("%v, %v, %v", state, auth, err)
	}
	var bad *AnswerError
	for _, body = range []string{`{"pdu_ids":["a"]}`, `{"pdu_ids":[1]}`, `{"pdu_ids":{}}`} {
		if _, _, err := c.RoomStateIDs(t.Context(), "b.test", "!r:b.test", "$e"); !errors.As(err, &bad) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// BenchmarkDocument is the time to split the answer of a join into its events.
func BenchmarkDocument(b *testing.B) {
	key := newKey(b)
	var body bytes.Buffer
	body.WriteString(`{"list":[`)
	for i := range 1000 {
		if i > 0 {
			body.WriteByte(',')
		}
		body.Write(message(b, "11", "b.test", key, time.UnixMilli(int64(i))).JSON)
	}
	body.WriteString(`]}`)
	b.SetBytes(int64(body.Len()))
	for b.Loop() {
		d := newDocument(bytes.NewReader(body.Bytes()), maxElement)
		n := 0
		err := d.members(func(string) error {
			return d.list(func([]byte) error { n++; return nil })
		})
		if err != nil || n != 1000 {
			b.Fatal(n, err)
		}
	}
}
