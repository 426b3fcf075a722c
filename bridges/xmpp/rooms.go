package xmpp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/simplevent"
	"maunium.net/go/mautrix/event"
	"mellium.im/xmpp/jid"

	"switchboard/bridges/bridge"
	"switchboard/bridges/xmpp/client"
)

// info asks a room what it is.
func (s *session) info(ctx context.Context, room jid.JID) (info client.RoomInfo, err error) {
	err = ask(ctx, func(ctx context.Context) (err error) { info, err = s.client.Info(ctx, room); return err })
	return info, err
}

// roomInfo is everything about a room that we are in.
func (s *session) roomInfo(ctx context.Context, room jid.JID) (*bridgev2.ChatInfo, error) {
	r, in := s.client.Room(room)
	if !in {
		return nil, fmt.Errorf("you are not in %s", room)
	}
	info, err := s.info(ctx, room)
	if err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("a room does not say what it is")
	}
	s.changeRoom(room, func(st *RoomState) { st.Open = err == nil && !info.Anonymous })
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
		if m, ok := s.member(ctx, room, o); ok {
			members.MemberMap[m.Sender] = m
		}
	}
	kind := database.RoomTypeDefault
	out := &bridgev2.ChatInfo{Name: &name, Type: &kind, Members: members, ExcludeChangesFromTimeline: true}
	if info.Avatar != "" {
		out.Avatar = s.avatar(room, info.Avatar)
	}
	return out, nil
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
	var rooms []string
	s.update(func(m *LoginMetadata) { rooms = slices.Collect(maps.Keys(m.Rooms)) })
	for _, room := range rooms {
		s.reenter(parse(room))
	}
}

// onBookmark follows another client of the account into a room, or out of it. It
// runs in the room's lane.
func (s *session) onBookmark(ctx context.Context, b client.Bookmark) {
	_, in := s.room(b.Room)
	switch {
	case b.AutoJoin && !in && shown(b.Room):
		s.setRoom(b.Room, func(st *RoomState) { st.Nick, st.Password = cmp.Or(b.Nick, s.nick()), b.Password })
		s.save(true)
		s.reenter(b.Room)
	case !b.AutoJoin && in:
		s.quit(ctx, b.Room, "")
	}
}

// reenter goes into a room behind all that is to be done for it. While its server
// can not be reached it tries again, less and less often.
func (s *session) reenter(room jid.JID) {
	l := s.lane(room)
	l.comeBack(0, nil)
	l.add(false, func(ctx context.Context) { s.tryAgain(ctx, l, firstReturn) })
}

// The times between attempts to go back into a room.
const (
	firstReturn = 5 * time.Second
	lastReturn  = 15 * time.Minute
)

// tryAgain goes into a room, or after a pause tries once more. It runs in the
// room's lane.
func (s *session) tryAgain(ctx context.Context, l *lane, pause time.Duration) {
	err := s.enter(ctx, l.room)
	online := s.client.Online()
	switch {
	case err == nil || ctx.Err() != nil:
		return
	case online && !client.Passing(err):
		bridge.Note(ctx, s.login, "%s could not be entered again: %v", l.room, err)
		return
	case online && pause == firstReturn:
		bridge.Note(ctx, s.login, "%s can not be reached: %v. The bridge tries again by itself.", l.room, err)
	}
	l.comeBack(pause, func() {
		l.add(false, func(ctx context.Context) {
			if _, in := s.client.Room(l.room); !in {
				s.tryAgain(ctx, l, min(2*pause, lastReturn))
			}
		})
	})
}

// present goes back into a room that has forgotten us (XEP-0410).
func (s *session) present(ctx context.Context, l *lane) {
	if _, in := s.client.Room(l.room); !in {
		return
	}
	err := ask(ctx, func(ctx context.Context) error { return s.client.PingRoom(ctx, l.room) })
	if client.NotThere(err) {
		zerolog.Ctx(ctx).Info().Str("server", l.room.Domainpart()).Msg("a room has forgotten a user, who goes back")
		s.reenter(l.room)
	}
}

// watch asks all rooms now and then whether we are still there.
func (s *session) watch(ctx context.Context) {
	if s.connector.config.RoomCheck <= 0 {
		return
	}
	tick := time.NewTicker(s.connector.config.RoomCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, l := range s.all() {
			if l != s.account && s.client.Online() {
				l.add(false, func(ctx context.Context) { s.present(ctx, l) })
			}
		}
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
	info, err := s.info(ctx, room)
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
		if err := s.reread(ctx, l, true); err != nil {
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
	if ask(ctx, s.awaitLink) != nil { // after a log-in it is about to come
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

// leave goes out of a room for good, with the account's other clients. Left is
// closed when that is done.
func (s *session) leave(ctx context.Context, room jid.JID, reason string) (left <-chan struct{}) {
	done := make(chan struct{})
	st, known := s.room(room)
	s.lane(room).add(false, func(ctx context.Context) {
		defer close(done)
		s.quit(ctx, room, reason)
	})
	if !known {
		return done
	}
	err := ask(ctx, func(ctx context.Context) error {
		return s.client.SetBookmark(ctx, client.Bookmark{Room: room, Nick: st.Nick, Password: st.Password})
	})
	if err != nil {
		zerolog.Ctx(ctx).Debug().Err(err).Msg("a bookmark could not be changed")
	}
	return done
}

// quit goes out of a room. It runs in the room's lane: what is about to be entered
// could not be left.
func (s *session) quit(ctx context.Context, room jid.JID, reason string) {
	self := bridgev2.EventSender{IsFromMe: true, SenderLogin: s.login.ID, Sender: s.GetUserID()}
	if s.exists(ctx, room) { // by a command; who left on Matrix is gone already
		bridge.Queue(s.login, s.changed(room, self, gone(self, client.Left, reason)))
	}
	s.client.Leave(room, reason)
	s.dropRoom(room)
	s.lane(room).setReady(false)
	s.lane(room).fail(fmt.Errorf("you have left %s", room))
}

// change makes a change of who is in a room.
func (s *session) change(ctx context.Context, room jid.JID, by bridgev2.EventSender, m bridgev2.ChatMember) {
	if m.Sender != "" && s.exists(ctx, room) {
		bridge.Deliver(ctx, s.login, s.changed(room, by, m))
	}
}

func (s *session) changed(room jid.JID, by bridgev2.EventSender, m bridgev2.ChatMember) bridgev2.RemoteEvent {
	return &simplevent.ChatInfoChange{
		EventMeta:      s.about(bridgev2.RemoteEventChatInfoChange, room, by, time.Now()),
		ChatInfoChange: &bridgev2.ChatInfoChange{MemberChanges: &bridgev2.ChatMemberList{MemberMap: bridgev2.ChatMemberMap{m.Sender: m}}},
	}
}

func (s *session) onHere(ctx context.Context, e client.OccupantHere) {
	r, in := s.client.Room(e.Room)
	if !in || len(r.Occupants) > s.connector.config.MemberLimit && levelOf(e.Occupant) <= 0 && e.Nick != r.Nick {
		return
	}
	if m, ok := s.member(ctx, e.Room, e.Occupant); ok {
		s.change(ctx, e.Room, bridgev2.EventSender{}, m)
	}
}

// gone is a membership that ends.
func gone(sender bridgev2.EventSender, how client.Departure, reason string) bridgev2.ChatMember {
	m := bridgev2.ChatMember{EventSender: sender, Membership: event.MembershipLeave}
	if how == client.Banned {
		m.Membership = event.MembershipBan
	}
	if reason != "" {
		m.MemberEventExtra = map[string]any{"reason": reason}
	}
	return m
}

func (s *session) onGone(ctx context.Context, e client.OccupantGone) {
	who := s.occupant(e.Room, e.Occupant)
	actor := bridgev2.EventSender{}
	switch {
	case e.Actor != "":
		actor = s.occupant(e.Room, client.Occupant{Nick: e.Actor})
	case e.How != client.Banned && e.How != client.Kicked:
		actor = who
	}
	if e.Self {
		s.onThrownOut(ctx, e, actor)
		return
	}
	if who.SenderLogin != "" {
		return // another login of ours, which sees it itself
	}
	if _, still := s.find(e.Room, parse(who.Sender)); !still { // under no other nick either
		m := gone(who, e.How, e.Reason)
		if r, _ := s.client.Room(e.Room); len(r.Occupants) > s.connector.config.MemberLimit {
			m.PrevMembership = event.MembershipJoin // not all are shown
		}
		s.change(ctx, e.Room, actor, m)
	}
}

// onThrownOut handles that we are in a room no more, unless it was our will.
func (s *session) onThrownOut(ctx context.Context, e client.OccupantGone, actor bridgev2.EventSender) {
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
	self := bridgev2.EventSender{IsFromMe: true, SenderLogin: s.login.ID, Sender: s.GetUserID()}
	s.change(ctx, e.Room, actor, gone(self, e.How, why))
	l.fail(fmt.Errorf("you are not in %s", e.Room))
	s.dropRoom(e.Room)
	bridge.Note(ctx, s.login, "%s: %s. Say `join %s` to try to go back.", e.Room, why, e.Room)
}

// onRenamed follows a new nick: a ghost that is an account keeps its name, one
// that the room knows by another ID takes the nick, and one that is a nick goes,
// and another comes.
func (s *session) onRenamed(ctx context.Context, e client.OccupantRenamed) {
	if e.Self {
		s.changeRoom(e.Room, func(st *RoomState) { st.Nick = e.To })
		s.save(true)
		return
	}
	next, ok := s.member(ctx, e.Room, e.Occupant)
	if !ok || next.SenderLogin != "" {
		return
	}
	s.change(ctx, e.Room, next.EventSender, next)
	old := bridgev2.EventSender{Sender: userID(s.person(e.Room, e.From))}
	if old.Sender != next.Sender {
		s.change(ctx, e.Room, old, gone(old, client.Left, "is now known as "+e.To))
	}
}
