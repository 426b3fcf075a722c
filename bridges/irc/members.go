package irc

import (
	"context"
	"fmt"
	"strings"
	"time"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/simplevent"
	"maunium.net/go/mautrix/event"

	"switchboard/bridges/bridge"
	"switchboard/bridges/irc/client"
)

// The power levels of the modes that a member of a channel may have. Whoever
// has levelModerate may kick in IRC, and so in Matrix.
const (
	levelOwner    = 95 // ~
	levelAdmin    = 75 // &
	levelOp       = 50 // @
	levelModerate = 40 // %
	levelVoice    = 10 // +
)

// levelOf is the power level of a member by the strongest mode.
func levelOf(modes string) int {
	for _, m := range []struct {
		mode  string
		level int
	}{{"q", levelOwner}, {"a", levelAdmin}, {"o", levelOp}, {"h", levelModerate}, {"v", levelVoice}} {
		if strings.Contains(modes, m.mode) {
			return m.level
		}
	}
	return 0
}

// levels are the power levels of a channel apart from those of its members.
func levels(ch client.Channel) *bridgev2.PowerLevelOverrides {
	topic, moderate, nobody, everybody := 0, levelModerate, 100, 0
	if _, protected := ch.Modes['t']; protected {
		topic = levelModerate
	}
	return &bridgev2.PowerLevelOverrides{
		Events: map[event.Type]int{event.StateTopic: topic, event.StateRoomName: nobody, event.StateRoomAvatar: nobody},
		Kick:   &moderate, Ban: &moderate, Invite: &everybody,
	}
}

func userInfo(nick string) *bridgev2.UserInfo { return &bridgev2.UserInfo{Name: &nick} }

// member is a member of a channel for the room. A login of ours is its Matrix
// user.
func (s *session) member(u client.Member) bridgev2.ChatMember {
	level := levelOf(u.Modes)
	m := bridgev2.ChatMember{EventSender: s.user(u.Nick), Membership: event.MembershipJoin, PowerLevel: &level}
	if m.Sender != "" {
		m.UserInfo = userInfo(u.Nick)
		bridge.Introduce(s.context(), s.login, m.Sender, m.UserInfo)
	}
	return m
}

// hidden reports whether a nick has no place in rooms: that of the relay.
func (s *session) hidden(nick string) bool {
	other := s.network.byNick(nick)
	return other != nil && other.relay()
}

// shown reports whether a member is shown in the room before writing anything.
func (s *session) shown(ch client.Channel, u client.Member) bool {
	return !s.hidden(u.Nick) && (len(ch.Members) <= s.network.MemberLimit || u.Modes != "" || s.network.byNick(u.Nick) != nil)
}

// coming is the arrival of a member.
func (s *session) coming(u client.Member) *bridgev2.ChatInfoChange {
	return &bridgev2.ChatInfoChange{MemberChanges: &bridgev2.ChatMemberList{
		MemberMap: bridgev2.ChatMemberMap{networkid.UserID(u.Nick): s.member(u)},
	}}
}

// going is the departure of a nick.
func (s *session) going(nick, reason string) *bridgev2.ChatInfoChange {
	m := bridgev2.ChatMember{EventSender: s.user(nick), Membership: event.MembershipLeave, PrevMembership: event.MembershipJoin}
	if reason != "" {
		m.MemberEventExtra = map[string]any{"reason": reason}
	}
	return &bridgev2.ChatInfoChange{MemberChanges: &bridgev2.ChatMemberList{
		MemberMap: bridgev2.ChatMemberMap{networkid.UserID(nick): m},
	}}
}

// channelInfo is everything about a channel that we are in.
func (s *session) channelInfo(ch client.Channel) *bridgev2.ChatInfo {
	members := &bridgev2.ChatMemberList{
		IsFull:    ch.Synced && len(ch.Members) <= s.network.MemberLimit,
		MemberMap: make(bridgev2.ChatMemberMap, len(ch.Members)), TotalMemberCount: len(ch.Members),
		PowerLevels: levels(ch), ExcludeChangesFromTimeline: true,
	}
	for _, u := range ch.Members {
		if s.shown(ch, u) {
			members.MemberMap[networkid.UserID(u.Nick)] = s.member(u)
		}
	}
	topic, _ := fromIRC(ch.Topic)
	kind := database.RoomTypeDefault
	return &bridgev2.ChatInfo{
		Name: &ch.Name, Topic: &topic, Type: &kind, Members: members,
		ExcludeChangesFromTimeline: true, ExtraUpdates: named(ch.Name),
	}
}

// privateInfo is everything about a private conversation.
func (s *session) privateInfo(nick string) *bridgev2.ChatInfo {
	kind := database.RoomTypeDM
	other := s.network.userID(nick)
	bridge.Introduce(s.context(), s.login, other, userInfo(nick))
	topic := fmt.Sprintf("Private messages with %s on %s", nick, s.network.Name)
	return &bridgev2.ChatInfo{
		Topic: &topic, Type: &kind, ExtraUpdates: named(nick),
		Members: &bridgev2.ChatMemberList{
			IsFull: true, OtherUserID: other,
			MemberMap: bridgev2.ChatMemberMap{
				"":    {EventSender: bridgev2.EventSender{IsFromMe: true}, Membership: event.MembershipJoin},
				other: {EventSender: bridgev2.EventSender{Sender: other}, Membership: event.MembershipJoin, UserInfo: userInfo(nick)},
			},
		},
	}
}

// named keeps the name of a room as the network writes it.
func named(name string) bridgev2.ExtraUpdater[*bridgev2.Portal] {
	return func(_ context.Context, p *bridgev2.Portal) bool {
		meta, ok := p.Metadata.(*PortalMetadata)
		if !ok || meta.Name == name {
			return false
		}
		meta.Name = name
		return true
	}
}

// target is the channel or nick of a room.
func (s *session) target(p *bridgev2.Portal) string {
	if meta, ok := p.Metadata.(*PortalMetadata); ok && meta.Name != "" {
		return meta.Name
	}
	_, name := splitID(string(p.ID))
	return name
}

// GetChatInfo implements bridgev2.NetworkAPI.
func (s *session) GetChatInfo(_ context.Context, p *bridgev2.Portal) (*bridgev2.ChatInfo, error) {
	name := s.target(p)
	isup := s.client.ISupport()
	if !isup.IsChannel(name) {
		return s.privateInfo(name), nil
	}
	ch, ok := s.client.Channel(name)
	if !ok {
		return nil, fmt.Errorf("you are not in %s", name)
	}
	return s.channelInfo(ch), nil
}

// GetUserInfo implements bridgev2.NetworkAPI.
func (s *session) GetUserInfo(_ context.Context, g *bridgev2.Ghost) (*bridgev2.UserInfo, error) {
	_, nick := splitID(string(g.ID))
	for _, w := range s.client.Wanted() {
		if ch, ok := s.client.Channel(w.Name); ok {
			if u, ok := ch.Member(s.client.Casemapping(), nick); ok {
				return userInfo(u.Nick), nil
			}
		}
	}
	if g.Name != "" {
		return nil, nil
	}
	return userInfo(nick), nil
}

func (s *session) onJoined(e client.Joined) {
	if e.Source.Own {
		s.saveChannels() // the room follows with Synced
		return
	}
	if s.network.byNick(e.Source.Name) != nil || !s.network.speaks(s, e.Channel) {
		return // our other logins tell of themselves
	}
	ch, ok := s.client.Channel(e.Channel)
	if u, in := ch.Member(s.client.Casemapping(), e.Source.Name); ok && in && s.shown(ch, u) {
		s.change(e.Channel, bridgev2.EventSender{Sender: s.network.userID(u.Nick)}, e.Time, s.coming(u))
	}
}

// onSynced brings the room of a channel up to date, or makes it, when we know
// who is there.
func (s *session) onSynced(channel string) {
	s.saveChannels()
	if s.network.speaks(s, channel) {
		bridge.Queue(s.login, s.synced(channel, true))
	} else if ch, ok := s.client.Channel(channel); ok && !s.relay() {
		if u, ok := ch.Member(s.client.Casemapping(), s.client.Nick()); ok {
			s.change(channel, bridgev2.EventSender{}, time.Now(), s.coming(u))
		}
	}
	key := s.network.fold(channel)
	s.flush(func(target string) bool { return s.network.fold(target) == key })
}

// resync makes the room of a channel what the channel is now.
func (s *session) resync(channel string) { bridge.Queue(s.login, s.synced(channel, false)) }

// synced is the event of resync, which may also create the room.
func (s *session) synced(channel string, create bool) bridgev2.RemoteEvent {
	meta := s.about(bridgev2.RemoteEventChatResync, s.network.channelKey(channel), bridgev2.EventSender{}, time.Now())
	meta.CreatePortal = create
	return &simplevent.ChatResync{
		EventMeta: meta,
		GetChatInfoFunc: func(context.Context, *bridgev2.Portal) (*bridgev2.ChatInfo, error) {
			ch, ok := s.client.Channel(channel)
			if !ok {
				return nil, fmt.Errorf("not in %s any more", channel)
			}
			return s.channelInfo(ch), nil
		},
	}
}

// onLeft handles that a nick is gone from a channel, by itself or thrown out by
// the source.
func (s *session) onLeft(src client.Source, nick, channel, reason string, at time.Time) {
	n := s.network
	own := n.fold(nick) == n.fold(s.client.Nick())
	if !own {
		if n.byNick(nick) == nil && n.speaks(s, channel) {
			s.change(channel, s.leaver(src, nick), at, s.going(nick, reason))
		}
		return
	}
	s.saveChannels()
	key := n.fold(channel)
	s.mu.Lock()
	wanted := s.leaving[key]
	delete(s.leaving, key)
	s.mu.Unlock()
	other := n.hush(s, channel)
	if s.relay() {
		s.notice(n.channelKey(channel), bridgev2.EventSender{}, at, fmt.Sprintf("The relay has left %s. %s", channel, reason))
	} else if !wanted {
		s.change(channel, s.leaver(src, nick), at, s.going(nick, reason))
	}
	s.failChannel(channel, fmt.Errorf("you are not in %s", channel))
	if other != nil && n.speaks(other, channel) {
		other.resync(channel)
	}
}

// leaver is who causes a departure: the one who leaves, or who throws out.
func (s *session) leaver(src client.Source, nick string) bridgev2.EventSender {
	if s.network.fold(src.Name) == s.network.fold(nick) {
		return s.user(nick)
	}
	return s.actor(src)
}

// split is a net split that is being counted, or waited for.
type split struct {
	users  int
	timers []*time.Timer
}

func (sp *split) stop() {
	for _, t := range sp.timers {
		t.Stop()
	}
}

// splitGather is how long the departures of one split are counted before the
// room is told.
const splitGather = 2 * time.Second

// onNetSplit tells of a split, or that it is over, in one line. The ghosts stay
// in the room for a while, because most come back.
func (s *session) onNetSplit(ctx context.Context, e client.NetSplit) {
	for channel, nicks := range e.Nicks {
		if !s.network.speaks(s, channel) {
			continue
		}
		key := fmt.Sprint(s.network.fold(channel), e.Servers, e.Healed)
		s.mu.Lock()
		sp := s.splits[key]
		if sp == nil {
			sp = &split{}
			s.splits[key] = sp
			sp.timers = append(sp.timers, time.AfterFunc(splitGather, func() {
				s.tasks.Add(ctx, func() { s.tellSplit(ctx, key, channel, e) })
			}))
		}
		sp.users += len(nicks)
		s.mu.Unlock()
	}
}

func (s *session) tellSplit(ctx context.Context, key, channel string, e client.NetSplit) {
	s.mu.Lock()
	sp := s.splits[key]
	delete(s.splits, key)
	s.mu.Unlock()
	if sp == nil {
		return
	}
	text := fmt.Sprintf("Net split between %s and %s: %d users are gone", e.Servers[0], e.Servers[1], sp.users)
	wait := s.network.SplitDelay
	if e.Healed {
		text = fmt.Sprintf("%s and %s found each other again: %d users are back", e.Servers[0], e.Servers[1], sp.users)
		wait = 0
	}
	s.notice(s.network.channelKey(channel), bridgev2.EventSender{}, time.Now(), text)
	resync := func() {
		if _, in := s.client.Channel(channel); in && s.network.speaks(s, channel) {
			s.resync(channel)
		}
	}
	if wait == 0 {
		resync()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	late := key + " late"
	if old := s.splits[late]; old != nil {
		old.stop()
	}
	s.splits[late] = &split{timers: []*time.Timer{time.AfterFunc(wait, func() { s.tasks.Add(ctx, resync) })}}
}
