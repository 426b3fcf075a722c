package room

import (
	"context"
	"encoding/json"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
)

// Complete makes an event of what another server drafted for a membership of a
// user of this one: it gets the user's profile, and is hashed and signed. The
// caller has checked that the draft is what was asked for.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
func (s *Service) Complete(ctx context.Context, v *matrix.RoomVersion, d event.Draft, c Change) (*event.PDU, error) {
	var drafted struct {
		Via *string `json:"join_authorised_via_users_server"`
	}
	if err := json.Unmarshal(d.Content, &drafted); err != nil {
		return nil, matrix.Errorf(matrix.Unknown, "the other server's template is not an event")
	}
	o := object{"membership": c.Membership}
	if drafted.Via != nil {
		o["join_authorised_via_users_server"] = *drafted.Via
	}
	if c.Reason != nil {
		o["reason"] = *c.Reason
	}
	if c.Membership != event.Leave {
		if err := s.addProfile(ctx, o, c.Actor); err != nil {
			return nil, err
		}
	}
	d.Content = o.raw()
	if c.At != 0 {
		d.OriginServerTS = c.At
	}
	return event.Build(v, d, s.ServerName, s.Key)
}

// Farewell makes the event by which a user of this server leaves a room that no
// server lets them leave any more. Nobody else gets it.
func (s *Service) Farewell(v *matrix.RoomVersion, c Change) (*event.PDU, error) {
	key := string(c.Actor)
	return event.Build(v, event.Draft{
		Room: c.Room, Type: event.TypeMember, Sender: c.Actor, StateKey: &key, Content: object{"membership": event.Leave}.raw(),
		Depth: 1, OriginServerTS: now(), Hashes: map[matrix.EventID]string{},
	}, s.ServerName, s.Key)
}

// Invitation makes the event by which a user of another server is invited, and
// what that server is told of the room. It is not part of the room before the
// other server has signed it and Receive has taken it.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
func (s *Service) Invitation(ctx context.Context, c Change) (*event.PDU, []json.RawMessage, error) {
	c.Membership = event.Invite
	defer s.locks.lock(c.Room)()
	r, err := s.joinedRoom(ctx, c.Room, c.Actor)
	if err != nil {
		return nil, nil, err
	}
	h, err := s.open(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	old := h.view.Event(event.TypeMember, string(c.Target))
	if err := s.refuse(h, c, old); err != nil {
		return nil, nil, err
	}
	content, err := s.memberContent(ctx, h, c, old)
	if err != nil {
		return nil, nil, err
	}
	key := string(c.Target)
	p, err := s.build(h, draft{Type: event.TypeMember, StateKey: &key, Sender: c.Actor, Content: content, At: c.At})
	if err != nil {
		return nil, nil, err
	}
	stripped, err := s.Stripped(ctx, r.Current, c.Actor)
	return p, stripped, err
}
