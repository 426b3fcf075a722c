package whatsapp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"go.mau.fi/whatsmeow/types"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/id"
)

// A user is named by the LID, a number that WhatsApp gives each account and
// that says nothing about it. A login has the same name as its user.

func userID(lid types.JID) networkid.UserID       { return networkid.UserID(lid.User) }
func loginID(lid types.JID) networkid.UserLoginID { return networkid.UserLoginID(lid.User) }
func lidOf(user networkid.UserID) types.JID {
	return types.NewJID(string(user), types.HiddenUserServer)
}

// isLID reports whether a string may be the number of a LID.
func isLID(s string) bool {
	return len(s) >= 5 && len(s) <= 20 && !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// key is the room of a chat: a group's is for all, a private one for this login.
func (s *session) key(chat types.JID) networkid.PortalKey {
	key := networkid.PortalKey{ID: networkid.PortalID(chat.String())}
	if chat.Server != types.GroupServer {
		key.Receiver = s.login.ID
	}
	return key
}

// chatOf is the chat of a room.
func chatOf(p *bridgev2.Portal) (types.JID, error) {
	jid, err := types.ParseJID(string(p.ID))
	if err != nil {
		return jid, fmt.Errorf("the room is for %q, which is no chat: %w", p.ID, err)
	}
	return jid, nil
}

// messageID names a message: WhatsApp's own IDs are told apart only within a
// chat and sender.
func messageID(chat, sender types.JID, id types.MessageID) networkid.MessageID {
	return networkid.MessageID(chat.String() + "/" + sender.User + "/" + id)
}

// splitMessageID returns who sent a message, and WhatsApp's ID of it.
func splitMessageID(id networkid.MessageID) (sender types.JID, own types.MessageID) {
	parts := strings.SplitN(string(id), "/", 3)
	if len(parts) < 3 {
		return types.EmptyJID, ""
	}
	return types.NewJID(parts[1], types.HiddenUserServer), parts[2]
}

// newID makes WhatsApp's ID for what a Matrix event says. It is the same at each
// attempt.
func newID(event id.EventID) types.MessageID {
	sum := sha256.Sum256([]byte(event))
	return "3EB0" + strings.ToUpper(hex.EncodeToString(sum[:9]))
}

// lid returns the LID of a user who may be named by the phone number; other is a
// second name, where there is one. It is false for what is no person, and where
// WhatsApp does not tell it.
func (s *session) lid(ctx context.Context, jid, other types.JID) (types.JID, bool) {
	for _, j := range []types.JID{jid, other} {
		if j.Server == types.HiddenUserServer || j.Server == types.HostedLIDServer {
			return types.NewJID(j.User, types.HiddenUserServer), true
		}
	}
	if jid.Server == types.HostedServer {
		jid.Server = types.DefaultUserServer
	}
	if jid.Server != types.DefaultUserServer {
		return types.EmptyJID, false
	}
	jid = jid.ToNonAD()
	if lid, err := s.client.Store.LIDs.GetLIDForPN(ctx, jid); err == nil && !lid.IsEmpty() {
		return lid.ToNonAD(), true
	}
	info, err := s.client.GetUserInfo(ctx, []types.JID{jid})
	if err != nil || info[jid].LID.IsEmpty() {
		return types.EmptyJID, false
	}
	return info[jid].LID.ToNonAD(), true
}

// LoginMetadata is what is kept of a login.
type LoginMetadata struct {
	// Device is the linked device's address in whatsmeow's store.
	Device types.JID `json:"device"`
}

// MessageMetadata is what is kept of a message.
type MessageMetadata struct {
	Text    string `json:"text,omitempty"`    // the beginning, to be quoted
	Pending bool   `json:"pending,omitempty"` // could not be read yet
}

// CopyFrom implements database.MetaMerger.
func (m *MessageMetadata) CopyFrom(other any) {
	if o, ok := other.(*MessageMetadata); ok {
		*m = *o
	}
}

// keptText is how much of a text is kept, in bytes.
const keptText = 500

func excerpt(text string) *MessageMetadata {
	if len(text) > keptText {
		text = strings.ToValidUTF8(text[:keptText], "")
	}
	return &MessageMetadata{Text: text}
}

// GhostMetadata is what is kept of a person.
type GhostMetadata struct {
	Named bool `json:"named,omitempty"` // by the person, not by us
}
