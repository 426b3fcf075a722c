package eventauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// The people of the tests. Creator is on server a, the others where their name says.
const (
	creator = "@creator:a"
	alice   = "@alice:a"
	bob     = "@bob:b"
	carol   = "@carol:c"
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

// st is an event: a state event unless noKey is set.
type st struct {
	sender, typ, key, content string
	noKey                     bool

	prev    []matrix.EventID // one event that is not the create event if nil
	redacts matrix.EventID
	room    matrix.RoomID // the world's if empty
	server  string        // who signs, the sender's if empty
}

func member(user, membership string) st {
	return st{sender: user, typ: event.TypeMember, key: user, content: fmt.Sprintf(`{"membership":%q}`, membership)}
}

func change(sender, user, membership string) st {
	return st{sender: sender, typ: event.TypeMember, key: user, content: fmt.Sprintf(`{"membership":%q}`, membership)}
}

func rule(name string) st {
	return st{sender: creator, typ: event.TypeJoinRules, content: fmt.Sprintf(`{"join_rule":%q}`, name)}
}

func levels(content string) st {
	return st{sender: creator, typ: event.TypePowerLevels, content: content}
}

func as(sender string, e st) st {
	e.sender = sender
	return e
}

func message(sender string) st {
	return st{sender: sender, typ: "m.room.message", content: `{"body":"x"}`, noKey: true}
}

// world is a room in which the creator is.
type world struct {
	testing.TB
	v      *matrix.RoomVersion
	room   matrix.RoomID
	create *event.PDU
	state  Set
}

// newWorld makes a room. createContent is the rest of the create event's content.
func newWorld(t testing.TB, version, createContent string, state ...st) *world {
	t.Helper()
	v, ok := matrix.Version(version)
	if !ok {
		t.Fatalf("no room version %s", version)
	}
	w := &world{TB: t, v: v, room: "!r:a", state: Set{}}
	if createContent == "" {
		createContent = "{}"
	}
	content := strings.Replace(createContent, "{", fmt.Sprintf(`{"room_version":%q,`, version), 1)
	if !v.CreatorFromSender {
		content = strings.Replace(content, "{", fmt.Sprintf(`{"creator":%q,`, creator), 1)
	}
	content = strings.Replace(content, ",}", "}", 1)
	if v.RoomIDFromCreate {
		w.room = ""
	}
	w.create = w.event(st{sender: creator, typ: event.TypeCreate, content: content, prev: []matrix.EventID{}})
	w.room = w.create.Room
	w.state = NewSet(w.create)
	for _, s := range append([]st{member(creator, event.Join)}, state...) {
		e := w.event(s)
		w.state[Key{s.typ, s.key}] = e
	}
	return w
}

// event makes a PDU.
func (w *world) event(s st) *event.PDU {
	w.Helper()
	p, err := w.build(s)
	if err != nil {
		w.Fatal(err)
	}
	return p
}

func (w *world) build(s st) (*event.PDU, error) {
	w.Helper()
	d := event.Draft{Room: w.room, Type: s.typ, Sender: matrix.UserID(s.sender), Content: json.RawMessage(s.content), Redacts: s.redacts,
		PrevEvents: s.prev, OriginServerTS: 1}
	if s.room != "" {
		d.Room = s.room
	}
	if !s.noKey {
		d.StateKey = &s.key
	}
	if s.prev == nil {
		d.PrevEvents = []matrix.EventID{"$other:a"}
	}
	d.Hashes = map[matrix.EventID]string{}
	for _, id := range d.PrevEvents {
		d.Hashes[id] = "x"
	}
	server := d.Sender.Server()
	if s.server != "" {
		server = matrix.ServerName(s.server)
	}
	return event.Build(w.v, d, server, testKey(w))
}

// want checks an event and compares the rule that rejects it; "" means allow.
func (w *world) want(rule string, s st) {
	w.Helper()
	wantRule(w, rule, Check(w.event(s), w.state))
}

func wantRule(t testing.TB, rule string, err error) {
	t.Helper()
	var e *Error
	switch {
	case err == nil && rule == "":
	case err == nil:
		t.Errorf("allowed, want rule %s to reject", rule)
	case !errors.As(err, &e):
		t.Errorf("error is %v, not an *Error", err)
	case e.Rule != rule:
		t.Errorf("%v, want rule %q", err, rule)
	}
}

// row is one check. versions are room versions, separated by spaces; "" means all.
type row struct {
	name, versions string
	state          []st
	event          st
	rule           string
}

func run(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		versions := strings.Fields(r.versions)
		if r.versions == "" {
			for _, v := range matrix.Versions() {
				versions = append(versions, v.ID)
			}
		}
		for _, v := range versions {
			t.Run(r.name+" "+v, func(t *testing.T) {
				newWorld(t, v, "", r.state...).want(r.rule, r.event)
			})
		}
	}
}
