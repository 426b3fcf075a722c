package whatsapp

import (
	"context"
	"time"

	"github.com/rs/zerolog"
	"go.mau.fi/whatsmeow/proto/waCommon"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/simplevent"
	"maunium.net/go/mautrix/event"

	"switchboard/bridges/bridge"
)

// handle takes an event of the connection. It returns false for what must come
// again, because no room holds it yet.
func (s *session) handle(ctx context.Context, e any) bool {
	if s.onConnection(e) {
		return true
	}
	switch e := e.(type) {
	case *events.Message:
		return s.onMessage(ctx, e)
	case *events.UndecryptableMessage:
		return s.onUndecryptable(ctx, e)
	case *events.Receipt:
		return s.onReceipt(ctx, e)
	case *events.ChatPresence:
		s.onTyping(ctx, e)
	case *events.JoinedGroup:
		return s.onJoinedGroup(ctx, e)
	case *events.GroupInfo:
		return s.onGroupInfo(ctx, e)
	case *events.Picture:
		return s.onPicture(ctx, e)
	case *events.PushName:
		s.onPushName(ctx, e)
	case *events.PushNameSetting:
		s.present(ctx, types.PresenceUnavailable)
	}
	return true
}

// about is what an event says of itself.
func (s *session) about(t bridgev2.RemoteEventType, chat types.JID, sender bridgev2.EventSender, at time.Time) simplevent.EventMeta {
	return simplevent.EventMeta{Type: t, PortalKey: s.key(chat), Sender: sender, Timestamp: at}
}

// aboutMessage is about for what a message says. It comes to Matrix once, however
// often WhatsApp gives the message to us, because the bridge ended before it had
// written that down.
func (s *session) aboutMessage(t bridgev2.RemoteEventType, chat, sender types.JID, info *types.MessageInfo) simplevent.EventMeta {
	meta := s.about(t, chat, s.sender(sender), info.Timestamp)
	name := onceName(t, messageID(chat, sender, info.ID))
	meta.MutateContextFunc = func(ctx context.Context) context.Context { return bridge.Once(ctx, name) }
	return meta
}

// onceName is the name for bridge.Once of what a message says.
func onceName(t bridgev2.RemoteEventType, id networkid.MessageID) string {
	return t.String() + "\n" + string(id)
}

// sender is who does something.
func (s *session) sender(lid types.JID) bridgev2.EventSender {
	return bridgev2.EventSender{
		IsFromMe: lid == s.own(), SenderLogin: loginID(lid), Sender: userID(lid),
	}
}

// place finds the chat and the sender of a message. It is false for chats that
// are not carried: the status feed, channels, bots.
func (s *session) place(ctx context.Context, src types.MessageSource) (chat, sender types.JID, ok bool) {
	switch src.Chat.Server {
	case types.GroupServer:
		chat, ok = src.Chat, true
	case types.DefaultUserServer, types.HiddenUserServer, types.HostedServer, types.HostedLIDServer:
		other := src.SenderAlt
		if src.IsFromMe {
			other = src.RecipientAlt
		}
		chat, ok = s.lid(ctx, src.Chat, other)
	}
	if !ok {
		return chat, sender, false
	}
	if src.IsFromMe {
		return chat, s.own(), true
	}
	sender, ok = s.lid(ctx, src.Sender, src.SenderAlt)
	return chat, sender, ok
}

// target is the message that a key names; sender is who wrote the key.
func (s *session) target(ctx context.Context, chat, sender types.JID, key *waCommon.MessageKey) networkid.MessageID {
	author := sender
	switch {
	case key.GetFromMe():
	case chat.Server == types.GroupServer:
		if jid, err := types.ParseJID(key.GetParticipant()); err == nil {
			if lid, ok := s.lid(ctx, jid, types.EmptyJID); ok {
				author = lid
			}
		}
	case sender == s.own():
		author = chat
	default:
		author = s.own()
	}
	return messageID(chat, author, key.GetID())
}

// onMessage takes a message, or what is written like one: an edit, a reaction, a
// deletion, old messages from the phone.
func (s *session) onMessage(ctx context.Context, e *events.Message) bool {
	if n := e.Message.GetProtocolMessage().GetHistorySyncNotification(); n != nil && e.Info.IsFromMe {
		return s.onHistory(ctx, n)
	}
	chat, sender, ok := s.place(ctx, e.Info.MessageSource)
	if !ok {
		return true
	}
	if e.Message.GetSecretEncryptedMessage() != nil {
		open, err := s.client.DecryptSecretEncryptedMessage(ctx, e)
		if err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Msg("an edit could not be read")
			return true
		}
		e.Message = open
	}
	s.learnName(ctx, sender, e.Info.PushName)
	m := e.Message
	switch {
	case m.GetReactionMessage() != nil:
		return s.onReaction(ctx, e, chat, sender, m.GetReactionMessage())
	case m.GetEncReactionMessage() != nil:
		r, err := s.client.DecryptReaction(ctx, e)
		if err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Msg("a reaction could not be read")
			return true
		}
		r.Key = m.GetEncReactionMessage().GetTargetMessageKey()
		return s.onReaction(ctx, e, chat, sender, r)
	case m.GetProtocolMessage() != nil:
		return s.onProtocol(ctx, e, chat, sender, m.GetProtocolMessage())
	case !shown(m):
		return true
	}
	return s.keepMessage(ctx, e, chat, sender)
}

// keepMessage brings a message into its room.
func (s *session) keepMessage(ctx context.Context, e *events.Message, chat, sender types.JID) bool {
	id := messageID(chat, sender, e.Info.ID)
	meta := s.aboutMessage(bridgev2.RemoteEventMessageUpsert, chat, sender, &e.Info)
	meta.CreatePortal = true
	done := bridge.Deliver(ctx, s.login, &simplevent.Message[*events.Message]{
		EventMeta: meta, Data: e, ID: id, ConvertMessageFunc: s.convert, HandleExistingFunc: s.resolve,
	})
	if !done {
		return false
	}
	stored, err := s.connector.br.DB.Message.GetFirstPartByID(ctx, meta.PortalKey.Receiver, id)
	if err != nil || stored == nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("a message did not get into its room and will come again")
		return false
	}
	return true
}

// resolve replaces the notice that a message could not be read, when it comes
// again and can be. Any other message that comes again is left alone.
func (s *session) resolve(_ context.Context, _ *bridgev2.Portal, _ bridgev2.MatrixAPI, existing []*database.Message, e *events.Message) (bridgev2.UpsertResult, error) {
	if len(existing) != 1 || !existing[0].Metadata.(*MessageMetadata).Pending {
		return bridgev2.UpsertResult{}, nil
	}
	chat, sender := s.chatAndSender(existing[0])
	meta := s.about(bridgev2.RemoteEventEdit, chat, s.sender(sender), e.Info.Timestamp)
	return bridgev2.UpsertResult{SubEvents: []bridgev2.RemoteEvent{&simplevent.Message[*waE2E.Message]{
		EventMeta: meta, Data: e.Message, TargetMessage: existing[0].ID, ConvertEditFunc: s.convertEdit,
	}}}, nil
}

func (s *session) chatAndSender(m *database.Message) (chat, sender types.JID) {
	chat, _ = types.ParseJID(string(m.Room.ID)) // we wrote it
	sender, _ = splitMessageID(m.ID)
	return chat, sender
}

// onUndecryptable shows that there is a message which can not be read. WhatsApp's
// clients then ask for it again by themselves.
func (s *session) onUndecryptable(ctx context.Context, e *events.UndecryptableMessage) bool {
	chat, sender, ok := s.place(ctx, e.Info.MessageSource)
	if !ok || e.DecryptFailMode == events.DecryptFailHide {
		return true
	}
	text := "This message could not be read yet. It is asked for again; your phone shows it."
	if e.UnavailableType == events.UnavailableTypeViewOnce {
		text = "This message can be viewed only once, and only on your phone."
	}
	meta := s.aboutMessage(bridgev2.RemoteEventMessage, chat, sender, &e.Info)
	meta.CreatePortal = true
	bridge.Queue(s.login, &simplevent.PreConvertedMessage{
		EventMeta: meta, ID: messageID(chat, sender, e.Info.ID),
		Data: &bridgev2.ConvertedMessage{Parts: []*bridgev2.ConvertedMessagePart{{
			Type: event.EventMessage, Content: &event.MessageEventContent{MsgType: event.MsgNotice, Body: text},
			DBMetadata: &MessageMetadata{Pending: true},
		}}},
	})
	return true
}

func (s *session) onReaction(ctx context.Context, e *events.Message, chat, sender types.JID, r *waE2E.ReactionMessage) bool {
	kind := bridgev2.RemoteEventReaction
	if r.GetText() == "" {
		kind = bridgev2.RemoteEventReactionRemove
	}
	return bridge.Deliver(ctx, s.login, &simplevent.Reaction{
		EventMeta:     s.aboutMessage(kind, chat, sender, &e.Info),
		TargetMessage: s.target(ctx, chat, sender, r.GetKey()), Emoji: r.GetText(),
	})
}

// onProtocol takes an edit or a deletion.
func (s *session) onProtocol(ctx context.Context, e *events.Message, chat, sender types.JID, p *waE2E.ProtocolMessage) bool {
	of := s.target(ctx, chat, sender, p.GetKey())
	switch p.GetType() {
	case waE2E.ProtocolMessage_REVOKE:
		return bridge.Deliver(ctx, s.login, &simplevent.MessageRemove{
			EventMeta: s.aboutMessage(bridgev2.RemoteEventMessageRemove, chat, sender, &e.Info), TargetMessage: of,
		})
	case waE2E.ProtocolMessage_MESSAGE_EDIT:
		return bridge.Deliver(ctx, s.login, &simplevent.Message[*waE2E.Message]{
			EventMeta: s.aboutMessage(bridgev2.RemoteEventEdit, chat, sender, &e.Info),
			Data:      p.GetEditedMessage(), TargetMessage: of, ConvertEditFunc: s.convertEdit,
		})
	}
	return true
}

// onReceipt takes that messages have arrived or were read.
func (s *session) onReceipt(ctx context.Context, e *events.Receipt) bool {
	chat, reader, ok := s.place(ctx, e.MessageSource)
	if !ok {
		return true
	}
	meta := s.about(bridgev2.RemoteEventReadReceipt, chat, s.sender(reader), e.Timestamp)
	switch e.Type {
	case types.ReceiptTypeRead, types.ReceiptTypeReadSelf, types.ReceiptTypePlayed, types.ReceiptTypePlayedSelf:
	case types.ReceiptTypeDelivered, types.ReceiptTypeInactive:
		meta.Type = bridgev2.RemoteEventDeliveryReceipt
		if chat.Server == types.GroupServer || e.IsFromMe {
			return true // only private chats show it
		}
	default:
		return true
	}
	var targets []networkid.MessageID
	for _, id := range e.MessageIDs {
		// Whose message it is is not said: ours, or in a private chat that we read
		// ourselves the other's. What does not exist is left out by bridgev2.
		targets = append(targets, messageID(chat, s.own(), id))
		if e.IsFromMe && chat.Server != types.GroupServer {
			targets = append(targets, messageID(chat, chat, id))
		} else if !e.MessageSender.IsEmpty() {
			if author, ok := s.lid(ctx, e.MessageSender, types.EmptyJID); ok {
				targets = append(targets, messageID(chat, author, id))
			}
		}
	}
	bridge.Queue(s.login, &simplevent.Receipt{EventMeta: meta, Targets: targets, ReadUpTo: readUpTo(e)})
	return true
}

// readUpTo is the time up to which our own other device has read a group, whose
// messages' authors it does not name.
func readUpTo(e *events.Receipt) time.Time {
	if e.IsFromMe {
		return e.Timestamp
	}
	return time.Time{}
}

// typingTime is how long somebody is shown as typing without a new sign of it.
const typingTime = 15 * time.Second

func (s *session) onTyping(ctx context.Context, e *events.ChatPresence) {
	chat, who, ok := s.place(ctx, e.MessageSource)
	if !ok || e.IsFromMe {
		return
	}
	typing := &simplevent.Typing{EventMeta: s.about(bridgev2.RemoteEventTyping, chat, s.sender(who), time.Now())}
	if e.State == types.ChatPresenceComposing {
		typing.Timeout = typingTime
	}
	if e.Media == types.ChatPresenceMediaAudio {
		typing.Type = bridgev2.TypingTypeRecordingMedia
	}
	bridge.Queue(s.login, typing)
}
