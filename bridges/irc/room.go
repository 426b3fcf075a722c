package irc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/event"

	"switchboard/bridges/bridge"
	"switchboard/bridges/irc/client"
)

// askTimeout is how long the network may take to answer a command.
const askTimeout = 20 * time.Second

// ask sends a command and returns the refusal in words for the user.
func (s *session) ask(ctx context.Context, command string, params ...string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := s.client.Ask(ctx, command, params...); err != nil {
		return s.failure(err)
	}
	return nil
}

// HandleMatrixRoomTopic implements bridgev2.RoomTopicHandlingNetworkAPI.
func (s *session) HandleMatrixRoomTopic(ctx context.Context, msg *bridgev2.MatrixRoomTopic) (bool, error) {
	channel, err := s.channelOf(msg.Portal)
	if err != nil {
		return false, err
	}
	topic := client.OneLine(plainToIRC(msg.Content.Topic))
	isup := s.client.ISupport()
	if n := isup.TopicLen(); n > 0 && len(topic) > n {
		return false, s.failure(fmt.Errorf("the topic has %d bytes, the network allows %d", len(topic), n))
	}
	if err := s.ask(ctx, "TOPIC", channel, topic); err != nil {
		return false, err
	}
	msg.Portal.Topic, msg.Portal.TopicSet = msg.Content.Topic, true
	return true, nil
}

// errPrivate refuses what only channels have.
func errPrivate() error {
	return bridgev2.WrapErrorInStatus(errors.New("a private conversation on IRC has neither topic nor members to change")).
		WithStatus(event.MessageStatusFail).WithErrorReason(event.MessageStatusUnsupported).WithIsCertain(true).WithErrorAsMessage()
}

func (s *session) channelOf(p *bridgev2.Portal) (string, error) {
	name := s.target(p)
	isup := s.client.ISupport()
	if !isup.IsChannel(name) {
		return "", errPrivate()
	}
	return name, nil
}

// HandleMatrixMembership implements bridgev2.MembershipHandlingNetworkAPI:
// leaving is PART, kicking KICK, banning a ban of the nick, inviting INVITE.
func (s *session) HandleMatrixMembership(ctx context.Context, msg *bridgev2.MatrixMembershipChange) (*bridgev2.MatrixMembershipResult, error) {
	if msg.Type.IsSelf {
		return nil, s.selfChange(ctx, msg)
	}
	channel, err := s.channelOf(msg.Portal)
	if err != nil {
		return nil, err
	}
	nick := s.targetNick(msg.Target)
	if nick == "" {
		return nil, nil // a Matrix user without a nick: nobody on IRC is concerned
	}
	reason := client.OneLine(plainToIRC(msg.Content.Reason))
	isup := s.client.ISupport()
	if n := isup.KickLen(); n > 0 && len(reason) > n {
		reason = strings.ToValidUTF8(reason[:n], "")
	}
	switch msg.Type {
	case bridgev2.Kick:
		err = s.ask(ctx, "KICK", kickParams(channel, nick, reason)...)
	case bridgev2.BanJoined, bridgev2.BanLeft, bridgev2.BanInvited, bridgev2.BanKnocked:
		if err = s.ask(ctx, "MODE", channel, "+b", nick+"!*@*"); err == nil && msg.Type == bridgev2.BanJoined {
			err = s.ask(ctx, "KICK", kickParams(channel, nick, reason)...)
		}
	case bridgev2.Unban:
		err = s.ask(ctx, "MODE", channel, "-b", nick+"!*@*")
	case bridgev2.Invite:
		err = s.ask(ctx, "INVITE", nick, channel)
	default:
		return nil, nil
	}
	if err != nil { // the room shows what is not so on IRC
		s.resync(channel)
		return nil, err
	}
	return nil, nil
}

func kickParams(channel, nick, reason string) []string {
	if reason == "" {
		return []string{channel, nick}
	}
	return []string{channel, nick, reason}
}

// targetNick is the nick of who is kicked, banned or invited, or empty.
func (s *session) targetNick(target bridgev2.GhostOrUserLogin) string {
	switch t := target.(type) {
	case *bridgev2.Ghost:
		if n, nick := splitID(string(t.ID)); n == s.network.ID {
			return nick
		}
	case *bridgev2.UserLogin:
		if other, ok := t.Client.(*session); ok && other.network == s.network && !other.relay() {
			return other.client.Nick()
		}
	}
	return ""
}

// selfChange handles that the sender left the room, or changed the name in it.
// Users who are relayed come and go without a trace on IRC.
func (s *session) selfChange(ctx context.Context, msg *bridgev2.MatrixMembershipChange) error {
	if msg.OrigSender != nil || msg.Type != bridgev2.Leave {
		return nil
	}
	channel, err := s.channelOf(msg.Portal)
	if err != nil {
		return nil // a private conversation has no end
	}
	return s.leave(ctx, channel, msg.Content.Reason)
}

// leave leaves a channel for good.
func (s *session) leave(ctx context.Context, channel, reason string) error {
	key := s.network.fold(channel)
	s.mu.Lock()
	s.leaving[key] = true
	s.mu.Unlock()
	result := make(chan error, 1)
	s.client.Part(channel, plainToIRC(reason), func(o client.Outcome) { result <- o.Err })
	var err error
	select {
	case err = <-result:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.saveChannels()
	if err == nil {
		return nil
	}
	s.mu.Lock()
	delete(s.leaving, key) // or being thrown out later would pass for it
	s.mu.Unlock()
	if errors.Is(err, client.ErrNotSent) {
		return nil
	}
	return s.failure(err)
}

// join enters a channel and waits until its members are known.
func (s *session) join(ctx context.Context, channel, key string) (client.Channel, error) {
	isup := s.client.ISupport()
	if !s.client.Online() {
		return client.Channel{}, fmt.Errorf("there is no connection to %s at present", s.network.Name)
	}
	if !isup.IsChannel(channel) || strings.ContainsAny(channel, " ,\x07\r\n\x00") {
		return client.Channel{}, fmt.Errorf("%q is no channel of %s: names begin with one of %s", channel, s.network.Name, isup.ChanTypes())
	}
	if !s.network.allows(channel) {
		return client.Channel{}, fmt.Errorf("%s may not be joined through this bridge", channel)
	}
	if ch, in := s.client.Channel(channel); in && ch.Synced {
		return ch, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	result := make(chan error, 1)
	s.client.Join(channel, key, func(o client.Outcome) { result <- o.Err })
	select {
	case err := <-result:
		if err != nil {
			return client.Channel{}, err
		}
	case <-ctx.Done():
		return client.Channel{}, fmt.Errorf("%s did not answer", s.network.Name)
	}
	for { // the names may follow the answer
		if ch, in := s.client.Channel(channel); in && ch.Synced {
			return ch, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return client.Channel{}, fmt.Errorf("%s let you into %s, but did not say who is there", s.network.Name, channel)
		}
	}
}

// HandleMatrixPowerLevels implements bridgev2.PowerLevelHandlingNetworkAPI: it
// gives and takes the modes that the levels stand for.
func (s *session) HandleMatrixPowerLevels(ctx context.Context, msg *bridgev2.MatrixPowerLevelChange) (bool, error) {
	channel, err := s.channelOf(msg.Portal)
	if err != nil {
		return false, err
	}
	isup := s.client.ISupport()
	order, _ := isup.Prefix()
	var failed error
	for _, change := range msg.Users {
		nick := s.targetNick(change.Target)
		if nick == "" {
			continue
		}
		from, to := modeOf(change.OrigLevel, order), modeOf(change.NewLevel, order)
		if from == to {
			continue
		}
		if to != 0 {
			err = s.ask(ctx, "MODE", channel, "+"+string(to), nick)
		}
		if err == nil && from != 0 {
			err = s.ask(ctx, "MODE", channel, "-"+string(from), nick)
		}
		if err != nil {
			failed = err
		}
	}
	if failed != nil {
		s.resync(channel)
		return false, failed
	}
	return true, nil
}

// modeOf is the mode that stands for a power level, 0 for none. Order are the
// modes that the network has.
func modeOf(level int, order string) byte {
	for _, m := range []struct {
		level int
		mode  byte
	}{{levelOwner, 'q'}, {levelAdmin, 'a'}, {levelOp, 'o'}, {levelModerate, 'h'}, {1, 'v'}} {
		if level >= m.level && strings.IndexByte(order, m.mode) >= 0 {
			return m.mode
		}
	}
	return 0
}

// ResolveIdentifier implements bridgev2.IdentifierResolvingNetworkAPI: the
// identifier is a channel, which is joined, or a nick.
func (s *session) ResolveIdentifier(ctx context.Context, identifier string, create bool) (*bridgev2.ResolveIdentifierResponse, error) {
	name := strings.TrimSpace(identifier)
	if n, rest := splitID(name); s.network.connector.network(n) != nil && rest != "" {
		if n != s.network.ID {
			return nil, bridgev2.ErrResolveIdentifierTryNext
		}
		name = rest
	}
	isup := s.client.ISupport()
	if isup.IsChannel(name) {
		if !create {
			return nil, fmt.Errorf("%s is a channel, not a user", name)
		}
		ch, err := s.join(ctx, name, "")
		if err != nil {
			return nil, err
		}
		return &bridgev2.ResolveIdentifierResponse{
			UserID: networkid.UserID(s.network.portalID(ch.Name)), UserInfo: userInfo(ch.Name),
			Chat: &bridgev2.CreateChatResponse{PortalKey: s.network.channelKey(ch.Name), PortalInfo: s.channelInfo(ch)},
		}, nil
	}
	if err := checkNick(name, isup.NickLen()); err != nil {
		return nil, err
	}
	if s.network.fold(name) == s.network.fold(s.client.Nick()) {
		return nil, errors.New("that is your own nick")
	}
	if err := s.ask(ctx, "WHOIS", name); err != nil {
		return nil, err
	}
	ghost, err := s.network.connector.br.GetGhostByID(ctx, s.network.userID(name))
	if err != nil {
		return nil, err
	}
	info := userInfo(name)
	if known := bridge.Introduce(ctx, s.login, ghost.ID, nil); s.network.fold(known) == s.network.fold(name) {
		info = userInfo(known) // the way its owner writes it
	}
	out := &bridgev2.ResolveIdentifierResponse{Ghost: ghost, UserID: ghost.ID, UserInfo: info}
	if create {
		out.Chat = &bridgev2.CreateChatResponse{PortalKey: s.privateKey(name), PortalInfo: s.privateInfo(*info.Name)}
	}
	return out, nil
}
