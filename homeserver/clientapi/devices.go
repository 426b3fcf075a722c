package clientapi

import (
	"net/http"
	"slices"
	"strings"

	"switchboard/homeserver/edge"

	"switchboard/homeserver/account"
	"switchboard/homeserver/matrix"
)

var deviceRoutes = []route{
	{"getDevices", "GET /_matrix/client/v3/devices", guests, (*API).getDevices},
	{"getDevice", "GET /_matrix/client/v3/devices/{deviceId}", guests, (*API).getDevice},
	{"updateDevice", "PUT /_matrix/client/v3/devices/{deviceId}", guests, (*API).updateDevice},
	{"deleteDevice", "DELETE /_matrix/client/v3/devices/{deviceId}", users, (*API).deleteDevice},
	{"deleteDevices", "POST /_matrix/client/v3/delete_devices", users, (*API).deleteDevices},
}

// device is a device as its owner sees it.
type device struct {
	ID   matrix.DeviceID `json:"device_id"`
	Name string          `json:"display_name,omitempty"`
	IP   string          `json:"last_seen_ip,omitempty"`
	TS   int64           `json:"last_seen_ts,omitempty"`
}

func showDevice(d account.Device) device {
	return device{d.ID, d.DisplayName, d.LastSeen.Address, d.LastSeen.TS}
}

// getDevices lists the user's devices.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices
func (a *API) getDevices(r *request) (any, error) {
	list, err := a.Accounts.Devices(r.Context(), r.User)
	if err != nil {
		return nil, err
	}
	devices := make([]device, 0, len(list))
	for _, d := range list {
		devices = append(devices, showDevice(d))
	}
	return map[string][]device{"devices": devices}, nil
}

// getDevice shows one of the user's devices.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devicesdeviceid
func (a *API) getDevice(r *request) (any, error) {
	d, err := a.Accounts.Device(r.Context(), r.User, matrix.DeviceID(r.PathValue("deviceId")))
	if err != nil {
		return nil, err
	}
	return showDevice(d), nil
}

// created is the answer {} with status 201.
type created struct{}

// Respond implements edge.Responder.
func (created) Respond(w http.ResponseWriter, _ *http.Request) {
	edge.WriteJSON(w, http.StatusCreated, edge.Empty{})
}

// updateDevice renames one of the user's devices; for an appservice it makes
// the device if there is none.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3devicesdeviceid
func (a *API) updateDevice(r *request) (any, error) {
	var body struct {
		Name *string `json:"display_name"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	made, err := a.Accounts.SetDevice(r.Context(), r.User, matrix.DeviceID(r.PathValue("deviceId")), body.Name, r.Appservice != nil)
	if err != nil {
		return nil, err
	}
	if made {
		return created{}, nil
	}
	return edge.Empty{}, nil
}

// deleteDevice deletes one of the user's devices.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3devicesdeviceid
func (a *API) deleteDevice(r *request) (any, error) {
	var body confirmed
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	return a.dropDevices(r, body, []matrix.DeviceID{matrix.DeviceID(r.PathValue("deviceId"))})
}

// mostDevices is how many devices can be deleted at once.
const mostDevices = 1000

// deleteDevices deletes several of the user's devices.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3delete_devices
func (a *API) deleteDevices(r *request) (any, error) {
	var body struct {
		confirmed
		Devices []matrix.DeviceID `json:"devices"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	switch {
	case body.Devices == nil:
		return nil, matrix.Errorf(matrix.MissingParam, "devices is needed")
	case len(body.Devices) > mostDevices:
		return nil, matrix.Errorf(matrix.InvalidParam, "at most %d devices can be deleted at once", mostDevices)
	}
	return a.dropDevices(r, body.confirmed, body.Devices)
}

// dropDevices deletes devices once the user has confirmed just these.
func (a *API) dropDevices(r *request, body confirmed, ids []matrix.DeviceID) (any, error) {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = string(id)
	}
	slices.Sort(names)
	if err := a.confirm(r, "delete devices\x1f"+strings.ReplaceAll(strings.Join(names, "\x1f"), "\x00", ""), body.Auth); err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Accounts.DeleteDevices(r.Context(), r.User, ids)
}
