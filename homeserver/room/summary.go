package room

import (
	"context"
	"encoding/json"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// Summary describes a room to somebody who is not in it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms_response-200_publishedroomschunk
type Summary struct {
	Room       matrix.RoomID    `json:"room_id"`
	Name       string           `json:"name,omitempty"`
	Topic      string           `json:"topic,omitempty"`
	Alias      matrix.RoomAlias `json:"canonical_alias,omitempty"`
	Avatar     string           `json:"avatar_url,omitempty"`
	Joined     int              `json:"num_joined_members"`
	JoinRule   string           `json:"join_rule"`
	Type       string           `json:"room_type,omitempty"`
	Readable   bool             `json:"world_readable"`
	GuestsJoin bool             `json:"guest_can_join"`
	Version    string           `json:"room_version,omitempty"`
	Encryption string           `json:"encryption,omitempty"`
	Allowed    []matrix.RoomID  `json:"allowed_room_ids,omitempty"`
	Membership string           `json:"membership,omitempty"`
}

// Summary describes a room as it is now.
func (s *Service) Summary(ctx context.Context, r *store.Room) (*Summary, error) {
	v := s.view(ctx, r.Current)
	sum := &Summary{
		Room: r.ID, Joined: r.Joined,
		Name:       v.content("m.room.name", "name"),
		Topic:      v.content("m.room.topic", "topic"),
		Alias:      matrix.RoomAlias(v.content("m.room.canonical_alias", "alias")),
		Avatar:     v.content("m.room.avatar", "url"),
		JoinRule:   v.content("m.room.join_rules", "join_rule"),
		Type:       v.content("m.room.create", "type"),
		Readable:   v.content("m.room.history_visibility", "history_visibility") == "world_readable",
		GuestsJoin: v.content("m.room.guest_access", "guest_access") == "can_join",
	}
	if sum.JoinRule == "" {
		sum.JoinRule = "invite"
	}
	return sum, v.err
}

// Preview describes a room to user, who may join it, read it or was invited, or
// else answers M_NOT_FOUND.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias
func (s *Service) Preview(ctx context.Context, id matrix.RoomID, user matrix.UserID) (*Summary, error) {
	none := matrix.Errorf(matrix.NotFound, "there is no such room, or you may not see it")
	r, err := s.find(ctx, id)
	if err != nil {
		return nil, none
	}
	sum, err := s.Summary(ctx, r)
	if err != nil {
		return nil, err
	}
	h := &head{room: r, view: s.view(ctx, r.Current)}
	if user != "" {
		sum.Membership = h.view.membership(user)
	}
	open := sum.Readable || sum.JoinRule == "public" || sum.JoinRule == "knock" || sum.JoinRule == "knock_restricted" ||
		sum.Membership == "join" || sum.Membership == "invite"
	if !open && sum.JoinRule == "restricted" && user != "" {
		if open, _, err = s.allowed(h, user); err != nil {
			return nil, err
		}
	}
	if !open {
		return nil, none
	}
	sum.Version = r.Version.ID
	sum.Encryption = h.view.content("m.room.encryption", "algorithm")
	if rules := h.view.Event("m.room.join_rules", ""); rules != nil && (sum.JoinRule == "restricted" || sum.JoinRule == "knock_restricted") {
		var c struct {
			Allow []struct {
				Type string        `json:"type"`
				Room matrix.RoomID `json:"room_id"`
			} `json:"allow"`
		}
		if json.Unmarshal(rules.Content, &c) == nil {
			for _, a := range c.Allow {
				if a.Type == "m.room_membership" {
					sum.Allowed = append(sum.Allowed, a.Room)
				}
			}
		}
	}
	return sum, h.view.err
}

// Readable gives a room whose present state user may read: as a member, or
// because everybody may.
func (s *Service) Readable(ctx context.Context, id matrix.RoomID, user matrix.UserID) (*store.Room, error) {
	a, err := s.access(ctx, id, user)
	if err != nil {
		return nil, err
	}
	if a.left {
		return nil, notInRoom
	}
	return a.room, nil
}
