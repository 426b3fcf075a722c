package eventauth

import (
	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// member is rule 5.
func (c *checker) member() error {
	if c.e.StateKey == nil || c.e.ContentValue("membership") == nil { // 5.1
		return reject("5.1", "a member event has no state key or no membership")
	}
	if c.v.RestrictedRule { // 5.2
		if via := c.e.ContentValue("join_authorised_via_users_server"); via != nil {
			name, _ := canonjson.Text(via)
			user, err := matrix.ParseUserID(name)
			if err != nil || !c.e.SignedBy(user.Server()) { // 5.2.1
				return reject("5.2.1", "the server that authorised the join did not sign it")
			}
		}
	}
	switch m := c.e.Membership(); {
	case m == event.Join: // 5.3
		return c.join()
	case m == event.Invite: // 5.4
		return c.invite()
	case m == event.Leave: // 5.5
		return c.leave()
	case m == event.Ban: // 5.6
		return c.ban()
	case m == event.Knock && c.v.KnockRule: // 5.7
		return c.knock()
	}
	return reject("5.8", "unknown membership") // 5.8
}

// creator is who made the room.
func (c *checker) creator() string {
	if c.v.CreatorFromSender {
		return string(c.create.Sender)
	}
	return c.create.ContentString("creator")
}

// join is rule 5.3.
func (c *checker) join() error {
	target := *c.e.StateKey
	if len(c.e.PrevEvents) == 1 && c.e.PrevEvents[0] == c.create.ID && target == c.creator() { // 5.3.1
		return nil
	}
	if string(c.e.Sender) != target { // 5.3.2
		return reject("5.3.2", "nobody may join for another user")
	}
	membership := c.membership(target)
	if membership == event.Ban { // 5.3.3
		return reject("5.3.3", "the sender is banned")
	}
	in := membership == event.Invite || membership == event.Join
	switch rule := c.joinRule(); {
	case rule == "invite", rule == "knock" && c.v.KnockRule: // 5.3.4
		if in {
			return nil
		}
		return reject("5.3.4", "the sender is not invited")
	case rule == "restricted" && c.v.RestrictedRule, rule == "knock_restricted" && c.v.KnockRestrictedRule: // 5.3.5
		if in { // 5.3.5.1
			return nil
		}
		return c.authorised() // 5.3.5.2, 5.3.5.3
	case rule == "public": // 5.3.6
		return nil
	}
	return reject("5.3.7", "the join rule lets nobody in")
}

// authorised is rule 5.3.5.2.
func (c *checker) authorised() error {
	user := c.e.ContentString("join_authorised_via_users_server")
	if user == "" || c.membership(user) != event.Join {
		return reject("5.3.5.2", "no member of the room authorised the join")
	}
	levels, err := c.powerLevels()
	if err != nil {
		return err
	}
	if levels.User(matrix.UserID(user)) < levels.Invite() {
		return reject("5.3.5.2", "who authorised the join may not invite")
	}
	return nil
}

// invite is rule 5.4.
func (c *checker) invite() error {
	if third := c.e.ContentValue("third_party_invite"); third != nil { // 5.4.1
		return c.thirdPartyInvite(third)
	}
	if c.membership(string(c.e.Sender)) != event.Join { // 5.4.2
		return reject("5.4.2", "the sender is not in the room")
	}
	switch c.membership(*c.e.StateKey) { // 5.4.3
	case event.Join:
		return reject("5.4.3", "the user is in the room already")
	case event.Ban:
		return reject("5.4.3", "the user is banned")
	}
	levels, err := c.powerLevels()
	if err != nil {
		return err
	}
	if levels.User(c.e.Sender) >= levels.Invite() { // 5.4.4
		return nil
	}
	return reject("5.4.5", "the sender's power level is below the invite level") // 5.4.5
}

// thirdPartyInvite is rule 5.4.1.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#verifying-the-invite
func (c *checker) thirdPartyInvite(third []byte) error {
	if c.membership(*c.e.StateKey) == event.Ban { // 5.4.1.1
		return reject("5.4.1.1", "the user is banned")
	}
	signed, ok := canonjson.Lookup(third, "signed")
	if !ok { // 5.4.1.2
		return reject("5.4.1.2", "the third-party invite is not signed")
	}
	mxidValue, hasUser := canonjson.Lookup(signed, "mxid")
	tokenValue, hasToken := canonjson.Lookup(signed, "token")
	token, tokenOK := canonjson.Text(tokenValue)
	if !hasUser || !hasToken || !tokenOK { // 5.4.1.3
		return reject("5.4.1.3", "the third-party invite has no mxid or no token")
	}
	if mxid, ok := canonjson.Text(mxidValue); !ok || mxid != *c.e.StateKey { // 5.4.1.4
		return reject("5.4.1.4", "the third-party invite is for another user")
	}
	invite := c.s.Event(event.TypeThirdPartyInvite, token)
	if invite == nil { // 5.4.1.5
		return reject("5.4.1.5", "the room has no such third-party invite")
	}
	if invite.Sender != c.e.Sender { // 5.4.1.6
		return reject("5.4.1.6", "somebody else sent the third-party invite")
	}
	if signedByInvite(signed, invite) { // 5.4.1.7
		return nil
	}
	return reject("5.4.1.8", "no key of the third-party invite signed it") // 5.4.1.8
}

// maxTries is how many pairs of a public key and a signature are tried for one
// third-party invite. A real one has a few; one event could hold enough of them
// to keep a processor busy for a minute.
const maxTries = 256

// signedByInvite tells whether a public key of the third-party invite made any
// signature of the signed object.
func signedByInvite(signed []byte, invite *event.PDU) bool {
	return SignedByOneOf(signed, inviteKeys(invite)...)
}

// SignedByOneOf tells whether one of the public keys made any signature of a
// signed object, whoever that says it is from. It tries a few hundred pairs.
func SignedByOneOf(signed []byte, keys ...[]byte) bool {
	payload, err := signing.Payload(signed)
	if err != nil {
		return false
	}
	signatures, _ := canonjson.Lookup(signed, "signatures")
	tries := 0
	for _, entity := range signing.Entities(signatures) {
		for _, sig := range signing.Signatures(signatures, entity) {
			for _, key := range keys {
				if tries++; tries > maxTries {
					return false
				}
				if signing.Verify(payload, sig, key) == nil {
					return true
				}
			}
		}
	}
	return false
}

// inviteKeys lists the public keys of a third-party invite.
func inviteKeys(invite *event.PDU) [][]byte {
	var keys [][]byte
	add := func(value []byte) {
		s, ok := canonjson.Text(value)
		if key, err := signing.DecodeBase64(s); ok && err == nil {
			keys = append(keys, key)
		}
	}
	add(invite.ContentValue("public_key"))                                      // 5.4.1.7.1
	for entry := range canonjson.Elements(invite.ContentValue("public_keys")) { // 5.4.1.7.2
		key, _ := canonjson.Lookup(entry, "public_key")
		add(key)
	}
	return keys
}

// leave is rule 5.5.
func (c *checker) leave() error {
	target := *c.e.StateKey
	membership := c.membership(target)
	if string(c.e.Sender) == target { // 5.5.1
		switch {
		case membership == event.Invite, membership == event.Join, membership == event.Knock && c.v.KnockRule:
			return nil
		}
		return reject("5.5.1", "the sender is not in the room")
	}
	if c.membership(string(c.e.Sender)) != event.Join { // 5.5.2
		return reject("5.5.2", "the sender is not in the room")
	}
	levels, err := c.powerLevels()
	if err != nil {
		return err
	}
	sender := levels.User(c.e.Sender)
	if membership == event.Ban && sender < levels.Ban() { // 5.5.3
		return reject("5.5.3", "the sender's power level is below the ban level")
	}
	if sender >= levels.Kick() && levels.User(matrix.UserID(target)) < sender { // 5.5.4
		return nil
	}
	return reject("5.5.5", "the sender's power level is too low to remove the user") // 5.5.5
}

// ban is rule 5.6.
func (c *checker) ban() error {
	if c.membership(string(c.e.Sender)) != event.Join { // 5.6.1
		return reject("5.6.1", "the sender is not in the room")
	}
	levels, err := c.powerLevels()
	if err != nil {
		return err
	}
	sender := levels.User(c.e.Sender)
	if sender >= levels.Ban() && levels.User(matrix.UserID(*c.e.StateKey)) < sender { // 5.6.2
		return nil
	}
	return reject("5.6.3", "the sender's power level is too low to ban the user") // 5.6.3
}

// knock is rule 5.7.
func (c *checker) knock() error {
	if rule := c.joinRule(); rule != "knock" && !(rule == "knock_restricted" && c.v.KnockRestrictedRule) { // 5.7.1
		return reject("5.7.1", "the join rule does not let users knock")
	}
	if string(c.e.Sender) != *c.e.StateKey { // 5.7.2
		return reject("5.7.2", "nobody may knock for another user")
	}
	switch c.membership(*c.e.StateKey) {
	case event.Ban, event.Invite, event.Join:
		return reject("5.7.4", "the sender is banned, invited or in the room") // 5.7.4
	}
	return nil // 5.7.3
}
