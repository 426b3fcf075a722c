package federation

import (
	"context"
	"encoding/json"
	"errors"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/identity"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
)

// noIdentity refuses what needs an identity server.
var noIdentity = matrix.Errorf(matrix.ThreepidDenied, "this server asks no identity servers and cannot invite by e-mail address or phone number")

// mostInvitees is how many addresses a new room may invite: each of them costs
// requests to an identity server.
const mostInvitees = 20

// invitees reads the addresses that a new room invites.
func (s *Service) invitees(list []json.RawMessage) ([]identity.Invitee, error) {
	switch {
	case len(list) > 0 && s.Identity == nil:
		return nil, noIdentity
	case len(list) > mostInvitees:
		return nil, matrix.Errorf(matrix.InvalidParam, "a new room may invite %d addresses", mostInvitees)
	}
	all := make([]identity.Invitee, len(list))
	for i, raw := range list {
		if err := json.Unmarshal(raw, &all[i]); err != nil {
			return nil, matrix.Errorf(matrix.BadJSON, "an entry of invite_3pid is not what it should be")
		}
		if err := all[i].Check(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// InviteAddress invites an e-mail address or phone number: its user, if the
// identity server knows one; else it leaves an invitation there and its public
// key in the room, which lets in who shows that the address is theirs. c.Target
// is not looked at.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#third-party-invites
func (s *Service) InviteAddress(ctx context.Context, c room.Change, who identity.Invitee) error {
	if s.Identity == nil {
		return noIdentity
	}
	if err := who.Check(); err != nil {
		return err
	}
	r, err := s.mayInvite(ctx, c)
	if err != nil {
		return err
	}
	if c.Target, err = s.Identity.Lookup(ctx, who.Server, who.Address); err != nil {
		return err
	}
	if c.Target != "" {
		return s.Invite(ctx, c)
	}
	sum, err := s.Rooms.Summary(ctx, r)
	if err != nil {
		return err
	}
	profile, err := s.Store.Profile(ctx, c.Actor)
	if err != nil {
		return err
	}
	stored, err := s.Identity.StoreInvite(ctx, who.Server, identity.Invite{
		Address: who.Address, Room: c.Room, Sender: c.Actor, SenderIs: profile.DisplayName(), SenderPic: profile.AvatarURL(),
		Alias: sum.Alias, Avatar: sum.Avatar, JoinRule: sum.JoinRule, Name: sum.Name, RoomType: sum.Type,
	})
	if err != nil {
		return err
	}
	content, err := json.Marshal(map[string]any{
		"display_name": stored.DisplayName, "public_keys": stored.Keys,
		"public_key": stored.Keys[0].Key, "key_validity_url": stored.Keys[0].URL,
	})
	if err != nil {
		return err
	}
	_, err = s.Rooms.Send(ctx, room.Sending{
		User: c.Actor, Room: c.Room, Type: event.TypeThirdPartyInvite, StateKey: &stored.Token, Content: content, At: c.At,
	})
	return err
}

// mayInvite refuses who may not invite to a room: nobody else makes this server
// write to strangers.
func (s *Service) mayInvite(ctx context.Context, c room.Change) (*store.Room, error) {
	r, err := s.Store.Room(ctx, c.Room)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err != nil || s.Store.Membership(c.Actor, r.Num).Membership != event.Join {
		return nil, matrix.Errorf(matrix.Forbidden, "you are not in this room")
	}
	levels, err := s.Rooms.Levels(ctx, r)
	if err != nil {
		return nil, err
	}
	if levels.User(c.Actor) < levels.Invite() {
		return nil, matrix.Errorf(matrix.Forbidden, "you may not invite to this room")
	}
	return r, nil
}

// invitation is the content of m.room.member by which an address becomes a user.
func invitation(name string, signed json.RawMessage) map[string]any {
	return map[string]any{
		"membership":         event.Invite,
		"third_party_invite": map[string]any{"display_name": name, "signed": signed},
	}
}

// redeem invites a user, who has shown that an address is theirs, in the name of
// a user of this server, who has invited the address.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#third-party-invites
func (s *Service) redeem(ctx context.Context, id matrix.RoomID, sender, target matrix.UserID, signed json.RawMessage) error {
	var proof struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(signed, &proof); err != nil || proof.Token == "" {
		return matrix.Errorf(matrix.InvalidParam, "the proof of an invitation has no token")
	}
	none := matrix.Errorf(matrix.Forbidden, "the room has no such invitation; it may have been taken back")
	r, err := s.Store.Room(ctx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && r.Current == 0 {
		return none
	}
	if err != nil {
		return err
	}
	pending, err := s.Rooms.StateEvent(ctx, r.Current, event.TypeThirdPartyInvite, proof.Token)
	if err != nil {
		return err
	}
	if pending == nil {
		return none
	}
	if err := s.checkProof(ctx, pending.PDU, signed); err != nil {
		return err
	}
	content, err := json.Marshal(invitation(pending.PDU.ContentString("display_name"), signed))
	if err != nil {
		return err
	}
	return s.Invite(ctx, room.Change{Room: id, Actor: sender, Target: target, Content: content})
}

// checkProof checks that a key of a pending invitation has signed, and that the
// key's owner has not withdrawn it.
func (s *Service) checkProof(ctx context.Context, pending *event.PDU, signed json.RawMessage) error {
	var c struct {
		identity.PublicKey
		Keys []identity.PublicKey `json:"public_keys"`
	}
	if json.Unmarshal(pending.Content, &c) != nil {
		return matrix.Errorf(matrix.Forbidden, "the invitation has been taken back")
	}
	last := error(matrix.Errorf(matrix.Forbidden, "no key of the invitation has signed the proof"))
	seen := map[identity.PublicKey]bool{}
	for _, k := range append(c.Keys, c.PublicKey) {
		public, err := signing.DecodeBase64(k.Key)
		if seen[k] || err != nil || !eventauth.SignedByOneOf(signed, public) {
			continue
		}
		seen[k] = true
		if k.URL == "" {
			return nil
		}
		if s.Identity == nil {
			return noIdentity
		}
		valid, err := s.Identity.Valid(ctx, k)
		switch {
		case err != nil:
			last = err
		case valid:
			return nil
		default:
			last = matrix.Errorf(matrix.Forbidden, "the key of the invitation has been withdrawn")
		}
		if len(seen) == mostKeys {
			break
		}
	}
	return last
}

// mostKeys is how many keys of one invitation are asked about.
const mostKeys = 4

// claim gets the user of a join invited, who brings the proof that an address
// which the room invites is theirs.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidjoin
func (s *Service) claim(ctx context.Context, c room.Change) error {
	var proof struct {
		User   matrix.UserID `json:"mxid"`
		Sender matrix.UserID `json:"sender"`
	}
	if err := json.Unmarshal(c.Signed, &proof); err != nil {
		return matrix.Errorf(matrix.BadJSON, "third_party_signed is not what it should be")
	}
	if proof.User != c.Actor {
		return matrix.Errorf(matrix.Forbidden, "third_party_signed is for another user")
	}
	r, err := s.Store.Room(ctx, c.Room)
	if err == nil {
		if is := s.Store.Membership(c.Actor, r.Num).Membership; is == event.Join || is == event.Invite {
			return nil
		}
	} else if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	invite, err := json.Marshal(map[string]any{"mxid": c.Actor, "room_id": c.Room, "sender": proof.Sender, "signed": c.Signed})
	if err != nil {
		return err
	}
	return s.exchange(ctx, c.Actor, invite)
}
