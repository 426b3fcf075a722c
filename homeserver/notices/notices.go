// Package notices lets the server itself speak with its users: in one room for
// each of them, to which they are invited and in which only the server writes.
// What there is to say, and to whom, the operator knows.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#server-notices
package notices

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"switchboard/homeserver/account"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// tag is what clients know the room by.
const tag = "m.server_notice"

// Service sends notices. Its methods may be called from several goroutines.
type Service struct {
	Store      *store.Store
	Rooms      *room.Service
	Accounts   *account.Service
	ServerName matrix.ServerName
	Config     Config

	mu sync.Mutex // tier 3; held while a notice is sent, so that nobody gets two rooms
}

// User is the server's own user.
func (s *Service) User() matrix.UserID { return matrix.NewUserID(s.Config.Localpart, s.ServerName) }

// Notice is what a user is told.
type Notice struct {
	// Content is that of an m.room.message event.
	Content json.RawMessage

	// Pin keeps the notice before the user's eyes until Unpin.
	Pin bool

	// Txn makes a repeated notice answer with the first one's event. "" for none.
	Txn string
}

// Text is a notice that says something.
func Text(body string) Notice {
	return Notice{Content: marshal(map[string]string{"msgtype": "m.text", "body": body})}
}

// UsageLimit is a notice that the server has reached a limit, such as
// "monthly_active_user", about which contact, a URL, helps. It is pinned.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#server-notices
func UsageLimit(body, limit, contact string) Notice {
	content := map[string]string{
		"msgtype": "m.server_notice", "body": body, "server_notice_type": "m.server_notice.usage_limit_reached", "limit_type": limit,
	}
	if contact != "" {
		content["admin_contact"] = contact
	}
	return Notice{Content: marshal(content), Pin: true}
}

func marshal(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings
	}
	return b
}

// Send tells a user of this server something, and invites the user to the room
// for that if need be. The errors are M_NOT_FOUND, M_INVALID_PARAM and those of
// the content.
func (s *Service) Send(ctx context.Context, user matrix.UserID, n Notice) (matrix.EventID, error) {
	u, err := s.Accounts.User(ctx, user)
	if err != nil {
		return "", err
	}
	if u.Deactivated || user == s.User() {
		return "", matrix.Errorf(matrix.InvalidParam, "%s can be told nothing", user)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := s.room(ctx, user)
	if err != nil {
		return "", err
	}
	e, err := s.Rooms.Send(ctx, room.Sending{User: s.User(), Room: id, Type: "m.room.message", Content: n.Content, Txn: n.Txn})
	if err != nil || !n.Pin {
		return e, err
	}
	return e, s.pin(ctx, id, e)
}

// Unpin says that what is pinned in the user's room is over. The error is
// M_NOT_FOUND.
func (s *Service) Unpin(ctx context.Context, user matrix.UserID) error {
	if _, err := s.Accounts.User(ctx, user); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := s.Store.NoticeRoom(ctx, user)
	if err != nil || id == "" {
		return err
	}
	return s.pin(ctx, id)
}

// pin makes events the pinned ones of a room.
func (s *Service) pin(ctx context.Context, id matrix.RoomID, events ...matrix.EventID) error {
	content := marshal(map[string][]matrix.EventID{"pinned": append([]matrix.EventID{}, events...)})
	_, err := s.Rooms.Send(ctx, room.Sending{User: s.User(), Room: id, Type: "m.room.pinned_events", StateKey: new(string), Content: content})
	return err
}

// room is the user's room, with the user in it or invited.
func (s *Service) room(ctx context.Context, user matrix.UserID) (matrix.RoomID, error) {
	if err := s.settle(ctx); err != nil {
		return "", err
	}
	id, err := s.Store.NoticeRoom(ctx, user)
	if err != nil {
		return "", err
	}
	if id == "" {
		if id, err = s.create(ctx, user); err != nil {
			return "", fmt.Errorf("room for notices: %w", err)
		}
	}
	r, err := s.Store.Room(ctx, id)
	if err != nil {
		return "", err
	}
	switch s.Store.Membership(user, r.Num).Membership {
	case "join", "invite":
		return id, nil
	}
	err = s.Accounts.SetTag(ctx, user, id, tag, json.RawMessage(`{}`))
	if err != nil && !errors.As(err, new(*matrix.Error)) { // whose settings are full does without
		return "", err
	}
	return id, s.Rooms.Invite(ctx, room.Change{Room: id, Actor: s.User(), Target: user})
}

// create makes a room in which nobody but the server writes.
func (s *Service) create(ctx context.Context, user matrix.UserID) (matrix.RoomID, error) {
	c := room.Creation{
		Creator: s.User(), Preset: "private_chat", Name: &s.Config.RoomName,
		CreationContent: map[string]json.RawMessage{"m.federate": json.RawMessage(`false`)},
		PowerLevels:     map[string]json.RawMessage{"users_default": json.RawMessage(`-10`)},
	}
	if s.Config.Avatar != "" {
		c.InitialState = []room.InitialState{{Type: "m.room.avatar", Content: marshal(map[string]string{"url": s.Config.Avatar})}}
	}
	id, err := s.Rooms.Create(ctx, c)
	if err != nil {
		return "", err
	}
	return id, s.Store.Update(ctx, func(tx *store.Tx) error { return tx.PutNoticeRoom(ctx, user, id) })
}

// settle makes the server's user, with the name and the picture of the
// configuration.
func (s *Service) settle(ctx context.Context) error {
	id := s.User()
	u, ok, err := s.Store.User(ctx, id)
	switch {
	case err != nil:
		return err
	case !ok:
		if _, err := s.Accounts.CreateUser(ctx, account.NewUser{Localpart: s.Config.Localpart}); err != nil {
			return fmt.Errorf("user for notices: %w", err)
		}
	case u.Password != "" || u.Kind != store.OrdinaryUser || u.Deactivated:
		return fmt.Errorf("%s is somebody's account: set server_notices.localpart to a free name", id)
	}
	have, err := s.Accounts.Profile(ctx, id)
	if err != nil {
		return err
	}
	changed := false
	for field, want := range map[string]string{account.DisplayName: s.Config.DisplayName, account.AvatarURL: s.Config.Avatar} {
		var is string
		if raw, ok := have[field]; ok && json.Unmarshal(raw, &is) != nil || is == want {
			continue
		}
		if err := s.Accounts.SetProfile(ctx, id, field, marshal(want)); err != nil {
			return err
		}
		changed = true
	}
	if changed && ok {
		return s.Rooms.UpdateProfile(ctx, id)
	}
	return nil
}

// Everybody calls f for each user who can be told something, in order of their
// IDs, beginning behind after ("" for all). An error ends it; it comes with the
// last user for whom f was done.
func (s *Service) Everybody(ctx context.Context, after matrix.UserID, f func(matrix.UserID) error) (matrix.UserID, error) {
	const page = 500
	done := after
	for {
		list, err := s.Store.Users(ctx, after, page)
		if err != nil {
			return done, err
		}
		for _, u := range list {
			after = u.ID
			if u.Deactivated || u.Kind != store.OrdinaryUser || u.ID == s.User() {
				continue
			}
			if err := f(u.ID); err != nil {
				return done, err
			}
			done = u.ID
		}
		if len(list) < page {
			return done, nil
		}
	}
}
