package fedapi

import (
	"encoding/json"

	"switchboard/homeserver/matrix"
)

var deviceRoutes = []route{
	{"getUserDevices", "GET /_matrix/federation/v1/user/devices/{userId}", servers, small, (*API).getUserDevices},
	{"queryUserEncryptionKeys", "POST /_matrix/federation/v1/user/keys/query", servers, large, (*API).queryUserEncryptionKeys},
	{"claimUserEncryptionKeys", "POST /_matrix/federation/v1/user/keys/claim", servers, large, (*API).claimUserEncryptionKeys},
}

// getUserDevices lists the devices of a user of this server.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid
func (a *API) getUserDevices(r *request) (any, error) {
	user, err := matrix.ParseUserID(r.PathValue("userId"))
	if err != nil {
		return nil, err
	}
	return a.Encryption.DeviceList(r.Context(), user)
}

// queryUserEncryptionKeys gives the keys of users of this server.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysquery
func (a *API) queryUserEncryptionKeys(r *request) (any, error) {
	var body struct {
		Keys map[matrix.UserID][]matrix.DeviceID `json:"device_keys"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	for user := range body.Keys {
		if user.Server() != a.ServerName {
			delete(body.Keys, user)
		}
	}
	k, err := a.Encryption.Query(r.Context(), "", body.Keys)
	if err != nil {
		return nil, err
	}
	return map[string]any{"device_keys": k.Devices, "master_keys": k.Master, "self_signing_keys": k.SelfSigning}, nil
}

// claimUserEncryptionKeys gives out one-time keys of users of this server.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysclaim
func (a *API) claimUserEncryptionKeys(r *request) (any, error) {
	var body struct {
		Keys map[matrix.UserID]map[matrix.DeviceID]string `json:"one_time_keys"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	for user := range body.Keys {
		if user.Server() != a.ServerName {
			delete(body.Keys, user)
		}
	}
	claimed, _, err := a.Encryption.Claim(r.Context(), body.Keys)
	if err != nil {
		return nil, err
	}
	return map[string]map[matrix.UserID]map[matrix.DeviceID]map[string]json.RawMessage{"one_time_keys": claimed}, nil
}
