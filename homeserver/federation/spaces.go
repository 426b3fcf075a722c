package federation

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// mostChildren is how many rooms of a space are shown.
const mostChildren = 500

// Hierarchy gives a space and those of its rooms that users of a server may
// join or read.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid
func (s *Service) Hierarchy(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, suggestedOnly bool) (*fedclient.Hierarchy, error) {
	top, err := s.spaceRoom(ctx, origin, id)
	if err != nil {
		return nil, err
	}
	if top == nil {
		return nil, matrix.Errorf(matrix.NotFound, "the room is not known, or closed")
	}
	h := &fedclient.Hierarchy{Room: *top, Children: []fedclient.SpaceRoom{}, Inaccessible: []matrix.RoomID{}}
	r, err := s.Store.Room(ctx, id)
	if err != nil {
		return nil, err
	}
	links, err := s.children(ctx, r)
	if err != nil {
		return nil, err
	}
	h.Room.Children = []json.RawMessage{}
	for _, l := range links {
		if suggestedOnly && !l.suggested {
			continue
		}
		h.Room.Children = append(h.Room.Children, l.stripped)
		child, err := s.spaceRoom(ctx, origin, l.room)
		var e *matrix.Error
		switch {
		case errors.As(err, &e): // this server is not in it
		case err != nil:
			return nil, err
		case child == nil:
			h.Inaccessible = append(h.Inaccessible, l.room)
		default:
			h.Children = append(h.Children, *child)
		}
	}
	return h, nil
}

// link is an m.space.child event.
type link struct {
	room      matrix.RoomID
	suggested bool
	order     string
	ts        int64
	stripped  json.RawMessage // with its time
}

// children lists the valid m.space.child events of a room in their order.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#ordering-of-children-within-a-space
func (s *Service) children(ctx context.Context, r *store.Room) ([]link, error) {
	events, err := s.Rooms.OfType(ctx, r.Current, "m.space.child")
	if err != nil {
		return nil, err
	}
	var list []link
	for _, e := range events {
		var c struct {
			Via       []matrix.ServerName `json:"via"`
			Suggested bool                `json:"suggested"`
			Order     string              `json:"order"`
		}
		id, err := matrix.ParseRoomID(*e.PDU.StateKey)
		if err != nil || json.Unmarshal(e.PDU.Content, &c) != nil || len(c.Via) == 0 {
			continue
		}
		stripped, err := json.Marshal(map[string]any{
			"type": e.PDU.Type, "state_key": id, "sender": e.PDU.Sender, "content": e.PDU.Content, "origin_server_ts": e.PDU.OriginServerTS,
		})
		if err != nil {
			return nil, err
		}
		list = append(list, link{id, c.Suggested, validOrder(c.Order), e.PDU.OriginServerTS, stripped})
	}
	slices.SortFunc(list, func(a, b link) int {
		if (a.order == "") != (b.order == "") {
			return -cmp.Compare(a.order, b.order)
		}
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.ts, b.ts), cmp.Compare(a.room, b.room))
	})
	return list[:min(len(list), mostChildren)], nil
}

// validOrder is an order if it is one, else "".
func validOrder(s string) string {
	if len(s) > 50 {
		return ""
	}
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e {
			return ""
		}
	}
	return s
}

// spaceRoom describes a room, nil if a server's users may neither join nor read
// it. The error is M_NOT_FOUND where this server is not in the room.
func (s *Service) spaceRoom(ctx context.Context, origin matrix.ServerName, id matrix.RoomID) (*fedclient.SpaceRoom, error) {
	r, err := s.room(ctx, origin, id)
	var refused *matrix.Error
	if errors.As(err, &refused) && refused.Code == matrix.Forbidden {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sum, err := s.Rooms.Summary(ctx, r)
	if err != nil {
		return nil, err
	}
	d := &fedclient.SpaceRoom{PublishedRoom: published(sum), Version: r.Version.ID}
	if e, err := s.Rooms.StateEvent(ctx, r.Current, "m.room.encryption", ""); err != nil {
		return nil, err
	} else if e != nil {
		d.Encryption = e.PDU.ContentString("algorithm")
	}
	if d.AllowedRooms, err = s.allowedRooms(ctx, r, sum.JoinRule); err != nil {
		return nil, err
	}
	ok, err := s.accessible(ctx, origin, r, d)
	if err != nil || !ok {
		return nil, err
	}
	return d, nil
}

func published(sum *room.Summary) fedclient.PublishedRoom {
	return fedclient.PublishedRoom{
		ID: sum.Room, Name: sum.Name, Topic: sum.Topic, CanonicalAlias: string(sum.Alias), AvatarURL: sum.Avatar, Members: int64(sum.Joined),
		WorldReadable: sum.Readable, GuestCanJoin: sum.GuestsJoin, JoinRule: sum.JoinRule, Type: sum.Type,
	}
}

// allowedRooms are the rooms whose members may join a restricted room.
func (s *Service) allowedRooms(ctx context.Context, r *store.Room, rule string) ([]matrix.RoomID, error) {
	if rule != "restricted" && rule != "knock_restricted" {
		return nil, nil
	}
	e, err := s.Rooms.StateEvent(ctx, r.Current, event.TypeJoinRules, "")
	if err != nil || e == nil {
		return nil, err
	}
	var c struct {
		Allow []struct {
			Type string        `json:"type"`
			Room matrix.RoomID `json:"room_id"`
		} `json:"allow"`
	}
	if json.Unmarshal(e.PDU.Content, &c) != nil {
		return nil, nil
	}
	var list []matrix.RoomID
	for _, a := range c.Allow {
		if a.Type == "m.room_membership" {
			list = append(list, a.Room)
		}
	}
	return list, nil
}

// accessible tells whether users of a server could join or read a room.
func (s *Service) accessible(ctx context.Context, origin matrix.ServerName, r *store.Room, d *fedclient.SpaceRoom) (bool, error) {
	if d.WorldReadable {
		return true, nil
	}
	switch d.JoinRule {
	case "public", "knock", "knock_restricted":
		return true, nil
	}
	in, err := s.Store.ServerInRoom(ctx, origin, r.Num)
	if err != nil || in {
		return in, err
	}
	for _, id := range d.AllowedRooms {
		allowed, err := s.Store.Room(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return false, err
		}
		if in, err := s.Store.ServerInRoom(ctx, origin, allowed.Num); err != nil || in {
			return in, err
		}
	}
	return s.invited(ctx, origin, r)
}

// invited tells whether somebody on a server is invited to a room.
func (s *Service) invited(ctx context.Context, origin matrix.ServerName, r *store.Room) (bool, error) {
	list, err := s.Store.Members(ctx, r.Num, event.Invite, mostInvited)
	return slices.ContainsFunc(list, func(m store.Membership) bool { return m.User.Server() == origin }), err
}

// mostInvited is how many invitations of a room are looked at.
const mostInvited = 10_000
