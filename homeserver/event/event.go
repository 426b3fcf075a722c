// Package event knows the events of every room version as servers exchange them:
// their format, hashes, IDs, signatures and redaction, and how clients see them.
// It does not know who may send them (eventauth does), nor where they are kept.
package event

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// MaxSize is the largest event in bytes: its canonical JSON with hashes and
// signatures, without "unsigned".
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#size-limits
const MaxSize = 65536

// The most events that one event may refer to.
const (
	MaxPrevEvents = 20
	MaxAuthEvents = 10
)

// The types of events that the rules of rooms know.
const (
	TypeAliases           = "m.room.aliases"
	TypeCreate            = "m.room.create"
	TypeHistoryVisibility = "m.room.history_visibility"
	TypeJoinRules         = "m.room.join_rules"
	TypeMember            = "m.room.member"
	TypePolicy            = "m.room.policy"
	TypePowerLevels       = "m.room.power_levels"
	TypeRedaction         = "m.room.redaction"
	TypeThirdPartyInvite  = "m.room.third_party_invite"
)

// The memberships.
const (
	Join   = "join"
	Invite = "invite"
	Knock  = "knock"
	Leave  = "leave"
	Ban    = "ban"
)

// PDU is one event of a room. It does not change after it was made, so it may be
// shared; none of its fields may be written to.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
type PDU struct {
	Version *matrix.RoomVersion
	ID      matrix.EventID

	// Room is the room's ID. The create event of room version 12 and later has
	// none in its JSON; here it has the one that it gives the room.
	Room matrix.RoomID

	Type   string
	Sender matrix.UserID

	// StateKey is nil for events that are no state.
	StateKey *string

	// Content is a canonical JSON object. It is a part of JSON.
	Content json.RawMessage

	// Redacts is what an m.room.redaction redacts, wherever its room version
	// puts it; "" where it is missing or no event ID.
	Redacts matrix.EventID

	Depth          int64
	OriginServerTS int64 // milliseconds since 1970

	PrevEvents []matrix.EventID
	AuthEvents []matrix.EventID

	// JSON is the canonical JSON with hashes and signatures and without
	// "unsigned": what other servers get.
	JSON []byte

	// Local tells that only this server knows the event, see Local. Silent, that
	// such an event notifies nobody.
	Local, Silent bool

	// HashMismatch tells that Parse got content that does not belong to the
	// event's content hash, and answered the redacted form instead.
	HashMismatch bool

	membership string
	signatures json.RawMessage // a part of JSON
}

// IsState tells whether the event is a state event.
func (p *PDU) IsState() bool { return p.StateKey != nil }

// Is tells whether the event is the state (typ, stateKey).
func (p *PDU) Is(typ, stateKey string) bool {
	return p.StateKey != nil && *p.StateKey == stateKey && p.Type == typ
}

// Membership is the membership that an m.room.member event gives; "" for other
// events and where it is missing or no string.
func (p *PDU) Membership() string { return p.membership }

// ContentString reads one string of the content's top level; "" where it is
// missing or no string. It does not decode the rest of the content. The key must
// not need escapes in JSON.
func (p *PDU) ContentString(key string) string {
	v, _ := canonjson.Lookup(p.Content, key)
	s, _ := canonjson.Text(v)
	return s
}

// ContentValue reads one value of the content's top level, in canonical form;
// nil where it is missing. The key must not need escapes in JSON.
func (p *PDU) ContentValue(key string) json.RawMessage {
	v, _ := canonjson.Lookup(p.Content, key)
	return v
}

// numbers is which numbers the events of a room version may hold.
func numbers(v *matrix.RoomVersion) canonjson.Numbers {
	if v.StrictCanonicalJSON {
		return canonjson.Integers
	}
	return canonjson.Any
}

// members appends the top level of the event to dst.
func (p *PDU) members(dst []canonjson.Member) []canonjson.Member {
	for k, v := range canonjson.Fields(p.JSON) {
		dst = append(dst, canonjson.Member{Key: k, Value: v})
	}
	return dst
}

// appendRedacted appends the redacted form to dst, without the members for which
// skip is true.
func (p *PDU) appendRedacted(dst []byte, skip func(key []byte) bool) []byte {
	var all, kept [maxMembers]canonjson.Member
	return canonjson.Object(dst, redact(p.Version, p.Type, kept[:0], p.members(all[:0])), skip)
}

// Redacted answers the event as it stands after a redaction, with the same ID.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#redactions
func (p *PDU) Redacted() (*PDU, error) {
	r, err := Load(p.Version, p.ID, p.appendRedacted(nil, nil))
	if err != nil {
		return nil, fmt.Errorf("redact %s: %w", p.ID, err)
	}
	return r, nil
}

// ReferenceHash is the hash of the redacted event in unpadded base64, which
// events of room versions 1 and 2 name beside the IDs of other events.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#calculating-the-reference-hash-for-an-event
func (p *PDU) ReferenceHash() string {
	var buf [maxMembers]canonjson.Member
	sum := referenceHash(p.Version, p.Type, p.members(buf[:0]))
	return signing.EncodeBase64(sum[:])
}

// signed is what the signatures of the event cover: its redacted form without
// them.
func (p *PDU) signed() []byte { return p.appendRedacted(nil, isSignatures) }

// Signatures is the object of the event's signatures: servers, key IDs,
// signatures. Read it with signing.Signatures and signing.Entities.
func (p *PDU) Signatures() json.RawMessage { return p.signatures }

// SignedBy tells whether the event has a signature of server, right or wrong.
func (p *PDU) SignedBy(server matrix.ServerName) bool {
	for range signing.Signatures(p.Signatures(), string(server)) {
		return true
	}
	return false
}

// VerifySignature checks server's signature with the key pub, known as keyID.
// It answers signing.ErrUnsigned or signing.ErrWrong.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events
func (p *PDU) VerifySignature(server matrix.ServerName, keyID string, pub ed25519.PublicKey) error {
	for id, sig := range signing.Signatures(p.Signatures(), string(server)) {
		if id == keyID {
			return signing.Verify(p.signed(), sig, pub)
		}
	}
	return signing.ErrUnsigned
}

// Sign answers the event with one more signature. Its ID stays the same.
func (p *PDU) Sign(server matrix.ServerName, k signing.Key) (*PDU, error) {
	all, err := signing.AddSignature(p.Signatures(), string(server), k.ID, k.Sign(p.signed()))
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", p.ID, err)
	}
	return p.withSignatures(all)
}

// AddSignature answers the event with one more signature that another server
// made, in base64. It does not check it. The ID stays the same.
func (p *PDU) AddSignature(server matrix.ServerName, keyID, signature string) (*PDU, error) {
	all, err := signing.AddSignature(p.Signatures(), string(server), keyID, signature)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", p.ID, err)
	}
	return p.withSignatures(all)
}

func (p *PDU) withSignatures(all []byte) (*PDU, error) {
	var buf [maxMembers]canonjson.Member
	members := p.members(buf[:0])
	for i := range members {
		if string(members[i].Key) == "signatures" {
			members[i].Value = all
		}
	}
	signed := *p
	signed.JSON = canonjson.Object(nil, members, nil)
	if len(signed.JSON) > MaxSize {
		return nil, tooLarge("the event", len(signed.JSON), MaxSize)
	}
	signed.Content, _ = canonjson.Lookup(signed.JSON, "content")
	signed.signatures, _ = canonjson.Lookup(signed.JSON, "signatures")
	return &signed, nil
}
