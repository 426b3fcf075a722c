package pushrule

import (
	"encoding/json"

	"switchboard/homeserver/matrix"
)

// Fields are the properties of an event that rules may ask for.
type Fields struct {
	ID             matrix.EventID
	Room           matrix.RoomID
	Type           string
	Sender         matrix.UserID
	StateKey       *string // nil for an event that is no state event
	Redacts        matrix.EventID
	OriginServerTS int64           // milliseconds since 1970
	Content        json.RawMessage // a JSON object
}

// field numbers the properties that the default rules and most users' rules
// ask for, so that matching finds them without a search.
type field uint8

const (
	fieldElsewhere field = iota
	fieldType
	fieldStateKey
	fieldSender
	fieldRoom
	fieldBody
	fieldMsgtype
	fieldMembership
	fieldMentionedUsers
	fieldMentionedRoom
	fieldRelType
	fields
)

// numbered finds the field of a key.
var numbered = map[string]field{
	`type`:                           fieldType,
	`state_key`:                      fieldStateKey,
	`sender`:                         fieldSender,
	`room_id`:                        fieldRoom,
	`content.body`:                   fieldBody,
	`content.msgtype`:                fieldMsgtype,
	`content.membership`:             fieldMembership,
	`content.m\.mentions.user_ids`:   fieldMentionedUsers,
	`content.m\.mentions.room`:       fieldMentionedRoom,
	`content.m\.relates_to.rel_type`: fieldRelType,
}

// Event is an event prepared once for being matched against the rules of many
// users. It does not change, so several goroutines may use it.
type Event struct {
	fields Fields
	values [fields]value
}

// NewEvent prepares an event. It keeps f.Content, which must not change later.
func NewEvent(f Fields) *Event {
	e := &Event{fields: f}
	v := &e.values
	v[fieldType] = ofText(f.Type)
	v[fieldSender] = ofText(string(f.Sender))
	v[fieldRoom] = ofText(string(f.Room))
	if f.StateKey != nil {
		v[fieldStateKey] = ofText(*f.StateKey)
	}
	members(f.Content, func(name string, raw []byte) {
		switch name {
		case "body":
			v[fieldBody] = parse(raw)
		case "msgtype":
			v[fieldMsgtype] = parse(raw)
		case "membership":
			v[fieldMembership] = parse(raw)
		case "m.mentions":
			v[fieldMentionedUsers] = lookup(raw, []string{"user_ids"})
			v[fieldMentionedRoom] = lookup(raw, []string{"room"})
		case "m.relates_to":
			v[fieldRelType] = lookup(raw, []string{"rel_type"})
		}
	})
	return e
}

// property finds a property that has no number.
func (e *Event) property(path []string) value {
	if path[0] == "content" {
		return lookup(e.fields.Content, path[1:])
	}
	if len(path) > 1 {
		return value{}
	}
	switch path[0] {
	case "event_id":
		return optional(string(e.fields.ID))
	case "redacts":
		return optional(string(e.fields.Redacts))
	case "origin_server_ts":
		return value{kind: integer, number: e.fields.OriginServerTS}
	}
	return value{}
}

func ofText(s string) value {
	return value{kind: text, text: s, folded: fold(s)}
}

func optional(s string) value {
	if s == "" {
		return value{}
	}
	return ofText(s)
}
