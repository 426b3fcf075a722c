package clientapi

import (
	"encoding/json"
	"time"

	"switchboard/homeserver/edge"

	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

var keyRoutes = []route{
	{"uploadCrossSigningKeys", "POST /_matrix/client/v3/keys/device_signing/upload", users, (*API).uploadCrossSigningKeys},
	{"", "POST /_matrix/client/unstable/keys/device_signing/upload", users, (*API).uploadCrossSigningKeys},
	{"uploadCrossSigningSignatures", "POST /_matrix/client/v3/keys/signatures/upload", users, (*API).uploadCrossSigningSignatures},
	{"", "POST /_matrix/client/unstable/keys/signatures/upload", users, (*API).uploadCrossSigningSignatures},
	{"uploadKeys", "POST /_matrix/client/v3/keys/upload", guests, (*API).uploadKeys},
	{"queryKeys", "POST /_matrix/client/v3/keys/query", guests, (*API).queryKeys},
	{"claimKeys", "POST /_matrix/client/v3/keys/claim", guests, (*API).claimKeys},
	{"getKeysChanges", "GET /_matrix/client/v3/keys/changes", guests, (*API).getKeysChanges},
}

// ownDevice is the device from which the request comes. An appservice may name
// none.
func (r *request) ownDevice() (matrix.DeviceID, error) {
	if r.Device == "" {
		return "", matrix.Errorf(matrix.MissingParam, "the request must come from a device: add device_id to the query")
	}
	return r.Device, nil
}

// uploadCrossSigningKeys publishes the user's cross-signing keys.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload
func (a *API) uploadCrossSigningKeys(r *request) (any, error) {
	var body struct {
		e2ee.CrossSigning
		confirmed
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	needed, err := a.Keys.NeedsConfirmation(r.Context(), r.User, body.CrossSigning)
	if err != nil {
		return nil, err
	}
	if needed {
		if err := a.confirm(r, "replace cross-signing keys", body.Auth); err != nil {
			return nil, err
		}
	}
	return edge.Empty{}, a.Keys.UploadCrossSigning(r.Context(), r.User, body.CrossSigning)
}

// uploadCrossSigningSignatures stores signatures that the user made of keys.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload
func (a *API) uploadCrossSigningSignatures(r *request) (any, error) {
	var body e2ee.Signatures
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	failures, err := a.Keys.UploadSignatures(r.Context(), r.User, body)
	if err != nil {
		return nil, err
	}
	shown := map[matrix.UserID]map[string]map[string]string{}
	for user, keys := range failures {
		shown[user] = map[string]map[string]string{}
		for id, e := range keys {
			shown[user][id] = map[string]string{"errcode": string(e.Code), "error": e.Text}
		}
	}
	return map[string]any{"failures": shown}, nil
}

// uploadKeys publishes the keys of the device.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload
func (a *API) uploadKeys(r *request) (any, error) {
	device, err := r.ownDevice()
	if err != nil {
		return nil, err
	}
	var body e2ee.Upload
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	counts, err := a.Keys.Upload(r.Context(), r.User, device, body)
	if err != nil {
		return nil, err
	}
	return map[string]map[string]int{"one_time_key_counts": counts}, nil
}

// keysWait is how long other servers have to answer; the default is that of the
// specification.
func keysWait(ms *int64) time.Duration {
	const usual, most = 10_000, 60_000
	if ms == nil {
		return usual * time.Millisecond
	}
	return time.Duration(max(0, min(*ms, most))) * time.Millisecond
}

// queryKeys gives the public keys of users and their devices.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery
func (a *API) queryKeys(r *request) (any, error) {
	var body struct {
		Keys    map[matrix.UserID][]matrix.DeviceID `json:"device_keys"`
		Timeout *int64                              `json:"timeout"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	if body.Keys == nil {
		return nil, matrix.Errorf(matrix.MissingParam, "device_keys is missing")
	}
	return a.Keys.QueryAll(r.Context(), r.User, body.Keys, keysWait(body.Timeout))
}

// claimKeys takes one-time keys of devices.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim
func (a *API) claimKeys(r *request) (any, error) {
	var body struct {
		Keys    map[matrix.UserID]map[matrix.DeviceID]string `json:"one_time_keys"`
		Timeout *int64                                       `json:"timeout"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	if body.Keys == nil {
		return nil, matrix.Errorf(matrix.MissingParam, "one_time_keys is missing")
	}
	claimed, failures, err := a.Keys.ClaimAll(r.Context(), body.Keys, keysWait(body.Timeout))
	if err != nil {
		return nil, err
	}
	return struct {
		Keys     e2ee.Claimed                          `json:"one_time_keys"`
		Failures map[matrix.ServerName]json.RawMessage `json:"failures"`
	}{claimed, failures}, nil
}

// getKeysChanges tells whose keys changed between two syncs.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3keyschanges
func (a *API) getKeysChanges(r *request) (any, error) {
	q := r.URL.Query()
	var pos [2]int64
	for i, param := range []string{"from", "to"} {
		token := q.Get(param)
		if token == "" {
			return nil, matrix.Errorf(matrix.MissingParam, "the query needs %q", param)
		}
		var err error
		if pos[i], err = room.ParseToken(token); err != nil {
			return nil, err
		}
	}
	changed, left, err := a.Keys.DeviceLists(r.Context(), r.User, pos[0], pos[1])
	if err != nil {
		return nil, err
	}
	return map[string][]matrix.UserID{"changed": userList(changed), "left": userList(left)}, nil
}

// userList is a list that is never null.
func userList(l []matrix.UserID) []matrix.UserID {
	if l == nil {
		return []matrix.UserID{}
	}
	return l
}
