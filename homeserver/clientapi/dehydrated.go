package clientapi

import (
	"encoding/json"
	"net/http"
	"strconv"

	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/matrix"
)

// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/3814
var dehydratedRoutes = []route{
	{"", "PUT /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device", users, (*API).putDehydratedDevice},
	{"", "GET /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device", users, (*API).getDehydratedDevice},
	{"", "DELETE /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device", users, (*API).deleteDehydratedDevice},
	{"", "GET /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{deviceId}/events", users, (*API).dehydratedDeviceEvents},
	{"", "POST /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{deviceId}/events", users, (*API).dehydratedDeviceEvents},
}

// putDehydratedDevice makes a device that takes messages while the user has no
// other.
func (a *API) putDehydratedDevice(r *request) (any, error) {
	var body struct {
		e2ee.Dehydrated
		e2ee.Upload
		Name string `json:"initial_device_display_name"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if err := a.Keys.Dehydrate(r.Context(), r.User, body.Dehydrated, body.Name, body.Upload); err != nil {
		return nil, err
	}
	return map[string]matrix.DeviceID{"device_id": body.Device}, nil
}

// getDehydratedDevice gives what is needed to wake the device up.
func (a *API) getDehydratedDevice(r *request) (any, error) {
	return a.Keys.Dehydrated(r.Context(), r.User)
}

// deleteDehydratedDevice deletes the device.
func (a *API) deleteDehydratedDevice(r *request) (any, error) {
	id, err := a.Keys.DropDehydrated(r.Context(), r.User)
	if err != nil {
		return nil, err
	}
	return map[string]matrix.DeviceID{"device_id": id}, nil
}

// dehydratedDeviceEvents gives what the device was sent: by GET, as the proposal
// has it now, or by POST, as it had it before.
func (a *API) dehydratedDeviceEvents(r *request) (any, error) {
	var body struct {
		Next string `json:"next_batch"`
	}
	if body.Next = r.URL.Query().Get("next_batch"); r.Method == http.MethodPost {
		if err := r.OptionalJSON(&body); err != nil {
			return nil, err
		}
	}
	since := int64(0)
	if body.Next != "" {
		var err error
		if since, err = strconv.ParseInt(body.Next, 10, 64); err != nil || since < 0 {
			return nil, matrix.Errorf(matrix.InvalidParam, "next_batch is none of this server's")
		}
	}
	list, next, err := a.Keys.DehydratedMessages(r.Context(), r.User, matrix.DeviceID(r.PathValue("deviceId")), since)
	if err != nil {
		return nil, err
	}
	type message struct {
		Type    string          `json:"type"`
		Sender  matrix.UserID   `json:"sender"`
		Content json.RawMessage `json:"content"`
	}
	events := make([]message, len(list))
	for i, m := range list {
		events[i] = message{m.Type, m.Sender, m.Content}
	}
	return map[string]any{"events": events, "next_batch": strconv.FormatInt(next, 10)}, nil
}
