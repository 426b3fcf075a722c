package directory

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// TestPolicyLists finds lists by name and tells which do not come here.
func TestPolicyLists(t *testing.T) {
	each(t, func(w world) {
		list := w.create(room.Creation{AliasName: "list"})
		left := w.create(room.Creation{})
		for _, u := range []matrix.UserID{alice, bob} {
			w.ok(w.Rooms.Leave(w.Context(), room.Change{Room: left, Actor: u}))
		}
		w.create(room.Creation{AliasName: "bad"})
		_, err := w.Rooms.Send(w.Context(), room.Sending{
			User: alice, Room: list, Type: "m.policy.rule.room", StateKey: new("1"),
			Content: json.RawMessage(`{"entity":"#bad*:a.test","recommendation":"m.ban","reason":"spam"}`),
		})
		w.ok(err)
		find := func() error {
			_, _, err := w.Resolve(w.Context(), "#bad:a.test")
			return err
		}
		w.ok(find())

		var log bytes.Buffer
		ctx := zerolog.New(&log).WithContext(w.Context())
		w.PolicyLists = []string{"#list:a.test", string(left), "#later:a.test"}
		if w.followLists(ctx) {
			t.Error("a list that is not there was found")
		}
		w.refused(find(), matrix.Forbidden)
		for name, want := range map[string]string{"#list:a.test": "", string(left): "nobody of this server", "#later:a.test": "not found"} {
			if got := about(log.String(), name); !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("of %s the log says %q", name, got)
			}
		}

		later := w.create(room.Creation{AliasName: "later"})
		if all := w.followLists(ctx); !all || len(w.lists) != 3 || w.lists[2] != later {
			t.Errorf("follows %v", w.lists)
		}
	})
}

// about are the lines of a log that name a room.
func about(log, room string) string {
	var lines []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, `"room":"`+room+`"`) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
