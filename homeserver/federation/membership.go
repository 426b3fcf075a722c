package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/rs/zerolog"

	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// mostAsked is how many servers are asked to let a user in, one after the other.
const mostAsked = 10

// versions are the room versions that this server knows.
func versions() []string {
	var names []string
	for _, v := range matrix.Versions() {
		names = append(names, v.ID)
	}
	return names
}

// candidates are the servers that may let a user into a room, in the order in
// which they are asked: those that the client names and the one of who invited
// the user. Where there are none, it is those that were in the room, or the one
// that the room is called after.
func (s *Service) candidates(ctx context.Context, c room.Change, via []matrix.ServerName) ([]matrix.ServerName, error) {
	list := slices.DeleteFunc(slices.Clone(via), func(name matrix.ServerName) bool { return name == s.ServerName })
	r, err := s.Store.Room(ctx, c.Room)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err == nil {
		if m := s.Store.Membership(c.Actor, r.Num); m.Membership == event.Invite {
			e, err := s.Store.EventByNum(ctx, m.Event)
			if err != nil {
				return nil, err
			}
			list = append(list, e.PDU.Sender.Server())
		}
		if len(list) == 0 {
			if list, err = s.Store.Servers(ctx, r.Num); err != nil {
				return nil, err
			}
		}
	}
	if len(list) == 0 {
		list = append(list, c.Room.Server())
	}
	seen := map[matrix.ServerName]bool{"": true, s.ServerName: true}
	list = slices.DeleteFunc(list, func(name matrix.ServerName) bool {
		known := seen[name]
		seen[name] = true
		_, err := matrix.ParseServerName(string(name))
		return known || err != nil
	})
	return list[:min(len(list), mostAsked)], nil
}

// ask calls f for one server after the other until one does it. The error is
// that of the first which gave a reason.
func (s *Service) ask(ctx context.Context, servers []matrix.ServerName, f func(matrix.ServerName) error) error {
	first := error(matrix.Errorf(matrix.NotFound, "this server does not know the room, and no server that is in it"))
	for i, name := range servers {
		err := f(name)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errComplex) {
			return err
		}
		zerolog.Ctx(ctx).Info().Err(err).Str("server", string(name)).Msg("a server did not do what was asked for a user")
		if reason := refusal(err); i == 0 || reason != nil && !isRefusal(first) {
			first = err
			if reason != nil {
				first = reason
			}
		}
	}
	if isRefusal(first) {
		return first
	}
	return &matrix.Error{Code: matrix.Unknown, Status: 502, Text: "no server of the room could be reached", Cause: first}
}

// refusal is what another server said to a user, if it did.
func refusal(err error) error {
	var own *matrix.Error
	if errors.As(err, &own) {
		return own
	}
	var r *fedclient.ResponseError
	if errors.As(err, &r) && r.Status < 500 {
		return r.Matrix()
	}
	return nil
}

func isRefusal(err error) bool {
	var e *matrix.Error
	return errors.As(err, &e)
}

// Join makes a user of this server a member of a room, which other servers may
// have to let in: via are some that may be in it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3joinroomidoralias
func (s *Service) Join(ctx context.Context, c room.Change, via []matrix.ServerName) error {
	if c.Signed != nil {
		if err := s.claim(ctx, c); err != nil {
			return err
		}
	}
	resident, err := s.resident(ctx, c.Room)
	if err != nil {
		return err
	}
	if resident {
		err := s.Rooms.Join(ctx, c)
		var e *matrix.Error
		if !errors.As(err, &e) || e.Code != matrix.UnableToGrantJoin && e.Code != matrix.UnableToAuthoriseJoin {
			return err
		}
	}
	if err := s.Rooms.RefuseListed(ctx, c.Room); err != nil {
		return err
	}
	servers, err := s.candidates(ctx, c, via)
	if err != nil {
		return err
	}
	if err := s.refuseComplex(ctx, c, servers); err != nil {
		return err
	}
	c.Target, c.Membership = c.Actor, event.Join
	return s.ask(ctx, servers, func(name matrix.ServerName) error { return s.joinBy(ctx, name, c) })
}

// resident tells whether this server is in a room: by users of its own, or
// because nobody else is there either.
func (s *Service) resident(ctx context.Context, id matrix.RoomID) (bool, error) {
	r, err := s.Store.Room(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil || r.Current == 0 {
		return false, err
	}
	if len(s.Store.LocalMembers(r.Num)) > 0 {
		return true, nil
	}
	servers, err := s.Store.Servers(ctx, r.Num)
	return len(servers) == 0, err
}

// joinBy lets one server let a user in.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
func (s *Service) joinBy(ctx context.Context, server matrix.ServerName, c room.Change) error {
	t, err := s.Client.Insisting().MakeJoin(ctx, server, c.Room, c.Actor, versions())
	if err != nil {
		return err
	}
	join, err := s.Rooms.Complete(ctx, t.Version, t.Draft, c)
	if err != nil {
		return err
	}
	got := s.newArriving(t.Version, c.Room)
	if got.most, err = s.joinLimit(ctx, c.Actor); err != nil {
		return err
	}
	intake, err := s.Rooms.Intake(ctx, c.Room, t.Version)
	if err != nil {
		return err
	}
	var answer *fedclient.Joined
	err = got.read(ctx, func(ctx context.Context) (err error) {
		answer, err = s.Client.Insisting().SendJoin(ctx, server, join, false, got.add)
		return err
	}, intake.Take)
	if errors.Is(err, errComplex) {
		return s.unjoin(ctx, server, c)
	}
	if err != nil {
		return err
	}
	err = s.Rooms.Import(ctx, room.Joined{Event: answer.Event, State: got.state, Intake: intake})
	if err == nil {
		s.Rooms.Inherit(ctx, c.Room, c.Actor)
	}
	return err
}

// Knock asks to be invited to a room, of this server or of another.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3knockroomidoralias
func (s *Service) Knock(ctx context.Context, c room.Change, via []matrix.ServerName) error {
	resident, err := s.resident(ctx, c.Room)
	if err != nil {
		return err
	}
	if resident {
		return s.Rooms.Knock(ctx, c)
	}
	if err := s.Rooms.RefuseListed(ctx, c.Room); err != nil {
		return err
	}
	servers, err := s.candidates(ctx, c, via)
	if err != nil {
		return err
	}
	c.Target, c.Membership = c.Actor, event.Knock
	return s.ask(ctx, servers, func(name matrix.ServerName) error {
		t, err := s.Client.Insisting().MakeKnock(ctx, name, c.Room, c.Actor, versions())
		if err != nil {
			return err
		}
		p, err := s.Rooms.Complete(ctx, t.Version, t.Draft, c)
		if err != nil {
			return err
		}
		told, err := s.Client.Insisting().SendKnock(ctx, name, p)
		if err != nil {
			return err
		}
		stripped, err := s.stripped(c.Room, t.Version, told)
		if err != nil {
			return err
		}
		return s.Rooms.PutOutside(ctx, room.Outside{Version: t.Version, Event: p, Stripped: stripped})
	})
}

// Leave ends a membership, an invitation or a knock. Where no other server helps
// to decline an invitation, it is gone at least here.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites
func (s *Service) Leave(ctx context.Context, c room.Change) error {
	r, err := s.Store.Room(ctx, c.Room)
	if errors.Is(err, store.ErrNotFound) {
		return s.Rooms.Leave(ctx, c)
	}
	if err != nil {
		return err
	}
	m := s.Store.Membership(c.Actor, r.Num)
	resident, err := s.resident(ctx, c.Room)
	if err != nil {
		return err
	}
	if resident || m.Membership != event.Invite && m.Membership != event.Knock {
		return s.Rooms.Leave(ctx, c)
	}
	c.Target, c.Membership = c.Actor, event.Leave
	servers, err := s.candidates(ctx, c, nil)
	if err != nil {
		return err
	}
	var left *event.PDU
	err = s.ask(ctx, servers, func(name matrix.ServerName) (err error) {
		left, err = s.leaveBy(ctx, name, c)
		return err
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		zerolog.Ctx(ctx).Info().Err(err).Str("room", string(c.Room)).Msg("no server took a refusal of an invitation")
		if left, err = s.Rooms.Farewell(r.Version, c); err != nil {
			return err
		}
	}
	return s.Rooms.PutOutside(ctx, room.Outside{Version: r.Version, Event: left})
}

// leaveBy lets one server end a membership, and gives the event.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites
func (s *Service) leaveBy(ctx context.Context, server matrix.ServerName, c room.Change) (*event.PDU, error) {
	t, err := s.Client.Insisting().MakeLeave(ctx, server, c.Room, c.Actor)
	if err != nil {
		return nil, err
	}
	left, err := s.Rooms.Complete(ctx, t.Version, t.Draft, c)
	if err != nil {
		return nil, err
	}
	return left, s.Client.Insisting().SendLeave(ctx, server, left)
}

// Invite invites a user, of this server or of another, whose server is asked to
// take the invitation before the room gets it.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
func (s *Service) Invite(ctx context.Context, c room.Change) error {
	if s.local(c.Target) {
		return s.Rooms.Invite(ctx, c)
	}
	p, stripped, err := s.Rooms.Invitation(ctx, c)
	if err != nil {
		return err
	}
	if p, err = s.Rooms.Vetted(ctx, p); err != nil {
		return err
	}
	server := c.Target.Server()
	signed, err := s.Client.Insisting().Invite(ctx, server, p, stripped)
	if err != nil {
		if reason := refusal(err); reason != nil {
			return reason
		}
		return &matrix.Error{Code: matrix.Unknown, Status: 502, Text: fmt.Sprintf("%s could not be reached", server), Cause: err}
	}
	if err := s.Keys.VerifyEvents(ctx, []*event.PDU{signed})[0]; err != nil {
		return &matrix.Error{Code: matrix.Unknown, Status: 502, Text: fmt.Sprintf("the signature of %s is wrong", server), Cause: err}
	}
	status, err := s.Rooms.Receive(ctx, signed)
	if err == nil && status != store.Accepted {
		err = matrix.Errorf(matrix.Forbidden, "the room does not allow the invitation any more")
	}
	return err
}

// Create makes a room and invites those who are users of other servers. The room
// stays where an invitation does not arrive.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
func (s *Service) Create(ctx context.Context, c room.Creation) (matrix.RoomID, error) {
	addresses, err := s.invitees(c.Invite3PID)
	if err != nil {
		return "", err
	}
	id, err := s.Rooms.Create(ctx, c)
	if err != nil {
		return "", err
	}
	invite := room.Change{Room: id, Actor: c.Creator}
	if c.IsDirect {
		invite.Extra = json.RawMessage(`{"is_direct":true}`)
	}
	for _, who := range addresses {
		if err := s.InviteAddress(ctx, invite, who); err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Str("room", string(id)).Str("server", string(who.Name)).Msg("an address could not be invited to the new room")
		}
	}
	for _, u := range c.Invite {
		if s.local(u) {
			continue
		}
		invite.Target = u
		if err := s.Invite(ctx, invite); err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Str("room", string(id)).Str("user", string(u)).Msg("the user could not be invited to the new room")
		}
	}
	return id, nil
}
