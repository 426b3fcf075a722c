package irc

import (
	"crypto/rand"
	"encoding/json"
	"strings"
	"sync"

	"maunium.net/go/mautrix/bridgev2/networkid"

	"switchboard/bridges/irc/client"
)

// The IDs of users, rooms and logins begin with the network's ID and a dot,
// which no network ID contains. What follows is a nick or channel in the form
// in which the network compares names.

func (n *network) userID(nick string) networkid.UserID {
	return networkid.UserID(n.ID + "." + n.fold(nick))
}

func (n *network) portalID(name string) networkid.PortalID {
	return networkid.PortalID(n.ID + "." + n.fold(name))
}

// channelKey is the room of a channel, shared by all logins.
func (n *network) channelKey(channel string) networkid.PortalKey {
	return networkid.PortalKey{ID: n.portalID(channel)}
}

// privateKey is the room in which one login talks with a nick.
func (s *session) privateKey(nick string) networkid.PortalKey {
	return networkid.PortalKey{ID: s.network.portalID(nick), Receiver: s.login.ID}
}

// messageID is the ID of a message: the network's, or a new one.
func (n *network) messageID(msgid string) networkid.MessageID {
	if msgid == "" {
		msgid = "~" + rand.Text()
	}
	return networkid.MessageID(n.ID + "." + msgid)
}

// msgid is the network's ID of a message, or empty.
func (n *network) msgid(id networkid.MessageID) string {
	rest, ok := strings.CutPrefix(string(id), n.ID+".")
	if !ok || strings.HasPrefix(rest, "~") {
		return ""
	}
	return rest
}

// splitID splits the ID of a user or portal into network and name.
func splitID(id string) (network, name string) {
	network, name, _ = strings.Cut(id, ".")
	return network, name
}

// LoginMetadata is what is kept of a login.
type LoginMetadata struct {
	mu sync.Mutex // tier 1; guards the rest
	loginData
}

// loginData is how to log in, and where to go then.
type loginData struct {
	Network     string             `json:"network"`
	Nick        string             `json:"nick"`
	User        string             `json:"user"`
	RealName    string             `json:"real_name"`
	Account     string             `json:"account,omitempty"`
	Password    string             `json:"password,omitempty"`
	Channels    []client.Wanted    `json:"channels,omitempty"`
	Casemapping client.Casemapping `json:"casemapping,omitempty"`
	Relay       bool               `json:"relay,omitempty"` // made from the configuration
}

// CopyFrom takes what a new log-in to the same login brings. The channels stay.
func (m *LoginMetadata) CopyFrom(other any) {
	if o, ok := other.(*LoginMetadata); ok {
		m.mu.Lock()
		defer m.mu.Unlock()
		channels := m.Channels
		m.loginData = o.loginData
		if len(m.Channels) == 0 {
			m.Channels = channels
		}
	}
}

// MarshalJSON implements json.Marshaler: mautrix writes logins down at any time.
func (m *LoginMetadata) MarshalJSON() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return json.Marshal(m.loginData)
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *LoginMetadata) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &m.loginData) }

// PortalMetadata is what is kept of a room.
type PortalMetadata struct {
	Name string `json:"name"` // of the channel or nick, as it is written
}

// MessageMetadata is what is kept of a message, for replies and edits.
type MessageMetadata struct {
	Text string `json:"text,omitempty"` // the beginning, without formatting
}

// keptText is how much of a message's text is kept, in bytes.
const keptText = 1000
