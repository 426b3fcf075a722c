package xmpp

import (
	"context"
	"errors"
	"time"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/simplevent"
	"mellium.im/xmpp/jid"

	"switchboard/bridges/bridge"
	"switchboard/bridges/xmpp/client"
)

// target finds somebody in a room: by nick while they are there, by account if
// that is known.
func (s *session) target(room jid.JID, who bridgev2.GhostOrUserLogin) (o client.Occupant) {
	r, _ := s.client.Room(room)
	switch who := who.(type) {
	case *bridgev2.UserLogin:
		if other, ok := who.Client.(*session); ok {
			o = r.Occupants[other.client.NickIn(room)]
			o.JID = other.client.Account()
		}
	case *bridgev2.Ghost:
		j := parse(who.ID)
		o, _ = s.find(room, j)
		if j.Resourcepart() == "" {
			o.JID = j
		}
	}
	return o
}

// resync makes the Matrix room what the XMPP room is.
func (s *session) resync(room jid.JID) {
	s.lane(room).add(false, func(ctx context.Context) {
		bridge.Deliver(ctx, s.login, &simplevent.ChatResync{
			EventMeta: s.about(bridgev2.RemoteEventChatResync, room, bridgev2.EventSender{}, time.Now()), GetChatInfoFunc: s.GetChatInfo,
		})
	})
}

var (
	errUnseen = errors.New("the room does not show who that is, so only its moderators can do this")
	errNoRoom = errors.New("a chat between two has no members to change")
)

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
		return nil, failure(errNoRoom)
	}
	o, reason := s.target(room, msg.Target), msg.Content.Reason
	var err error
	switch msg.Type {
	case bridgev2.Kick:
		if o.Nick != "" {
			err = ask(ctx, func(ctx context.Context) error { return s.client.SetRole(ctx, room, o.Nick, "none", reason) })
		}
	case bridgev2.BanJoined, bridgev2.BanLeft, bridgev2.BanInvited, bridgev2.BanKnocked:
		err = s.affiliate(ctx, room, o, "outcast", reason)
	case bridgev2.Unban:
		err = s.affiliate(ctx, room, o, "none", reason)
	case bridgev2.Invite:
		if o.JID.Localpart() != "" {
			s.client.Invite(room, o.JID, reason)
		}
	}
	if err != nil { // the Matrix room shows what is not so on XMPP
		s.resync(room)
		return nil, failure(err)
	}
	return nil, nil
}

func (s *session) affiliate(ctx context.Context, room jid.JID, o client.Occupant, affiliation, reason string) error {
	if o.JID.Localpart() == "" {
		return errUnseen
	}
	return ask(ctx, func(ctx context.Context) error {
		return s.client.SetAffiliation(ctx, room, o.JID, affiliation, reason)
	})
}

// HandleMatrixPowerLevels implements bridgev2.PowerLevelHandlingNetworkAPI: the
// levels of people become affiliations and roles. What the room does not take,
// and the levels of anything else, are set back.
func (s *session) HandleMatrixPowerLevels(ctx context.Context, msg *bridgev2.MatrixPowerLevelChange) (bool, error) {
	room := parse(msg.Portal.ID)
	if _, is := s.room(room); !is {
		return false, failure(errNoRoom)
	}
	defer s.resync(room)
	for _, change := range msg.Users {
		if err := s.empower(ctx, room, s.target(room, change.Target), change.NewLevel); err != nil {
			return false, failure(err)
		}
	}
	return false, nil
}

// standing is what a power level is in a room: an affiliation for good, a role
// until somebody goes.
func standing(level int) (affiliation, role string) {
	switch {
	case level >= levelOwner:
		return "owner", "moderator"
	case level >= levelAdmin:
		return "admin", "moderator"
	case level >= levelModerator:
		return "", "moderator"
	case level < 0:
		return "", "visitor"
	}
	return "", "participant"
}

// empower gives somebody a power level.
func (s *session) empower(ctx context.Context, room jid.JID, o client.Occupant, level int) error {
	affiliation, role := standing(level)
	high := func(a string) bool { return a == "owner" || a == "admin" }
	switch {
	case high(affiliation) && affiliation != o.Affiliation:
		return s.affiliate(ctx, room, o, affiliation, "")
	case high(affiliation):
		return nil
	case high(o.Affiliation):
		if err := s.affiliate(ctx, room, o, "member", ""); err != nil {
			return err
		}
	case role == o.Role:
		return nil
	}
	if o.Nick == "" {
		return errors.New("they are not in the room")
	}
	return ask(ctx, func(ctx context.Context) error { return s.client.SetRole(ctx, room, o.Nick, role, "") })
}

// HandleMatrixRoomTopic implements bridgev2.RoomTopicHandlingNetworkAPI.
func (s *session) HandleMatrixRoomTopic(_ context.Context, msg *bridgev2.MatrixRoomTopic) (bool, error) {
	room := parse(msg.Portal.ID)
	if _, ok := s.room(room); !ok {
		return false, failure(errors.New("a chat between two has no topic on XMPP"))
	}
	before := msg.Portal.Topic
	subject := client.Post{To: room, Group: true, ID: string(msg.Event.ID)}.Subject(msg.Content.Topic)
	s.sendAnd(s.lane(room), msg.Event, subject, func(err error) {
		if err != nil { // the Matrix room shows what is not so on XMPP
			s.setTopic(room, before)
		}
	})
	msg.Portal.Topic, msg.Portal.TopicSet = msg.Content.Topic, true
	return true, nil
}

// setTopic shows the topic that a room has.
func (s *session) setTopic(room jid.JID, topic string) {
	s.lane(room).add(false, func(ctx context.Context) {
		bridge.Deliver(ctx, s.login, &simplevent.ChatInfoChange{
			EventMeta:      s.about(bridgev2.RemoteEventChatInfoChange, room, bridgev2.EventSender{}, time.Now()),
			ChatInfoChange: &bridgev2.ChatInfoChange{ChatInfo: &bridgev2.ChatInfo{Topic: &topic}},
		})
	})
}
