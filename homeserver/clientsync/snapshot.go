package clientsync

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// RoomSnapshot is a room as it is now, and the end of its timeline.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync
type RoomSnapshot struct {
	Room        matrix.RoomID     `json:"room_id"`
	Membership  string            `json:"membership,omitempty"`
	Invite      json.RawMessage   `json:"invite,omitempty"`
	Messages    *Stretch          `json:"messages,omitempty"`
	State       []json.RawMessage `json:"state,omitempty"`
	Visibility  string            `json:"visibility"` // in the directory: "public" or "private"
	AccountData []json.RawMessage `json:"account_data"`
}

// snapshotDefault and snapshotMost are how many events of the timeline there are
// in a snapshot.
const (
	snapshotDefault = 20
	snapshotMost    = 100
)

// Snapshot describes a room that the user may read: a member, a former one, or
// whoever looks in where everybody may. Limit is how many events of the timeline
// it holds at most, 0 for the usual number.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync
func (s *Service) Snapshot(ctx context.Context, rd room.Reader, id matrix.RoomID, limit int) (*RoomSnapshot, error) {
	if limit <= 0 {
		limit = snapshotDefault
	}
	end := token{s.Store.Position(), s.Ephemeral.Serial()}
	state, err := s.Rooms.State(ctx, rd, id)
	if err != nil {
		return nil, err
	}
	p, err := s.Rooms.Messages(ctx, rd, room.Page{Room: id, From: room.Token(end.pos), Limit: min(limit, snapshotMost), Filter: &EventFilter{}})
	if err != nil {
		return nil, err
	}
	slices.Reverse(p.Chunk)
	snap := &RoomSnapshot{Room: id, State: state, Messages: &Stretch{Chunk: p.Chunk, Start: p.End, End: end.String()}}
	return snap, s.describe(ctx, rd, snap, end)
}

// describe adds what a snapshot has of every room.
func (s *Service) describe(ctx context.Context, rd room.Reader, snap *RoomSnapshot, at token) error {
	r, err := s.Store.Room(ctx, snap.Room)
	if err != nil {
		return err
	}
	if m := s.Store.Membership(rd.User, r.Num); !m.Forgotten {
		snap.Membership = m.Membership
	}
	public, err := s.Store.Published(ctx, "", r.Num)
	if err != nil {
		return err
	}
	snap.Visibility = "private"
	if public {
		snap.Visibility = "public"
	}
	reading := &reading{Service: s, Request: Request{User: rd.User, Filter: &Filter{}}, ctx: ctx, now: at}
	data, err := reading.allAccountData(snap.Room)
	if err != nil {
		return err
	}
	snap.AccountData = []json.RawMessage{}
	if data != nil {
		snap.AccountData = data.Events
	}
	return nil
}

// UserSnapshot is all that a user has, for clients of before /sync.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3initialsync
type UserSnapshot struct {
	End         string            `json:"end"`
	Rooms       []*RoomSnapshot   `json:"rooms"`
	Presence    []json.RawMessage `json:"presence"`
	AccountData []json.RawMessage `json:"account_data"`
}

// Everything describes all rooms of a user, those that they have left only if
// left is set. Events goes on at its end.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3initialsync
func (s *Service) Everything(ctx context.Context, rd room.Reader, limit int, left bool) (*UserSnapshot, error) {
	end := token{s.Store.Position(), s.Ephemeral.Serial()}
	snap := &UserSnapshot{End: end.String(), Rooms: []*RoomSnapshot{}, Presence: []json.RawMessage{}, AccountData: []json.RawMessage{}}
	for _, m := range s.Store.Memberships(rd.User) {
		if m.Forgotten || !left && (m.Membership == "leave" || m.Membership == "ban") {
			continue
		}
		r, err := s.snapshotOf(ctx, rd, m, limit, end)
		if err != nil {
			return nil, err
		}
		if r != nil {
			snap.Rooms = append(snap.Rooms, r)
		}
	}
	filter := &Filter{}
	filter.Room.Rooms = []matrix.RoomID{} // they are there already
	a, err := s.read(ctx, Request{User: rd.User, Filter: filter}, token{})
	if err != nil {
		return nil, err
	}
	if a.AccountData != nil {
		snap.AccountData = a.AccountData.Events
	}
	if a.Presence != nil {
		snap.Presence = a.Presence.Events
	}
	return snap, nil
}

// snapshotOf describes one room of a user; nil if there is nothing to read in it.
func (s *Service) snapshotOf(ctx context.Context, rd room.Reader, m store.Membership, limit int, at token) (*RoomSnapshot, error) {
	r, err := s.Store.RoomByNum(ctx, m.Room)
	if err != nil {
		return nil, err
	}
	switch m.Membership {
	case "join":
		return s.Snapshot(ctx, rd, r.ID, limit)
	case "invite", "knock":
		stored, err := s.Store.EventByNum(ctx, m.Event)
		if err != nil {
			return nil, err
		}
		if hidden, err := s.Rooms.HidesInvite(ctx, rd.User, stored.PDU.Sender); err != nil || hidden && m.Membership == "invite" {
			return nil, err
		}
		e, err := s.membershipEvent(ctx, rd, r.ID)
		if err != nil {
			return nil, err
		}
		snap := &RoomSnapshot{Room: r.ID, Invite: e}
		return snap, s.describe(ctx, rd, snap, at)
	}
	snap, err := s.Snapshot(ctx, rd, r.ID, limit)
	if refused := (*matrix.Error)(nil); errors.As(err, &refused) {
		return nil, nil // they never were in it
	}
	return snap, err
}
