package clientapi

import (
	"encoding/json"

	"switchboard/homeserver/edge"
	"switchboard/homeserver/identity"

	"switchboard/homeserver/directory"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

var roomRoutes = []route{
	{"createRoom", "POST /_matrix/client/v3/createRoom", users, (*API).createRoom},
	{"joinRoomById", "POST /_matrix/client/v3/rooms/{roomId}/join", guests, (*API).joinRoomByID},
	{"joinRoom", "POST /_matrix/client/v3/join/{roomIdOrAlias}", guests, (*API).joinRoom},
	{"knockRoom", "POST /_matrix/client/v3/knock/{roomIdOrAlias}", users, (*API).knockRoom},
	{"leaveRoom", "POST /_matrix/client/v3/rooms/{roomId}/leave", guests, (*API).leaveRoom},
	{"forgetRoom", "POST /_matrix/client/v3/rooms/{roomId}/forget", guests, (*API).forgetRoom},
	{"inviteUser", "POST /_matrix/client/v3/rooms/{roomId}/invite", users, (*API).inviteUser},
	{"kick", "POST /_matrix/client/v3/rooms/{roomId}/kick", users, (*API).kick},
	{"ban", "POST /_matrix/client/v3/rooms/{roomId}/ban", users, (*API).ban},
	{"unban", "POST /_matrix/client/v3/rooms/{roomId}/unban", users, (*API).unban},
	{"getJoinedRooms", "GET /_matrix/client/v3/joined_rooms", guests, (*API).getJoinedRooms},
	{"getRoomSummary", "GET /_matrix/client/v1/room_summary/{roomIdOrAlias}", optional, (*API).getRoomSummary},
	{"", "GET /_matrix/client/unstable/im.nheko.summary/rooms/{roomIdOrAlias}/summary", optional, (*API).getRoomSummary},
	{"", "GET /_matrix/client/unstable/im.nheko.summary/summary/{roomIdOrAlias}", optional, (*API).getRoomSummary},
}

// createRoom makes a room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
func (a *API) createRoom(r *request) (any, error) {
	if err := r.active(); err != nil {
		return nil, err
	}
	var c room.Creation
	if err := r.OptionalJSON(&c); err != nil {
		return nil, err
	}
	c.Creator, c.Past = r.User, r.Appservice != nil
	if c.AliasName != "" {
		alias, err := matrix.ParseRoomAlias("#" + c.AliasName + ":" + string(a.ServerName))
		if err != nil {
			return nil, err
		}
		if err := a.Directory.MayName(r.caller(), alias); err != nil {
			return nil, err
		}
	}
	if err := a.limitMore(r, classInvite, len(c.Invite)+len(c.Invite3PID)); err != nil {
		return nil, err
	}
	id, err := a.Federation.Create(r.Context(), c)
	if err != nil {
		return nil, err
	}
	return map[string]matrix.RoomID{"room_id": id}, nil
}

// caller is who asks, for the directory.
func (r *request) caller() directory.Caller {
	return directory.Caller{User: r.User, Appservice: r.Appservice, Admin: r.Admin}
}

// reader is who asks, for reading events.
func (r *request) reader() room.Reader {
	return room.Reader{User: r.User, Device: r.Device, Related: true}
}

// resolve finds the room that the path names by its ID or an alias, and servers
// that may be in it.
func (a *API) resolve(r *request) (matrix.RoomID, []matrix.ServerName, error) {
	name := r.PathValue("roomIdOrAlias")
	if name != "" && name[0] == '#' {
		alias, err := matrix.ParseRoomAlias(name)
		if err != nil {
			return "", nil, err
		}
		return a.Directory.Resolve(r.Context(), alias)
	}
	id, err := matrix.ParseRoomID(name)
	return id, r.via(), err
}

// via lists the servers by which the client thinks that a room can be reached.
func (r *request) via() []matrix.ServerName {
	var list []matrix.ServerName
	q := r.URL.Query()
	for _, s := range append(q["via"], q["server_name"]...) { // its name before v1.12
		if name, err := matrix.ParseServerName(s); err == nil {
			list = append(list, name)
		}
	}
	return list
}

// change reads the body of an operation on the user's own membership. What else
// the client says in it becomes part of the member event, as other servers do.
func (r *request) change(id matrix.RoomID) (room.Change, error) {
	var more map[string]json.RawMessage
	if err := r.OptionalJSON(&more); err != nil {
		return room.Change{}, err
	}
	c := room.Change{Room: id, Actor: r.User, Guest: r.Guest, Signed: more["third_party_signed"]}
	if reason := more["reason"]; reason != nil {
		if err := edge.Decode(reason, &c.Reason); err != nil {
			return c, matrix.Errorf(matrix.BadJSON, "reason must be a string")
		}
	}
	for _, key := range []string{"reason", "third_party_signed", "membership", "displayname", "avatar_url"} {
		delete(more, key)
	}
	if len(more) > 0 {
		content, err := json.Marshal(more)
		if err != nil {
			return c, err
		}
		c.Extra = content
	}
	var err error
	c.At, err = r.timestamp()
	return c, err
}

// changeOf is change for operations that name another user. Where more is given,
// the body is read into that too, and may name nobody.
func (r *request) changeOf(more ...any) (room.Change, error) {
	if err := r.active(); err != nil {
		return room.Change{}, err
	}
	id, err := r.Room()
	if err != nil {
		return room.Change{}, err
	}
	var b struct {
		User   *matrix.UserID `json:"user_id"`
		Reason *string        `json:"reason"`
	}
	if err := r.OptionalJSON(append(more, &b)...); err != nil {
		return room.Change{}, err
	}
	c := room.Change{Room: id, Actor: r.User, Reason: b.Reason}
	switch {
	case b.User != nil:
		if c.Target, err = matrix.ParseUserID(string(*b.User)); err != nil {
			return c, err
		}
	case more == nil:
		return c, matrix.Errorf(matrix.MissingParam, "user_id is missing")
	}
	c.At, err = r.timestamp()
	return c, err
}

// joinRoomByID joins a room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidjoin
func (a *API) joinRoomByID(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	return a.join(r, id, r.via())
}

// joinRoom joins a room named by its ID or alias.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3joinroomidoralias
func (a *API) joinRoom(r *request) (any, error) {
	id, via, err := a.resolve(r)
	if err != nil {
		return nil, err
	}
	return a.join(r, id, via)
}

func (a *API) join(r *request, id matrix.RoomID, via []matrix.ServerName) (any, error) {
	c, err := r.change(id)
	if err != nil {
		return nil, err
	}
	if err := r.active(); err != nil {
		return nil, err
	}
	if err := a.Federation.Join(r.Context(), c, via); err != nil {
		return nil, err
	}
	return map[string]matrix.RoomID{"room_id": id}, nil
}

// knockRoom asks to be invited.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3knockroomidoralias
func (a *API) knockRoom(r *request) (any, error) {
	id, via, err := a.resolve(r)
	if err != nil {
		return nil, err
	}
	c, err := r.change(id)
	if err != nil {
		return nil, err
	}
	if err := r.active(); err != nil {
		return nil, err
	}
	if err := a.Federation.Knock(r.Context(), c, via); err != nil {
		return nil, err
	}
	return map[string]matrix.RoomID{"room_id": id}, nil
}

// leaveRoom leaves a room or declines an invitation.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidleave
func (a *API) leaveRoom(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	c, err := r.change(id)
	if err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Federation.Leave(r.Context(), c)
}

// forgetRoom hides a room that was left.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget
func (a *API) forgetRoom(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Rooms.Forget(r.Context(), id, r.User)
}

// inviteUser invites somebody, known by a user ID or by an address of another
// network (inviteBy3PID).
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite
func (a *API) inviteUser(r *request) (any, error) {
	var who identity.Invitee
	c, err := r.changeOf(&who)
	if err != nil {
		return nil, err
	}
	switch {
	case c.Target != "":
	case who.Medium != "" || who.Address.Address != "":
		return edge.Empty{}, a.Federation.InviteAddress(r.Context(), c, who)
	default:
		return nil, matrix.Errorf(matrix.MissingParam, "user_id is missing")
	}
	return edge.Empty{}, a.Federation.Invite(r.Context(), c)
}

// kick makes somebody leave.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidkick
func (a *API) kick(r *request) (any, error) {
	c, err := r.changeOf()
	if err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Rooms.Kick(r.Context(), c)
}

// ban makes somebody leave and keeps them out.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidban
func (a *API) ban(r *request) (any, error) {
	c, err := r.changeOf()
	if err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Rooms.Ban(r.Context(), c)
}

// unban lets somebody come back.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidunban
func (a *API) unban(r *request) (any, error) {
	c, err := r.changeOf()
	if err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Rooms.Unban(r.Context(), c)
}

// getJoinedRooms lists the rooms that the user is in.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms
func (a *API) getJoinedRooms(r *request) (any, error) {
	list, err := a.Rooms.JoinedRooms(r.Context(), r.User)
	if err != nil {
		return nil, err
	}
	return map[string][]matrix.RoomID{"joined_rooms": list}, nil
}

// getRoomSummary describes a room to somebody who is not in it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias
func (a *API) getRoomSummary(r *request) (any, error) {
	id, via, err := a.resolve(r)
	if err != nil {
		return nil, err
	}
	return a.Federation.Summary(r.Context(), id, r.User, via)
}
