package fedclient

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"switchboard/homeserver/matrix"
)

// Profile asks the server of a user for the user's profile, or for one field of
// it where that is not "". Fields that are not set are left out.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile
func (c *Client) Profile(ctx context.Context, user matrix.UserID, field string) (map[string]json.RawMessage, error) {
	answer := map[string]json.RawMessage{}
	err := c.query(ctx, user.Server(), "queryProfile", "profile", &answer, "user_id", string(user), "field", field)
	for name, value := range answer {
		if string(value) == "null" {
			delete(answer, name)
		}
	}
	return answer, err
}

// RoomAlias asks the server of an alias for the room and for servers that are
// likely to be in it.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory
func (c *Client) RoomAlias(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	var answer struct {
		Room    matrix.RoomID `json:"room_id"`
		Servers []string      `json:"servers"`
	}
	const op = "queryRoomDirectory"
	if err := c.query(ctx, alias.Server(), op, "directory", &answer, "room_alias", string(alias)); err != nil {
		return "", nil, err
	}
	if _, err := matrix.ParseRoomID(string(answer.Room)); err != nil {
		return "", nil, wrap(op, &AnswerError{alias.Server(), err})
	}
	var servers []matrix.ServerName
	for _, s := range answer.Servers {
		if name, err := matrix.ParseServerName(s); err == nil {
			servers = append(servers, name)
		}
	}
	return answer.Room, servers, nil
}

// Query asks a question of a type that the specification may not know. The
// pairs are names and values of its arguments.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryquerytype
func (c *Client) Query(ctx context.Context, server matrix.ServerName, queryType string, pairs ...string) (json.RawMessage, error) {
	var answer json.RawMessage
	err := c.query(ctx, server, "queryInfo", queryType, &answer, pairs...)
	return answer, err
}

func (c *Client) query(ctx context.Context, server matrix.ServerName, op, queryType string, out any, pairs ...string) error {
	return c.do(ctx, server, call{
		op: op, method: http.MethodGet, path: path("/_matrix/federation/v1/query/{}", queryType), query: values(pairs...),
	}, out)
}

// UserDevices are the devices of a user of another server.
type UserDevices struct {
	User           matrix.UserID   `json:"user_id"`
	StreamID       int64           `json:"stream_id"`
	Devices        []UserDevice    `json:"devices"`
	MasterKey      json.RawMessage `json:"master_key"`       // nil: none
	SelfSigningKey json.RawMessage `json:"self_signing_key"` // nil: none
}

// UserDevice is one of them.
type UserDevice struct {
	ID          matrix.DeviceID `json:"device_id"`
	Keys        json.RawMessage `json:"keys"`
	DisplayName string          `json:"device_display_name"`
}

// UserDevices asks the server of a user for the user's devices.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid
func (c *Client) UserDevices(ctx context.Context, user matrix.UserID) (*UserDevices, error) {
	answer := &UserDevices{}
	k := call{op: "getUserDevices", method: http.MethodGet, path: path("/_matrix/federation/v1/user/devices/{}", user)}
	if err := c.do(ctx, user.Server(), k, answer); err != nil {
		return nil, err
	}
	if answer.User != user {
		return nil, wrap(k.op, &AnswerError{user.Server(), errors.New("the devices of another user")})
	}
	return answer, nil
}

// UserKeys are device keys and cross-signing keys by user. Users of other
// servers than the one that was asked are left out.
type UserKeys struct {
	DeviceKeys      map[matrix.UserID]map[matrix.DeviceID]json.RawMessage `json:"device_keys"`
	MasterKeys      map[matrix.UserID]json.RawMessage                     `json:"master_keys"`
	SelfSigningKeys map[matrix.UserID]json.RawMessage                     `json:"self_signing_keys"`
}

// QueryKeys asks a server for the keys of its users. An empty list of devices
// means all of them.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysquery
func (c *Client) QueryKeys(ctx context.Context, server matrix.ServerName, users map[matrix.UserID][]matrix.DeviceID) (*UserKeys, error) {
	ask := make(map[matrix.UserID][]matrix.DeviceID, len(users))
	for user, devices := range users {
		ask[user] = append([]matrix.DeviceID{}, devices...)
	}
	answer := &UserKeys{}
	err := c.do(ctx, server, call{
		op: "queryUserEncryptionKeys", method: http.MethodPost, path: "/_matrix/federation/v1/user/keys/query", body: map[string]any{"device_keys": ask},
	}, answer)
	if err != nil {
		return nil, err
	}
	foreign(answer.DeviceKeys, server)
	foreign(answer.MasterKeys, server)
	foreign(answer.SelfSigningKeys, server)
	return answer, nil
}

// foreign removes the users of other servers, for whom server cannot speak.
func foreign[V any](users map[matrix.UserID]V, server matrix.ServerName) {
	for user := range users {
		if _, err := matrix.ParseUserID(string(user)); err != nil || user.Server() != server {
			delete(users, user)
		}
	}
}

// OneTimeKeys are keys by user, device and key ID.
type OneTimeKeys map[matrix.UserID]map[matrix.DeviceID]map[string]json.RawMessage

// ClaimKeys takes one-time keys of users of a server: of each device one of the
// algorithm that is named.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysclaim
func (c *Client) ClaimKeys(ctx context.Context, server matrix.ServerName, algorithms map[matrix.UserID]map[matrix.DeviceID]string) (OneTimeKeys, error) {
	var answer struct {
		Keys OneTimeKeys `json:"one_time_keys"`
	}
	err := c.do(ctx, server, call{
		op: "claimUserEncryptionKeys", method: http.MethodPost, path: "/_matrix/federation/v1/user/keys/claim",
		body: map[string]any{"one_time_keys": algorithms}, once: true,
	}, &answer)
	foreign(answer.Keys, server)
	return answer.Keys, err
}

// OpenIDUser asks a server whose OpenID token this is. The user is one of that
// server.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1openiduserinfo
func (c *Client) OpenIDUser(ctx context.Context, server matrix.ServerName, token string) (matrix.UserID, error) {
	k := call{op: "exchangeOpenIdToken", method: http.MethodGet, path: "/_matrix/federation/v1/openid/userinfo", query: values("access_token", token), unsigned: true}
	var answer struct {
		Sub string `json:"sub"`
	}
	if err := c.do(ctx, server, k, &answer); err != nil {
		return "", err
	}
	user, err := matrix.ParseUserID(answer.Sub)
	if err == nil && user.Server() != server {
		err = errors.New("a user of another server")
	}
	if err != nil {
		return "", wrap(k.op, &AnswerError{server, err})
	}
	return user, nil
}

// Binding tells a server that a user of it was found to have an address of
// another network, and which invites wait there. Identity servers send it.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv13pidonbind
type Binding struct {
	Medium  string            `json:"medium"`
	Address string            `json:"address"`
	User    matrix.UserID     `json:"mxid"`
	Invites []json.RawMessage `json:"invites"`
}

// Bind sends a Binding to the server of its user.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv13pidonbind
func (c *Client) Bind(ctx context.Context, b Binding) error {
	if b.Invites == nil {
		b.Invites = []json.RawMessage{}
	}
	return c.do(ctx, b.User.Server(), call{
		op: "onBindThirdPartyIdentifier", method: http.MethodPut, path: "/_matrix/federation/v1/3pid/onbind", body: b, unsigned: true,
	}, nil)
}
