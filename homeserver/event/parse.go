package event

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// Parse reads an event from another server. It refuses JSON that the room
// version does not allow, wrong formats and events that are too large; it
// computes the ID and checks the content hash. Where the hash does not fit, the
// answer is the redacted form with HashMismatch set, as the specification wants.
// It checks no signatures. Its errors are *matrix.Error.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
func Parse(v *matrix.RoomVersion, raw []byte) (*PDU, error) {
	var buf [maxMembers]canonjson.Member
	members, err := canonjson.Members(buf[:0], raw, numbers(v))
	if err != nil {
		return nil, badEvent(err)
	}
	members = withoutUnsigned(members)
	json := canonjson.Object(make([]byte, 0, len(raw)), members, nil)
	if len(json) > MaxSize {
		return nil, tooLarge("the event", len(json), MaxSize)
	}
	p := &PDU{Version: v, JSON: json}
	if err := p.fill(required); err != nil {
		return nil, badEvent(err)
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	if !v.EventIDInEvent {
		p.ID = matrix.EventID(eventID(v.URLSafeEventID, referenceHash(v, p.Type, members)))
	}
	p.nameRoom()
	match, err := hashMatches(members)
	if err != nil {
		return nil, badEvent(err)
	}
	if !match {
		r, err := p.Redacted()
		if err != nil {
			return nil, badEvent(err)
		}
		r.HashMismatch = true
		return r, nil
	}
	return p, nil
}

func badEvent(err error) error {
	var e *matrix.Error
	if errors.As(err, &e) {
		return e
	}
	return matrix.Errorf(matrix.BadJSON, "invalid event: %v", err)
}

func tooLarge(what string, size, most int) error {
	return matrix.Errorf(matrix.TooLarge, "%s has %d bytes, more than %d", what, size, most)
}

func withoutUnsigned(members []canonjson.Member) []canonjson.Member {
	kept := members[:0]
	for _, m := range members {
		if string(m.Key) != "unsigned" {
			kept = append(kept, m)
		}
	}
	return kept
}

// hashMatches tells whether the content hash that the event claims is right.
func hashMatches(members []canonjson.Member) (bool, error) {
	for _, m := range members {
		if string(m.Key) != "hashes" {
			continue
		}
		value, _ := canonjson.Lookup(m.Value, "sha256")
		claim, ok := canonjson.Text(value)
		if !ok {
			break
		}
		hash, err := signing.DecodeBase64(claim)
		if err != nil {
			return false, errors.New("hashes: sha256 is no base64")
		}
		sum := contentHash(members)
		return bytes.Equal(sum[:], hash), nil
	}
	return false, errors.New("hashes: no sha256")
}

// Load reads an event from our own store: it was parsed or built before, so it
// is neither checked nor hashed again. The answer refers to json, which must not
// change.
func Load(v *matrix.RoomVersion, id matrix.EventID, json []byte) (*PDU, error) {
	p := &PDU{Version: v, ID: id, JSON: json}
	if err := p.fill(nil); err != nil {
		return nil, fmt.Errorf("load %s: %w", id, err)
	}
	p.nameRoom()
	return p, nil
}

// nameRoom gives the create event of a room the ID that it makes for the room.
func (p *PDU) nameRoom() {
	if p.Room == "" && p.Version.RoomIDFromCreate && p.Type == TypeCreate && len(p.ID) > 1 {
		p.Room = matrix.RoomID("!" + p.ID[1:])
	}
}

// required are the keys that every event must have, sorted. room_id and event_id
// depend on the room version.
var required = []string{
	"auth_events", "content", "depth", "hashes", "origin_server_ts", "prev_events", "sender", "signatures", "type",
}

// fill reads the fields from p.JSON. Missing ones stay empty, but the keys of
// require, which are sorted, must be there.
func (p *PDU) fill(require []string) error {
	var redacts []byte
	p.Local = true
	for key, value := range canonjson.Fields(p.JSON) {
		if len(require) > 0 && string(key) == require[0] {
			require = require[1:]
		}
		good := true
		switch string(key) {
		case "auth_events":
			p.AuthEvents, good = eventIDs(p.Version, value)
			p.Local = false
		case "content":
			p.Content, good = value, canonjson.IsObject(value)
		case "depth":
			p.Depth, good = canonjson.Int(value)
		case "event_id":
			if p.Version.EventIDInEvent {
				good = decode(&p.ID, value)
			}
		case "hashes":
			good = canonjson.IsObject(value)
		case "origin_server_ts":
			p.OriginServerTS, good = canonjson.Int(value)
		case "prev_events":
			p.PrevEvents, good = eventIDs(p.Version, value)
		case "redacts":
			redacts = value
		case "room_id":
			good = decode(&p.Room, value)
		case "sender":
			good = decode(&p.Sender, value)
		case "silent":
			p.Silent = p.Local // auth_events would stand before it
		case "signatures":
			p.signatures, good = value, canonjson.IsObject(value)
		case "state_key":
			p.StateKey = new(string)
			good = decode(p.StateKey, value)
		case "type":
			p.Type, good = typeName(value)
		}
		if !good {
			return fmt.Errorf("%q is of the wrong type", key)
		}
	}
	if len(require) > 0 {
		return fmt.Errorf("no %s", require[0])
	}
	switch p.Type {
	case "":
		return errors.New("no type")
	case TypeMember:
		p.membership = membership(p.Content)
	case TypeRedaction:
		if p.Version.RedactsInContent {
			redacts, _ = canonjson.Lookup(p.Content, "redacts")
		}
		if id, ok := canonjson.Text(redacts); ok && strings.HasPrefix(id, "$") {
			p.Redacts = matrix.EventID(id)
		}
	}
	return nil
}

// decode reads a string.
func decode[S ~string](s *S, value []byte) bool {
	text, ok := canonjson.Text(value)
	*s = S(text)
	return ok
}

// typeName decodes an event type. Common ones cost no memory.
func typeName(value []byte) (string, bool) {
	switch string(value) {
	case `"m.room.message"`:
		return "m.room.message", true
	case `"m.room.encrypted"`:
		return "m.room.encrypted", true
	case `"m.reaction"`:
		return "m.reaction", true
	case `"m.room.member"`:
		return TypeMember, true
	case `"m.room.redaction"`:
		return TypeRedaction, true
	}
	return canonjson.Text(value)
}

// membership reads a member event's content. Known memberships cost no memory.
func membership(content []byte) string {
	v, _ := canonjson.Lookup(content, "membership")
	switch string(v) {
	case `"join"`:
		return Join
	case `"invite"`:
		return Invite
	case `"knock"`:
		return Knock
	case `"leave"`:
		return Leave
	case `"ban"`:
		return Ban
	}
	s, _ := canonjson.Text(v)
	return s
}

// eventIDs reads references to other events: IDs, or pairs of ID and hash in
// room versions 1 and 2.
func eventIDs(v *matrix.RoomVersion, array []byte) ([]matrix.EventID, bool) {
	if !canonjson.IsArray(array) {
		return nil, false
	}
	if string(array) == "[]" {
		return nil, true
	}
	if !v.EventIDInEvent && bytes.IndexByte(array, '\\') < 0 {
		return plainIDs(string(array))
	}
	ids := make([]matrix.EventID, 0, bytes.Count(array, []byte(`,`))+1)
	for element := range canonjson.Elements(array) {
		if v.EventIDInEvent {
			var ok bool
			if element, ok = pairID(element); !ok {
				return nil, false
			}
		}
		id, ok := canonjson.Text(element)
		if !ok {
			return nil, false
		}
		ids = append(ids, matrix.EventID(id))
	}
	return ids, true
}

// EachAuthEvent calls f for each event that authorizes one of our own store. The
// ID is good until f returns.
func EachAuthEvent(v *matrix.RoomVersion, json []byte, f func(id []byte)) {
	list, _ := canonjson.Lookup(json, "auth_events")
	plain := !v.EventIDInEvent && bytes.IndexByte(list, '\\') < 0
	if inner, ok := bytes.CutPrefix(list, []byte(`["`)); ok && plain {
		for id := range bytes.SplitSeq(bytes.TrimSuffix(inner, []byte(`"]`)), []byte(`","`)) {
			f(id)
		}
		return
	}
	ids, _ := eventIDs(v, list)
	for _, id := range ids {
		f([]byte(id))
	}
}

// plainIDs reads a list of strings without escapes. They share its memory.
func plainIDs(array string) ([]matrix.EventID, bool) {
	inner, ok := strings.CutPrefix(array, `["`)
	inner, end := strings.CutSuffix(inner, `"]`)
	if !ok || !end {
		return nil, false
	}
	ids := make([]matrix.EventID, 0, strings.Count(inner, `","`)+1)
	for id := range strings.SplitSeq(inner, `","`) {
		if strings.IndexByte(id, '"') >= 0 { // something between the strings
			return nil, false
		}
		ids = append(ids, matrix.EventID(id))
	}
	return ids, true
}

// pairID takes the event ID of [event ID, {"sha256": hash}].
func pairID(pair []byte) (id []byte, ok bool) {
	n := 0
	for value := range canonjson.Elements(pair) {
		switch n {
		case 0:
			id = value
		case 1:
			ok = canonjson.IsObject(value)
		}
		n++
	}
	return id, ok && n == 2
}
