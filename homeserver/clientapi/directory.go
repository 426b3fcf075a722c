package clientapi

import (
	"encoding/json"

	"switchboard/homeserver/edge"

	"switchboard/homeserver/directory"
	"switchboard/homeserver/matrix"
)

var directoryRoutes = []route{
	{"setRoomAlias", "PUT /_matrix/client/v3/directory/room/{roomAlias}", users, (*API).setRoomAlias},
	{"getRoomIdByAlias", "GET /_matrix/client/v3/directory/room/{roomAlias}", public, (*API).getRoomIDByAlias},
	{"deleteRoomAlias", "DELETE /_matrix/client/v3/directory/room/{roomAlias}", users, (*API).deleteRoomAlias},
	{"getLocalAliases", "GET /_matrix/client/v3/rooms/{roomId}/aliases", guests, (*API).getLocalAliases},
	{"getRoomVisibilityOnDirectory", "GET /_matrix/client/v3/directory/list/room/{roomId}", public, (*API).getRoomVisibilityOnDirectory},
	{"setRoomVisibilityOnDirectory", "PUT /_matrix/client/v3/directory/list/room/{roomId}", users, (*API).setRoomVisibilityOnDirectory},
	{"updateAppserviceRoomDirectoryVisibility", "PUT /_matrix/client/v3/directory/list/appservice/{networkId}/{roomId}", users, (*API).setRoomVisibilityOnDirectory},
	{"getPublicRooms", "GET /_matrix/client/v3/publicRooms", optional, (*API).getPublicRooms},
	{"queryPublicRooms", "POST /_matrix/client/v3/publicRooms", guests, (*API).queryPublicRooms},
	{"searchUserDirectory", "POST /_matrix/client/v3/user_directory/search", users, (*API).searchUserDirectory},
}

// setRoomAlias gives a room a name.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias
func (a *API) setRoomAlias(r *request) (any, error) {
	if err := r.active(); err != nil {
		return nil, err
	}
	alias, err := matrix.ParseRoomAlias(r.PathValue("roomAlias"))
	if err != nil {
		return nil, err
	}
	var b struct {
		Room *string `json:"room_id"`
	}
	if err := r.OptionalJSON(&b); err != nil {
		return nil, err
	}
	if b.Room == nil {
		return nil, matrix.Errorf(matrix.MissingParam, "room_id is missing")
	}
	id, err := matrix.ParseRoomID(*b.Room)
	if err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Directory.SetAlias(r.Context(), r.caller(), alias, id)
}

// getRoomIDByAlias finds the room that an alias stands for.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directoryroomroomalias
func (a *API) getRoomIDByAlias(r *request) (any, error) {
	alias, err := matrix.ParseRoomAlias(r.PathValue("roomAlias"))
	if err != nil {
		return nil, err
	}
	id, servers, err := a.Directory.Resolve(r.Context(), alias)
	if err != nil {
		return nil, err
	}
	return map[string]any{"room_id": id, "servers": servers}, nil
}

// deleteRoomAlias takes a name away.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias
func (a *API) deleteRoomAlias(r *request) (any, error) {
	if err := r.active(); err != nil {
		return nil, err
	}
	alias, err := matrix.ParseRoomAlias(r.PathValue("roomAlias"))
	if err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Directory.DeleteAlias(r.Context(), r.caller(), alias)
}

// getLocalAliases lists the names of a room on this server.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidaliases
func (a *API) getLocalAliases(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	list, err := a.Directory.Aliases(r.Context(), r.User, id)
	if err != nil {
		return nil, err
	}
	return map[string][]matrix.RoomAlias{"aliases": list}, nil
}

// getRoomVisibilityOnDirectory tells whether a room is listed.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directorylistroomroomid
func (a *API) getRoomVisibilityOnDirectory(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	listed, err := a.Directory.Listed(r.Context(), id)
	if err != nil {
		return nil, err
	}
	return map[string]string{"visibility": map[bool]string{true: "public", false: "private"}[listed]}, nil
}

// setRoomVisibilityOnDirectory lists a room or takes it out.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid
func (a *API) setRoomVisibilityOnDirectory(r *request) (any, error) {
	if err := r.active(); err != nil {
		return nil, err
	}
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	b := struct {
		Visibility string `json:"visibility"`
	}{"public"}
	if err := r.OptionalJSON(&b); err != nil {
		return nil, err
	}
	if b.Visibility != "public" && b.Visibility != "private" {
		return nil, matrix.Errorf(matrix.InvalidParam, "visibility must be public or private")
	}
	return edge.Empty{}, a.Directory.List(r.Context(), r.caller(), r.PathValue("networkId"), id, b.Visibility == "public")
}

// getPublicRooms gives a part of the list of public rooms.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms
func (a *API) getPublicRooms(r *request) (any, error) {
	limit, err := r.Number("limit", 0, 10_000)
	if err != nil {
		return nil, err
	}
	return a.publicRooms(r, directory.Query{Limit: limit, Since: r.URL.Query().Get("since")}, nil)
}

// queryPublicRooms searches the list of public rooms.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3publicrooms
func (a *API) queryPublicRooms(r *request) (any, error) {
	var q directory.Query
	var asked struct {
		Filter json.RawMessage `json:"filter"` // as another server gets it
	}
	if err := r.OptionalJSON(&q, &asked); err != nil {
		return nil, err
	}
	return a.publicRooms(r, q, asked.Filter)
}

// publicRooms gives a part of the list of this server, or of the one that the
// client names.
func (a *API) publicRooms(r *request, q directory.Query, filter json.RawMessage) (any, error) {
	name := r.URL.Query().Get("server")
	if name == "" || name == string(a.ServerName) {
		return a.Directory.PublicRooms(r.Context(), q)
	}
	server, err := matrix.ParseServerName(name)
	if err != nil {
		return nil, err
	}
	return a.Directory.PublicRoomsOf(r.Context(), server, q, filter)
}

// The sizes of answers of a search for users.
const (
	peopleDefault = 10
	peopleMost    = 100
)

// searchUserDirectory finds users.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3user_directorysearch
func (a *API) searchUserDirectory(r *request) (any, error) {
	b := struct {
		Term  *string `json:"search_term"`
		Limit int     `json:"limit"`
	}{Limit: peopleDefault}
	if err := r.OptionalJSON(&b); err != nil {
		return nil, err
	}
	if b.Term == nil {
		return nil, matrix.Errorf(matrix.MissingParam, "search_term is missing")
	}
	if b.Limit <= 0 {
		b.Limit = peopleDefault
	}
	return a.Directory.SearchUsers(r.Context(), r.User, *b.Term, min(b.Limit, peopleMost))
}
