package irc

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/simplevent"
	"maunium.net/go/mautrix/bridgev2/status"
	"maunium.net/go/mautrix/event"

	"switchboard/bridges/bridge"
	"switchboard/bridges/irc/client"
)

// onEvent takes an event of the connection. It returns at once; the work is
// done in the network's order.
func (s *session) onEvent(e client.Event) {
	if s.login == nil {
		return // the log-in is not complete; run tells what it needs to know
	}
	ctx := s.context()
	s.tasks.AddInTime(ctx, func() { s.handle(ctx, e) })
}

func (s *session) handle(ctx context.Context, e client.Event) {
	switch e := e.(type) {
	case client.Connected:
		s.onConnected(ctx, e)
	case client.Disconnected:
		s.onDisconnected(e)
	case client.NickRegained:
		s.tell(ctx, fmt.Sprintf("You are %s on %s again.", e.Nick, s.network.Name))
	case client.Message:
		s.onMessage(ctx, e)
	case client.CTCP:
		s.onCTCP(ctx, e)
	case client.Joined:
		s.onJoined(e)
	case client.Synced:
		s.onSynced(e.Channel)
	case client.Parted:
		s.onLeft(e.Source, e.Source.Name, e.Channel, e.Reason, e.Time)
	case client.Kicked:
		s.onLeft(e.Source, e.Nick, e.Channel, e.Reason, e.Time)
	case client.Quit:
		for _, channel := range e.Channels {
			s.onLeft(e.Source, e.Source.Name, channel, strings.TrimSpace("Quit: "+strings.TrimPrefix(e.Reason, "Quit: ")), e.Time)
		}
	case client.NetSplit:
		s.onNetSplit(ctx, e)
	case client.Renamed:
		s.onRenamed(ctx, e)
	case client.TopicChanged:
		s.onTopic(e)
	case client.ModeChanged:
		s.onModes(e)
	case client.Invited:
		s.tell(ctx, fmt.Sprintf("%s invites you to %s on %s. Say `join %s` to go there.", e.Source.Name, e.Channel, s.network.Name, e.Channel))
	case client.JoinFailed:
		s.onJoinFailed(ctx, e)
	case client.ServerText:
		zerolog.Ctx(ctx).Debug().Str("code", e.Code).Msg("text from the IRC server")
	}
}

func (s *session) onConnected(ctx context.Context, e client.Connected) {
	m := s.client.Casemapping()
	s.network.setCasemapping(m)
	s.update(func(meta *LoginMetadata) bool {
		changed := meta.Casemapping != m
		meta.Casemapping = m
		return changed
	})
	s.state(status.BridgeState{StateEvent: status.StateConnected, RemoteName: e.Nick})
	if e.Nick != e.Wanted {
		s.tell(ctx, fmt.Sprintf("The nick %s is in use on %s. You are %s until it is free.", e.Wanted, s.network.Name, e.Nick))
	}
	s.flush(func(target string) bool { isup := s.client.ISupport(); return !isup.IsChannel(target) })
}

func (s *session) onDisconnected(e client.Disconnected) {
	s.network.mu.Lock()
	for channel, speaker := range s.network.speakers {
		if speaker == s {
			delete(s.network.speakers, channel)
		}
	}
	s.network.mu.Unlock()
	if e.Retry >= 0 {
		s.state(status.BridgeState{
			StateEvent: status.StateTransientDisconnect, Error: "irc-disconnected",
			Message: fmt.Sprintf("No connection to %s: %v", s.network.Name, e.Err),
		})
	}
}

// tell writes to the user in the management room. What concerns the relay goes
// to the log, because nobody is behind it.
func (s *session) tell(ctx context.Context, text string) {
	if s.relay() {
		zerolog.Ctx(ctx).Warn().Str("login", string(s.login.ID)).Msg(text)
		return
	}
	bridge.Note(ctx, s.login, "%s", text)
}

// about is what an event says of itself.
func (s *session) about(t bridgev2.RemoteEventType, key networkid.PortalKey, sender bridgev2.EventSender, at time.Time) simplevent.EventMeta {
	if at.IsZero() {
		at = time.Now()
	}
	return simplevent.EventMeta{Type: t, PortalKey: key, Sender: sender, Timestamp: at}
}

// actor is who does something in a channel: a login of ours, a ghost, or, for
// servers, nobody, which makes it the bot.
func (s *session) actor(src client.Source) bridgev2.EventSender {
	if src.Name == "" || src.IsServer() {
		return bridgev2.EventSender{}
	}
	return s.user(src.Name)
}

// user is the sender of a nick's events in channels.
func (s *session) user(nick string) bridgev2.EventSender {
	if other := s.network.byNick(nick); other != nil && !other.relay() {
		return bridgev2.EventSender{SenderLogin: other.login.ID}
	}
	return bridgev2.EventSender{Sender: s.network.userID(nick)}
}

func (s *session) onMessage(ctx context.Context, e client.Message) {
	if e.Channel == "" {
		s.onPrivate(ctx, e)
		return
	}
	sender := s.user(e.Source.Name)
	if other := s.network.byNick(e.Source.Name); other != nil {
		if other != s {
			return // its own session knows whether it was sent from Matrix
		}
		sender.Sender = s.GetUserID()
	} else if !s.network.speaks(s, e.Channel) {
		return
	}
	meta := s.about(bridgev2.RemoteEventMessage, s.network.channelKey(e.Channel), sender, e.Time)
	meta.CreatePortal = true
	s.queueMessage(meta, e)
}

func (s *session) onPrivate(ctx context.Context, e client.Message) {
	key := s.privateKey(e.Peer)
	sender := bridgev2.EventSender{Sender: s.network.userID(e.Source.Name)}
	if e.Source.Own {
		sender.IsFromMe = true
	}
	meta := s.about(bridgev2.RemoteEventMessage, key, sender, e.Time)
	meta.CreatePortal = e.Kind != client.Notice
	if e.Kind == client.Notice {
		if !bridge.Exists(ctx, s.login, key) {
			text, _ := fromIRC(e.Text)
			s.tell(ctx, fmt.Sprintf("[%s] %s: %s", s.network.Name, e.Source.Name, text))
			return
		}
	}
	s.queueMessage(meta, e)
}

func (s *session) queueMessage(meta simplevent.EventMeta, e client.Message) {
	bridge.Queue(s.login, &simplevent.Message[client.Message]{
		EventMeta: meta, Data: e, ID: s.network.messageID(e.ID), ConvertMessageFunc: s.convert,
	})
}

// convert makes the Matrix form of a message.
func (s *session) convert(_ context.Context, _ *bridgev2.Portal, _ bridgev2.MatrixAPI, e client.Message) (*bridgev2.ConvertedMessage, error) {
	plain, formatted := fromIRC(e.Text)
	content := &event.MessageEventContent{MsgType: event.MsgText, Body: plain, Mentions: s.mentions(plain)}
	switch e.Kind {
	case client.Action:
		content.MsgType = event.MsgEmote
	case client.Notice:
		content.MsgType = event.MsgNotice
	}
	if formatted != "" {
		content.Format, content.FormattedBody = event.FormatHTML, formatted
	}
	out := &bridgev2.ConvertedMessage{Parts: []*bridgev2.ConvertedMessagePart{{
		Type: event.EventMessage, Content: content, DBMetadata: &MessageMetadata{Text: truncate(plain)},
	}}}
	if e.ReplyTo != "" {
		out.ReplyTo = &networkid.MessageOptionalPartID{MessageID: s.network.messageID(e.ReplyTo)}
	}
	return out, nil
}

func truncate(text string) string {
	if len(text) <= keptText {
		return text
	}
	return strings.ToValidUTF8(text[:keptText], "")
}

// mentions are the users whose nick stands in a text as a word of its own.
func (s *session) mentions(text string) *event.Mentions {
	m := &event.Mentions{}
	folded := s.network.fold(text)
	for _, other := range s.network.all() {
		if !other.relay() && containsWord(folded, s.network.fold(other.client.Nick())) {
			m.UserIDs = append(m.UserIDs, other.login.UserMXID)
		}
	}
	return m
}

// containsWord reports whether word stands in text between characters that no
// nick contains.
func containsWord(text, word string) bool {
	for from := 0; word != ""; {
		i := strings.Index(text[from:], word)
		if i < 0 {
			return false
		}
		i += from
		before, after := text[:i], text[i+len(word):]
		if (before == "" || !inNick(before[len(before)-1])) && (after == "" || !inNick(after[0])) {
			return true
		}
		from = i + 1
	}
	return false
}

func inNick(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b >= 0x80 || strings.IndexByte("-[]\\`^{}_|", b) >= 0
}

// ctcpGap is the time between two answers to CTCP requests, so that nobody can
// make us flood.
const ctcpGap = 3 * time.Second

// onCTCP answers requests of other clients.
func (s *session) onCTCP(ctx context.Context, e client.CTCP) {
	if e.Reply || e.Source.Own {
		return
	}
	if e.Command == "DCC" {
		s.tell(ctx, fmt.Sprintf("%s on %s wants a direct connection (DCC), which the bridge refuses.", e.Source.Name, s.network.Name))
		return
	}
	answer := ""
	switch e.Command {
	case "VERSION":
		answer = "Switchboard IRC bridge"
	case "PING":
		answer = plainToIRC(truncate(e.Args))
	case "TIME":
		answer = time.Now().UTC().Format(time.RFC1123)
	case "CLIENTINFO":
		answer = "ACTION CLIENTINFO PING TIME VERSION"
	default:
		return
	}
	s.mu.Lock()
	now := time.Now()
	allowed := now.After(s.answer)
	if allowed {
		s.answer = now.Add(ctcpGap)
	}
	s.mu.Unlock()
	if allowed {
		s.client.Do(ircmsg.MakeMessage(nil, "", "NOTICE", e.Source.Name, "\x01"+e.Command+" "+answer+"\x01"), nil)
	}
}

// notice writes a line into a room on behalf of the sender, or of the bot.
func (s *session) notice(key networkid.PortalKey, sender bridgev2.EventSender, at time.Time, text string) {
	bridge.Queue(s.login, &simplevent.PreConvertedMessage{
		EventMeta: s.about(bridgev2.RemoteEventMessage, key, sender, at),
		ID:        s.network.messageID(""),
		Data: &bridgev2.ConvertedMessage{Parts: []*bridgev2.ConvertedMessagePart{{
			Type: event.EventMessage, Content: &event.MessageEventContent{MsgType: event.MsgNotice, Body: text, Mentions: &event.Mentions{}},
		}}},
	})
}

// change queues a change of a channel.
func (s *session) change(channel string, sender bridgev2.EventSender, at time.Time, c *bridgev2.ChatInfoChange) {
	bridge.Queue(s.login, &simplevent.ChatInfoChange{
		EventMeta:      s.about(bridgev2.RemoteEventChatInfoChange, s.network.channelKey(channel), sender, at),
		ChatInfoChange: c,
	})
}

func (s *session) onTopic(e client.TopicChanged) {
	if !s.network.speaks(s, e.Channel) {
		return
	}
	topic, _ := fromIRC(e.Topic)
	s.change(e.Channel, s.actor(e.Source), e.Time, &bridgev2.ChatInfoChange{ChatInfo: &bridgev2.ChatInfo{Topic: &topic}})
}

// onModes turns the modes of members into power levels and +t into who may
// change the topic. Other modes are told as a notice.
func (s *session) onModes(e client.ModeChanged) {
	if !s.network.speaks(s, e.Channel) {
		return
	}
	if e.Source.Name == "" { // the modes that we find when we join
		if ch, in := s.client.Channel(e.Channel); in && ch.Synced {
			s.change(e.Channel, bridgev2.EventSender{}, e.Time, &bridgev2.ChatInfoChange{
				MemberChanges: &bridgev2.ChatMemberList{MemberMap: bridgev2.ChatMemberMap{}, PowerLevels: levels(ch)},
			})
		}
		return
	}
	isup := s.client.ISupport()
	order, _ := isup.Prefix()
	var told strings.Builder
	var args []string
	info := &bridgev2.ChatInfoChange{}
	members := &bridgev2.ChatMemberList{MemberMap: make(bridgev2.ChatMemberMap)}
	ch, _ := s.client.Channel(e.Channel)
	for _, c := range e.Changes {
		if strings.IndexByte(order, c.Mode) >= 0 {
			if u, ok := ch.Member(s.client.Casemapping(), c.Arg); ok {
				m := s.member(u)
				m.PrevMembership = event.MembershipJoin
				members.MemberMap[networkid.UserID(u.Nick)] = m
			}
			continue
		}
		if c.Mode == 't' {
			members.PowerLevels = levels(ch)
		}
		told.WriteString(sign(c.Add) + string(c.Mode))
		if c.Arg != "" && c.Mode != 'k' { // a key is a secret
			args = append(args, c.Arg)
		}
	}
	if len(members.MemberMap) > 0 || members.PowerLevels != nil {
		info.MemberChanges = members
		s.change(e.Channel, s.actor(e.Source), e.Time, info)
	}
	if told.Len() > 0 {
		text := strings.Join(append([]string{e.Source.Name, "set mode", told.String()}, args...), " ")
		s.notice(s.network.channelKey(e.Channel), bridgev2.EventSender{}, e.Time, text)
	}
}

func sign(add bool) string {
	if add {
		return "+"
	}
	return "-"
}

func (s *session) onJoinFailed(ctx context.Context, e client.JoinFailed) {
	s.saveChannels()
	s.failChannel(e.Channel, e.Err)
	s.tell(ctx, fmt.Sprintf("%s on %s could not be joined again: %v", e.Channel, s.network.Name, e.Err))
}

// onRenamed follows a new nick. A nick is a ghost, so the old one leaves and
// the new one comes; only a change of capitals is a change of the name. A
// private conversation goes on in the same room.
func (s *session) onRenamed(ctx context.Context, e client.Renamed) {
	n := s.network
	if e.Source.Own {
		if err := bridge.Rename(ctx, s.login, e.Nick); err != nil {
			zerolog.Ctx(ctx).Err(err).Msg("the new nick could not be saved")
		}
		s.state(status.BridgeState{StateEvent: status.StateConnected, RemoteName: e.Nick})
		return
	}
	if n.byNick(e.Nick) != nil {
		return // another login of ours
	}
	if n.fold(e.Source.Name) == n.fold(e.Nick) {
		bridge.Introduce(ctx, s.login, n.userID(e.Nick), userInfo(e.Nick))
		return
	}
	for _, channel := range e.Channels {
		if !n.speaks(s, channel) {
			continue
		}
		ch, _ := s.client.Channel(channel)
		u, ok := ch.Member(s.client.Casemapping(), e.Nick)
		if !ok {
			u.Nick = e.Nick
		}
		if s.shown(ch, u) {
			s.change(channel, bridgev2.EventSender{Sender: n.userID(e.Nick)}, e.Time, s.coming(u))
		}
		s.change(channel, bridgev2.EventSender{Sender: n.userID(e.Source.Name)}, e.Time, s.going(e.Source.Name, "is now known as "+e.Nick))
	}
	s.follow(ctx, e)
}

// follow moves the private room with a nick to its new nick.
func (s *session) follow(ctx context.Context, e client.Renamed) {
	br := s.network.connector.br
	from, to := s.privateKey(e.Source.Name), s.privateKey(e.Nick)
	if !bridge.Exists(ctx, s.login, from) {
		return
	}
	if bridge.Exists(ctx, s.login, to) {
		s.notice(from, bridgev2.EventSender{}, e.Time, fmt.Sprintf("%s is now known as %s", e.Source.Name, e.Nick))
		return
	}
	if _, _, err := br.ReIDPortal(ctx, from, to); err != nil {
		zerolog.Ctx(ctx).Err(err).Msg("a private room could not follow a new nick")
		return
	}
	bridge.Queue(s.login, &simplevent.ChatResync{
		EventMeta: s.about(bridgev2.RemoteEventChatResync, to, bridgev2.EventSender{}, e.Time),
		ChatInfo:  s.privateInfo(e.Nick),
	})
	s.notice(to, bridgev2.EventSender{}, e.Time, fmt.Sprintf("%s is now known as %s", e.Source.Name, e.Nick))
}
