package event

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
)

// maxMembers is how many top-level keys of an event fit a buffer on the stack.
const maxMembers = 20

func isSignatures(key []byte) bool { return string(key) == "signatures" }

// unhashed tells the keys that the content hash does not cover.
func unhashed(key []byte) bool {
	switch string(key) {
	case "hashes", "signatures", "unsigned":
		return true
	}
	return false
}

// contentHash hashes the whole event but for its hashes and signatures.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#calculating-the-content-hash-for-an-event
func contentHash(members []canonjson.Member) [sha256.Size]byte {
	var buf [2048]byte
	return sha256.Sum256(canonjson.Object(buf[:0], members, unhashed))
}

// referenceHash hashes the redacted event without its signatures.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#calculating-the-reference-hash-for-an-event
func referenceHash(v *matrix.RoomVersion, typ string, members []canonjson.Member) [sha256.Size]byte {
	var kept [maxMembers]canonjson.Member
	var buf [2048]byte
	return sha256.Sum256(canonjson.Object(buf[:0], redact(v, typ, kept[:0], members), isSignatures))
}

// eventID is the ID that an event has by its reference hash, from room version 3
// on.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v4/#event-ids
func eventID(urlSafe bool, hash [sha256.Size]byte) []byte {
	encoding := base64.RawStdEncoding
	if urlSafe {
		encoding = base64.RawURLEncoding
	}
	id := make([]byte, 44)
	id[0] = '$'
	encoding.Encode(id[1:], hash[:])
	return id
}

// Redact brings an event's JSON into its redacted, canonical form, without
// "unsigned". The JSON must be an object with a "type".
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#redactions
func Redact(v *matrix.RoomVersion, raw []byte) ([]byte, error) {
	var buf, kept [maxMembers]canonjson.Member
	members, err := canonjson.Members(buf[:0], raw, numbers(v))
	if err != nil {
		return nil, fmt.Errorf("redact event: %w", err)
	}
	for _, m := range members {
		if string(m.Key) == "type" {
			if typ, ok := canonjson.Text(m.Value); ok {
				return canonjson.Object(nil, redact(v, typ, kept[:0], members), nil), nil
			}
		}
	}
	return nil, fmt.Errorf("redact event: no type")
}

// redact appends what is left of an event's members to kept.
func redact(v *matrix.RoomVersion, typ string, kept, members []canonjson.Member) []canonjson.Member {
	for _, m := range members {
		if !survives(v, m.Key) {
			continue
		}
		if string(m.Key) == "content" {
			m.Value = redactContent(v, typ, m.Value)
		}
		kept = append(kept, m)
	}
	return kept
}

// survives tells whether redaction leaves a key at the top of an event.
func survives(v *matrix.RoomVersion, key []byte) bool {
	switch string(key) {
	case "event_id", "type", "room_id", "sender", "state_key", "content", "hashes", "signatures", "depth",
		"prev_events", "auth_events", "origin_server_ts":
		return true
	case "prev_state", "origin", "membership":
		return !v.UpdatedRedaction
	}
	return false
}

// redactContent answers what redaction leaves of an event's content.
func redactContent(v *matrix.RoomVersion, typ string, content []byte) []byte {
	switch typ {
	case TypeCreate:
		if v.UpdatedRedaction {
			return content
		}
	case TypeMember, TypeJoinRules, TypePowerLevels, TypeAliases, TypeHistoryVisibility, TypeRedaction:
	default:
		return []byte("{}")
	}
	var buf [16]canonjson.Member
	kept := buf[:0]
	for key, value := range canonjson.Fields(content) {
		if !contentSurvives(v, typ, key) {
			continue
		}
		if string(key) == "third_party_invite" {
			if !canonjson.IsObject(value) {
				continue
			}
			value = onlySigned(value)
		}
		kept = append(kept, canonjson.Member{Key: key, Value: value})
	}
	return canonjson.Object(nil, kept, nil)
}

// contentSurvives tells whether redaction leaves a key of the content of an
// event of this type.
func contentSurvives(v *matrix.RoomVersion, typ string, key []byte) bool {
	switch typ {
	case TypeMember:
		switch string(key) {
		case "membership":
			return true
		case "join_authorised_via_users_server":
			return v.RestrictedRedaction
		case "third_party_invite":
			return v.UpdatedRedaction
		}
	case TypeCreate:
		return string(key) == "creator"
	case TypeJoinRules:
		return string(key) == "join_rule" || v.RestrictedRule && string(key) == "allow"
	case TypePowerLevels:
		switch string(key) {
		case "ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default":
			return true
		case "invite":
			return v.UpdatedRedaction
		}
	case TypeAliases:
		return v.AliasesAuth && string(key) == "aliases"
	case TypeHistoryVisibility:
		return string(key) == "history_visibility"
	case TypeRedaction:
		return v.UpdatedRedaction && string(key) == "redacts"
	}
	return false
}

// onlySigned is all that redaction leaves of a third-party invite. An object
// stays an object even if nothing in it was signed, as other servers have it.
func onlySigned(invite []byte) []byte {
	signed, ok := canonjson.Lookup(invite, "signed")
	if !ok {
		return []byte("{}")
	}
	return canonjson.Object(nil, []canonjson.Member{{Key: []byte("signed"), Value: signed}}, nil)
}
