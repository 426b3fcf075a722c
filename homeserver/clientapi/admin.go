package clientapi

import (
	"context"
	"encoding/json"

	"switchboard/homeserver/account"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notices"
)

var adminRoutes = []route{
	{"getWhoIs", "GET /_matrix/client/v3/admin/whois/{userId}", users, (*API).getWhoIs},
	{"getAdminSuspendUser", "GET /_matrix/client/v1/admin/suspend/{userId}", admins, (*API).getAdminSuspendUser},
	{"setAdminSuspendUser", "PUT /_matrix/client/v1/admin/suspend/{userId}", admins, (*API).setAdminSuspendUser},
	{"getAdminLockUser", "GET /_matrix/client/v1/admin/lock/{userId}", admins, (*API).getAdminLockUser},
	{"", "POST /_synapse/admin/v1/send_server_notice", admins, (*API).sendServerNotice},
	{"", "PUT /_synapse/admin/v1/send_server_notice/{txnId}", admins, (*API).sendServerNotice},
	{"setAdminLockUser", "PUT /_matrix/client/v1/admin/lock/{userId}", admins, (*API).setAdminLockUser},
}

// getWhoIs shows an administrator, or the user itself, from where an account is
// used.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3adminwhoisuserid
func (a *API) getWhoIs(r *request) (any, error) {
	user := matrix.UserID(r.PathValue("userId"))
	if user != r.User && !r.Admin {
		return nil, matrix.Errorf(matrix.Forbidden, "only administrators of the server may do this")
	}
	if _, err := a.Accounts.User(r.Context(), user); err != nil {
		return nil, err
	}
	list, err := a.Accounts.Devices(r.Context(), user)
	if err != nil {
		return nil, err
	}
	type connection struct {
		IP        string `json:"ip"`
		LastSeen  int64  `json:"last_seen"`
		UserAgent string `json:"user_agent"`
	}
	type session struct {
		Connections []connection `json:"connections"`
	}
	type sessions struct {
		Sessions []session `json:"sessions"`
	}
	devices := make(map[matrix.DeviceID]sessions, len(list))
	for _, d := range list {
		at := connection{d.LastSeen.Address, d.LastSeen.TS, d.LastSeen.UserAgent}
		devices[d.ID] = sessions{[]session{{[]connection{at}}}}
	}
	return map[string]any{"user_id": user, "devices": devices}, nil
}

// ward finds the account of the path, which an administrator may lock or
// suspend: none that is deactivated, and for changes none of an administrator.
func (a *API) ward(r *request, change bool) (account.User, error) {
	u, err := a.Accounts.User(r.Context(), matrix.UserID(r.PathValue("userId")))
	switch {
	case err != nil:
		return u, err
	case u.Deactivated:
		return u, matrix.Errorf(matrix.NotFound, "there is no such user")
	case u.ID == r.User && change:
		return u, matrix.Errorf(matrix.Forbidden, "you may not do this to yourself")
	case u.Admin && u.ID != r.User:
		return u, matrix.Errorf(matrix.Forbidden, "you may not do this to another administrator")
	}
	return u, nil
}

// moderate sets one flag of the account of the path.
func (a *API) moderate(r *request, name string, set func(context.Context, matrix.UserID, bool) error) (any, error) {
	u, err := a.ward(r, true)
	if err != nil {
		return nil, err
	}
	var body map[string]any
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	on, ok := body[name].(bool)
	if !ok {
		return nil, matrix.Errorf(matrix.MissingParam, "%s must be true or false", name)
	}
	return map[string]bool{name: on}, set(r.Context(), u.ID, on)
}

// getAdminSuspendUser tells whether an account is suspended.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1adminsuspenduserid
func (a *API) getAdminSuspendUser(r *request) (any, error) {
	u, err := a.ward(r, false)
	return map[string]bool{"suspended": u.Suspended}, err
}

// setAdminSuspendUser suspends an account, or ends that.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv1adminsuspenduserid
func (a *API) setAdminSuspendUser(r *request) (any, error) {
	return a.moderate(r, "suspended", a.Accounts.SetSuspended)
}

// getAdminLockUser tells whether an account is locked.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1adminlockuserid
func (a *API) getAdminLockUser(r *request) (any, error) {
	u, err := a.ward(r, false)
	return map[string]bool{"locked": u.Locked}, err
}

// setAdminLockUser locks an account, or unlocks it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv1adminlockuserid
func (a *API) setAdminLockUser(r *request) (any, error) {
	return a.moderate(r, "locked", a.Accounts.SetLocked)
}

// sendServerNotice tells a user something, as programs for Synapse ask for it.
//
// Source: https://element-hq.github.io/synapse/latest/admin_api/server_notices.html
func (a *API) sendServerNotice(r *request) (any, error) {
	var body struct {
		User    matrix.UserID   `json:"user_id"`
		Content json.RawMessage `json:"content"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.User == "" || body.Content == nil {
		return nil, matrix.Errorf(matrix.MissingParam, "user_id and content are needed")
	}
	n := notices.Notice{Content: body.Content}
	if txn := r.PathValue("txnId"); txn != "" { // each administrator has its own
		n.Txn = string(r.User) + " " + txn
	}
	event, err := a.Notices.Send(r.Context(), body.User, n)
	if err != nil {
		return nil, err
	}
	return map[string]matrix.EventID{"event_id": event}, nil
}
