package xmpp

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
	"mellium.im/xmpp/jid"

	"switchboard/bridges/bridge"
	"switchboard/bridges/xmpp/client"
)

// The power levels of people in a room.
const (
	levelOwner     = 95
	levelAdmin     = 75
	levelModerator = 50
	levelVisitor   = -1
)

func levelOf(o client.Occupant) int {
	switch {
	case o.Affiliation == "owner":
		return levelOwner
	case o.Affiliation == "admin":
		return levelAdmin
	case o.Role == "moderator":
		return levelModerator
	case o.Role == "visitor":
		return levelVisitor
	}
	return 0
}

// inside is somebody in a room under the room's address: by what the room knows
// them by whatever their nick is (XEP-0421), or else by nick.
func inside(room jid.JID, o client.Occupant) jid.JID {
	name := o.Nick
	if o.ID != "" {
		name = "occupant-" + digest(o.ID)
	}
	full, err := room.WithResource(name)
	if err == nil && !shown(full) {
		full, err = room.WithResource("occupant-" + digest(o.Nick))
	}
	if err != nil {
		return jid.JID{}
	}
	return full
}

// digest is a short name for an ID of any length.
func digest(of string) string {
	sum := sha256.Sum256([]byte(of))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:16])
}

// person is the ghost of somebody in a room: the account if all in the room see
// it. What only moderators see must not show in a room that all logins share.
func (s *session) person(room jid.JID, o client.Occupant) jid.JID {
	if st, _ := s.room(room); st.Open && shown(o.JID) {
		return o.JID
	}
	return inside(room, o)
}

// local is the login of this bridge that has a nick in a room, or nil.
func (c *Connector) local(room jid.JID, nick string) *session {
	if nick == "" {
		return nil
	}
	for _, s := range c.all() {
		if _, in := s.room(room); in && s.client.NickIn(room) == nick {
			return s
		}
	}
	return nil
}

// occupant is the sender of what somebody in a room does.
func (s *session) occupant(room jid.JID, o client.Occupant) bridgev2.EventSender {
	if o.Nick == "" {
		return bridgev2.EventSender{}
	}
	if other := s.connector.local(room, o.Nick); other != nil {
		return bridgev2.EventSender{IsFromMe: other == s, SenderLogin: other.login.ID, Sender: other.GetUserID()}
	}
	if r, in := s.client.Room(room); in {
		if here, ok := r.Occupants[o.Nick]; ok && (o.ID == "" || o.ID == here.ID) && o.JID.Equal(jid.JID{}) {
			o = here
		}
	}
	return bridgev2.EventSender{Sender: userID(s.person(room, o))}
}

// writer is the sender of a message in a room.
func (s *session) writer(m *client.Message) bridgev2.EventSender {
	return s.occupant(m.From.Bare(), client.Occupant{Nick: m.From.Resourcepart(), ID: m.Occupant, JID: m.Account})
}

// find returns who in a room is meant by a ghost.
func (s *session) find(room, ghost jid.JID) (client.Occupant, bool) {
	r, _ := s.client.Room(room)
	best := client.Occupant{}
	for _, o := range r.Occupants {
		if s.person(room, o).Equal(ghost) || inside(room, o).Equal(ghost) {
			if best.Nick == "" || o.Nick < best.Nick {
				best = o
			}
		}
	}
	return best, best.Nick != ""
}

// member is somebody in a room, for the room.
func (s *session) member(ctx context.Context, room jid.JID, o client.Occupant) (bridgev2.ChatMember, bool) {
	level := levelOf(o)
	m := bridgev2.ChatMember{EventSender: s.occupant(room, o), Membership: event.MembershipJoin, PowerLevel: &level}
	if m.SenderLogin != "" || m.Sender == "" {
		return m, m.Sender != ""
	}
	m.UserInfo = s.profile(room, o)
	bridge.Introduce(ctx, s.login, m.Sender, m.UserInfo)
	return m, true
}

// profile is what a room tells of somebody. In each room an account may have
// another nick; the first one that is seen stays.
func (s *session) profile(room jid.JID, o client.Occupant) *bridgev2.UserInfo {
	j := s.person(room, o)
	info := &bridgev2.UserInfo{Identifiers: []string{"xmpp:" + j.String()}}
	name := cmp.Or(s.known(o.JID), o.Nick)
	if j.Resourcepart() != "" {
		info.Name, info.Identifiers = &o.Nick, nil // the room's ghosts have no address
	} else if ghost, err := s.connector.br.GetExistingGhostByID(s.context(), userID(j)); err != nil || ghost == nil || ghost.Name == "" {
		info.Name = &name
	}
	if full, err := room.WithResource(o.Nick); err == nil && o.Photo != "" {
		info.Avatar = s.avatar(full, o.Photo)
	}
	return info
}

// called is how a Matrix user is called in a chat: the nick in a room.
func (s *session) called(chat jid.JID, user id.UserID) string {
	if ghost, is := s.connector.br.Matrix.ParseGhostMXID(user); is {
		if o, in := s.find(chat, parse(ghost)); in {
			return o.Nick
		}
		return ""
	}
	for _, other := range s.connector.all() {
		if _, in := other.room(chat); in && other.login.UserMXID == user {
			return other.client.NickIn(chat)
		}
	}
	return ""
}

// mentioned are the users of this bridge whose nicks stand in a text.
func (s *session) mentioned(chat jid.JID, text string) (users []id.UserID) {
	for _, other := range s.connector.all() {
		if _, in := other.room(chat); in {
			if nick := other.client.NickIn(chat); nick != "" && hasWord(text, nick) {
				users = append(users, other.login.UserMXID)
			}
		}
	}
	return users
}
