package event

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

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
	members, err := d.members(v, content)
	if err != nil {
		return nil, err
	}
	if v.EventIDInEvent {
		// The sender chooses the ID. The hash of the rest is as good as chance.
		id := eventID(&matrix.RoomVersion{URLSafeEventID: true}, contentHash(members))
		members = set(members, "event_id", text(string(id)+":"+string(server)))
	}
	sum := contentHash(members)
	members = set(members, "hashes", canonjson.Object(nil, []canonjson.Member{
		{Key: []byte("sha256"), Value: text(signing.EncodeBase64(sum[:]))},
	}, nil))
	var buf [2048]byte
	signature := key.Sign(canonjson.Object(buf[:0], redact(v, d.Type, members), nil))
	signatures, err := signing.AddSignature(nil, string(server), key.ID, signature)
	if err != nil {
		return nil, fmt.Errorf("build event: %w", err)
	}
	members = set(members, "signatures", signatures)
	p := &PDU{Version: v, JSON: canonjson.Object(make([]byte, 0, 512+len(content)), members, nil)}
	if len(p.JSON) > MaxSize {
		return nil, tooLarge("the event", len(p.JSON), MaxSize)
	}
	if err := p.fill(); err != nil {
		return nil, badEvent(err)
	}
	if err := p.check(members); err != nil {
		return nil, err
	}
	if !v.EventIDInEvent {
		p.ID = eventID(v, referenceHash(v, p.Type, members))
	}
	p.nameRoom()
	return p, nil
}

// draftContent is the content in canonical form.
func draftContent(v *matrix.RoomVersion, d Draft) ([]byte, error) {
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

// members lists the event's top level in canonical order, without what is
// computed later.
func (d Draft) members(v *matrix.RoomVersion, content []byte) ([]canonjson.Member, error) {
	auth, err := d.references(v, d.AuthEvents)
	if err != nil {
		return nil, err
	}
	prev, err := d.references(v, d.PrevEvents)
	if err != nil {
		return nil, err
	}
	members := make([]canonjson.Member, 0, maxMembers)
	add := func(key string, value []byte) {
		members = append(members, canonjson.Member{Key: []byte(key), Value: value})
	}
	add("auth_events", auth)
	add("content", content)
	add("depth", strconv.AppendInt(nil, d.Depth, 10))
	add("origin_server_ts", strconv.AppendInt(nil, d.OriginServerTS, 10))
	add("prev_events", prev)
	if d.Redacts != "" && !v.RedactsInContent {
		add("redacts", text(string(d.Redacts)))
	}
	if d.Room != "" {
		add("room_id", text(string(d.Room)))
	}
	add("sender", text(string(d.Sender)))
	if d.StateKey != nil {
		add("state_key", text(*d.StateKey))
	}
	add("type", text(d.Type))
	return members, nil
}

// references writes a list of events as the room version wants it.
func (d Draft) references(v *matrix.RoomVersion, ids []matrix.EventID) ([]byte, error) {
	out := make([]byte, 0, 2+48*len(ids))
	out = append(out, '[')
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
