package clientapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// heard is an event as a client gets it.
type heard struct {
	Type, Sender string
	Content      json.RawMessage
	Unsigned     struct{ Age *int64 }
}

// listen waits for news and gives the new events of a room.
func (s *server) listen(room, since string) (events []heard, next string) {
	var got struct {
		Next  string `json:"next_batch"`
		Rooms struct {
			Join map[string]struct{ Timeline struct{ Events []heard } }
		}
	}
	if err := json.Unmarshal(s.do("GET", "/_matrix/client/v3/sync?timeout=300000&since="+since, "").Body.Bytes(), &got); err != nil {
		s.t.Error(err)
		return []heard{{}}, since
	}
	return got.Rooms.Join[room].Timeline.Events, got.Next
}

// TestCalls sends the events of calls, of versions 0 and 1 and of what is not
// specified, while the other side waits: each arrives at once, by itself and as
// it was sent, in rooms with and without encryption.
func TestCalls(t *testing.T) {
	file, err := os.ReadFile("../event/testdata/calls.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		alice := start(t, st)
		bob := alice.new("bob")
		for _, encryption := range []string{"", `"initial_state":[{"type":"m.room.encryption","content":{"algorithm":"m.megolm.v1.aes-sha2"}}],`} {
			id := alice.want(200, "room_id", "POST", "/_matrix/client/v3/createRoom", `{`+encryption+`"preset":"private_chat","is_direct":true,"invite":["@bob:a.test"]}`).text("room_id")
			room := url.PathEscape(id)
			bob.want(200, "", "POST", "/_matrix/client/v3/join/"+room, `{}`)
			since := bob.want(200, "", "GET", "/_matrix/client/v3/sync", "").text("next_batch")
			for n, line := range bytes.Split(bytes.TrimSpace(file), []byte("\n")) {
				var sent struct {
					Type    string
					Content json.RawMessage
				}
				if err := json.Unmarshal(line, &sent); err != nil {
					t.Fatal(err)
				}
				arrived := make(chan []heard)
				go func() {
					var events []heard
					for len(events) == 0 { // other news may come before
						events, since = bob.listen(id, since)
					}
					arrived <- events
				}()
				alice.want(200, "event_id", "PUT", fmt.Sprintf("/_matrix/client/v3/rooms/%s/send/%s/%d%d", room, sent.Type, n, len(encryption)), string(sent.Content))
				events := <-arrived
				if len(events) != 1 || events[0].Type != sent.Type || events[0].Sender != "@alice:a.test" || !bytes.Equal(events[0].Content, sent.Content) {
					t.Fatalf("got %+v, want %s", events, line)
				}
				if age := events[0].Unsigned.Age; age == nil || *age < 0 {
					t.Errorf("%s has no age, by which a client sees whether it still rings", sent.Type)
				}
			}
		}
	})
}
