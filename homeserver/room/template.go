package room

import (
	"context"
	"encoding/json"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
)

// Complete makes an event of the template that another server gave for a
// membership of a user of this one: it is checked, gets the user's profile, and
// is hashed and signed.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
func (s *Service) Complete(ctx context.Context, t Template, c Change) (*event.PDU, error) {
	var e struct {
		Type     string            `json:"type"`
		Room     matrix.RoomID     `json:"room_id"`
		Sender   matrix.UserID     `json:"sender"`
		StateKey *string           `json:"state_key"`
		Content  object            `json:"content"`
		Prev     []json.RawMessage `json:"prev_events"`
		Auth     []json.RawMessage `json:"auth_events"`
		Depth    int64             `json:"depth"`
	}
	if err := json.Unmarshal(t.Event, &e); err != nil {
		return nil, matrix.Errorf(matrix.Unknown, "the other server's template is not an event")
	}
	if e.Type != event.TypeMember || e.Room != c.Room || e.Sender != c.Actor || e.StateKey == nil || *e.StateKey != string(c.Actor) ||
		e.Content["membership"] != c.Membership {
		return nil, matrix.Errorf(matrix.Unknown, "the other server's template is for something else")
	}
	d := event.Draft{
		Room: e.Room, Type: e.Type, Sender: e.Sender, StateKey: e.StateKey, Depth: e.Depth, OriginServerTS: c.At,
		Hashes: map[matrix.EventID]string{},
	}
	if d.OriginServerTS == 0 {
		d.OriginServerTS = now()
	}
	var err error
	if d.PrevEvents, err = references(t.Version, e.Prev, d.Hashes); err != nil {
		return nil, err
	}
	if d.AuthEvents, err = references(t.Version, e.Auth, d.Hashes); err != nil {
		return nil, err
	}
	o := object{"membership": c.Membership}
	if via, ok := e.Content["join_authorised_via_users_server"].(string); ok {
		o["join_authorised_via_users_server"] = via
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
	return event.Build(t.Version, d, s.ServerName, s.Key)
}

// references reads a list of events as the room version writes it.
func references(v *matrix.RoomVersion, list []json.RawMessage, hashes map[matrix.EventID]string) ([]matrix.EventID, error) {
	bad := matrix.Errorf(matrix.Unknown, "the other server's template names events in a wrong way")
	ids := make([]matrix.EventID, 0, len(list))
	for _, raw := range list {
		var id matrix.EventID
		if v.EventIDInEvent {
			var pair [2]json.RawMessage
			var hash struct {
				SHA256 string `json:"sha256"`
			}
			if json.Unmarshal(raw, &pair) != nil || json.Unmarshal(pair[0], &id) != nil || json.Unmarshal(pair[1], &hash) != nil {
				return nil, bad
			}
			hashes[id] = hash.SHA256
		} else if json.Unmarshal(raw, &id) != nil {
			return nil, bad
		}
		ids = append(ids, id)
	}
	return ids, nil
}
