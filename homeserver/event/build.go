package event

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// Draft is an event before it has hashes, an ID and signatures.
type Draft struct {
	// Room is empty for the create event of room version 12 and later.
	Room matrix.RoomID

	Type   string
	Sender matrix.UserID

	// StateKey is nil for events that are no state.
	StateKey *string

	// Content is any JSON object. Empty means {}.
	Content json.RawMessage

	// Redacts is what an m.room.redaction redacts. Build puts it where the room
	// version wants it, replacing a "redacts" of the content.
	Redacts matrix.EventID

	PrevEvents []matrix.EventID
	AuthEvents []matrix.EventID

	Depth          int64
	OriginServerTS int64 // milliseconds since 1970

	// Hashes gives the reference hashes of PrevEvents and AuthEvents in unpadded
	// base64. Only room versions 1 and 2 need it.
	Hashes map[matrix.EventID]string
}

// Build makes an event: it brings the content into canonical form, hashes and
// signs. Content that is no JSON object, or holds what the room version refuses
// (floats, integers beyond ±(2^53-1), duplicate keys, lone surrogates), is
// M_BAD_JSON; an event over 64 KiB or a type or state key over 255 bytes is
// M_TOO_LARGE. It does not check whether the sender may send it.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#adding-hashes-and-signatures-to-outgoing-events
func Build(v *matrix.RoomVersion, d Draft, server matrix.ServerName, key signing.Key) (*PDU, error) {
	content, err := draftContent(v, d)
	if err != nil {
		return nil, err
	}
	parts, err := d.parts(v)
	if err != nil {
		return nil, err
	}
	var buf [2048]byte
	sum := sha256.Sum256(parts.append(buf[:0], content, parts.redacts, nil, nil))
	if v.EventIDInEvent {
		// The sender chooses the ID. The hash of the rest is as good as chance.
		parts.id = append(eventID(true, sum), ':')
		parts.id = append(parts.id, server...)
		sum = sha256.Sum256(parts.append(buf[:0], content, parts.redacts, nil, nil))
	}
	hash := make([]byte, 43)
	base64.RawStdEncoding.Encode(hash, sum[:])

	// The signature covers what the reference hash covers.
	signed := parts.append(buf[:0], redactContent(v, d.Type, content), nil, hash, nil)
	signatures := signature(server, key.ID, key.Sign(signed))
	p := &PDU{Version: v, JSON: parts.append(make([]byte, 0, 512+len(content)), content, parts.redacts, hash, signatures)}
	if len(p.JSON) > MaxSize {
		return nil, tooLarge("the event", len(p.JSON), MaxSize)
	}
	if err := p.fill(required); err != nil {
		return nil, badEvent(err)
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	if !v.EventIDInEvent {
		p.ID = matrix.EventID(eventID(v.URLSafeEventID, sha256.Sum256(signed)))
	}
	p.nameRoom()
	return p, nil
}

// draftContent is the content in canonical form.
func draftContent(v *matrix.RoomVersion, d Draft) ([]byte, error) {
	if !utf8.ValidString(d.Type) || d.StateKey != nil && !utf8.ValidString(*d.StateKey) {
		return nil, matrix.Errorf(matrix.BadJSON, "type or state key is not UTF-8")
	}
	if len(d.Content) == 0 {
		d.Content = json.RawMessage("{}")
	}
	content, err := canonjson.Encode(d.Content, numbers(v))
	if err != nil {
		return nil, matrix.Errorf(matrix.BadJSON, "content: %v", err)
	}
	if !canonjson.IsObject(content) {
		return nil, matrix.Errorf(matrix.BadJSON, "content is no object")
	}
	if len(content) > MaxSize {
		return nil, tooLarge("content", len(content), MaxSize)
	}
	if d.Redacts != "" && v.RedactsInContent {
		members, err := canonjson.Members(nil, content, numbers(v))
		if err != nil {
			return nil, badEvent(err)
		}
		content = canonjson.Object(nil, set(members, "redacts", text(string(d.Redacts))), nil)
	}
	return content, nil
}

// parts are the pieces of an event's canonical JSON between those that are
// computed.
type parts struct {
	auth    []byte // auth_events
	depth   []byte
	id      []byte // event_id, without quotes; nil if the event has none
	prev    []byte // origin_server_ts and prev_events
	redacts []byte // redacts with its comma; nil if it has none
	sender  []byte // room_id and sender
	typ     []byte // state_key and type
}

func (d Draft) parts(v *matrix.RoomVersion) (parts, error) {
	var p parts
	var err error
	if p.auth, err = d.references(v, nil, d.AuthEvents); err != nil {
		return p, err
	}
	p.depth = strconv.AppendInt(nil, d.Depth, 10)
	p.prev = strconv.AppendInt(make([]byte, 0, 128), d.OriginServerTS, 10)
	p.prev = append(p.prev, `,"prev_events":`...)
	if p.prev, err = d.references(v, p.prev, d.PrevEvents); err != nil {
		return p, err
	}
	if d.Redacts != "" && !v.RedactsInContent {
		p.redacts = canonjson.AppendText([]byte(`,"redacts":`), string(d.Redacts))
	}
	p.sender = make([]byte, 0, 128)
	if d.Room != "" {
		p.sender = append(p.sender, `,"room_id":`...)
		p.sender = canonjson.AppendText(p.sender, string(d.Room))
	}
	p.sender = append(p.sender, `,"sender":`...)
	p.sender = canonjson.AppendText(p.sender, string(d.Sender))
	p.typ = make([]byte, 0, 128)
	if d.StateKey != nil {
		p.typ = append(p.typ, `,"state_key":`...)
		p.typ = canonjson.AppendText(p.typ, *d.StateKey)
	}
	p.typ = append(p.typ, `,"type":`...)
	p.typ = canonjson.AppendText(p.typ, d.Type)
	return p, nil
}

// append appends the event in canonical form, with the given values; nil ones
// are left out.
func (p *parts) append(dst, content, redacts, hash, signatures []byte) []byte {
	dst = append(dst, `{"auth_events":`...)
	dst = append(dst, p.auth...)
	dst = append(dst, `,"content":`...)
	dst = append(dst, content...)
	dst = append(dst, `,"depth":`...)
	dst = append(dst, p.depth...)
	if p.id != nil {
		dst = append(dst, `,"event_id":`...)
		dst = canonjson.AppendText(dst, string(p.id))
	}
	if hash != nil {
		dst = append(dst, `,"hashes":{"sha256":"`...)
		dst = append(dst, hash...)
		dst = append(dst, `"}`...)
	}
	dst = append(dst, `,"origin_server_ts":`...)
	dst = append(dst, p.prev...)
	dst = append(dst, redacts...)
	dst = append(dst, p.sender...)
	if signatures != nil {
		dst = append(dst, `,"signatures":`...)
		dst = append(dst, signatures...)
	}
	dst = append(dst, p.typ...)
	return append(dst, '}')
}

// signature writes the signatures of an event that has one.
func signature(server matrix.ServerName, keyID, sig string) []byte {
	dst := append(make([]byte, 0, 192), '{')
	dst = canonjson.AppendText(dst, string(server))
	dst = append(dst, ':', '{')
	dst = canonjson.AppendText(dst, keyID)
	dst = append(dst, ':')
	dst = canonjson.AppendText(dst, sig)
	return append(dst, '}', '}')
}

// references appends a list of events as the room version wants it.
func (d Draft) references(v *matrix.RoomVersion, out []byte, ids []matrix.EventID) ([]byte, error) {
	out = append(slices.Grow(out, 2+48*len(ids)), '[')
	for i, id := range ids {
		if i > 0 {
			out = append(out, ',')
		}
		if !v.EventIDInEvent {
			out = canonjson.AppendText(out, string(id))
			continue
		}
		hash, ok := d.Hashes[id]
		if !ok {
			return nil, fmt.Errorf("build event: no reference hash of %s", id)
		}
		out = append(out, '[')
		out = canonjson.AppendText(out, string(id))
		out = append(out, `,{"sha256":`...)
		out = canonjson.AppendText(out, hash)
		out = append(out, `}]`...)
	}
	return append(out, ']'), nil
}

func text(s string) []byte {
	return canonjson.AppendText(make([]byte, 0, len(s)+2), s)
}

// set replaces or adds one member of a sorted object.
func set(members []canonjson.Member, key string, value []byte) []canonjson.Member {
	m := canonjson.Member{Key: []byte(key), Value: value}
	for i := range members {
		switch k := string(members[i].Key); {
		case k == key:
			members[i] = m
			return members
		case k > key:
			return slices.Insert(members, i, m)
		}
	}
	return append(members, m)
}
