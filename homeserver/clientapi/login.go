package clientapi

import (
	"net/http"

	"switchboard/homeserver/edge"

	"switchboard/homeserver/account"
	"switchboard/homeserver/matrix"
	"switchboard/registrations"
)

var loginRoutes = []route{
	{"getLoginFlows", "GET /_matrix/client/v3/login", public, (*API).getLoginFlows},
	{"login", "POST /_matrix/client/v3/login", public, (*API).login},
	{"generateLoginToken", "POST /_matrix/client/v1/login/get_token", users, (*API).generateLoginToken},
	{"refresh", "POST /_matrix/client/v3/refresh", public, (*API).refresh},
	{"logout", "POST /_matrix/client/v3/logout", public, (*API).logout},            // see leaving
	{"logout_all", "POST /_matrix/client/v3/logout/all", public, (*API).logoutAll}, // see leaving
}

// The types of login.
const (
	loginPassword   = "m.login.password"
	loginToken      = "m.login.token"
	loginAppservice = "m.login.application_service"
)

// getLoginFlows lists the ways to log in.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3login
func (a *API) getLoginFlows(*request) (any, error) {
	type flow struct {
		Type     string `json:"type"`
		GetToken bool   `json:"get_login_token,omitempty"`
	}
	flows := []flow{{Type: loginPassword}, {Type: loginAppservice}}
	if a.Accounts.Config.LoginTokens {
		flows = append(flows, flow{loginToken, true})
	}
	return map[string][]flow{"flows": flows}, nil
}

// login starts a session.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login
func (a *API) login(r *request) (any, error) {
	var body struct {
		account.Credentials
		Type       string          `json:"type"`
		Token      string          `json:"token"`
		Device     matrix.DeviceID `json:"device_id"`
		DeviceName string          `json:"initial_device_display_name"`
		Refresh    bool            `json:"refresh_token"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	l := account.Login{Device: body.Device, DeviceName: body.DeviceName, Refresh: body.Refresh}
	var t account.Tokens
	var err error
	switch {
	case body.Type == loginPassword:
		who := body.User
		if body.Identifier != nil {
			who = body.Identifier.User
		}
		err = a.guess(who, func() error {
			t, err = a.Accounts.LoginPassword(r.Context(), body.Credentials, l, a.client(r.Request))
			return err
		})
	case body.Type == loginAppservice:
		var reg *registrations.Registration
		if reg, err = a.appservice(r); err == nil {
			t, err = a.Accounts.LoginAppservice(r.Context(), reg, body.Credentials, l, a.client(r.Request))
		}
	case body.Type == loginToken && a.Accounts.Config.LoginTokens:
		t, err = a.Accounts.LoginToken(r.Context(), body.Token, l, a.client(r.Request))
	default:
		err = &matrix.Error{Code: matrix.Unknown, Status: http.StatusBadRequest, Text: "unknown type of login"}
	}
	if err != nil {
		return nil, err
	}
	return a.tokens(t), nil
}

// appservice finds the registration by whose token is asked.
func (a *API) appservice(r *request) (*registrations.Registration, error) {
	token := bearer(r.Request)
	if token == "" {
		return nil, matrix.Errorf(matrix.MissingToken, "missing access token")
	}
	return a.Accounts.Appservice(token)
}

// generateLoginToken makes a token by which another device of the user can log
// in.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1loginget_token
func (a *API) generateLoginToken(r *request) (any, error) {
	if !a.Accounts.Config.LoginTokens {
		return nil, matrix.Errorf(matrix.Unrecognized, "login tokens are turned off")
	}
	var body confirmed
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	if err := a.confirm(r, "login token", body.Auth); err != nil {
		return nil, err
	}
	token, expires, err := a.Accounts.NewLoginToken(r.Context(), r.User)
	if err != nil {
		return nil, err
	}
	return map[string]any{"login_token": token, "expires_in_ms": expires.Milliseconds()}, nil
}

// refresh gives new tokens for a refresh token.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3refresh
func (a *API) refresh(r *request) (any, error) {
	var body struct {
		Token *string `json:"refresh_token"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	if body.Token == nil {
		return nil, matrix.Errorf(matrix.MissingParam, "refresh_token is needed")
	}
	t, err := a.Accounts.Refresh(r.Context(), *body.Token)
	if err != nil {
		return nil, err
	}
	return map[string]any{"access_token": t.Access, "refresh_token": t.Refresh, "expires_in_ms": t.ExpiresIn.Milliseconds()}, nil
}

// logout ends the session and deletes its device.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout
func (a *API) logout(r *request) (any, error) {
	if err := a.leaving(r); err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Accounts.Logout(r.Context(), r.Session)
}

// logoutAll ends all sessions of the user and deletes the devices.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logoutall
func (a *API) logoutAll(r *request) (any, error) {
	if err := a.leaving(r); err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Accounts.LogoutAll(r.Context(), r.User)
}
