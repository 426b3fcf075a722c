// Package eventauth decides by the authorization rules of every room version
// whether an event may be in a room with a given state. It fetches nothing and
// keeps nothing; signatures of servers are checked before it is asked.
//
// Comments and errors number the rules as room version 12 does. Where an older
// version has a rule that version 12 lacks, the number names the version.
package eventauth

import (
	"slices"
	"strings"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
)

// State is the state of a room that an event is checked against.
//
// A State may also have the method PowerLevels() (*PowerLevels, error), so that
// a big power levels event is not parsed for every event that is checked.
type State interface {
	// Event answers the state event of this type and state key, nil if there is
	// none.
	Event(typ, stateKey string) *event.PDU
}

// Set is a State of the events that it holds, for example the auth events of an
// event.
type Set map[Key]*event.PDU

// NewSet makes a Set. Events that are no state are left out; of two with the same
// type and state key the later one stays.
func NewSet(events ...*event.PDU) Set {
	s := make(Set, len(events))
	for _, e := range events {
		if e.IsState() {
			s[Key{e.Type, *e.StateKey}] = e
		}
	}
	return s
}

// Event implements State.
func (s Set) Event(typ, stateKey string) *event.PDU { return s[Key{typ, stateKey}] }

// Error tells which rule rejects an event.
type Error struct {
	Rule string // of room version 12, such as "5.3.3"; "v1:11.3" names another version
	Text string
}

// Error implements error.
func (e *Error) Error() string { return "rule " + e.Rule + ": " + e.Text }

func reject(rule, text string) error { return &Error{Rule: rule, Text: text} }

// Key names an entry of a room's state.
type Key struct{ Type, StateKey string }

// Selection lists the state events that the draft must name as its auth events,
// as far as the room has them. The draft's content may be any JSON.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection
func Selection(v *matrix.RoomVersion, d event.Draft) []Key {
	content := []byte("{}")
	if d.Type == event.TypeMember {
		if c, err := canonjson.Relaxed(d.Content); err == nil {
			content = c
		}
	}
	return selection(v, d.Type, d.Sender, d.StateKey, content)
}

func selection(v *matrix.RoomVersion, typ string, sender matrix.UserID, stateKey *string, content []byte) []Key {
	if typ == event.TypeCreate {
		return nil
	}
	keys := make([]Key, 0, 7)
	add := func(typ, stateKey string) {
		if k := (Key{typ, stateKey}); !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	if !v.RoomIDFromCreate {
		add(event.TypeCreate, "")
	}
	add(event.TypePowerLevels, "")
	add(event.TypeMember, string(sender))
	if typ != event.TypeMember || stateKey == nil {
		return keys
	}
	add(event.TypeMember, *stateKey)
	membership := stringAt(content, "membership")
	switch membership {
	case event.Join, event.Invite, event.Knock:
		add(event.TypeJoinRules, "")
	}
	if membership == event.Invite {
		if token, ok := inviteToken(content); ok {
			add(event.TypeThirdPartyInvite, token)
		}
	}
	if membership == event.Join && v.RestrictedRule {
		if user := stringAt(content, "join_authorised_via_users_server"); user != "" {
			add(event.TypeMember, user)
		}
	}
	return keys
}

// inviteToken finds the token of the third-party invite that an invite answers.
func inviteToken(content []byte) (string, bool) {
	invite, _ := canonjson.Lookup(content, "third_party_invite")
	signed, _ := canonjson.Lookup(invite, "signed")
	token, _ := canonjson.Lookup(signed, "token")
	return canonjson.Text(token)
}

func stringAt(obj []byte, key string) string {
	v, _ := canonjson.Lookup(obj, key)
	s, _ := canonjson.Text(v)
	return s
}

// CheckSelection checks the auth events that e names: rule 3, but for 3.3, which
// the caller checks because it knows which events were rejected. authEvents are
// those named in e.AuthEvents.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules
func CheckSelection(e *event.PDU, authEvents []*event.PDU) error {
	if e.Type == event.TypeCreate { // 1.5 allows it before rule 3 is reached
		return nil
	}
	expected := selection(e.Version, e.Type, e.Sender, e.StateKey, e.Content)
	seen := make([]Key, 0, len(authEvents))
	created := false
	for _, a := range authEvents {
		if a.StateKey == nil {
			return reject("3.2", "auth event "+string(a.ID)+" is no state event")
		}
		k := Key{a.Type, *a.StateKey}
		if slices.Contains(seen, k) { // 3.1
			return reject("3.1", "two auth events of type "+k.Type)
		}
		seen = append(seen, k)
		if !slices.Contains(expected, k) { // 3.2
			return reject("3.2", "unexpected auth event of type "+k.Type)
		}
		if a.Room != e.Room { // 3.5
			return reject("3.5", "auth event "+string(a.ID)+" is of another room")
		}
		created = created || k == Key{event.TypeCreate, ""}
	}
	if !created && !e.Version.RoomIDFromCreate { // 3.4, up to version 11
		return reject("3.4", "no create event among the auth events")
	}
	return nil
}

// Check tells whether e may be in a room with state s, by all rules but 3, which
// looks at the event's own auth events (CheckSelection). The error is an *Error.
// It trusts that the signatures of the sender's server, and of the server of
// join_authorised_via_users_server, were verified: it only looks whether they
// are there.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules
func Check(e *event.PDU, s State) error {
	if e.Type == event.TypeCreate { // 1
		return checkCreate(e)
	}
	c := checker{e: e, v: e.Version, s: s, create: s.Event(event.TypeCreate, "")}
	switch {
	case c.create == nil && c.v.RoomIDFromCreate: // 2
		return reject("2", "the room has no create event")
	case c.create == nil: // 3.4, up to version 11
		return reject("3.4", "the room has no create event")
	}
	if c.v.RoomIDFromCreate && c.create.Room != e.Room { // 2
		return reject("2", "the room ID is not that of the create event")
	}
	if federate, _ := canonjson.Lookup(c.create.Content, "m.federate"); string(federate) == "false" &&
		e.Sender.Server() != c.create.Sender.Server() { // 4
		return reject("4", "the room does not federate")
	}
	if c.v.AliasesAuth && e.Type == event.TypeAliases { // v1:4
		return checkAliases(e)
	}
	if e.Type == event.TypeMember { // 5
		return c.member()
	}
	if c.membership(string(e.Sender)) != event.Join { // 6
		return reject("6", "the sender is not in the room")
	}
	levels, err := c.powerLevels()
	if err != nil {
		return err
	}
	sender := levels.User(e.Sender)
	if e.Type == event.TypeThirdPartyInvite { // 7
		if sender < levels.Invite() {
			return reject("7.1", "the sender's power level is below the invite level")
		}
		return nil
	}
	if levels.Event(e.Type, e.IsState()) > sender { // 8
		return reject("8", "the sender's power level is below that of the event type")
	}
	if e.IsState() && strings.HasPrefix(*e.StateKey, "@") && *e.StateKey != string(e.Sender) { // 9
		return reject("9", "the state key is another user's ID")
	}
	switch {
	case e.Type == event.TypePowerLevels: // 10
		return c.changeLevels(levels, sender)
	case c.v.RedactionAuth && e.Type == event.TypeRedaction: // v1:11
		return checkRedaction(e, levels, sender)
	}
	return nil // 11
}

// checker is one check.
type checker struct {
	e      *event.PDU
	v      *matrix.RoomVersion
	s      State
	create *event.PDU
}

// powerLevels are the room's levels, from the State if it keeps them.
func (c *checker) powerLevels() (*PowerLevels, error) {
	if kept, ok := c.s.(interface{ PowerLevels() (*PowerLevels, error) }); ok {
		return kept.PowerLevels()
	}
	return ParsePowerLevels(c.create, c.s.Event(event.TypePowerLevels, ""))
}

// membership is a user's membership in the room, "" if there is none.
func (c *checker) membership(user string) string {
	if m := c.s.Event(event.TypeMember, user); m != nil {
		return m.Membership()
	}
	return ""
}

// joinRule is the room's join rule.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mroomjoin_rules
func (c *checker) joinRule() string {
	if r := c.s.Event(event.TypeJoinRules, ""); r != nil && r.ContentValue("join_rule") != nil {
		return r.ContentString("join_rule")
	}
	return event.Invite
}

// checkCreate is rule 1.
func checkCreate(e *event.PDU) error {
	if len(e.PrevEvents) > 0 { // 1.1
		return reject("1.1", "a create event has previous events")
	}
	if e.Version.RoomIDFromCreate { // 1.2
		if _, ok := canonjson.Lookup(e.JSON, "room_id"); ok {
			return reject("1.2", "a create event has a room ID")
		}
	} else if e.Room.Server() != e.Sender.Server() { // v1:1.2
		return reject("1.2", "the room ID is not of the sender's server")
	}
	if version := e.ContentValue("room_version"); version != nil { // 1.3
		name, ok := canonjson.Text(version)
		if ok {
			_, ok = matrix.Version(name)
		}
		if !ok {
			return reject("1.3", "unknown room version")
		}
	}
	if !e.Version.CreatorFromSender && e.ContentValue("creator") == nil { // v1:1.4
		return reject("v1:1.4", "a create event has no creator")
	}
	if e.Version.CreatorsInfinite { // 1.4
		if _, ok := additionalCreators(e); !ok {
			return reject("1.4", "additional_creators is no list of user IDs")
		}
	}
	return nil // 1.5
}

// additionalCreators reads them from the create event. It answers false if they
// are anything but a list of user IDs.
func additionalCreators(create *event.PDU) ([]matrix.UserID, bool) {
	list := create.ContentValue("additional_creators")
	if list == nil {
		return nil, true
	}
	if !canonjson.IsArray(list) {
		return nil, false
	}
	var users []matrix.UserID
	for value := range canonjson.Elements(list) {
		s, ok := canonjson.Text(value)
		user, err := matrix.ParseUserID(s)
		if !ok || err != nil {
			return nil, false
		}
		users = append(users, user)
	}
	return users, true
}

// checkAliases is rule 4 of room versions 1 to 5.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v1/#authorisation-rules
func checkAliases(e *event.PDU) error {
	if e.StateKey == nil { // v1:4.1
		return reject("v1:4.1", "an aliases event has no state key")
	}
	if *e.StateKey != string(e.Sender.Server()) { // v1:4.2
		return reject("v1:4.2", "the state key is not the sender's server")
	}
	return nil // v1:4.3
}

// checkRedaction is rule 11 of room versions 1 and 2.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v1/#authorisation-rules
func checkRedaction(e *event.PDU, levels *PowerLevels, sender Level) error {
	if sender >= levels.Redact() { // v1:11.1
		return nil
	}
	if e.Redacts != "" && e.Redacts.Server() == e.ID.Server() { // v1:11.2
		return nil
	}
	return reject("v1:11.3", "the sender may not redact this event")
}
