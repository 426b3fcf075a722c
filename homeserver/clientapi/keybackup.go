package clientapi

import (
	"encoding/json"
	"strconv"

	"switchboard/homeserver/edge"

	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/matrix"
)

var keyBackupRoutes = []route{
	{"postRoomKeysVersion", "POST /_matrix/client/v3/room_keys/version", users, (*API).postRoomKeysVersion},
	{"getRoomKeysVersionCurrent", "GET /_matrix/client/v3/room_keys/version", users, (*API).getRoomKeysVersion},
	{"getRoomKeysVersion", "GET /_matrix/client/v3/room_keys/version/{version}", users, (*API).getRoomKeysVersion},
	{"putRoomKeysVersion", "PUT /_matrix/client/v3/room_keys/version/{version}", users, (*API).putRoomKeysVersion},
	{"deleteRoomKeysVersion", "DELETE /_matrix/client/v3/room_keys/version/{version}", users, (*API).deleteRoomKeysVersion},
	{"putRoomKeyBySessionId", "PUT /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}", users, (*API).putRoomKeyBySessionID},
	{"getRoomKeyBySessionId", "GET /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}", users, (*API).getRoomKeyBySessionID},
	{"deleteRoomKeyBySessionId", "DELETE /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}", users, (*API).deleteRoomKeys},
	{"putRoomKeysByRoomId", "PUT /_matrix/client/v3/room_keys/keys/{roomId}", users, (*API).putRoomKeysByRoomID},
	{"getRoomKeysByRoomId", "GET /_matrix/client/v3/room_keys/keys/{roomId}", users, (*API).getRoomKeysByRoomID},
	{"deleteRoomKeysByRoomId", "DELETE /_matrix/client/v3/room_keys/keys/{roomId}", users, (*API).deleteRoomKeys},
	{"putRoomKeys", "PUT /_matrix/client/v3/room_keys/keys", users, (*API).putRoomKeys},
	{"getRoomKeys", "GET /_matrix/client/v3/room_keys/keys", users, (*API).getRoomKeys},
	{"deleteRoomKeys", "DELETE /_matrix/client/v3/room_keys/keys", users, (*API).deleteRoomKeys},
}

// postRoomKeysVersion begins a new backup.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3room_keysversion
func (a *API) postRoomKeysVersion(r *request) (any, error) {
	var body struct {
		Algorithm string          `json:"algorithm"`
		AuthData  json.RawMessage `json:"auth_data"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	version, err := a.Keys.CreateBackup(r.Context(), r.User, body.Algorithm, body.AuthData)
	if err != nil {
		return nil, err
	}
	return map[string]string{"version": version}, nil
}

// getRoomKeysVersion describes a backup, the newest one where the path names
// none.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversionversion
func (a *API) getRoomKeysVersion(r *request) (any, error) {
	b, err := a.Keys.Backup(r.Context(), r.User, r.PathValue("version"))
	if err != nil {
		return nil, err
	}
	return struct {
		Algorithm string          `json:"algorithm"`
		AuthData  json.RawMessage `json:"auth_data"`
		Count     int64           `json:"count"`
		Etag      string          `json:"etag"`
		Version   string          `json:"version"`
	}{b.Algorithm, b.AuthData, b.Keys, etag(b), strconv.FormatInt(b.Version, 10)}, nil
}

func etag(b e2ee.Backup) string { return strconv.FormatInt(b.Etag, 10) }

// putRoomKeysVersion replaces the auth data of a backup.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keysversionversion
func (a *API) putRoomKeysVersion(r *request) (any, error) {
	var body struct {
		Algorithm string          `json:"algorithm"`
		AuthData  json.RawMessage `json:"auth_data"`
		Version   *string         `json:"version"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	version := r.PathValue("version")
	if body.Version != nil && *body.Version != version {
		return nil, matrix.Errorf(matrix.InvalidParam, "the version in the body is not that of the path")
	}
	return edge.Empty{}, a.Keys.SetBackupAuth(r.Context(), r.User, version, body.Algorithm, body.AuthData)
}

// deleteRoomKeysVersion deletes a backup.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keysversionversion
func (a *API) deleteRoomKeysVersion(r *request) (any, error) {
	return edge.Empty{}, a.Keys.DeleteBackup(r.Context(), r.User, r.PathValue("version"))
}

// roomBackup is the keys of a room, by session.
type roomBackup struct {
	Sessions map[string]e2ee.BackedUpKey `json:"sessions"`
}

// putKeys stores keys and answers with the state of the backup.
func (a *API) putKeys(r *request, keys e2ee.BackupKeys) (any, error) {
	version := r.URL.Query().Get("version")
	if version == "" {
		return nil, matrix.Errorf(matrix.MissingParam, "the query needs a version")
	}
	return backupState(a.Keys.PutBackupKeys(r.Context(), r.User, version, keys))
}

// backupState is the answer to a change of keys.
func backupState(b e2ee.Backup, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return map[string]any{"count": b.Keys, "etag": etag(b)}, nil
}

// putRoomKeyBySessionID stores the key of a session.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomidsessionid
func (a *API) putRoomKeyBySessionID(r *request) (any, error) {
	var k e2ee.BackedUpKey
	if err := r.OptionalJSON(&k); err != nil {
		return nil, err
	}
	return a.putKeys(r, e2ee.BackupKeys{matrix.RoomID(r.PathValue("roomId")): {r.PathValue("sessionId"): k}})
}

// putRoomKeysByRoomID stores keys of a room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomid
func (a *API) putRoomKeysByRoomID(r *request) (any, error) {
	var body roomBackup
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	if body.Sessions == nil {
		return nil, matrix.Errorf(matrix.BadJSON, "sessions is missing")
	}
	return a.putKeys(r, e2ee.BackupKeys{matrix.RoomID(r.PathValue("roomId")): body.Sessions})
}

// putRoomKeys stores keys.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeys
func (a *API) putRoomKeys(r *request) (any, error) {
	var body struct {
		Rooms map[matrix.RoomID]roomBackup `json:"rooms"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	if body.Rooms == nil {
		return nil, matrix.Errorf(matrix.BadJSON, "rooms is missing")
	}
	keys := e2ee.BackupKeys{}
	for room, b := range body.Rooms {
		keys[room] = b.Sessions
	}
	return a.putKeys(r, keys)
}

// backupKeys reads the keys that path and query name.
func (a *API) backupKeys(r *request) (e2ee.BackupKeys, error) {
	return a.Keys.BackupKeys(r.Context(), r.User, r.URL.Query().Get("version"), matrix.RoomID(r.PathValue("roomId")), r.PathValue("sessionId"))
}

// getRoomKeyBySessionID reads the key of a session.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomidsessionid
func (a *API) getRoomKeyBySessionID(r *request) (any, error) {
	keys, err := a.backupKeys(r)
	if err != nil {
		return nil, err
	}
	k, ok := keys[matrix.RoomID(r.PathValue("roomId"))][r.PathValue("sessionId")]
	if !ok {
		return nil, matrix.Errorf(matrix.NotFound, "the backup has no such key")
	}
	return k, nil
}

// getRoomKeysByRoomID reads the keys of a room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomid
func (a *API) getRoomKeysByRoomID(r *request) (any, error) {
	keys, err := a.backupKeys(r)
	if err != nil {
		return nil, err
	}
	return showRoomBackup(keys[matrix.RoomID(r.PathValue("roomId"))]), nil
}

func showRoomBackup(sessions map[string]e2ee.BackedUpKey) roomBackup {
	if sessions == nil {
		sessions = map[string]e2ee.BackedUpKey{}
	}
	return roomBackup{sessions}
}

// getRoomKeys reads all keys of a backup.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeys
func (a *API) getRoomKeys(r *request) (any, error) {
	keys, err := a.backupKeys(r)
	if err != nil {
		return nil, err
	}
	shown := make(map[matrix.RoomID]roomBackup, len(keys))
	for room, sessions := range keys {
		shown[room] = showRoomBackup(sessions)
	}
	return map[string]any{"rooms": shown}, nil
}

// deleteRoomKeys deletes the keys that path and query name: of a session, of a
// room, or all.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeys
func (a *API) deleteRoomKeys(r *request) (any, error) {
	q := r.URL.Query().Get("version")
	return backupState(a.Keys.DeleteBackupKeys(r.Context(), r.User, q, matrix.RoomID(r.PathValue("roomId")), r.PathValue("sessionId")))
}
