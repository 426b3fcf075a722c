package federation

import (
	"context"
	"encoding/json"
	"errors"

	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
)

// mostBound is how many invitations may wait for one address.
const mostBound = 50

// Exchange invites a user of another server in the name of one of ours, who
// invited the user's address on another network. The room's rules check that
// the address is the user's.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid
func (s *Service) Exchange(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, member json.RawMessage) error {
	if _, err := s.room(ctx, origin, id); err != nil {
		return err
	}
	var m struct {
		Type     string          `json:"type"`
		Room     matrix.RoomID   `json:"room_id"`
		Sender   matrix.UserID   `json:"sender"`
		StateKey matrix.UserID   `json:"state_key"`
		Content  json.RawMessage `json:"content"`
	}
	if err := json.Unmarshal(member, &m); err != nil {
		return matrix.Errorf(matrix.BadJSON, "the body is not an event")
	}
	var c struct {
		Membership string `json:"membership"`
		ThirdParty struct {
			Signed json.RawMessage `json:"signed"`
		} `json:"third_party_invite"`
	}
	if json.Unmarshal(m.Content, &c) != nil || m.Type != event.TypeMember || m.Room != id || c.Membership != event.Invite || c.ThirdParty.Signed == nil {
		return matrix.Errorf(matrix.InvalidParam, "the event is not an invitation of an address to this room")
	}
	if _, err := matrix.ParseUserID(string(m.Sender)); err != nil || !s.local(m.Sender) {
		return matrix.Errorf(matrix.Forbidden, "the invitation is not by a user of this server")
	}
	if err := theirs(origin, m.StateKey); err != nil {
		return err
	}
	return s.redeem(ctx, id, m.Sender, m.StateKey, c.ThirdParty.Signed)
}

// Bound takes the news that a user of this server has an address of another
// network, and has the invitations that wait for it turned into the user's. It
// comes from anybody: what proves it is checked by the rules of the rooms.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv13pidonbind
func (s *Service) Bound(ctx context.Context, b fedclient.Binding) error {
	if _, err := matrix.ParseUserID(string(b.User)); err != nil || !s.local(b.User) {
		return matrix.Errorf(matrix.InvalidParam, "the user is not one of this server")
	}
	_, ok, err := s.Store.User(ctx, b.User)
	if err == nil && !ok {
		err = matrix.Errorf(matrix.NotFound, "there is no such user")
	}
	if err != nil {
		return err
	}
	if len(b.Invites) > mostBound {
		return matrix.Errorf(matrix.TooLarge, "more than %d invitations", mostBound)
	}
	var errs []error
	for _, raw := range b.Invites {
		if err := s.invitations.take("bound "+string(b.User), s.Config.InvitesPerUser); err != nil {
			return err
		}
		errs = append(errs, s.exchange(ctx, b.User, raw))
	}
	return errors.Join(errs...)
}

// exchange turns one invitation of an address into one of its user.
func (s *Service) exchange(ctx context.Context, user matrix.UserID, raw json.RawMessage) error {
	var in struct {
		User   matrix.UserID   `json:"mxid"`
		Room   matrix.RoomID   `json:"room_id"`
		Sender matrix.UserID   `json:"sender"`
		Signed json.RawMessage `json:"signed"`
	}
	if err := json.Unmarshal(raw, &in); err != nil || in.User != user || in.Signed == nil {
		return matrix.Errorf(matrix.InvalidParam, "an invitation is not one of this user")
	}
	if _, err := matrix.ParseRoomID(string(in.Room)); err != nil {
		return err
	}
	if _, err := matrix.ParseUserID(string(in.Sender)); err != nil {
		return err
	}
	if s.local(in.Sender) {
		return s.redeem(ctx, in.Room, in.Sender, user, in.Signed)
	}
	member, err := json.Marshal(map[string]any{
		"type": event.TypeMember, "room_id": in.Room, "sender": in.Sender, "state_key": user,
		"content": invitation(string(user), in.Signed),
	})
	if err != nil {
		return err
	}
	return s.Client.ThirdPartyInvite(ctx, in.Sender.Server(), in.Room, member)
}
