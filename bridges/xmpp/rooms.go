package xmpp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/simplevent"
	"maunium.net/go/mautrix/event"
	"mellium.im/xmpp/jid"

	"switchboard/bridges/bridge"
	"switchboard/bridges/xmpp/client"
)

// The power levels of people in a room.
const (
	levelOwner     = 95
	levelAdmin     = 75
	levelModerator = 50
	levelVisitor   = -1
)

func levelOf(o client.Occupant) int {
	switch {
	case o.Affiliation == "owner":
		return levelOwner
	case o.Affiliation == "admin":
		return levelAdmin
	case o.Role == "moderator":
		return levelModerator
	case o.Role == "visitor":
		return levelVisitor
	}
	return 0
}

// occupant is the sender of what somebody in a room does.
func (s *session) occupant(full jid.JID) bridgev2.EventSender {
	nick := full.Resourcepart()
	if nick == "" {
		return bridgev2.EventSender{}
	}
	st, _ := s.room(full.Bare())
	r, in := s.client.Room(full.Bare())
	if in && nick == r.Nick || !in && nick == st.Nick {
		return bridgev2.EventSender{IsFromMe: true, Sender: s.GetUserID()}
	}
	return bridgev2.EventSender{Sender: s.occupantID(full.Bare(), r.Occupants[nick], nick)}
}

// occupantID is the ghost of somebody in a room: that of the account where the
// room shows it, and there are no two of it in the room.
func (s *session) occupantID(room jid.JID, o client.Occupant, nick string) networkid.UserID {
	if shown(o.JID) {
		return userID(o.JID)
	}
	full, err := room.WithResource(nick)
	if err != nil || !shown(full) {
		return ""
	}
	return userID(full)
}

// member is somebody in a room, for the room.
func (s *session) member(room jid.JID, o client.Occupant) (bridgev2.ChatMember, bool) {
	full, err := room.WithResource(o.Nick)
	if err != nil {
		return bridgev2.ChatMember{}, false
	}
	level := levelOf(o)
	m := bridgev2.ChatMember{EventSender: s.occupant(full), Membership: event.MembershipJoin, PowerLevel: &level}
	if m.IsFromMe {
		return m, true
	}
	info := &bridgev2.UserInfo{Identifiers: []string{"xmpp:" + string(m.Sender)}}
	if name := cmp.Or(s.known(o.JID), o.Nick); !shown(o.JID) || s.unnamed(m.Sender) {
		info.Name = &name
	}
	if o.Photo != "" {
		info.Avatar = s.avatar(full, o.Photo)
	}
	m.UserInfo = info
	return m, m.Sender != ""
}

// unnamed reports whether a ghost has no name yet. In each room the same account
// may have another nick; the first one that is seen stays.
func (s *session) unnamed(id networkid.UserID) bool {
	ghost, err := s.connector.br.GetExistingGhostByID(s.context(), id)
	return err != nil || ghost == nil || ghost.Name == ""
}

// roomInfo is everything about a room that we are in.
func (s *session) roomInfo(ctx context.Context, room jid.JID) (*bridgev2.ChatInfo, error) {
	r, in := s.client.Room(room)
	if !in {
		return nil, fmt.Errorf("you are not in %s", room)
	}
	var info client.RoomInfo
	if err := ask(ctx, func(ctx context.Context) (err error) { info, err = s.client.Info(ctx, room); return err }); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("a room does not say what it is")
	}
	name := info.Name
	if name == "" || name == room.Localpart() {
		name = room.String()
	}
	limit := s.connector.config.MemberLimit
	members := &bridgev2.ChatMemberList{
		IsFull: len(r.Occupants) <= limit, TotalMemberCount: len(r.Occupants), MemberMap: make(bridgev2.ChatMemberMap, len(r.Occupants)),
		PowerLevels: levels(info), ExcludeChangesFromTimeline: true,
	}
	for nick, o := range r.Occupants {
		if len(r.Occupants) > limit && levelOf(o) <= 0 && nick != r.Nick {
			continue
		}
		if m, ok := s.member(room, o); ok {
			members.MemberMap[m.Sender] = m
		}
	}
	kind := database.RoomTypeDefault
	return &bridgev2.ChatInfo{Name: &name, Type: &kind, Members: members, ExcludeChangesFromTimeline: true}, nil
}

// levels are the power levels of a room apart from those of its members.
func levels(info client.RoomInfo) *bridgev2.PowerLevelOverrides {
	moderate, nobody, everybody, topic := levelModerator, 100, 0, levelModerator
	if info.SubjectKnown && info.SubjectByAll {
		topic = 0
	}
	return &bridgev2.PowerLevelOverrides{
		Events:        map[event.Type]int{event.StateTopic: topic, event.StateRoomName: nobody, event.StateRoomAvatar: nobody},
		EventsDefault: &everybody, Kick: &moderate, Ban: &moderate, Redact: &moderate, Invite: &everybody,
	}
}

// nick is the nick that the user has in new rooms.
func (s *session) nick() string {
	return parse(s.login.ID).Localpart()
}

// enterRooms goes into the rooms that the account's clients go into, and those
// that were entered here.
func (s *session) enterRooms(ctx context.Context) {
	var list []client.Bookmark
	if err := ask(ctx, func(ctx context.Context) (err error) { list, err = s.client.Bookmarks(ctx); return err }); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("the bookmarks could not be read")
	}
	for _, b := range list {
		if _, ok := s.room(b.Room); !ok && b.AutoJoin && shown(b.Room) {
			s.setRoom(b.Room, func(st *RoomState) { st.Nick, st.Password = cmp.Or(b.Nick, s.nick()), b.Password })
		}
	}
	s.saving.Lock()
	var rooms []string
	for room := range s.meta().Rooms {
		rooms = append(rooms, room)
	}
	s.saving.Unlock()
	for _, room := range rooms {
		j := parse(room)
		s.lane(j).add(false, func(ctx context.Context) {
			if err := s.enter(ctx, j); err != nil && ctx.Err() == nil && s.client.Online() {
				bridge.Note(ctx, s.login, "%s could not be entered again: %v", j, err)
			}
		})
	}
}

// enter goes into a room, makes its Matrix room what it is now, and reads what
// was said meanwhile. It runs in the room's lane.
func (s *session) enter(ctx context.Context, room jid.JID) error {
	st, ok := s.room(room)
	if !ok {
		return nil // it was left meanwhile
	}
	l := s.lane(room)
	l.setReady(false)
	var info client.RoomInfo
	err := ask(ctx, func(ctx context.Context) (err error) { info, err = s.client.Info(ctx, room); return err })
	var refused *client.StanzaError
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	in := client.Enter{Room: room, Nick: st.Nick, Password: st.Password}
	if !info.Archived {
		in.History = s.connector.config.History
	}
	var nick string
	if err = ask(ctx, func(ctx context.Context) (err error) { nick, err = s.client.Enter(ctx, in); return err }); err != nil {
		l.fail(fmt.Errorf("you are not in %s: %w", room, err))
		return err
	}
	if nick != st.Nick {
		bridge.Note(ctx, s.login, "The nick %s is taken in %s. You are %s there.", st.Nick, room, nick)
	}
	meta := s.about(bridgev2.RemoteEventChatResync, room, bridgev2.EventSender{}, time.Now())
	meta.CreatePortal = true
	if !bridge.Deliver(ctx, s.login, &simplevent.ChatResync{EventMeta: meta, GetChatInfoFunc: s.GetChatInfo}) {
		return ctx.Err()
	}
	if info.Archived {
		if err = s.recall(ctx, l, true); err == nil {
			err = s.catchUp(ctx, room)
		}
		if err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Msg("the archive of a room could not be read")
		}
		l.setReady(true)
		return nil
	}
	// The history is on its way, and before the answer to a ping.
	_ = ask(ctx, func(ctx context.Context) error { return s.client.PingRoom(ctx, room) })
	l.add(false, func(ctx context.Context) {
		_ = s.recall(ctx, l, false) // there is nothing that could fail
		l.setReady(true)
	})
	return nil
}

// join enters a room for good and waits until its Matrix room is there.
func (s *session) join(ctx context.Context, room jid.JID, nick, password string) error {
	if !s.client.Online() {
		return client.ErrOffline
	}
	if _, in := s.client.Room(room); in && s.exists(ctx, room) {
		return nil
	}
	s.setRoom(room, func(st *RoomState) {
		st.Nick, st.Password = cmp.Or(nick, st.Nick, s.nick()), cmp.Or(password, st.Password)
	})
	done := make(chan error, 1)
	s.lane(room).add(false, func(ctx context.Context) { done <- s.enter(ctx, room) })
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		s.dropRoom(room)
		return err
	}
	s.save(true)
	st, _ := s.room(room)
	err = ask(ctx, func(ctx context.Context) error {
		return s.client.SetBookmark(ctx, client.Bookmark{Room: room, Nick: st.Nick, Password: st.Password, AutoJoin: true})
	})
	if err != nil {
		zerolog.Ctx(ctx).Debug().Err(err).Msg("a bookmark could not be set")
	}
	return nil
}

// leave goes out of a room for good.
func (s *session) leave(ctx context.Context, room jid.JID, reason string) {
	st, known := s.room(room)
	s.client.Leave(room, reason)
	s.dropRoom(room)
	if known {
		err := ask(ctx, func(ctx context.Context) error {
			return s.client.SetBookmark(ctx, client.Bookmark{Room: room, Nick: st.Nick, Password: st.Password})
		})
		if err != nil {
			zerolog.Ctx(ctx).Debug().Err(err).Msg("a bookmark could not be changed")
		}
	}
	s.lane(room).setReady(false)
	s.lane(room).fail(fmt.Errorf("you have left %s", room))
}

// change queues a change of who is in a room.
func (s *session) change(ctx context.Context, room jid.JID, by bridgev2.EventSender, m bridgev2.ChatMember) {
	if m.Sender == "" || !s.exists(ctx, room) {
		return
	}
	bridge.Deliver(ctx, s.login, &simplevent.ChatInfoChange{
		EventMeta:      s.about(bridgev2.RemoteEventChatInfoChange, room, by, time.Now()),
		ChatInfoChange: &bridgev2.ChatInfoChange{MemberChanges: &bridgev2.ChatMemberList{MemberMap: bridgev2.ChatMemberMap{m.Sender: m}}},
	})
}

func (s *session) onHere(ctx context.Context, e client.OccupantHere) {
	r, in := s.client.Room(e.Room)
	if !in || len(r.Occupants) > s.connector.config.MemberLimit && levelOf(e.Occupant) <= 0 && e.Nick != r.Nick {
		return
	}
	if m, ok := s.member(e.Room, e.Occupant); ok {
		s.change(ctx, e.Room, bridgev2.EventSender{}, m)
	}
}

// gone is a membership that ends.
func gone(sender bridgev2.EventSender, how client.Departure, reason string) bridgev2.ChatMember {
	m := bridgev2.ChatMember{EventSender: sender, Membership: event.MembershipLeave, PrevMembership: event.MembershipJoin}
	if how == client.Banned {
		m.Membership = event.MembershipBan
	}
	if reason != "" {
		m.MemberEventExtra = map[string]any{"reason": reason}
	}
	return m
}

func (s *session) onGone(ctx context.Context, e client.OccupantGone) {
	actor := bridgev2.EventSender{}
	if full, err := e.Room.WithResource(e.Actor); err == nil && e.Actor != "" {
		actor = s.occupant(full)
	}
	if e.Self {
		s.onThrownOut(ctx, e)
		return
	}
	id := s.occupantID(e.Room, e.Occupant, e.Nick)
	if r, in := s.client.Room(e.Room); in && shown(e.JID) {
		for _, o := range r.Occupants {
			if o.JID.Equal(e.JID) {
				return // the account is there under another nick, too
			}
		}
	}
	sender := bridgev2.EventSender{Sender: id}
	if actor.Sender == "" {
		actor = sender
		if e.How == client.Banned || e.How == client.Kicked {
			actor = bridgev2.EventSender{}
		}
	}
	s.change(ctx, e.Room, actor, gone(sender, e.How, e.Reason))
}

// onThrownOut handles that we are in a room no more, unless it was our will.
func (s *session) onThrownOut(ctx context.Context, e client.OccupantGone) {
	if _, wanted := s.room(e.Room); !wanted {
		return
	}
	l := s.lane(e.Room)
	l.setReady(false)
	var why string
	switch e.How {
	case client.Kicked, client.Banned:
		why = fmt.Sprintf("You were %s", e.How)
		if e.Actor != "" {
			why += " by " + e.Actor
		}
	case client.Destroyed:
		why = "The room was destroyed"
		if e.Alternate.Localpart() != "" {
			why += "; it goes on at " + e.Alternate.String()
		}
	case client.Removed:
		why = "The room does not keep you in"
	default: // lost, or another client of ours left with the same nick: go back
		if err := s.enter(ctx, e.Room); err == nil {
			return
		}
		why = "The room can not be reached"
	}
	if e.Reason != "" {
		why += ": " + e.Reason
	}
	s.notice(ctx, e.Room, time.Now(), why+". Say `join "+e.Room.String()+"` to the bot to try to go back.")
	l.fail(fmt.Errorf("you are not in %s", e.Room))
	s.dropRoom(e.Room)
}

// onRenamed follows a new nick: of a ghost that is an account the name stays;
// one that is a nick goes, and another comes.
func (s *session) onRenamed(ctx context.Context, e client.OccupantRenamed) {
	if e.Self {
		s.setRoom(e.Room, func(st *RoomState) { st.Nick = e.To })
		s.save(true)
		return
	}
	if shown(e.From.JID) {
		return
	}
	next, ok := s.member(e.Room, e.Occupant)
	if !ok {
		return
	}
	s.change(ctx, e.Room, next.EventSender, next)
	old := bridgev2.EventSender{Sender: s.occupantID(e.Room, e.From, e.From.Nick)}
	s.change(ctx, e.Room, old, gone(old, client.Left, "is now known as "+e.To))
}

// target finds somebody in a room by their ghost: the nick, and the account if
// the room shows it.
func (s *session) target(room jid.JID, who bridgev2.GhostOrUserLogin) (nick string, account jid.JID) {
	ghost, ok := who.(*bridgev2.Ghost)
	if !ok {
		return "", jid.JID{}
	}
	j := parse(ghost.ID)
	if j.Bare().Equal(room) {
		nick = j.Resourcepart()
		r, _ := s.client.Room(room)
		return nick, r.Occupants[nick].JID
	}
	if r, in := s.client.Room(room); in {
		var nicks []string
		for _, o := range r.Occupants {
			if o.JID.Equal(j) {
				nicks = append(nicks, o.Nick)
			}
		}
		slices.Sort(nicks)
		nick = strings.Join(nicks[:min(1, len(nicks))], "")
	}
	return nick, j
}

// HandleMatrixMembership implements bridgev2.MembershipHandlingNetworkAPI.
func (s *session) HandleMatrixMembership(ctx context.Context, msg *bridgev2.MatrixMembershipChange) (*bridgev2.MatrixMembershipResult, error) {
	room := parse(msg.Portal.ID)
	_, is := s.room(room)
	if msg.Type.IsSelf {
		if msg.Type == bridgev2.Leave && is {
			s.leave(ctx, room, msg.Content.Reason)
		}
		return nil, nil
	}
	if !is {
		return nil, failure(errors.New("a chat between two has no members to change"))
	}
	nick, account := s.target(room, msg.Target)
	reason := msg.Content.Reason
	var err error
	switch msg.Type {
	case bridgev2.Kick:
		if nick != "" {
			err = ask(ctx, func(ctx context.Context) error { return s.client.SetRole(ctx, room, nick, "none", reason) })
		}
	case bridgev2.BanJoined, bridgev2.BanLeft, bridgev2.BanInvited, bridgev2.BanKnocked:
		err = s.affiliate(ctx, room, account, "outcast", reason)
	case bridgev2.Unban:
		err = s.affiliate(ctx, room, account, "none", reason)
	case bridgev2.Invite:
		if account.Localpart() != "" {
			s.client.Invite(room, account, reason)
		}
	}
	if err != nil { // the room shows what is not so on XMPP
		s.lane(room).add(false, func(ctx context.Context) {
			bridge.Deliver(ctx, s.login, &simplevent.ChatResync{
				EventMeta: s.about(bridgev2.RemoteEventChatResync, room, bridgev2.EventSender{}, time.Now()), GetChatInfoFunc: s.GetChatInfo,
			})
		})
		return nil, failure(err)
	}
	return nil, nil
}

func (s *session) affiliate(ctx context.Context, room, account jid.JID, affiliation, reason string) error {
	if account.Localpart() == "" {
		return errors.New("the room does not show who that is, so only its moderators can do this")
	}
	return ask(ctx, func(ctx context.Context) error {
		return s.client.SetAffiliation(ctx, room, account, affiliation, reason)
	})
}

// HandleMatrixRoomTopic implements bridgev2.RoomTopicHandlingNetworkAPI.
func (s *session) HandleMatrixRoomTopic(_ context.Context, msg *bridgev2.MatrixRoomTopic) (bool, error) {
	room := parse(msg.Portal.ID)
	if _, ok := s.room(room); !ok {
		return false, failure(errors.New("a chat between two has no topic on XMPP"))
	}
	s.send(s.lane(room), msg.Event, client.Post{To: room, Group: true, ID: string(msg.Event.ID)}.Subject(msg.Content.Topic))
	msg.Portal.Topic, msg.Portal.TopicSet = msg.Content.Topic, true
	return true, nil
}
