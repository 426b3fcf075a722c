package xmpp

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"maunium.net/go/mautrix/bridgev2/networkid"
	"mellium.im/xmpp/jid"
)

// maxJID is the longest JID, in bytes, that fits into a Matrix user ID with all
// its characters escaped.
const maxJID = 76

// userID is the ghost of an account, or of somebody in a room under room and
// nick.
func userID(j jid.JID) networkid.UserID { return networkid.UserID(j.String()) }

// shown reports whether a JID can be that of a ghost.
func shown(j jid.JID) bool { return len(j.String()) <= maxJID && j.Domainpart() != "" }

// parse is the JID of a ghost or room; both are made of JIDs only.
func parse[T ~string](id T) jid.JID {
	j, err := jid.Parse(string(id))
	if err != nil {
		return jid.JID{}
	}
	return j
}

// checkUserID tells what is wrong with the JID of a person.
func checkUserID(text string) (jid.JID, error) {
	j, err := jid.Parse(strings.TrimPrefix(strings.TrimSpace(text), "xmpp:"))
	switch {
	case err != nil:
		return j, fmt.Errorf("%q is no XMPP address: %w", text, err)
	case j.Localpart() == "":
		return j, fmt.Errorf("%q is no XMPP address: it must look like ivy@example.org", text)
	case !shown(j):
		return j, fmt.Errorf("%q is too long", text)
	}
	return j, nil
}

// key is the Matrix room for a chat: a room's is shared by all logins.
func (s *session) key(chat jid.JID) networkid.PortalKey {
	key := networkid.PortalKey{ID: networkid.PortalID(chat.String())}
	if _, is := s.room(chat); !is {
		key.Receiver = s.login.ID
	}
	return key
}

// messageID is the ID of a message in a chat: that by which others refer to it
// there, or a new one.
func messageID(chat jid.JID, id string) networkid.MessageID {
	if id == "" {
		id = "~" + rand.Text()
	}
	return networkid.MessageID(chat.String() + "\n" + id)
}

// stanzaID undoes messageID.
func stanzaID(id networkid.MessageID) string {
	_, out, _ := strings.Cut(string(id), "\n")
	return out
}

// LoginMetadata is what is kept of a login.
type LoginMetadata struct {
	mu sync.Mutex // tier 1; guards what follows

	Password string               `json:"password,omitempty"`
	Position Position             `json:"position"`
	Since    time.Time            `json:"since,omitzero"`  // when the archive was first read: what is older is the past
	Rooms    map[string]RoomState `json:"rooms,omitempty"` // by JID; those to enter
}

// CopyFrom takes what a new log-in to the same account brings. Rooms and
// positions stay.
func (m *LoginMetadata) CopyFrom(other any) {
	if o, ok := other.(*LoginMetadata); ok {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.Password = o.Password
	}
}

// MarshalJSON implements json.Marshaler: mautrix writes logins down at any time.
func (m *LoginMetadata) MarshalJSON() ([]byte, error) {
	type plain LoginMetadata
	m.mu.Lock()
	defer m.mu.Unlock()
	return json.Marshal((*plain)(m))
}

// RoomState is what is kept of a room.
type RoomState struct {
	Nick     string   `json:"nick"`
	Password string   `json:"password,omitempty"`
	Position Position `json:"position"`
	Open     bool     `json:"open,omitempty"` // all see everybody's account
}

// Position is how far an archive has been read.
type Position struct {
	ID   string    `json:"id,omitempty"` // of the last message
	Time time.Time `json:"time"`         // of the last message, or when reading began
}

// MessageMetadata is what is kept of a message.
type MessageMetadata struct {
	Origin string `json:"origin,omitempty"` // the sender's ID of it, by which corrections name it
	Text   string `json:"text,omitempty"`   // the beginning, for quotations
	Author string `json:"author,omitempty"` // the JID that wrote it, as replies name it
}

// keptText is how much of a message's text is kept, in bytes.
const keptText = 300

func excerpt(text string) string {
	if len(text) <= keptText {
		return text
	}
	return strings.ToValidUTF8(text[:keptText], "") + "…"
}
