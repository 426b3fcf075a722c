package federation

import (
	"context"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// Summary describes a room to a user, "" for nobody in particular, who may join
// or read it or was invited; else it answers M_NOT_FOUND. Servers are asked about
// a room that this one is not in, those of via first, but only for users.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias
func (s *Service) Summary(ctx context.Context, id matrix.RoomID, user matrix.UserID, via []matrix.ServerName) (*room.Summary, error) {
	resident, err := s.resident(ctx, id)
	if err != nil {
		return nil, err
	}
	if resident || user == "" {
		return s.Rooms.Preview(ctx, id, user)
	}
	servers, err := s.candidates(ctx, room.Change{Room: id, Actor: user}, via)
	if err != nil {
		return nil, err
	}
	w := &walk{s: s, user: user, query: SpaceQuery{Suggested: true}} // the rooms in it are not wanted
	d, err := w.describe(ctx, id, servers)
	if err != nil {
		return nil, err
	}
	if d == nil || d.ID != id {
		return nil, matrix.Errorf(matrix.NotFound, "there is no such room, or you may not see it, or no server that knows it can be reached")
	}
	sum := &room.Summary{
		Room: id, Name: d.Name, Topic: d.Topic, Alias: matrix.RoomAlias(d.CanonicalAlias), Avatar: d.AvatarURL, Joined: int(d.Members),
		JoinRule: d.JoinRule, Type: d.Type, Readable: d.WorldReadable, GuestsJoin: d.GuestCanJoin, Version: d.Version,
		Encryption: d.Encryption, Allowed: d.AllowedRooms,
	}
	if sum.Membership, err = w.is(ctx, id); sum.Membership == "" {
		sum.Membership = "leave"
	}
	return sum, err
}
