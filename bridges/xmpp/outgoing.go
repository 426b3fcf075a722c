package xmpp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/simplevent"
	"maunium.net/go/mautrix/event"
	"mellium.im/xmpp/jid"

	"switchboard/bridges/bridge"
	"switchboard/bridges/xmpp/client"
)

// failure is the status of a message that was refused or did not get there.
func failure(err error) bridgev2.MessageStatus {
	st := bridgev2.WrapErrorInStatus(err).WithStatus(event.MessageStatusFail).WithSendNotice(true).
		WithErrorReason(event.MessageStatusNetworkError).WithIsCertain(true).WithMessage(err.Error())
	var refused *client.StanzaError
	switch {
	case errors.As(err, &refused):
		return st.WithErrorReason(event.MessageStatusNoPermission)
	case errors.Is(err, client.ErrUnconfirmed):
		return st.WithStatus(event.MessageStatusRetriable).WithIsCertain(false)
	default:
		return st
	}
}

// place is where a chat's messages go: its lane, and a message without content.
func (s *session) place(portal *bridgev2.Portal, id string) (*lane, client.Post) {
	chat := parse(portal.ID)
	if portal.Receiver == "" {
		return s.lane(chat), client.Post{To: chat, Group: true, ID: id}
	}
	if o, in := s.find(chat.Bare(), chat); in && chat.Resourcepart() != "" {
		if full, err := chat.Bare().WithResource(o.Nick); err == nil {
			return s.account, client.Post{To: full, ID: id}
		}
	}
	return s.account, client.Post{To: chat, ID: id}
}

// HandleMatrixMessage implements bridgev2.NetworkAPI. It does not wait for the
// server: whether the message was accepted is told when that is known. The
// event's ID is the message's, so that a message which is sent again after a
// crash is recognized in the archive.
func (s *session) HandleMatrixMessage(ctx context.Context, msg *bridgev2.MatrixMessage) (*bridgev2.MatrixMessageResponse, error) {
	l, post := s.place(msg.Portal, string(msg.Event.ID))
	caption, err := s.compose(ctx, &post, msg.Content)
	if err != nil && s.connector.br.IsStopping() {
		bridge.Later(msg.Event) // in the next start
		return nil, bridgev2.WrapErrorInStatus(err).WithSendNotice(false)
	}
	if err != nil {
		return nil, err
	}
	s.answerTo(&post, msg.ReplyTo)
	txn := networkid.TransactionID(msg.Event.ID)
	var out result // set before the event that ends the waiting
	meta := &MessageMetadata{Origin: post.ID, Text: excerpt(post.Body), Author: string(s.login.ID)}
	if full, err := post.To.WithResource(s.ownNick(post.To)); post.Group && err == nil {
		meta.Author = full.String()
	}
	msg.AddPendingToSave(&database.Message{SenderID: s.GetUserID(), Timestamp: time.Now(), Metadata: meta}, txn,
		func(bridgev2.RemoteMessage, *database.Message) (bool, error) {
			if out.err != nil {
				return false, failure(out.err)
			}
			return true, nil
		})
	key, chat := msg.Portal.PortalKey, parse(msg.Portal.ID)
	finish := func(r result) {
		out = r
		if !post.Group {
			out.id = post.ID
		}
		bridge.Queue(s.login, &simplevent.Message[struct{}]{
			EventMeta: simplevent.EventMeta{
				Type: bridgev2.RemoteEventMessage, PortalKey: key, Timestamp: time.Now(),
				Sender: bridgev2.EventSender{IsFromMe: true, Sender: s.GetUserID()},
			},
			ID: messageID(chat, out.id), TransactionID: txn,
			ConvertMessageFunc: func(context.Context, *bridgev2.Portal, bridgev2.MatrixAPI, struct{}) (*bridgev2.ConvertedMessage, error) {
				return nil, bridgev2.ErrIgnoringRemoteEvent // nobody waits for it any more
			},
		})
	}
	if caption == "" {
		l.submit(newOutgoing(msg.Event, post.Element(), post.Group, finish))
	} else {
		file, text := both(finish)
		next := client.Post{To: post.To, Group: post.Group, ID: post.ID + "/caption", Body: caption}
		l.submit(newOutgoing(msg.Event, post.Element(), post.Group, file))
		l.submit(newOutgoing(msg.Event, next.Element(), post.Group, text))
	}
	return &bridgev2.MatrixMessageResponse{Pending: true}, nil
}

// newOutgoing is a stanza for an event. If the event was cut off the stanza may
// be there already.
func newOutgoing(e *event.Event, stanza *client.Element, echoed bool, done func(result)) *outgoing {
	o := &outgoing{id: stanza.At("id"), stanza: stanza, echoed: echoed, done: done}
	if bridge.Again(e) {
		o.after = Position{Time: time.UnixMilli(e.Timestamp).Add(-recallTime)}
		o.state.Store(unsure)
	}
	return o
}

// both joins what becomes of two stanzas of one event: the first one's, unless
// only the second fails.
func both(done func(result)) (first, second func(result)) {
	var mu sync.Mutex
	var list [2]result
	missing := len(list)
	one := func(i int) func(result) {
		return func(r result) {
			mu.Lock()
			list[i] = r
			missing--
			last := missing == 0
			mu.Unlock()
			if !last {
				return
			}
			if list[0].err == nil {
				list[0].err = list[1].err
			}
			done(list[0])
		}
	}
	return one(0), one(1)
}

func (s *session) ownNick(room jid.JID) string {
	st, _ := s.room(room)
	return st.Nick
}

// send sends what is no message of its own. What becomes of it is told when that
// is known.
func (s *session) send(l *lane, e *event.Event, stanza *client.Element) {
	s.sendAnd(l, e, stanza, func(error) {})
}

// sendAnd is send, and calls then with what became of the stanza.
func (s *session) sendAnd(l *lane, e *event.Event, stanza *client.Element, then func(error)) {
	bridge.Later(e)
	info := bridgev2.StatusEventInfoFromEvent(e)
	l.submit(newOutgoing(e, stanza, false, func(r result) {
		st := bridgev2.MessageStatus{Status: event.MessageStatusSuccess}
		if r.err != nil {
			st = failure(r.err)
		}
		then(r.err)
		s.connector.br.Matrix.SendMessageStatus(s.context(), &st, info)
	}))
}

// compose fills in what a message says. A file's caption is a message of its
// own, because on XMPP a file has none.
func (s *session) compose(ctx context.Context, post *client.Post, content *event.MessageEventContent) (caption string, err error) {
	switch content.MsgType {
	case event.MsgImage, event.MsgVideo, event.MsgAudio, event.MsgFile, event.CapMsgSticker:
		post.URL, err = s.upload(ctx, content)
		post.Body = post.URL
		if content.FileName != "" && content.FileName != content.Body || content.MsgType == event.CapMsgSticker {
			text := *content
			text.MsgType = event.MsgText
			caption = s.textOf(ctx, post.To, &text)
		}
		return caption, err
	}
	post.Body = s.textOf(ctx, post.To, content)
	if strings.TrimSpace(post.Body) == "" {
		return "", fmt.Errorf("%w: it has no text that XMPP could show", bridgev2.ErrUnsupportedMessageType)
	}
	return "", nil
}

// answerTo makes a message an answer.
func (s *session) answerTo(post *client.Post, to *database.Message) {
	if to == nil {
		return
	}
	post.ReplyTo = stanzaID(to.ID)
	meta, ok := to.Metadata.(*MessageMetadata)
	if !ok {
		return
	}
	if post.Author = parse(meta.Author); meta.Text != "" {
		post.Quote = "> " + strings.ReplaceAll(meta.Text, "\n", "\n> ") + "\n"
	}
}

// HandleMatrixEdit implements bridgev2.EditHandlingNetworkAPI.
func (s *session) HandleMatrixEdit(ctx context.Context, msg *bridgev2.MatrixEdit) error {
	l, post := s.place(msg.Portal, string(msg.Event.ID))
	meta, ok := msg.EditTarget.Metadata.(*MessageMetadata)
	if !ok || msg.EditTarget.SenderID != s.GetUserID() {
		return failure(errors.New("on XMPP everybody corrects only their own messages"))
	}
	if msg.Content.MsgType.IsMedia() {
		return failure(errors.New("a file that was sent can not be exchanged on XMPP"))
	}
	if _, err := s.compose(ctx, &post, msg.Content); err != nil {
		return err
	}
	post.Replaces = meta.Origin
	s.send(l, msg.Event, post.Element())
	meta.Text = excerpt(post.Body)
	return nil
}

// PreHandleMatrixReaction implements bridgev2.ReactionHandlingNetworkAPI.
func (s *session) PreHandleMatrixReaction(_ context.Context, msg *bridgev2.MatrixReaction) (bridgev2.MatrixReactionPreResponse, error) {
	emoji := msg.Content.RelatesTo.Key
	if strings.HasPrefix(emoji, "mxc://") {
		return bridgev2.MatrixReactionPreResponse{}, failure(errors.New("XMPP has no reactions with pictures of one's own"))
	}
	return bridgev2.MatrixReactionPreResponse{SenderID: s.GetUserID(), Emoji: emoji, EmojiID: networkid.EmojiID(emoji)}, nil
}

// react sends all our reactions to a message: those that are there, as change
// makes them.
func (s *session) react(ctx context.Context, portal *bridgev2.Portal, e *event.Event, of networkid.MessageID, change func([]string) []string) error {
	list, err := s.connector.br.DB.Reaction.GetAllToMessageBySender(ctx, portal.Receiver, of, s.GetUserID())
	if err != nil {
		return err
	}
	var emojis []string
	for _, r := range list {
		emojis = append(emojis, string(r.EmojiID))
	}
	l, post := s.place(portal, string(e.ID))
	s.send(l, e, post.Reaction(stanzaID(of), change(emojis)))
	return nil
}

// HandleMatrixReaction implements bridgev2.ReactionHandlingNetworkAPI.
func (s *session) HandleMatrixReaction(ctx context.Context, msg *bridgev2.MatrixReaction) (*database.Reaction, error) {
	emoji := msg.PreHandleResp.Emoji
	return nil, s.react(ctx, msg.Portal, msg.Event, msg.TargetMessage.ID, func(list []string) []string {
		if slices.Contains(list, emoji) {
			return list
		}
		return append(list, emoji)
	})
}

// HandleMatrixReactionRemove implements bridgev2.ReactionHandlingNetworkAPI.
func (s *session) HandleMatrixReactionRemove(ctx context.Context, msg *bridgev2.MatrixReactionRemove) error {
	return s.react(ctx, msg.Portal, msg.Event, msg.TargetReaction.MessageID, func(list []string) []string {
		return slices.DeleteFunc(list, func(emoji string) bool { return emoji == string(msg.TargetReaction.EmojiID) })
	})
}

// HandleMatrixMessageRemove implements bridgev2.RedactionHandlingNetworkAPI: one
// retracts one's own messages; those of others a moderator of the room can.
func (s *session) HandleMatrixMessageRemove(ctx context.Context, msg *bridgev2.MatrixMessageRemove) error {
	l, post := s.place(msg.Portal, string(msg.Event.ID))
	target := stanzaID(msg.TargetMessage.ID)
	if msg.TargetMessage.SenderID == s.GetUserID() {
		s.send(l, msg.Event, post.Retraction(target))
		return nil
	}
	if !post.Group {
		return failure(errors.New("on XMPP nobody can delete what others wrote; it is deleted here only"))
	}
	info, err := s.info(ctx, post.To)
	if err == nil {
		err = ask(ctx, func(ctx context.Context) error {
			_, err := s.client.Ask(ctx, "set", post.To, info.Moderation(target, msg.Content.Reason))
			return err
		})
	}
	if err != nil {
		return failure(err)
	}
	return nil
}

// HandleMatrixReadReceipt implements bridgev2.ReadReceiptHandlingNetworkAPI.
func (s *session) HandleMatrixReadReceipt(ctx context.Context, msg *bridgev2.MatrixReadReceipt) error {
	last := msg.ExactMessage
	if last == nil || last.SenderID == s.GetUserID() {
		list, err := s.connector.br.DB.Message.GetMessagesBetweenTimeQuery(ctx, msg.Portal.PortalKey, msg.LastRead, msg.ReadUpTo)
		if err != nil {
			return err
		}
		last = nil
		for _, m := range list {
			if m.SenderID != s.GetUserID() && (last == nil || m.Timestamp.After(last.Timestamp)) {
				last = m
			}
		}
	}
	if last == nil || !s.client.Online() || strings.HasPrefix(stanzaID(last.ID), "~") {
		return nil
	}
	_, post := s.place(msg.Portal, client.NewID())
	s.client.Send(post.Displayed(stanzaID(last.ID)), nil)
	return nil
}

// HandleMatrixTyping implements bridgev2.TypingHandlingNetworkAPI.
func (s *session) HandleMatrixTyping(_ context.Context, msg *bridgev2.MatrixTyping) error {
	if !s.client.Online() {
		return nil
	}
	_, post := s.place(msg.Portal, client.NewID())
	state := "paused"
	if msg.IsTyping {
		state = "composing"
	}
	s.client.Send(post.State(state), nil)
	return nil
}

// GetCapabilities implements bridgev2.NetworkAPI.
func (s *session) GetCapabilities(_ context.Context, portal *bridgev2.Portal) *event.RoomFeatures {
	full, partial := event.CapLevelFullySupported, event.CapLevelPartialSupport
	file := &event.FileFeatures{
		MimeTypes: map[string]event.CapabilitySupportLevel{"*/*": full}, Caption: partial, MaxSize: s.connector.maxFileSize(),
	}
	f := &event.RoomFeatures{
		ID: "switchboard.xmpp.1",
		Formatting: event.FormattingFeatureMap{
			event.FmtBold: full, event.FmtItalic: full, event.FmtStrikethrough: full, event.FmtInlineCode: full, event.FmtCodeBlock: full,
			event.FmtBlockquote: full, event.FmtUserLink: partial, event.FmtInlineLink: partial,
			event.FmtUnorderedList: partial, event.FmtOrderedList: partial, event.FmtUnderline: event.CapLevelDropped,
		},
		File: event.FileFeatureMap{
			event.MsgImage: file, event.MsgVideo: file, event.MsgAudio: file, event.MsgFile: file,
			event.CapMsgVoice: file, event.CapMsgGIF: file, event.CapMsgSticker: file,
		},
		LocationMessage: partial, Reply: full, Edit: full, Delete: full, Reaction: full, ReadReceipts: true, TypingNotifications: true,
	}
	if _, post := s.place(portal, ""); post.Group {
		f.ID += "+room"
		f.State = event.StateFeatureMap{event.StateTopic.Type: {Level: full}, event.StatePowerLevels.Type: {Level: partial}}
		f.MemberActions = event.MemberFeatureMap{
			event.MemberActionInvite: full, event.MemberActionKick: full, event.MemberActionBan: partial, event.MemberActionLeave: full,
		}
	}
	return f
}

// ResolveIdentifier implements bridgev2.IdentifierResolvingNetworkAPI.
func (s *session) ResolveIdentifier(ctx context.Context, identifier string, create bool) (*bridgev2.ResolveIdentifierResponse, error) {
	j, err := checkUserID(identifier)
	if err != nil {
		return nil, err
	}
	if j.Bare().Equal(s.client.Account()) {
		return nil, errors.New("that is your own address")
	}
	if _, is := s.room(j); is {
		return nil, fmt.Errorf("%s is a room, not a person", j)
	}
	if _, in := s.room(j.Bare()); !in {
		j = j.Bare()
	}
	ghost, err := s.connector.br.GetGhostByID(ctx, userID(j))
	if err != nil {
		return nil, err
	}
	info, err := s.GetUserInfo(ctx, ghost)
	if err != nil {
		return nil, err
	}
	out := &bridgev2.ResolveIdentifierResponse{Ghost: ghost, UserID: ghost.ID, UserInfo: info}
	if create {
		out.Chat = &bridgev2.CreateChatResponse{PortalKey: s.key(j), PortalInfo: s.directInfo(j)}
	}
	return out, nil
}

// GetContactList implements bridgev2.ContactListingNetworkAPI: it is the roster.
func (s *session) GetContactList(ctx context.Context) ([]*bridgev2.ResolveIdentifierResponse, error) {
	s.mu.Lock()
	var list []jid.JID
	for _, item := range s.roster {
		if item.JID.Localpart() != "" && shown(item.JID) {
			list = append(list, item.JID)
		}
	}
	s.mu.Unlock()
	var out []*bridgev2.ResolveIdentifierResponse
	for _, j := range list {
		r, err := s.ResolveIdentifier(ctx, j.String(), false)
		if err == nil {
			out = append(out, r)
		}
	}
	return out, nil
}
