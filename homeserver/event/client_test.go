package event

import (
	"encoding/json"
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
)

func TestClient(t *testing.T) {
	member := Draft{Room: "!r:b", Type: TypeMember, Sender: "@a:b", StateKey: state("@c\"d:b"), Depth: 3, OriginServerTS: 1234,
		Content: json.RawMessage(`{"membership":"invite","displayname":"Ä"}`), PrevEvents: []matrix.EventID{"$p"}}
	message := Draft{Room: "!r:b", Type: "m.x", Sender: "@a:b", OriginServerTS: 1, Content: json.RawMessage(`{"redacts":"$no"}`)}
	redaction := Draft{Room: "!r:b", Type: TypeRedaction, Sender: "@a:b", OriginServerTS: 1, Redacts: "$z", Content: json.RawMessage(`{"reason":"x","s":1}`)}
	create := Draft{Type: TypeCreate, Sender: "@a:b", StateKey: state(""), OriginServerTS: 1}
	tests := []struct {
		name, version string
		draft         Draft
		unsigned      string
		want          string // $ID and !ROOM stand for the event's
	}{
		{"state", "12", member, ``,
			`{"content":{"displayname":"Ä","membership":"invite"},"event_id":"$ID","origin_server_ts":1234,"room_id":"!r:b","sender":"@a:b","state_key":"@c\"d:b","type":"m.room.member"}`},
		{"unsigned", "10", member, `{"age":5}`,
			`{"content":{"displayname":"Ä","membership":"invite"},"event_id":"$ID","origin_server_ts":1234,"room_id":"!r:b","sender":"@a:b","state_key":"@c\"d:b","type":"m.room.member","unsigned":{"age":5}}`},
		{"no redaction", "12", message, ``,
			`{"content":{"redacts":"$no"},"event_id":"$ID","origin_server_ts":1,"room_id":"!r:b","sender":"@a:b","type":"m.x"}`},
		{"redaction", "11", redaction, ``,
			`{"content":{"reason":"x","redacts":"$z","s":1},"event_id":"$ID","origin_server_ts":1,"redacts":"$z","room_id":"!r:b","sender":"@a:b","type":"m.room.redaction"}`},
		{"old redaction", "10", redaction, ``,
			`{"content":{"reason":"x","redacts":"$z","s":1},"event_id":"$ID","origin_server_ts":1,"redacts":"$z","room_id":"!r:b","sender":"@a:b","type":"m.room.redaction"}`},
		{"first redaction", "1", redaction, ``,
			`{"content":{"reason":"x","redacts":"$z","s":1},"event_id":"$ID","origin_server_ts":1,"redacts":"$z","room_id":"!r:b","sender":"@a:b","type":"m.room.redaction"}`},
		{"create", "12", create, ``,
			`{"content":{},"event_id":"$ID","origin_server_ts":1,"room_id":"!ROOM","sender":"@a:b","state_key":"","type":"m.room.create"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := version(t, tt.version)
			p := build(t, v, fit(v, tt.draft))
			want := strings.NewReplacer("$ID", string(p.ID), "!ROOM", string(p.Room)).Replace(tt.want)
			if got := p.Client([]byte("["), []byte(tt.unsigned)); string(got) != "["+want {
				t.Errorf("Client gave %s\nwant [%s", got, want)
			}
			want = strings.Replace(want, `"room_id":"`+string(p.Room)+`",`, "", 1)
			if got := p.Sync(nil, []byte(tt.unsigned)); string(got) != want {
				t.Errorf("Sync gave %s\nwant %s", got, want)
			}
		})
	}
}

// TestClientRedacted checks that a redacted redaction still shows what the room
// version leaves of it.
func TestClientRedacted(t *testing.T) {
	for version_, want := range map[string]string{
		"10": `{"content":{},"event_id":"$ID","origin_server_ts":0,"sender":"@a:b","type":"m.room.redaction"}`,
		"11": `{"content":{"redacts":"$z"},"event_id":"$ID","origin_server_ts":0,"redacts":"$z","sender":"@a:b","type":"m.room.redaction"}`,
	} {
		v := version(t, version_)
		p := build(t, v, Draft{Room: "!r:b", Type: TypeRedaction, Sender: "@a:b", Redacts: "$z", Content: json.RawMessage(`{"reason":"x"}`)})
		r, err := p.Redacted()
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Sync(nil, nil); string(got) != strings.Replace(want, "$ID", string(p.ID), 1) {
			t.Errorf("version %s: %s", version_, got)
		}
	}
}

func TestStrippedState(t *testing.T) {
	p := build(t, version(t, "12"), Draft{Room: "!r", Type: "m.room.name", Sender: "@a:b", StateKey: state(""), Content: json.RawMessage(`{"name":"\"x\""}`)})
	if got := p.StrippedState([]byte("[")); string(got) != `[{"content":{"name":"\"x\""},"sender":"@a:b","state_key":"","type":"m.room.name"}` {
		t.Errorf("got %s", got)
	}
}
