package clientapi

import (
	"context"
	"errors"

	"switchboard/homeserver/edge"

	"github.com/rs/zerolog"

	"switchboard/homeserver/account"
	"switchboard/homeserver/matrix"
)

var accountRoutes = []route{
	{"getTokenOwner", "GET /_matrix/client/v3/account/whoami", guests, (*API).getTokenOwner},
	{"changePassword", "POST /_matrix/client/v3/account/password", users, (*API).changePassword},
	{"deactivateAccount", "POST /_matrix/client/v3/account/deactivate", users, (*API).deactivateAccount},
	{"getAccount3PIDs", "GET /_matrix/client/v3/account/3pid", users, (*API).getAccount3PIDs},
}

// getTokenOwner tells whose access token this is.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3accountwhoami
func (a *API) getTokenOwner(r *request) (any, error) {
	return struct {
		User   matrix.UserID   `json:"user_id"`
		Device matrix.DeviceID `json:"device_id,omitempty"`
		Guest  bool            `json:"is_guest"`
	}{r.User, r.Device, r.Guest}, nil
}

// changePassword gives the user another password.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword
func (a *API) changePassword(r *request) (any, error) {
	var body struct {
		confirmed
		NewPassword   string `json:"new_password"`
		LogoutDevices *bool  `json:"logout_devices"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	if r.Appservice != nil {
		return nil, matrix.Errorf(matrix.Forbidden, "users of application services have no password")
	}
	if err := a.confirm(r, "password", body.Auth); err != nil {
		return nil, err
	}
	logout := body.LogoutDevices == nil || *body.LogoutDevices
	return edge.Empty{}, a.Accounts.SetPassword(r.Context(), r.User, body.NewPassword, logout, r.Device)
}

// deactivateAccount ends the account of the user for good. The user leaves all
// rooms.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
func (a *API) deactivateAccount(r *request) (any, error) {
	var body struct {
		confirmed
		Erase bool `json:"erase"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	if err := a.confirm(r, "deactivate", body.Auth); err != nil {
		return nil, err
	}
	ctx := context.WithoutCancel(r.Context()) // half of it would be of no use
	if err := a.Accounts.Deactivate(ctx, r.User, body.Erase); err != nil {
		return nil, err
	}
	if err := a.Rooms.LeaveAll(ctx, r.User); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Str("user", string(r.User)).Msg("deactivated user did not leave every room")
	}
	return map[string]string{"id_server_unbind_result": "success"}, nil // nothing was bound
}

// getAccount3PIDs lists the e-mail addresses of the user.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3account3pid
func (a *API) getAccount3PIDs(r *request) (any, error) {
	list, err := a.Accounts.Threepids(r.Context(), r.User)
	return map[string]any{"threepids": list}, err
}

// leaving finds out who asks where a locked user may ask, too.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#account-locking
func (a *API) leaving(r *request) error {
	err := a.admit(route{access: guests}, r)
	var e *matrix.Error
	if errors.As(err, &e) && e.Code == matrix.UserLocked && r.User != "" {
		return nil
	}
	return err
}

// tokens is the answer to who logs in.
func (a *API) tokens(t account.Tokens) map[string]any {
	answer := map[string]any{"user_id": t.User, "home_server": a.ServerName}
	if t.Access == "" { // inhibit_login
		return answer
	}
	answer["access_token"], answer["device_id"] = t.Access, t.Device
	if t.Refresh != "" {
		answer["refresh_token"], answer["expires_in_ms"] = t.Refresh, t.ExpiresIn.Milliseconds()
	}
	if a.PublicURL != "" {
		answer["well_known"] = a.discovery()
	}
	return answer
}
