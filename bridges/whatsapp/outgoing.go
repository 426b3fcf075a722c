package whatsapp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.mau.fi/util/jsontime"
	"go.mau.fi/util/variationselector"
	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/socket"
	"go.mau.fi/whatsmeow/types"
	"google.golang.org/protobuf/proto"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/event"
)

// fail is the status of a message that can not be sent, with the reason in
// words for its sender.
func fail(reason event.MessageStatusReason, format string, args ...any) bridgev2.MessageStatus {
	err := fmt.Errorf(format, args...)
	return bridgev2.WrapErrorInStatus(err).WithStatus(event.MessageStatusFail).WithErrorReason(reason).
		WithMessage(err.Error()).WithIsCertain(true).WithSendNotice(true)
}

// failure turns an error of whatsmeow's into one for the sender.
func failure(err error) error {
	var known bridgev2.MessageStatus
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, whatsmeow.ErrServerReturnedError):
		_, code, _ := strings.Cut(err.Error(), whatsmeow.ErrServerReturnedError.Error()+" ")
		if code == "420" {
			return fail(event.MessageStatusNoPermission, "WhatsApp does not let you write here: you are not in this group, or it is for admins only.")
		}
		return fail(event.MessageStatusGenericError, "WhatsApp refused it (error %s).", code)
	case errors.Is(err, whatsmeow.ErrNotLoggedIn):
		return fail(event.MessageStatusNoPermission, "%s", textUnlinked)
	case errors.Is(err, errNoKeys):
		return fail(event.MessageStatusNetworkError, "WhatsApp does not give the keys of the other one's devices.").WithStatus(event.MessageStatusRetriable)
	case disconnected(err):
		return fail(event.MessageStatusNetworkError, "There is no connection to WhatsApp.").WithStatus(event.MessageStatusRetriable).WithIsCertain(false)
	case errors.Is(err, whatsmeow.ErrNotInGroup), errors.Is(err, whatsmeow.ErrIQForbidden), errors.Is(err, whatsmeow.ErrIQNotAuthorized):
		return fail(event.MessageStatusNoPermission, "WhatsApp does not allow you that: you are not in this group, or no admin of it.")
	default:
		return fmt.Errorf("send it to WhatsApp: %w", err)
	}
}

// disconnected reports whether an error means that the connection was lost, so
// that nobody knows what became of a request. Whatsmeow tells it in its own words
// where it waits for an answer, and in those of the socket where it writes.
func disconnected(err error) bool {
	var lost *whatsmeow.DisconnectedError
	var network net.Error
	return errors.As(err, &lost) || errors.As(err, &network) || slices.ContainsFunc([]error{
		whatsmeow.ErrNotConnected, whatsmeow.ErrIQTimedOut, whatsmeow.ErrMessageTimedOut,
		socket.ErrSocketClosed, net.ErrClosed, io.EOF, io.ErrUnexpectedEOF, errNoKeys, context.DeadlineExceeded, context.Canceled,
	}, func(known error) bool { return errors.Is(err, known) })
}

// lookAgain is how often a message that waits looks for the connection.
const lookAgain = 100 * time.Millisecond

// untilConnected calls f, and calls it again while the connection is lost, for
// the time that messages may wait.
func (s *session) untilConnected(ctx context.Context, f func() error) error {
	end := time.Now().Add(s.connector.config.SendTimeout)
	for {
		err := whatsmeow.ErrNotConnected
		if s.client != nil && s.client.IsConnected() && s.client.IsLoggedIn() {
			err = f()
		}
		if err == nil {
			return nil
		}
		switch reason := s.hindrance(); {
		case reason != "":
			return fail(event.MessageStatusNoPermission, "%s", reason)
		case !s.IsLoggedIn():
			return whatsmeow.ErrNotLoggedIn
		case !disconnected(err) || ctx.Err() != nil || time.Now().After(end):
			return err
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send sends a message and waits until WhatsApp has it. It may be sent several
// times under its ID, of which the other side shows one.
func (s *session) send(ctx context.Context, chat types.JID, m *waE2E.Message, id types.MessageID) (time.Time, error) {
	s.stir()
	var resp whatsmeow.SendResponse
	err := s.untilConnected(ctx, func() (err error) {
		if resp, err = s.client.SendMessage(ctx, chat, m, whatsmeow.SendRequestExtra{ID: id}); err != nil {
			return err
		}
		return s.checkKeys(ctx, chat)
	})
	if err != nil {
		return time.Time{}, failure(err)
	}
	return resp.Timestamp, nil
}

// HandleMatrixMessage implements bridgev2.NetworkAPI.
func (s *session) HandleMatrixMessage(ctx context.Context, msg *bridgev2.MatrixMessage) (*bridgev2.MatrixMessageResponse, error) {
	chat, err := chatOf(msg.Portal)
	if err != nil {
		return nil, err
	}
	m, text, err := s.compose(ctx, msg.Content, quote(msg.ReplyTo))
	if err != nil {
		return nil, failure(err)
	}
	id := newID(msg.Event.ID)
	at, err := s.send(ctx, chat, m, id)
	if err != nil {
		return nil, err
	}
	return &bridgev2.MatrixMessageResponse{DB: &database.Message{
		ID: messageID(chat, s.own(), id), SenderID: s.GetUserID(), Timestamp: at, Metadata: excerpt(text),
	}}, nil
}

// quote says that a message answers another one, which may be nil.
func quote(of *database.Message) *waE2E.ContextInfo {
	if of == nil {
		return nil
	}
	author, id := splitMessageID(of.ID)
	if id == "" {
		return nil
	}
	text := ""
	if meta, ok := of.Metadata.(*MessageMetadata); ok {
		text = meta.Text
	}
	return &waE2E.ContextInfo{
		StanzaID: &id, Participant: proto.String(author.String()), QuotedMessage: &waE2E.Message{Conversation: &text},
	}
}

// compose makes WhatsApp's form of a message, and returns its text, too. Info
// may be nil.
func (s *session) compose(ctx context.Context, content *event.MessageEventContent, info *waE2E.ContextInfo) (*waE2E.Message, string, error) {
	switch content.MsgType {
	case event.MsgText, event.MsgNotice, event.MsgEmote:
		text, mentioned := s.textOf(ctx, content)
		return textMessage(text, mentioned, info), text, nil
	case event.MsgImage, event.MsgVideo, event.MsgAudio, event.MsgFile, event.CapMsgSticker:
		caption := ""
		if content.FileName != "" && content.FileName != content.Body {
			var mentioned []string
			caption, mentioned = s.textOf(ctx, content)
			info = mentioning(info, mentioned)
		}
		m, err := s.upload(ctx, content, caption, info)
		return m, content.Body, err
	case event.MsgLocation:
		lat, long, err := parseGeo(content.GeoURI)
		if err != nil {
			return nil, "", fail(event.MessageStatusUnsupported, "That is no place: %v.", err)
		}
		return &waE2E.Message{LocationMessage: &waE2E.LocationMessage{
			DegreesLatitude: &lat, DegreesLongitude: &long, Name: optional(placeName(content)), ContextInfo: info,
		}}, content.Body, nil
	default:
		return nil, "", fmt.Errorf("%w %s", bridgev2.ErrUnsupportedMessageType, content.MsgType)
	}
}

// mentioning adds mentions to what accompanies a message.
func mentioning(info *waE2E.ContextInfo, mentioned []string) *waE2E.ContextInfo {
	if len(mentioned) == 0 {
		return info
	}
	if info == nil {
		info = &waE2E.ContextInfo{}
	}
	info.MentionedJID = mentioned
	return info
}

func textMessage(text string, mentioned []string, info *waE2E.ContextInfo) *waE2E.Message {
	info = mentioning(info, mentioned)
	if info == nil {
		return &waE2E.Message{Conversation: &text}
	}
	return &waE2E.Message{ExtendedTextMessage: &waE2E.ExtendedTextMessage{Text: &text, ContextInfo: info}}
}

// placeName is the description of a place, if the sender gave one.
func placeName(content *event.MessageEventContent) string {
	if strings.Contains(content.Body, "geo:") || strings.HasPrefix(content.Body, "Location was shared") {
		return "" // made by the app
	}
	name, _, _ := strings.Cut(content.Body, "\n")
	return name
}

// parseGeo reads a geo URI: latitude, longitude, and what does not matter here.
func parseGeo(uri string) (lat, long float64, err error) {
	rest, ok := strings.CutPrefix(uri, "geo:")
	if !ok {
		return 0, 0, fmt.Errorf("%q is no geo URI", uri)
	}
	rest, _, _ = strings.Cut(rest, ";")
	parts := strings.Split(rest, ",")
	if len(parts) < 2 {
		return 0, 0, fmt.Errorf("%q has no two coordinates", uri)
	}
	if lat, err = strconv.ParseFloat(parts[0], 64); err == nil {
		long, err = strconv.ParseFloat(parts[1], 64)
	}
	if err == nil && !(lat >= -90 && lat <= 90 && long >= -180 && long <= 180) {
		err = fmt.Errorf("%q is not on earth", uri)
	}
	return lat, long, err
}

// editTime is how long WhatsApp's apps take edits of a message.
const editTime = 15 * time.Minute

// HandleMatrixEdit implements bridgev2.EditHandlingNetworkAPI.
func (s *session) HandleMatrixEdit(ctx context.Context, msg *bridgev2.MatrixEdit) error {
	chat, err := chatOf(msg.Portal)
	if err != nil {
		return err
	}
	author, id := splitMessageID(msg.EditTarget.ID)
	switch {
	case author != s.own() || id == "":
		return fail(event.MessageStatusNoPermission, "On WhatsApp everybody edits only their own messages.")
	case msg.Content.MsgType.IsMedia():
		return fail(event.MessageStatusUnsupported, "WhatsApp takes edits of texts only.")
	}
	text, mentioned := s.textOf(ctx, msg.Content)
	if _, err := s.send(ctx, chat, s.client.BuildEdit(chat, id, textMessage(text, mentioned, nil)), newID(msg.Event.ID)); err != nil {
		return err
	}
	msg.EditTarget.Metadata = excerpt(text)
	return nil
}

// PreHandleMatrixReaction implements bridgev2.ReactionHandlingNetworkAPI.
func (s *session) PreHandleMatrixReaction(_ context.Context, msg *bridgev2.MatrixReaction) (bridgev2.MatrixReactionPreResponse, error) {
	emoji := variationselector.FullyQualify(msg.Content.RelatesTo.Key)
	if strings.HasPrefix(emoji, "mxc://") {
		return bridgev2.MatrixReactionPreResponse{}, fail(event.MessageStatusUnsupported, "WhatsApp has no reactions with pictures of one's own.")
	}
	return bridgev2.MatrixReactionPreResponse{SenderID: s.GetUserID(), Emoji: emoji, MaxReactions: 1}, nil
}

// react sends a reaction, or with no emoji takes it back.
func (s *session) react(ctx context.Context, portal *bridgev2.Portal, of networkid.MessageID, emoji string, as types.MessageID) error {
	chat, err := chatOf(portal)
	if err != nil {
		return err
	}
	author, id := splitMessageID(of)
	_, err = s.send(ctx, chat, s.client.BuildReaction(chat, author, id, emoji), as)
	return err
}

// HandleMatrixReaction implements bridgev2.ReactionHandlingNetworkAPI.
func (s *session) HandleMatrixReaction(ctx context.Context, msg *bridgev2.MatrixReaction) (*database.Reaction, error) {
	return nil, s.react(ctx, msg.Portal, msg.TargetMessage.ID, msg.PreHandleResp.Emoji, newID(msg.Event.ID))
}

// HandleMatrixReactionRemove implements bridgev2.ReactionHandlingNetworkAPI.
func (s *session) HandleMatrixReactionRemove(ctx context.Context, msg *bridgev2.MatrixReactionRemove) error {
	return s.react(ctx, msg.Portal, msg.TargetReaction.MessageID, "", newID(msg.Event.ID))
}

// HandleMatrixMessageRemove implements bridgev2.RedactionHandlingNetworkAPI.
func (s *session) HandleMatrixMessageRemove(ctx context.Context, msg *bridgev2.MatrixMessageRemove) error {
	chat, err := chatOf(msg.Portal)
	if err != nil {
		return err
	}
	author, id := splitMessageID(msg.TargetMessage.ID)
	if author != s.own() && chat.Server != types.GroupServer {
		return fail(event.MessageStatusNoPermission, "On WhatsApp you can not delete what others wrote to you. It is deleted here only.")
	}
	_, err = s.send(ctx, chat, s.client.BuildRevoke(chat, author, id), newID(msg.Event.ID))
	return err
}

// HandleMatrixReadReceipt implements bridgev2.ReadReceiptHandlingNetworkAPI: all
// messages since the last one are marked as read, for each of their authors.
func (s *session) HandleMatrixReadReceipt(ctx context.Context, msg *bridgev2.MatrixReadReceipt) error {
	chat, err := chatOf(msg.Portal)
	if err != nil {
		return err
	}
	list, err := s.connector.br.DB.Message.GetMessagesBetweenTimeQuery(ctx, msg.Portal.PortalKey, msg.LastRead, msg.ReadUpTo)
	if err != nil {
		return err
	}
	if msg.ExactMessage != nil {
		list = append(list, msg.ExactMessage)
	}
	unread := make(map[types.JID][]types.MessageID)
	seen := make(map[networkid.MessageID]bool)
	for _, m := range list {
		if author, id := splitMessageID(m.ID); author != s.own() && id != "" && !seen[m.ID] {
			seen[m.ID] = true
			unread[author] = append(unread[author], id)
		}
	}
	s.stir()
	for author, ids := range unread {
		at := msg.Receipt.Timestamp
		if at.IsZero() {
			at = time.Now()
		}
		if err := s.untilConnected(ctx, func() error { return s.client.MarkRead(ctx, ids, at, chat, author) }); err != nil {
			return failure(err)
		}
	}
	return nil
}

// HandleMatrixTyping implements bridgev2.TypingHandlingNetworkAPI.
func (s *session) HandleMatrixTyping(ctx context.Context, msg *bridgev2.MatrixTyping) error {
	chat, err := chatOf(msg.Portal)
	if err != nil || !s.client.IsLoggedIn() {
		return err
	}
	s.stir()
	state, media := types.ChatPresencePaused, types.ChatPresenceMediaText
	if msg.IsTyping {
		state = types.ChatPresenceComposing
	}
	if msg.Type == bridgev2.TypingTypeRecordingMedia {
		media = types.ChatPresenceMediaAudio
	}
	return s.client.SendChatPresence(ctx, chat, state, media)
}

// GetCapabilities implements bridgev2.NetworkAPI.
func (s *session) GetCapabilities(_ context.Context, portal *bridgev2.Portal) *event.RoomFeatures {
	full, partial := event.CapLevelFullySupported, event.CapLevelPartialSupport
	anything := &event.FileFeatures{
		MimeTypes: map[string]event.CapabilitySupportLevel{"*/*": full}, Caption: full, MaxSize: s.connector.config.MaxFileSize,
	}
	uncaptioned := &event.FileFeatures{
		MimeTypes: map[string]event.CapabilitySupportLevel{"*/*": full}, Caption: event.CapLevelDropped, MaxSize: s.connector.config.MaxFileSize,
	}
	age := jsontime.S(editTime)
	f := &event.RoomFeatures{
		ID: "switchboard.whatsapp.1",
		Formatting: event.FormattingFeatureMap{
			event.FmtBold: full, event.FmtItalic: full, event.FmtStrikethrough: full, event.FmtInlineCode: full, event.FmtCodeBlock: full,
			event.FmtBlockquote: full, event.FmtUnorderedList: full, event.FmtOrderedList: full, event.FmtUserLink: full,
			event.FmtInlineLink: partial, event.FmtUnderline: event.CapLevelDropped,
		},
		File: event.FileFeatureMap{
			event.MsgImage: anything, event.MsgVideo: anything, event.MsgFile: anything, event.CapMsgGIF: anything,
			event.MsgAudio: uncaptioned, event.CapMsgVoice: uncaptioned, event.CapMsgSticker: uncaptioned,
		},
		LocationMessage: full, Reply: full, Edit: full, EditMaxAge: &age, Delete: full,
		Reaction: full, ReactionCount: 1, ReadReceipts: true, TypingNotifications: true,
	}
	if chat, err := chatOf(portal); err == nil && chat.Server == types.GroupServer {
		f.ID += "+group"
		f.State = event.StateFeatureMap{
			event.StateRoomName.Type: {Level: full}, event.StateTopic.Type: {Level: full}, event.StateRoomAvatar.Type: {Level: full},
		}
		f.MemberActions = event.MemberFeatureMap{
			event.MemberActionInvite: full, event.MemberActionKick: full, event.MemberActionLeave: full,
		}
	}
	return f
}
