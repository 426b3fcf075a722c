package matrix

import "slices"

// StateRes names a state resolution algorithm.
type StateRes string

// The state resolution algorithms.
const (
	StateResV1  StateRes = "v1"
	StateResV2  StateRes = "v2"
	StateResV21 StateRes = "v2.1"
)

// RoomVersion tells what one version of the rooms' rules allows. There is one
// value per version; compare pointers.
//
// Spec: https://spec.matrix.org/v1.19/rooms/
type RoomVersion struct {
	ID       string
	Stable   bool
	StateRes StateRes

	// The format of events.

	EventIDInEvent    bool // v1, v2: the sender chooses the event ID and sends it
	URLSafeEventID    bool // v4+: event IDs are URL-safe base64
	RoomIDFromCreate  bool // v12: the room ID is the hash of the create event, which has no room_id
	CreatorFromSender bool // v11+: the create event's content has no "creator"
	RedactsInContent  bool // v11+: "redacts" stands in the content

	// The rules.

	AliasesAuth         bool // v1-v5: m.room.aliases has a rule and redaction keys of its own
	StrictCanonicalJSON bool // v6+: numbers outside the safe range and floats are refused
	NotificationsAuth   bool // v6+: power_levels rules cover "notifications"
	KnockRule           bool // v7+
	RestrictedRule      bool // v8+
	RestrictedRedaction bool // v9+: redaction keeps join_authorised_via_users_server
	KnockRestrictedRule bool // v10+
	IntegerPowerLevels  bool // v10+: power levels are integers, strings are refused
	UpdatedRedaction    bool // v11+: the redaction algorithm of v11
	CreatorsInfinite    bool // v12: creators have infinite power and additional_creators exist
	SignatureValidity   bool // v5+: keys must have been valid at origin_server_ts
	RedactionAuth       bool // v1, v2: m.room.redaction has an authorization rule of its own
}

// DefaultRoomVersion is the version of new rooms where neither the operator
// nor the client asks for another.
const DefaultRoomVersion = "12"

// Version finds a room version by its name.
func Version(id string) (*RoomVersion, bool) {
	v, ok := versions[id]
	return v, ok
}

// Versions lists all known room versions in order of age.
func Versions() []*RoomVersion {
	return slices.Clone(ordered)
}

var ordered = makeVersions()

var versions = func() map[string]*RoomVersion {
	m := make(map[string]*RoomVersion, len(ordered))
	for _, v := range ordered {
		m[v.ID] = v
	}
	return m
}()

// makeVersions tells the history of the room versions: each is the one before
// it with changes.
func makeVersions() []*RoomVersion {
	v := RoomVersion{Stable: true, StateRes: StateResV1, EventIDInEvent: true, RedactionAuth: true, AliasesAuth: true}
	var list []*RoomVersion
	add := func(id string, change func(*RoomVersion)) {
		v.ID = id
		change(&v)
		c := v
		list = append(list, &c)
	}
	add("1", func(*RoomVersion) {})
	add("2", func(v *RoomVersion) { v.StateRes = StateResV2 })
	add("3", func(v *RoomVersion) { v.EventIDInEvent, v.RedactionAuth = false, false })
	add("4", func(v *RoomVersion) { v.URLSafeEventID = true })
	add("5", func(v *RoomVersion) { v.SignatureValidity = true })
	add("6", func(v *RoomVersion) { v.AliasesAuth, v.StrictCanonicalJSON, v.NotificationsAuth = false, true, true })
	add("7", func(v *RoomVersion) { v.KnockRule = true })
	add("8", func(v *RoomVersion) { v.RestrictedRule = true })
	add("9", func(v *RoomVersion) { v.RestrictedRedaction = true })
	add("10", func(v *RoomVersion) { v.KnockRestrictedRule, v.IntegerPowerLevels = true, true })
	add("11", func(v *RoomVersion) { v.CreatorFromSender, v.RedactsInContent, v.UpdatedRedaction = true, true, true })
	add("12", func(v *RoomVersion) {
		v.RoomIDFromCreate, v.CreatorsInfinite, v.StateRes = true, true, StateResV21
	})
	return list
}
