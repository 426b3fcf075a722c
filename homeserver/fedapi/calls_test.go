package fedapi

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// TestCalls calls from one server to the other and back, in rooms of the oldest
// version, of the newest and of those between that changed what events are: the
// events arrive as they were sent.
func TestCalls(t *testing.T) {
	file, err := os.ReadFile("../event/testdata/calls.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		for _, version := range []string{"1", "4", "11", matrix.DefaultRoomVersion} {
			id := a.public(alice, version)
			b.join(bob, id, a)
			for _, line := range bytes.Split(bytes.TrimSpace(file), []byte("\n")) {
				var sent struct {
					Type    string
					Content json.RawMessage
				}
				if err := json.Unmarshal(line, &sent); err != nil {
					t.Fatal(err)
				}
				for _, way := range []struct {
					from, to       *host
					caller, called matrix.UserID
				}{{a, b, alice, bob}, {b, a, bob, alice}} {
					e := way.from.send(way.caller, id, sent.Type, nil, string(sent.Content))
					way.from.tell(way.to, e)
					got, err := way.to.rooms.Event(way.to.ctx(), room.Reader{User: way.called}, id, e.ID)
					way.to.ok(err)
					var seen struct{ Content json.RawMessage }
					way.to.ok(json.Unmarshal(got, &seen))
					if !bytes.Equal(seen.Content, sent.Content) {
						t.Errorf("version %s: got %s, want %s", version, seen.Content, sent.Content)
					}
				}
			}
		}
	})
}
