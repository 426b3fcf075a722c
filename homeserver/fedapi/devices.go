package fedapi

import (
	"encoding/json"

	"switchboard/homeserver/matrix"
)

var deviceRoutes = []route{
	{"getUserDevices", "GET /_matrix/federation/v1/user/devices/{userId}", servers, small, (*API).getUserDevices},
	{"queryUserEncryptionKeys", "POST /_matrix/federation/v1/user/keys/query", servers, middle, (*API).queryUserEncryptionKeys},
	{"claimUserEncryptionKeys", "POST /_matrix/federation/v1/user/keys/claim", servers, middle, (*API).claimUserEncryptionKeys},
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
	if err := ours(a, body.Keys, func(m []matrix.DeviceID) int { return len(m) }); err != nil {
		return nil, err
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
	if err := ours(a, body.Keys, func(m map[matrix.DeviceID]string) int { return len(m) }); err != nil {
		return nil, err
	}
	claimed, _, err := a.Encryption.Claim(r.Context(), body.Keys)
	if err != nil {
		return nil, err
	}
	return map[string]map[matrix.UserID]map[matrix.DeviceID]map[string]json.RawMessage{"one_time_keys": claimed}, nil
}

// ours leaves out the users of other servers, and refuses questions about more
// users and devices than one may ask about.
func ours[M any](a *API, users map[matrix.UserID]M, devices func(M) int) error {
	n := 0
	for user, m := range users {
		if n += 1 + devices(m); n > a.Federation.Config.MaxEntries {
			return matrix.Errorf(matrix.TooLarge, "one may ask about %d users and devices at a time", a.Federation.Config.MaxEntries)
		}
		if user.Server() != a.ServerName {
			delete(users, user)
		}
	}
	return nil
}
