package room

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/rs/zerolog"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/pushrule"
	"switchboard/homeserver/store"
)

// Inherit gives a user who has come into a room the settings that they have for
// the room which it replaces: tags, push rules, and whether it is a direct chat.
// It changes nothing where that room does not lead here. What fails is logged.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
func (s *Service) Inherit(ctx context.Context, id matrix.RoomID, user matrix.UserID) {
	old, err := s.predecessor(ctx, id)
	if err == nil && old != "" {
		err = s.inherit(ctx, old, id, user)
	}
	if err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Str("room", string(id)).Str("user", string(user)).Msg("settings were not taken over from the room before an upgrade")
	}
}

// predecessor is the room that a room replaces, if that one says so too, else "".
func (s *Service) predecessor(ctx context.Context, id matrix.RoomID) (matrix.RoomID, error) {
	r, err := s.Store.Room(ctx, id)
	if err != nil {
		return "", err
	}
	c, err := s.creation(ctx, r)
	if err != nil || c.Predecessor.Room == "" {
		return "", err
	}
	old, err := s.Store.Room(ctx, c.Predecessor.Room)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	v := s.view(ctx, old.Current)
	if v.content("m.room.tombstone", "replacement_room") != string(id) {
		return "", v.err
	}
	return old.ID, nil
}

// inherit copies what user has set for one room to another.
func (s *Service) inherit(ctx context.Context, from, to matrix.RoomID, user matrix.UserID) error {
	settings := []struct {
		typ  string
		room matrix.RoomID // of the setting; "" for a global one
		copy func(old json.RawMessage) json.RawMessage
	}{
		{"m.tag", to, func(old json.RawMessage) json.RawMessage { return old }},
		{"m.direct", "", func(old json.RawMessage) json.RawMessage { return copyDirect(old, from, to) }},
		{"m.push_rules", "", func(old json.RawMessage) json.RawMessage { return copyRules(old, from, to, user) }},
	}
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		for _, d := range settings {
			source := d.room
			if source == to {
				source = from
				if _, own, err := tx.AccountData(ctx, user, to, d.typ); err != nil || own {
					return err // whoever has been here before has settings for here
				}
			}
			old, ok, err := tx.AccountData(ctx, user, source, d.typ)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if content := d.copy(old); content != nil {
				if _, err := tx.PutAccountData(ctx, store.AccountData{User: user, Room: d.room, Type: d.typ, Content: content}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err == nil {
		s.Bell.Ring(string(user))
	}
	return err
}

// copyRules gives push rules for one room to another; nil if there are none.
func copyRules(old json.RawMessage, from, to matrix.RoomID, user matrix.UserID) json.RawMessage {
	rules, err := pushrule.Parse(user, old)
	if err != nil || !rules.CopyRoom(from, to) {
		return nil
	}
	content, err := json.Marshal(rules)
	if err != nil {
		return nil
	}
	return content
}

// copyDirect gives m.direct the room to beside each from; nil if it needs no change.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mdirect
func copyDirect(old json.RawMessage, from, to matrix.RoomID) json.RawMessage {
	chats := object{}
	if json.Unmarshal(old, &chats) != nil {
		return nil
	}
	changed := false
	for user, value := range chats {
		rooms, _ := value.([]any)
		if slices.Contains(rooms, any(string(from))) && !slices.Contains(rooms, any(string(to))) {
			chats[user], changed = append(rooms, string(to)), true
		}
	}
	if !changed {
		return nil
	}
	return chats.raw()
}
