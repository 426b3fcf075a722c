package clientapi

import (
	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/edge"
	"switchboard/homeserver/matrix"
)

var toDeviceRoutes = []route{
	{"sendToDevice", "PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId}", guests, (*API).sendToDevice},
}

// sendToDevice sends messages to devices.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid
func (a *API) sendToDevice(r *request) (any, error) {
	var body struct {
		Messages e2ee.Messages `json:"messages"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	if body.Messages == nil {
		return nil, matrix.Errorf(matrix.MissingParam, "messages is missing")
	}
	return edge.Empty{}, a.Keys.SendToDevice(r.Context(), r.User, r.Device, r.PathValue("eventType"), r.PathValue("txnId"), body.Messages)
}
