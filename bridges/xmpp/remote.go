package xmpp

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/simplevent"
	"maunium.net/go/mautrix/bridgev2/status"
	"maunium.net/go/mautrix/event"
	"mellium.im/xmpp/jid"

	"switchboard/bridges/bridge"
	"switchboard/bridges/xmpp/client"
)

// onEvent takes an event of the connection. It returns soon; the work is done in
// the lane that the event belongs to.
func (s *session) onEvent(e client.Event) {
	switch e := e.(type) {
	case client.Lost:
		for _, l := range s.all() {
			l.setReady(false)
		}
	case client.Connected:
		if e.Resumed {
			for _, l := range s.all() {
				l.add(true, func(ctx context.Context) { s.resumed(ctx, l) })
			}
			s.online()
			return
		}
		s.account.add(true, s.begin)
	case client.Disconnected:
		bridge.Tell(s.login, status.BridgeState{
			StateEvent: status.StateTransientDisconnect, Error: "xmpp-disconnected",
			Message: fmt.Sprintf("No connection to %s: %v. What you write waits.", s.login.ID, e.Err),
		})
	case *client.Message:
		s.laneOf(e).add(true, func(ctx context.Context) { s.onMessage(ctx, e) })
	case client.OccupantHere:
		s.lane(e.Room).add(true, func(ctx context.Context) { s.onHere(ctx, e) })
	case client.OccupantGone:
		s.lane(e.Room).add(true, func(ctx context.Context) { s.onGone(ctx, e) })
	case client.OccupantRenamed:
		s.lane(e.Room).add(true, func(ctx context.Context) { s.onRenamed(ctx, e) })
	case client.BookmarkChanged:
		s.lane(e.Room).add(true, func(ctx context.Context) { s.onBookmark(ctx, e.Bookmark) })
	case client.AvatarChanged:
		s.laneIn(e.Of).add(true, func(ctx context.Context) { s.avatarChanged(ctx, e.Of, e.Hash) })
	default:
		s.account.add(true, func(ctx context.Context) { s.onContact(ctx, e) })
	}
}

// online tells that all is well, and sends what waited.
func (s *session) online() {
	bridge.Tell(s.login, status.BridgeState{StateEvent: status.StateConnected, RemoteName: string(s.login.ID)})
	for _, l := range s.all() {
		l.flush()
	}
}

// laneOf is where a message belongs. What is said in a room is of the room, also
// an error to what we said there.
func (s *session) laneOf(m *client.Message) *lane {
	if m.Type == "groupchat" {
		return s.lane(m.From.Bare())
	}
	if m.Type == "error" {
		return s.laneIn(m.From)
	}
	return s.account
}

// laneIn is the lane of a room that we are in, else the account's.
func (s *session) laneIn(room jid.JID) *lane {
	if _, in := s.room(room); in {
		return s.lane(room)
	}
	return s.account
}

// chatOf is the chat of a message: a room, an account, or somebody in a room.
func (s *session) chatOf(m *client.Message) jid.JID {
	if m.Type == "groupchat" {
		return m.From.Bare()
	}
	peer := m.Peer()
	if _, in := s.room(peer.Bare()); in && peer.Resourcepart() != "" {
		r, _ := s.client.Room(peer)
		return inside(peer.Bare(), client.Occupant{Nick: peer.Resourcepart(), ID: cmp.Or(r.Occupants[peer.Resourcepart()].ID, m.Occupant)})
	}
	return peer.Bare()
}

// sender is who wrote a message.
func (s *session) sender(m *client.Message) bridgev2.EventSender {
	if m.Type == "groupchat" {
		return s.writer(m)
	}
	if m.Sent {
		return bridgev2.EventSender{IsFromMe: true, Sender: s.GetUserID()}
	}
	return bridgev2.EventSender{Sender: userID(s.chatOf(m))}
}

// onMessage shows a message, whatever it is.
func (s *session) onMessage(ctx context.Context, m *client.Message) {
	chat := s.chatOf(m)
	if _, in := s.room(chat); !shown(chat) || m.Type == "headline" || m.Type == "groupchat" && !in {
		return
	}
	if m.Type == "error" {
		s.onError(ctx, chat, m)
		return
	}
	sender := s.sender(m)
	if sender.Sender == "" && m.Subject == nil && !m.Moderated {
		s.onRoomText(ctx, m)
	} else if own := sender.IsFromMe || sender.SenderLogin != ""; own && strings.HasPrefix(m.ID, "$") { // from Matrix
		if sender.IsFromMe { // another login of ours hears of its own
			s.laneOf(m).has(s.reference(m), m)
		}
	} else if !s.onMeta(ctx, chat, sender, m) && (m.Body != "" || m.URL != "") {
		s.onText(ctx, chat, sender, m)
	}
	if ctx.Err() == nil { // else nobody knows whether it was handled
		s.reached(m)
	}
}

// reference is the ID by which others refer to a message.
func (s *session) reference(m *client.Message) string {
	if m.Type == "groupchat" && m.Archive != "" {
		return m.Archive
	}
	if m.ID == "" {
		return m.Archive
	}
	return m.ID
}

// aboutMessage is about for an event that a message makes. It comes to Matrix
// once, however often the message is read.
func (s *session) aboutMessage(t bridgev2.RemoteEventType, chat jid.JID, sender bridgev2.EventSender, m *client.Message) simplevent.EventMeta {
	meta := s.about(t, chat, sender, m.Time)
	if m.ID+m.Archive != "" {
		name := strings.Join([]string{chat.String(), string(sender.Sender), m.ID, m.Archive}, "\n")
		meta.MutateContextFunc = func(ctx context.Context) context.Context { return bridge.Once(ctx, name) }
	}
	return meta
}

// onText shows what somebody says, or corrects.
func (s *session) onText(ctx context.Context, chat jid.JID, sender bridgev2.EventSender, m *client.Message) {
	meta := s.aboutMessage(bridgev2.RemoteEventMessage, chat, sender, m)
	meta.CreatePortal = true
	id := messageID(chat, s.reference(m))
	if j := parse(sender.Sender); m.Type == "groupchat" && j.Resourcepart() != "" {
		bridge.Introduce(ctx, s.login, sender.Sender, s.profile(chat, client.Occupant{Nick: m.From.Resourcepart(), ID: m.Occupant}))
	}
	out := &simplevent.Message[*client.Message]{EventMeta: meta, Data: m, ID: id, ConvertMessageFunc: s.convert, ConvertEditFunc: s.convertEdit}
	if m.Replaces != "" {
		if target := s.corrected(ctx, chat, sender, m); target != "" {
			out.Type, out.TargetMessage, out.CreatePortal = bridgev2.RemoteEventEdit, target, false
		}
	}
	if bridge.Deliver(ctx, s.login, out) && m.WantsEcho && !m.Sent && !m.Old && m.ID != "" {
		s.client.Send(client.Post{To: m.From, ID: client.NewID()}.Received(m.ID), nil)
	}
}

// lookBack is how many messages of a room are looked through for the one that is
// corrected.
const lookBack = 200

// corrected finds the message that another one corrects: by the sender's own ID
// of it.
func (s *session) corrected(ctx context.Context, chat jid.JID, sender bridgev2.EventSender, m *client.Message) networkid.MessageID {
	db := s.connector.br.DB.Message
	if m.Type != "groupchat" {
		id := messageID(chat, m.Replaces)
		if found, err := db.GetFirstPartByID(ctx, s.login.ID, id); err == nil && found != nil {
			return id
		}
		return ""
	}
	list, err := db.GetLastNInPortal(ctx, s.key(chat), lookBack)
	if err != nil {
		zerolog.Ctx(ctx).Err(err).Msg("look for the message that is corrected")
	}
	for _, old := range list {
		if meta, ok := old.Metadata.(*MessageMetadata); ok && meta.Origin == m.Replaces && old.SenderID == sender.Sender {
			return old.ID
		}
	}
	return ""
}

// onMeta handles messages that say nothing of their own. It is false for others.
func (s *session) onMeta(ctx context.Context, chat jid.JID, sender bridgev2.EventSender, m *client.Message) bool {
	about := func(t bridgev2.RemoteEventType) simplevent.EventMeta { return s.aboutMessage(t, chat, sender, m) }
	switch {
	case m.Subject != nil && m.Body == "":
		topic := *m.Subject
		bridge.Deliver(ctx, s.login, &simplevent.ChatInfoChange{
			EventMeta:      about(bridgev2.RemoteEventChatInfoChange),
			ChatInfoChange: &bridgev2.ChatInfoChange{ChatInfo: &bridgev2.ChatInfo{Topic: &topic, ExcludeChangesFromTimeline: m.Old}},
		})
	case m.Retracts != "":
		s.onRetraction(ctx, chat, sender, m)
	case m.ReactsTo != "":
		bridge.Deliver(ctx, s.login, &simplevent.ReactionSync{
			EventMeta: about(bridgev2.RemoteEventReactionSync), TargetMessage: messageID(chat, m.ReactsTo), Reactions: reactions(sender, m),
		})
	case m.Displayed != "" && m.Body == "":
		bridge.Deliver(ctx, s.login, &simplevent.Receipt{EventMeta: about(bridgev2.RemoteEventReadReceipt), LastTarget: messageID(chat, m.Displayed)})
	case m.Received != "" && m.Body == "":
		if !sender.IsFromMe {
			bridge.Deliver(ctx, s.login, &simplevent.Receipt{
				EventMeta: about(bridgev2.RemoteEventDeliveryReceipt), Targets: []networkid.MessageID{messageID(chat, m.Received)},
			})
		}
	case m.State != "" && m.Body == "" && m.URL == "":
		if !m.Old && !sender.IsFromMe && s.exists(ctx, chat) {
			timeout := time.Duration(0)
			if m.State == "composing" {
				timeout = typingTime
			}
			bridge.Deliver(ctx, s.login, &simplevent.Typing{EventMeta: about(bridgev2.RemoteEventTyping), Timeout: timeout})
		}
	default:
		return false
	}
	return true
}

// typingTime is how long somebody types without saying so again.
const typingTime = 30 * time.Second

// maxReactions bounds what one person can add to a message.
const maxReactions = 20

func reactions(sender bridgev2.EventSender, m *client.Message) *bridgev2.ReactionSyncData {
	user := &bridgev2.ReactionSyncUser{HasAllReactions: true}
	for _, emoji := range m.Reactions[:min(len(m.Reactions), maxReactions)] {
		user.Reactions = append(user.Reactions, &bridgev2.BackfillReaction{
			Timestamp: m.Time, Sender: sender, EmojiID: networkid.EmojiID(emoji), Emoji: emoji,
		})
	}
	return &bridgev2.ReactionSyncData{Users: map[networkid.UserID]*bridgev2.ReactionSyncUser{sender.Sender: user}}
}

// onRetraction deletes a message, if it is the sender's own or a moderator says
// so.
func (s *session) onRetraction(ctx context.Context, chat jid.JID, sender bridgev2.EventSender, m *client.Message) {
	target := messageID(chat, m.Retracts)
	if m.Moderated {
		if m.Type != "groupchat" || m.From.Resourcepart() != "" {
			return // only the room itself may say that
		}
		sender = bridgev2.EventSender{}
	} else {
		old, err := s.connector.br.DB.Message.GetFirstPartByID(ctx, s.login.ID, target)
		if err != nil || old == nil || old.SenderID != sender.Sender {
			return
		}
	}
	bridge.Deliver(ctx, s.login, &simplevent.MessageRemove{EventMeta: s.aboutMessage(bridgev2.RemoteEventMessageRemove, chat, sender, m), TargetMessage: target})
}

// onError marks a message of ours as failed, with the reason.
func (s *session) onError(ctx context.Context, chat jid.JID, m *client.Message) {
	if m.ID == "" {
		bridge.Note(ctx, s.login, "%s: %v", chat, m.Error)
		return
	}
	for _, l := range []*lane{s.laneOf(m), s.account, s.lane(chat.Bare())} {
		if l.settle(m.ID, result{err: m.Error}) {
			return
		}
	}
	// The server had taken it, and somebody further on refuses it. That it was
	// taken may be about to be written down.
	for try := 0; try < 20 && !s.refuse(ctx, chat, m) && ctx.Err() == nil; try++ {
		time.Sleep(100 * time.Millisecond)
	}
}

// refuse marks a message as failed that counted as sent. It is false if there is
// no such message.
func (s *session) refuse(ctx context.Context, chat jid.JID, m *client.Message) bool {
	for _, c := range []jid.JID{chat, chat.Bare()} {
		part, err := s.connector.br.DB.Message.GetFirstPartByID(ctx, s.login.ID, messageID(c, m.ID))
		if err != nil || part == nil {
			continue
		}
		portal, err := s.connector.br.GetExistingPortalByKey(ctx, s.key(c))
		if err == nil && portal != nil {
			st := failure(m.Error)
			s.connector.br.Matrix.SendMessageStatus(ctx, &st, &bridgev2.MessageStatusEventInfo{
				RoomID: portal.MXID, SourceEventID: part.MXID, EventType: event.EventMessage, MessageType: event.MsgText, Sender: part.SenderMXID,
			})
		}
		return true
	}
	return false
}

// notice writes a line into a chat, as the bot. With an ID it does so once, also
// if several logins hear it.
func (s *session) notice(ctx context.Context, chat jid.JID, at time.Time, id, text string) {
	if !s.exists(ctx, chat) {
		return
	}
	bridge.Deliver(ctx, s.login, &simplevent.PreConvertedMessage{
		EventMeta: s.about(bridgev2.RemoteEventMessage, chat, bridgev2.EventSender{}, at), ID: messageID(chat, id),
		Data: &bridgev2.ConvertedMessage{Parts: []*bridgev2.ConvertedMessagePart{{
			Type: event.EventMessage, Content: &event.MessageEventContent{MsgType: event.MsgNotice, Body: text, Mentions: &event.Mentions{}},
		}}},
	})
}

// onRoomText shows what a room itself says.
func (s *session) onRoomText(ctx context.Context, m *client.Message) {
	if m.Body != "" && !m.Old {
		s.notice(ctx, m.From.Bare(), m.Time, m.ID, m.Body)
	}
}

// onContact handles what concerns contacts.
func (s *session) onContact(ctx context.Context, e client.Event) {
	switch e := e.(type) {
	case client.RosterChanged:
		s.mu.Lock()
		if e.Item.Subscription == "remove" {
			delete(s.roster, e.Item.JID.String())
		} else {
			s.roster[e.Item.JID.String()] = e.Item
		}
		s.mu.Unlock()
		s.renamed(ctx, e.Item.JID, "")
	case client.NickChanged:
		s.renamed(ctx, e.Of, e.Nick)
	case client.Presence:
		if e.HasPhoto {
			s.avatarChanged(ctx, e.From.Bare(), e.Photo)
		}
	case client.Subscribe:
		bridge.Note(ctx, s.login, "%s asks to see when you are there. Say `accept %s` to allow it.", e.From, e.From)
	case client.Invited:
		bridge.Note(ctx, s.login, "%s invites you into the room %s. %s Say `join %s` to go there.", e.By, e.Room, e.Reason, e.Room)
	}
}

// known is the name of a contact: what the user calls them, or else nothing.
func (s *session) known(j jid.JID) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roster[j.Bare().String()].Name
}

// renamed gives a ghost that there is its name.
func (s *session) renamed(ctx context.Context, j jid.JID, nick string) {
	if name := s.known(j); name != "" {
		nick = name
	}
	if nick == "" || !shown(j) {
		return
	}
	if ghost, err := s.connector.br.GetExistingGhostByID(ctx, userID(j)); err == nil && ghost != nil {
		bridge.Introduce(ctx, s.login, ghost.ID, &bridgev2.UserInfo{Name: &nick})
	}
}

// avatarChanged gives a ghost that there is its avatar.
func (s *session) avatarChanged(ctx context.Context, j jid.JID, hash string) {
	if !shown(j) {
		return
	}
	if _, is := s.room(j); is {
		bridge.Deliver(ctx, s.login, &simplevent.ChatInfoChange{
			EventMeta:      s.about(bridgev2.RemoteEventChatInfoChange, j, bridgev2.EventSender{}, time.Now()),
			ChatInfoChange: &bridgev2.ChatInfoChange{ChatInfo: &bridgev2.ChatInfo{Avatar: s.avatar(j, hash)}},
		})
		return
	}
	if ghost, err := s.connector.br.GetExistingGhostByID(ctx, userID(j)); err == nil && ghost != nil {
		bridge.Introduce(ctx, s.login, ghost.ID, &bridgev2.UserInfo{Avatar: s.avatar(j, hash)})
	}
}

func (s *session) avatar(j jid.JID, hash string) *bridgev2.Avatar {
	if hash == "" {
		return &bridgev2.Avatar{Remove: true}
	}
	return &bridgev2.Avatar{ID: networkid.AvatarID(hash), Get: func(ctx context.Context) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		return s.client.Avatar(ctx, j, hash)
	}}
}

// GetUserInfo implements bridgev2.NetworkAPI.
func (s *session) GetUserInfo(_ context.Context, g *bridgev2.Ghost) (*bridgev2.UserInfo, error) {
	j := parse(g.ID)
	if j.Resourcepart() != "" {
		o, here := s.find(j.Bare(), j)
		if here {
			return s.profile(j.Bare(), o), nil
		}
	}
	name := cmp.Or(s.known(j), j.Resourcepart())
	if j.Resourcepart() != "" && g.Name != "" || name == "" && g.Name != "" {
		return nil, nil
	}
	if name == "" {
		name = j.Localpart()
	}
	return &bridgev2.UserInfo{Name: &name, Identifiers: []string{"xmpp:" + j.String()}}, nil
}

// GetChatInfo implements bridgev2.NetworkAPI.
func (s *session) GetChatInfo(ctx context.Context, p *bridgev2.Portal) (*bridgev2.ChatInfo, error) {
	chat := parse(p.ID)
	if p.Receiver == "" {
		return s.roomInfo(ctx, chat)
	}
	return s.directInfo(chat), nil
}

// directInfo is everything about a chat between two.
func (s *session) directInfo(chat jid.JID) *bridgev2.ChatInfo {
	kind := database.RoomTypeDM
	other := userID(chat)
	return &bridgev2.ChatInfo{Type: &kind, Members: &bridgev2.ChatMemberList{
		IsFull: true, OtherUserID: other,
		MemberMap: bridgev2.ChatMemberMap{
			s.GetUserID(): {EventSender: bridgev2.EventSender{IsFromMe: true, Sender: s.GetUserID()}, Membership: event.MembershipJoin},
			other:         {EventSender: bridgev2.EventSender{Sender: other}, Membership: event.MembershipJoin},
		},
	}}
}
