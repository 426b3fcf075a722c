package whatsapp

import (
	"context"
	"fmt"
	"html"
	"strings"

	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/event"
)

// shown reports whether a message is something to be seen, and no part of the
// protocol.
func shown(m *waE2E.Message) bool {
	if m == nil || m.GetKeepInChatMessage() != nil || m.GetPinInChatMessage() != nil || m.GetPollUpdateMessage() != nil || m.GetCall() != nil {
		return false
	}
	found := false
	// What accompanies others: keys for a group, context, reports.
	m.ProtoReflect().Range(func(f protoField, _ protoValue) bool {
		switch f.Name() {
		case "senderKeyDistributionMessage", "fastRatchetKeySenderKeyDistributionMessage", "messageContextInfo":
		default:
			found = true
		}
		return !found
	})
	return found
}

// convert makes the Matrix form of a message.
func (s *session) convert(ctx context.Context, portal *bridgev2.Portal, intent bridgev2.MatrixAPI, e *events.Message) (*bridgev2.ConvertedMessage, error) {
	part := s.part(ctx, portal, intent, e.Message)
	out := &bridgev2.ConvertedMessage{Parts: []*bridgev2.ConvertedMessagePart{part}}
	info := contextInfo(e.Message)
	if info.GetStanzaID() == "" {
		return out, nil
	}
	chat, err := chatOf(portal)
	if err != nil {
		return nil, err
	}
	author := s.own()
	if jid, err := types.ParseJID(info.GetParticipant()); err == nil {
		if lid, ok := s.lid(ctx, jid, types.EmptyJID); ok {
			author = lid
		}
	}
	out.ReplyTo = &networkid.MessageOptionalPartID{MessageID: messageID(chat, author, info.GetStanzaID())}
	return out, nil
}

// convertEdit makes the Matrix form of an edit.
func (s *session) convertEdit(ctx context.Context, portal *bridgev2.Portal, intent bridgev2.MatrixAPI, existing []*database.Message, m *waE2E.Message) (*bridgev2.ConvertedEdit, error) {
	part := s.part(ctx, portal, intent, m)
	return &bridgev2.ConvertedEdit{ModifiedParts: []*bridgev2.ConvertedEditPart{part.ToEditPart(existing[0])}}, nil
}

// part is the Matrix form of a message's content. Whatever can not be shown
// becomes a notice that says so: a message must not get lost.
func (s *session) part(ctx context.Context, portal *bridgev2.Portal, intent bridgev2.MatrixAPI, m *waE2E.Message) *bridgev2.ConvertedMessagePart {
	var content *event.MessageEventContent
	extra := map[string]any{}
	eventType := event.EventMessage
	mentioned := contextInfo(m).GetMentionedJID()
	if file := fileOf(m); file != nil {
		content = s.download(ctx, portal, intent, file)
		if file.sticker && content.MsgType == event.MsgImage {
			eventType, content.MsgType = event.EventSticker, ""
		}
		if file.caption != "" {
			caption := s.textContent(ctx, file.caption, mentioned)
			content.FileName, content.Body, content.Mentions = content.Body, caption.Body, caption.Mentions
			content.Format, content.FormattedBody = caption.Format, caption.FormattedBody
		}
		return &bridgev2.ConvertedMessagePart{Type: eventType, Content: content, Extra: extra, DBMetadata: excerpt(content.Body)}
	}
	switch {
	case m.GetLocationMessage() != nil:
		content = location(m.GetLocationMessage())
	case m.GetLiveLocationMessage() != nil:
		l := m.GetLiveLocationMessage()
		content = location(&waE2E.LocationMessage{DegreesLatitude: l.DegreesLatitude, DegreesLongitude: l.DegreesLongitude, Name: l.Caption})
		content.Body = "Live location, where it began: " + content.Body
	case m.GetContactMessage() != nil:
		content = s.contacts(ctx, portal, intent, m.GetContactMessage().GetDisplayName(), m.GetContactMessage())
	case m.GetContactsArrayMessage() != nil:
		c := m.GetContactsArrayMessage()
		content = s.contacts(ctx, portal, intent, c.GetDisplayName(), c.GetContacts()...)
	default:
		text := textIn(m)
		if text == "" {
			content = notice("Something that can not be shown here. Your phone shows it.")
			break
		}
		content = s.textContent(ctx, text, mentioned)
	}
	return &bridgev2.ConvertedMessagePart{Type: eventType, Content: content, Extra: extra, DBMetadata: excerpt(content.Body)}
}

func notice(text string) *event.MessageEventContent {
	return &event.MessageEventContent{MsgType: event.MsgNotice, Body: text}
}

// textIn is the text of a message, also of those that companies send with
// buttons and lists, and of polls.
func textIn(m *waE2E.Message) string {
	var lines []string
	add := func(more ...string) {
		for _, line := range more {
			if line != "" {
				lines = append(lines, line)
			}
		}
	}
	switch {
	case m.GetConversation() != "":
		add(m.GetConversation())
	case m.GetExtendedTextMessage() != nil:
		add(m.GetExtendedTextMessage().GetText())
	case m.GetButtonsMessage() != nil:
		b := m.GetButtonsMessage()
		add(b.GetText(), b.GetContentText(), b.GetFooterText())
		for _, button := range b.GetButtons() {
			add("• " + button.GetButtonText().GetDisplayText())
		}
	case m.GetTemplateMessage().GetHydratedTemplate() != nil:
		t := m.GetTemplateMessage().GetHydratedTemplate()
		add(t.GetHydratedTitleText(), t.GetHydratedContentText(), t.GetHydratedFooterText())
	case m.GetListMessage() != nil:
		l := m.GetListMessage()
		add(l.GetTitle(), l.GetDescription(), l.GetFooterText())
		for _, section := range l.GetSections() {
			for _, row := range section.GetRows() {
				add("• " + row.GetTitle())
			}
		}
	case m.GetInteractiveMessage() != nil:
		i := m.GetInteractiveMessage()
		add(i.GetHeader().GetTitle(), i.GetBody().GetText(), i.GetFooter().GetText())
	case m.GetButtonsResponseMessage() != nil:
		add(m.GetButtonsResponseMessage().GetSelectedDisplayText())
	case m.GetTemplateButtonReplyMessage() != nil:
		add(m.GetTemplateButtonReplyMessage().GetSelectedDisplayText())
	case m.GetListResponseMessage() != nil:
		add(m.GetListResponseMessage().GetTitle())
	case m.GetGroupInviteMessage() != nil:
		i := m.GetGroupInviteMessage()
		add("Invitation to the group "+i.GetGroupName(), i.GetCaption(), "Accept it on your phone.")
	case poll(m) != nil:
		add("Poll: " + poll(m).GetName())
		for _, option := range poll(m).GetOptions() {
			add("• " + option.GetOptionName())
		}
		add("Vote on your phone.")
	}
	return strings.Join(lines, "\n")
}

func poll(m *waE2E.Message) *waE2E.PollCreationMessage {
	for _, p := range []*waE2E.PollCreationMessage{m.GetPollCreationMessage(), m.GetPollCreationMessageV2(), m.GetPollCreationMessageV3()} {
		if p != nil {
			return p
		}
	}
	return nil
}

// contextInfo says what a message answers and whom it mentions.
func contextInfo(m *waE2E.Message) *waE2E.ContextInfo {
	for _, part := range []interface{ GetContextInfo() *waE2E.ContextInfo }{
		m.GetExtendedTextMessage(), m.GetImageMessage(), m.GetVideoMessage(), m.GetPtvMessage(), m.GetAudioMessage(), m.GetDocumentMessage(),
		m.GetStickerMessage(), m.GetLocationMessage(), m.GetLiveLocationMessage(), m.GetContactMessage(), m.GetContactsArrayMessage(),
		m.GetButtonsResponseMessage(), m.GetTemplateButtonReplyMessage(), m.GetListResponseMessage(),
	} {
		if info := part.GetContextInfo(); info != nil {
			return info
		}
	}
	return nil
}

func location(l *waE2E.LocationMessage) *event.MessageEventContent {
	geo := fmt.Sprintf("geo:%.6f,%.6f", l.GetDegreesLatitude(), l.GetDegreesLongitude())
	var lines []string
	for _, line := range []string{l.GetName(), l.GetAddress(), l.GetComment()} {
		if line != "" {
			lines = append(lines, line)
		}
	}
	link := fmt.Sprintf("https://www.openstreetmap.org/?mlat=%.6f&mlon=%.6f", l.GetDegreesLatitude(), l.GetDegreesLongitude())
	formatted := html.EscapeString(strings.Join(lines, "\n"))
	if len(lines) > 0 {
		formatted = strings.ReplaceAll(formatted, "\n", "<br>") + "<br>"
	}
	return &event.MessageEventContent{
		MsgType: event.MsgLocation, GeoURI: geo, Body: strings.Join(append(lines, link), "\n"),
		Format: event.FormatHTML, FormattedBody: formatted + `<a href="` + html.EscapeString(link) + `">` + html.EscapeString(geo) + "</a>",
	}
}
