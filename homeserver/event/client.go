package event

import (
	"strconv"

	"switchboard/homeserver/canonjson"
)

// Client appends the event as clients see it to dst. unsigned is a JSON object,
// or empty for none. Redactions carry what they redact both in the content and
// at the top level, for clients of either habit.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#room-event-format
func (p *PDU) Client(dst, unsigned []byte) []byte {
	return p.client(dst, unsigned, true)
}

// Sync is Client without room_id, which /sync leaves out because it stands
// above the events.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#room-event-format
func (p *PDU) Sync(dst, unsigned []byte) []byte {
	return p.client(dst, unsigned, false)
}

func (p *PDU) client(dst, unsigned []byte, room bool) []byte {
	dst = append(dst, `{"content":`...)
	dst = p.clientContent(dst)
	dst = append(dst, `,"event_id":`...)
	dst = canonjson.AppendText(dst, string(p.ID))
	dst = append(dst, `,"origin_server_ts":`...)
	dst = strconv.AppendInt(dst, p.OriginServerTS, 10)
	if p.Redacts != "" {
		dst = append(dst, `,"redacts":`...)
		dst = canonjson.AppendText(dst, string(p.Redacts))
	}
	if room {
		dst = append(dst, `,"room_id":`...)
		dst = canonjson.AppendText(dst, string(p.Room))
	}
	dst = p.identity(dst)
	if len(unsigned) > 0 {
		dst = append(dst, `,"unsigned":`...)
		dst = append(dst, unsigned...)
	}
	return append(dst, '}')
}

// identity appends sender, state key and type, behind other members.
func (p *PDU) identity(dst []byte) []byte {
	dst = append(dst, `,"sender":`...)
	dst = canonjson.AppendText(dst, string(p.Sender))
	if p.StateKey != nil {
		dst = append(dst, `,"state_key":`...)
		dst = canonjson.AppendText(dst, *p.StateKey)
	}
	dst = append(dst, `,"type":`...)
	return canonjson.AppendText(dst, p.Type)
}

// clientContent appends the content; that of a redaction in an older room
// version gets the "redacts" that newer clients look for.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v11/#moving-the-redacts-property-of-mroomredaction-events-to-a-content-property
func (p *PDU) clientContent(dst []byte) []byte {
	if p.Redacts == "" || p.Version.RedactsInContent {
		return append(dst, p.Content...)
	}
	var members []canonjson.Member
	for k, v := range canonjson.Fields(p.Content) {
		members = append(members, canonjson.Member{Key: k, Value: v})
	}
	return canonjson.Object(dst, set(members, "redacts", text(string(p.Redacts))), nil)
}

// StrippedState appends the event as a potential joiner of the room sees it:
// only content, sender, state key and type.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#stripped-state
func (p *PDU) StrippedState(dst []byte) []byte {
	dst = append(dst, `{"content":`...)
	dst = append(dst, p.Content...)
	dst = p.identity(dst)
	return append(dst, '}')
}
