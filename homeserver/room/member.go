package room

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/rs/zerolog"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// Change is a wish to change what somebody is in a room.
type Change struct {
	Room       matrix.RoomID
	Actor      matrix.UserID   // who wishes it
	Target     matrix.UserID   // whose membership it is
	Membership string          // "join", "invite", "knock", "leave" or "ban"
	Reason     *string         // shown to others
	Content    json.RawMessage // the whole content, where the client sends the event itself
	Extra      json.RawMessage // further fields of the content
	Guest      bool            // the actor is a guest
	Signed     json.RawMessage // proof that an address which was invited is the actor's; federation redeems it
	At         int64           // time (ms) that an appservice gives the event; 0 means now

	final bool // the target's account ends
}

// Join makes a user a member.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3joinroomidoralias
func (s *Service) Join(ctx context.Context, c Change) error {
	c.Target, c.Membership = c.Actor, "join"
	_, err := s.change(ctx, c)
	return err
}

// Knock asks to be invited.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3knockroomidoralias
func (s *Service) Knock(ctx context.Context, c Change) error {
	c.Target, c.Membership = c.Actor, "knock"
	_, err := s.change(ctx, c)
	return err
}

// Leave ends a membership, an invitation or a knock.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidleave
func (s *Service) Leave(ctx context.Context, c Change) error {
	c.Target, c.Membership = c.Actor, "leave"
	_, err := s.change(ctx, c)
	return err
}

// LeaveAll ends all memberships, invitations and knocks of a user of this
// server, whose account ends. Where that fails the others end all the same.
func (s *Service) LeaveAll(ctx context.Context, user matrix.UserID) error {
	var errs []error
	for _, m := range s.Store.Memberships(user) {
		if m.Membership == "leave" || m.Membership == "ban" {
			continue
		}
		r, err := s.Store.RoomByNum(ctx, m.Room)
		if err == nil {
			err = s.Leave(ctx, Change{Room: r.ID, Actor: user, final: true})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Invite invites c.Target.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite
func (s *Service) Invite(ctx context.Context, c Change) error {
	c.Membership = "invite"
	_, err := s.change(ctx, c)
	return err
}

// Kick makes c.Target leave.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidkick
func (s *Service) Kick(ctx context.Context, c Change) error {
	return s.remove(ctx, c, "join", "invite", "knock")
}

// Ban makes c.Target leave and keeps them out.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidban
func (s *Service) Ban(ctx context.Context, c Change) error {
	c.Membership = "ban"
	_, err := s.change(ctx, c)
	return err
}

// Unban lets c.Target come back.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidunban
func (s *Service) Unban(ctx context.Context, c Change) error {
	return s.remove(ctx, c, "ban")
}

// remove makes the target leave who is now one of the given.
func (s *Service) remove(ctx context.Context, c Change, now ...string) error {
	r, err := s.joinedRoom(ctx, c.Room, c.Actor)
	if err != nil {
		return err
	}
	v := s.view(ctx, r.Current)
	is := v.membership(c.Target)
	if v.err != nil {
		return v.err
	}
	for _, m := range now {
		if m == is {
			c.Membership = "leave"
			_, err := s.change(ctx, c)
			return err
		}
	}
	return matrix.Errorf(matrix.Forbidden, "the user's membership in this room is %q, which this does not change", is)
}

// Forget hides a room that the user has left.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget
func (s *Service) Forget(ctx context.Context, id matrix.RoomID, user matrix.UserID) error {
	r, err := s.find(ctx, id)
	if err != nil {
		return err
	}
	defer s.locks.lock(id)()
	m := s.Store.Membership(user, r.Num)
	switch m.Membership {
	case "":
		return notInRoom
	case "leave", "ban":
		m.Forgotten = true
		return s.Store.Update(ctx, func(tx *store.Tx) error { return tx.PutMembership(ctx, m) })
	}
	return &matrix.Error{Code: matrix.Unknown, Status: 400, Text: "leave the room before you forget it"}
}

// sendMembership is Send for m.room.member events.
func (s *Service) sendMembership(ctx context.Context, d Sending) (matrix.EventID, error) {
	target, err := matrix.ParseUserID(*d.StateKey)
	if err != nil {
		return "", err
	}
	var c struct {
		Membership string `json:"membership"`
	}
	if json.Unmarshal(d.Content, &c) != nil || c.Membership == "" {
		return "", matrix.Errorf(matrix.BadJSON, "membership must be a string")
	}
	return s.change(ctx, Change{Room: d.Room, Actor: d.User, Target: target, Membership: c.Membership, Content: d.Content, At: d.At, Guest: d.Guest})
}

// change carries out c and gives the event of the membership.
func (s *Service) change(ctx context.Context, c Change) (matrix.EventID, error) {
	if c.Membership == "invite" && c.Target.Server() != s.ServerName {
		// An invitation that was not delivered is none. Federation delivers it.
		return "", &matrix.Error{Code: matrix.Unknown, Status: 400, Text: fmt.Sprintf("%s is a user of another server and cannot be invited like this", c.Target)}
	}
	free := s.locks.lock(c.Room)
	defer free()
	r, err := s.find(ctx, c.Room)
	if err != nil {
		return "", err
	}
	h, err := s.open(ctx, r)
	if err != nil {
		return "", err
	}
	h.free = free
	old := h.view.Event("m.room.member", string(c.Target))
	if old != nil && c.Content == nil && old.Membership() == c.Membership && c.Actor == c.Target {
		return old.ID, nil // nothing to do
	}
	if err := s.refuse(h, c, old); err != nil {
		return "", err
	}
	content, err := s.memberContent(ctx, h, c, old)
	if err != nil {
		return "", err
	}
	if old != nil && string(old.Content) == string(content) && old.Sender == c.Actor {
		return old.ID, nil
	}
	key := string(c.Target)
	p, err := s.build(h, draft{Type: "m.room.member", StateKey: &key, Sender: c.Actor, Content: content, At: c.At})
	if err != nil {
		return "", err
	}
	if _, err = s.commit(ctx, h); err == nil && c.Membership == "join" && (old == nil || old.Membership() != "join") {
		s.Inherit(ctx, c.Room, c.Target)
	}
	return p.ID, err
}

// refuse says no to changes that the authorization rules would let pass, or
// where a better word is known than theirs.
func (s *Service) refuse(h *head, c Change, old *event.PDU) error {
	if h.view.err != nil {
		return h.view.err
	}
	is := "leave"
	if old != nil {
		is = old.Membership()
	}
	if err := s.refuseEntry(h, c, is); err != nil {
		return err
	}
	switch {
	case c.Membership == "invite" && is == "join":
		return matrix.Errorf(matrix.Forbidden, "%s is in the room already", c.Target)
	case c.Membership == "invite" && is == "ban":
		return matrix.Errorf(matrix.Forbidden, "%s is banned from the room", c.Target)
	case c.Membership == "join" && c.Guest && h.view.content("m.room.guest_access", "guest_access") != "can_join":
		return matrix.Errorf(matrix.GuestAccessForbidden, "guests may not join this room")
	case c.Membership == "leave" && c.Actor == c.Target && is == "leave":
		return notInRoom
	case c.Membership == "leave" && c.Actor == c.Target && is == "invite" && old.Sender == s.NoticesUser && !c.final:
		return matrix.Errorf(matrix.CannotLeaveServerNoticeRoom, "invitations of the server cannot be rejected")
	}
	return nil
}

// refuseEntry says no to those whom a policy list bans, and to invitations of
// users who want none. Who is in the room already may stay.
func (s *Service) refuseEntry(h *head, c Change, is string) error {
	switch {
	case is == "join":
		return nil
	case c.Membership == "invite" && c.Target.Server() == s.ServerName:
		return s.RefuseInvite(h.view.ctx, c.Target, c.Actor, c.Room)
	case c.Membership == "invite" || c.Membership == "join" || c.Membership == "knock":
		return s.RefuseListed(h.view.ctx, c.Room, c.Target)
	}
	return nil
}

// memberContent is the content of the m.room.member event for c.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mroommember
func (s *Service) memberContent(ctx context.Context, h *head, c Change, old *event.PDU) (json.RawMessage, error) {
	o := object{}
	for _, given := range []json.RawMessage{c.Extra, c.Content} {
		if given != nil && json.Unmarshal(given, &o) != nil {
			return nil, matrix.Errorf(matrix.BadJSON, "the content is not a JSON object")
		}
	}
	o["membership"] = c.Membership
	if c.Reason != nil {
		o["reason"] = *c.Reason
	}
	if c.Membership == "join" || c.Membership == "knock" || c.Membership == "invite" {
		if err := s.addProfile(ctx, o, c.Target); err != nil {
			return nil, err
		}
	}
	delete(o, "join_authorised_via_users_server")
	if c.Membership == "join" {
		if err := s.authorise(h, c.Target, old, o); err != nil {
			return nil, err
		}
	}
	return o.raw(), h.view.err
}

// addProfile adds the name and picture of a user of this server, where the
// client gives none.
func (s *Service) addProfile(ctx context.Context, o object, user matrix.UserID) error {
	if user.Server() != s.ServerName {
		return nil
	}
	p, err := s.Store.Profile(ctx, user)
	if err != nil {
		return err
	}
	for key, value := range map[string]string{"displayname": p.DisplayName(), "avatar_url": p.AvatarURL()} {
		if _, given := o[key]; !given && value != "" {
			o[key] = value
		}
	}
	return nil
}

// authorise names the member who lets user into a restricted room, if that is
// what user needs to come in.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms
func (s *Service) authorise(h *head, user matrix.UserID, old *event.PDU, o object) error {
	rule := h.view.content("m.room.join_rules", "join_rule")
	restricted := rule == "restricted" && h.room.Version.RestrictedRule || rule == "knock_restricted" && h.room.Version.KnockRestrictedRule
	if !restricted || old != nil && (old.Membership() == "join" || old.Membership() == "invite") {
		return nil
	}
	allowed, sure, err := s.allowed(h, user)
	if err != nil {
		return err
	}
	switch {
	case allowed:
	case !sure:
		return matrix.Errorf(matrix.UnableToAuthoriseJoin, "this server is not in all rooms whose members may join this one")
	default:
		return matrix.Errorf(matrix.Forbidden, "you are in none of the rooms whose members may join this one")
	}
	levels, err := h.view.PowerLevels()
	if err != nil {
		return err
	}
	for _, m := range s.Store.LocalMembers(h.room.Num) {
		if levels.User(m) >= levels.Invite() {
			o["join_authorised_via_users_server"] = m
			return nil
		}
	}
	return matrix.Errorf(matrix.UnableToGrantJoin, "nobody on this server may let you into the room")
}

// allowed tells whether user is in one of the rooms that the join rule names. If
// not, it is sure only where this server is in all of these.
func (s *Service) allowed(h *head, user matrix.UserID) (allowed, sure bool, err error) {
	rules := h.view.Event("m.room.join_rules", "")
	if rules == nil {
		return false, true, h.view.err
	}
	var c struct {
		Allow []struct {
			Type string        `json:"type"`
			Room matrix.RoomID `json:"room_id"`
		} `json:"allow"`
	}
	if json.Unmarshal(rules.Content, &c) != nil {
		return false, true, nil
	}
	sure = true
	for _, a := range c.Allow {
		if a.Type != "m.room_membership" {
			continue
		}
		r, err := s.Store.Room(h.view.ctx, a.Room)
		if errors.Is(err, store.ErrNotFound) || err == nil && (r.Current == 0 || len(s.Store.LocalMembers(r.Num)) == 0) {
			sure = false
			continue
		}
		if err != nil {
			return false, false, err
		}
		v := s.view(h.view.ctx, r.Current)
		if v.membership(user) == "join" {
			return true, true, nil
		}
		if v.err != nil {
			return false, false, v.err
		}
	}
	return false, sure, nil
}

// sendGuestsAway makes the guests of this server leave a room that has just
// stopped to welcome them.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#guest-access
func (s *Service) sendGuestsAway(ctx context.Context, h *head, at int64) error {
	if h.view.content("m.room.guest_access", "guest_access") == "can_join" {
		return nil
	}
	guests, err := s.Store.GuestMembers(ctx, h.room.Num)
	if err != nil {
		return err
	}
	for _, g := range guests {
		key := string(g)
		_, err := s.build(h, draft{Type: "m.room.member", StateKey: &key, Sender: g, Content: object{"membership": "leave"}.raw(), At: at})
		if err != nil {
			return err
		}
	}
	return h.view.err
}

// UpdateProfile brings the name and picture of a user of this server into all
// rooms that the user is in. A room that refuses is logged and left as it is.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#events-on-change-of-profile-information
func (s *Service) UpdateProfile(ctx context.Context, user matrix.UserID) error {
	for _, m := range s.Store.Memberships(user) {
		if m.Membership != "join" {
			continue
		}
		if err := s.updateProfileIn(ctx, m.Room, user); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			zerolog.Ctx(ctx).Warn().Err(err).Str("user", string(user)).Int64("room", int64(m.Room)).Msg("room did not take the new profile")
		}
	}
	return nil
}

func (s *Service) updateProfileIn(ctx context.Context, num store.RoomNum, user matrix.UserID) error {
	r, err := s.Store.RoomByNum(ctx, num)
	if err != nil {
		return err
	}
	v := s.view(ctx, r.Current)
	old := v.Event("m.room.member", string(user))
	if old == nil || old.Membership() != "join" {
		return v.err
	}
	var o object
	if err := json.Unmarshal(old.Content, &o); err != nil {
		return err
	}
	for _, key := range []string{"displayname", "avatar_url", "join_authorised_via_users_server", "reason"} {
		delete(o, key)
	}
	_, err = s.change(ctx, Change{Room: r.ID, Actor: user, Target: user, Membership: "join", Content: o.raw()})
	return err
}

// Levels are the power levels of a room now.
func (s *Service) Levels(ctx context.Context, r *store.Room) (*eventauth.PowerLevels, error) {
	return s.view(ctx, r.Current).PowerLevels()
}
