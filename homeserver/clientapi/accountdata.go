package clientapi

import (
	"switchboard/homeserver/edge"
	"switchboard/homeserver/matrix"
)

var accountDataRoutes = []route{
	{"setAccountData", "PUT /_matrix/client/v3/user/{userId}/account_data/{type}", users, (*API).setAccountData},
	{"getAccountData", "GET /_matrix/client/v3/user/{userId}/account_data/{type}", users, (*API).getAccountData},
	{"setAccountDataPerRoom", "PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}", users, (*API).setAccountDataPerRoom},
	{"getAccountDataPerRoom", "GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}", users, (*API).getAccountDataPerRoom},
	{"", "DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{userId}/account_data/{type}", users, (*API).deleteAccountData},
	{"", "DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{userId}/rooms/{roomId}/account_data/{type}", users, (*API).deleteAccountData},
}

// setAccountData stores a setting that the user's clients share.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridaccount_datatype
func (a *API) setAccountData(r *request) (any, error) { return a.putData(r, "") }

// getAccountData reads a setting that the user's clients share.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridaccount_datatype
func (a *API) getAccountData(r *request) (any, error) { return a.data(r, "") }

// setAccountDataPerRoom stores a setting for one room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidaccount_datatype
func (a *API) setAccountDataPerRoom(r *request) (any, error) {
	room, err := r.Room()
	if err != nil {
		return nil, err
	}
	return a.putData(r, room)
}

// getAccountDataPerRoom reads a setting for one room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidaccount_datatype
func (a *API) getAccountDataPerRoom(r *request) (any, error) {
	room, err := r.Room()
	if err != nil {
		return nil, err
	}
	return a.data(r, room)
}

// deleteAccountData deletes a setting, of the user or for one room.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/3391
func (a *API) deleteAccountData(r *request) (any, error) {
	var room matrix.RoomID
	if r.PathValue("roomId") != "" {
		var err error
		if room, err = r.Room(); err != nil {
			return nil, err
		}
	}
	if err := r.self(); err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Accounts.SetData(r.Context(), r.User, room, r.PathValue("type"), nil)
}

func (a *API) putData(r *request, room matrix.RoomID) (any, error) {
	if err := r.self(); err != nil {
		return nil, err
	}
	content, err := r.Object()
	if err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Accounts.SetData(r.Context(), r.User, room, r.PathValue("type"), content)
}

func (a *API) data(r *request, room matrix.RoomID) (any, error) {
	if err := r.self(); err != nil {
		return nil, err
	}
	return a.Accounts.Data(r.Context(), r.User, room, r.PathValue("type"))
}
