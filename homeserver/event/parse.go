package event

import (
	"bytes"
	"crypto/subtle"
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
	if err := p.fill(); err != nil {
		return nil, badEvent(err)
	}
	if err := p.check(members); err != nil {
		return nil, err
	}
	want, err := declaredHash(members)
	if err != nil {
		return nil, badEvent(err)
	}
	if !v.EventIDInEvent {
		p.ID = eventID(v, referenceHash(v, p.Type, members))
	}
	p.nameRoom()
	if got := contentHash(members); subtle.ConstantTimeCompare(got[:], want) == 0 {
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

// declaredHash is the content hash that the event claims to have.
func declaredHash(members []canonjson.Member) ([]byte, error) {
	for _, m := range members {
		if string(m.Key) == "hashes" {
			v, _ := canonjson.Lookup(m.Value, "sha256")
			text, ok := canonjson.Text(v)
			if !ok {
				break
			}
			hash, err := signing.DecodeBase64(text)
			if err != nil {
				return nil, errors.New("hashes: sha256 is no base64")
			}
			return hash, nil
		}
	}
	return nil, errors.New("hashes: no sha256")
}

// Load reads an event from our own store: it was parsed or built before, so it
// is neither checked nor hashed again. The answer refers to json, which must not
// change.
func Load(v *matrix.RoomVersion, id matrix.EventID, json []byte) (*PDU, error) {
	p := &PDU{Version: v, ID: id, JSON: json}
	if err := p.fill(); err != nil {
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

// fill reads the fields from p.JSON. Missing ones stay empty.
func (p *PDU) fill() error {
	ok := true
	var redacts []byte
	for key, value := range canonjson.Fields(p.JSON) {
		good := true
		switch string(key) {
		case "auth_events":
			p.AuthEvents, good = eventIDs(p.Version, value)
		case "content":
			p.Content, good = value, canonjson.IsObject(value)
		case "depth":
			p.Depth, good = canonjson.Int(value)
		case "event_id":
			if p.Version.EventIDInEvent {
				var id string
				id, good = canonjson.Text(value)
				p.ID = matrix.EventID(id)
			}
		case "origin_server_ts":
			p.OriginServerTS, good = canonjson.Int(value)
		case "prev_events":
			p.PrevEvents, good = eventIDs(p.Version, value)
		case "redacts":
			redacts = value
		case "room_id":
			var id string
			id, good = canonjson.Text(value)
			p.Room = matrix.RoomID(id)
		case "sender":
			var id string
			id, good = canonjson.Text(value)
			p.Sender = matrix.UserID(id)
		case "state_key":
			var s string
			s, good = canonjson.Text(value)
			p.StateKey = &s
		case "type":
			p.Type, good = typeName(value)
		}
		if ok = ok && good; !ok {
			return fmt.Errorf("%q is of the wrong type", key)
		}
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
