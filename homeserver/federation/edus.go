package federation

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/rs/zerolog"

	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// The types of ephemeral messages between servers.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#edus
const (
	eduTyping     = "m.typing"
	eduReceipt    = "m.receipt"
	eduPresence   = "m.presence"
	eduToDevice   = "m.direct_to_device"
	eduDeviceList = "m.device_list_update"
	eduSigningKey = "m.signing_key_update"
)

// receiveEDUs takes the ephemeral messages of a transaction, in their order.
// What is wrong with one is logged, as the specification gives no answer to it. None
// comes again, so that those which must not be lost are taken even if the events
// before them took all the time: that is for asking others.
func (s *Service) receiveEDUs(ctx context.Context, origin matrix.ServerName, edus []EDU) {
	defer s.recovered(ctx)
	kinds := map[string]func(context.Context, matrix.ServerName, json.RawMessage) error{
		eduTyping:     s.receiveTyping,
		eduReceipt:    s.receiveReceipts,
		eduPresence:   s.receivePresence,
		eduToDevice:   s.receiveToDevice,
		eduDeviceList: s.receiveDeviceList,
		eduSigningKey: s.receiveSigningKeys,
	}
	for _, e := range edus {
		receive := kinds[e.Type]
		if receive == nil {
			continue
		}
		if err := receive(ctx, origin, e.Content); err != nil {
			zerolog.Ctx(ctx).Debug().Err(err).Str("server", string(origin)).Str("type", e.Type).Msg("an ephemeral message was not taken")
		}
	}
}

// theirs refuses users of other servers than the one that speaks of them.
func theirs(origin matrix.ServerName, user matrix.UserID) error {
	if _, err := matrix.ParseUserID(string(user)); err != nil {
		return err
	}
	if user.Server() != origin {
		return matrix.Errorf(matrix.Forbidden, "%s is not a user of %s", user, origin)
	}
	return nil
}

// member tells whether a user of any server is in a room now.
func (s *Service) member(ctx context.Context, r *store.Room, user matrix.UserID) (bool, error) {
	e, err := s.Rooms.StateEvent(ctx, r.Current, event.TypeMember, string(user))
	return e != nil && e.PDU.Membership() == event.Join, err
}

// receiveTyping takes who types.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#typing-notifications
func (s *Service) receiveTyping(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
	var c struct {
		Room   matrix.RoomID `json:"room_id"`
		User   matrix.UserID `json:"user_id"`
		Typing bool          `json:"typing"`
	}
	if err := json.Unmarshal(content, &c); err != nil {
		return err
	}
	if err := theirs(origin, c.User); err != nil {
		return err
	}
	r, err := s.room(ctx, origin, c.Room)
	if err != nil {
		return err
	}
	in, err := s.member(ctx, r, c.User)
	if err != nil || !in {
		return err
	}
	s.Ephemeral.RemoteTyping(r, c.User, c.Typing)
	return nil
}

// receiveReceipts takes what users have read.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#receipts
func (s *Service) receiveReceipts(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
	var rooms map[matrix.RoomID]map[string]map[matrix.UserID]json.RawMessage
	if err := json.Unmarshal(content, &rooms); err != nil {
		return err
	}
	if len(rooms) > s.Config.MaxEntries {
		return matrix.Errorf(matrix.TooLarge, "too many rooms")
	}
	n := 0
	var errs []error
	for id, types := range rooms {
		r, err := s.room(ctx, origin, id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for user, raw := range types[ephemeral.Read] {
			if n++; n > s.Config.MaxEntries {
				return errors.Join(append(errs, matrix.Errorf(matrix.TooLarge, "too many receipts"))...)
			}
			errs = append(errs, s.receiveReceipt(ctx, origin, r, user, raw))
		}
	}
	return errors.Join(errs...)
}

func (s *Service) receiveReceipt(ctx context.Context, origin matrix.ServerName, r *store.Room, user matrix.UserID, raw json.RawMessage) error {
	if err := theirs(origin, user); err != nil {
		return err
	}
	var c struct {
		Events []matrix.EventID  `json:"event_ids"`
		Data   ephemeral.Receipt `json:"data"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return err
	}
	if len(c.Events) == 0 || len(c.Events) > s.Config.MaxEntries {
		return matrix.Errorf(matrix.InvalidParam, "a receipt needs an event")
	}
	in, err := s.member(ctx, r, user)
	if err != nil || !in {
		return err
	}
	return s.Ephemeral.RemoteReceipt(ctx, r, user, c.Events, c.Data)
}

// receivePresence takes who is there.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#presence
func (s *Service) receivePresence(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
	var c struct {
		Push []struct {
			User matrix.UserID `json:"user_id"`
			ephemeral.Status
		} `json:"push"`
	}
	if err := json.Unmarshal(content, &c); err != nil {
		return err
	}
	if len(c.Push) > s.Config.MaxEntries {
		return matrix.Errorf(matrix.TooLarge, "too many users")
	}
	list := make(map[matrix.UserID]ephemeral.Status, len(c.Push))
	for _, p := range c.Push {
		if err := theirs(origin, p.User); err != nil {
			return err
		}
		list[p.User] = p.Status
	}
	return s.Ephemeral.RemotePresence(ctx, list)
}

// receiveToDevice takes messages for devices of our users, once each.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging
func (s *Service) receiveToDevice(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
	var c struct {
		Sender   matrix.UserID `json:"sender"`
		Type     string        `json:"type"`
		ID       string        `json:"message_id"`
		Messages e2ee.Messages `json:"messages"`
	}
	if err := json.Unmarshal(content, &c); err != nil {
		return err
	}
	if err := theirs(origin, c.Sender); err != nil {
		return err
	}
	n := 0
	for user, devices := range c.Messages {
		if n += len(devices); n > s.Config.MaxEntries {
			return matrix.Errorf(matrix.TooLarge, "too many messages")
		}
		if _, err := matrix.ParseUserID(string(user)); err != nil || !s.local(user) {
			delete(c.Messages, user)
		}
	}
	return s.Encryption.SendToDevice(context.WithoutCancel(ctx), c.Sender, "", c.Type, c.ID, c.Messages)
}
