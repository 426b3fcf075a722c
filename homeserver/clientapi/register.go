package clientapi

import (
	"encoding/json"

	"switchboard/homeserver/account"
	"switchboard/homeserver/matrix"
	"switchboard/registrations"
)

var registerRoutes = []route{
	{"register", "POST /_matrix/client/v3/register", public, (*API).register},
	{"checkUsernameAvailability", "GET /_matrix/client/v3/register/available", public, (*API).checkUsernameAvailability},
	{"registrationTokenValidity", "GET /_matrix/client/v1/register/m.login.registration_token/validity", public, (*API).registrationTokenValidity},
	{"", "GET /_synapse/admin/v1/register", public, (*API).sharedSecretNonce},
	{"", "POST /_synapse/admin/v1/register", public, (*API).sharedSecretRegister},
}

// register makes an account and logs in.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register
func (a *API) register(r *request) (any, error) {
	var body struct {
		confirmed
		Type       string          `json:"type"` // only appservices send one
		Username   string          `json:"username"`
		Password   string          `json:"password"`
		Device     matrix.DeviceID `json:"device_id"`
		DeviceName string          `json:"initial_device_display_name"`
		NoLogin    bool            `json:"inhibit_login"`
		Refresh    bool            `json:"refresh_token"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	apply := account.Application{
		Username: body.Username, Password: body.Password, NoLogin: body.NoLogin,
		Login: account.Login{Device: body.Device, DeviceName: body.DeviceName, Refresh: body.Refresh},
	}
	var t account.Tokens
	var err error
	switch kind := r.URL.Query().Get("kind"); {
	case kind == "guest":
		t, err = a.Accounts.RegisterGuest(r.Context(), body.DeviceName, a.client(r.Request))
	case kind != "" && kind != "user":
		err = matrix.Errorf(matrix.Forbidden, "there are no accounts of this kind")
	case body.Type == loginAppservice:
		var reg *registrations.Registration
		if reg, err = a.appservice(r); err == nil {
			t, err = a.Accounts.RegisterAppservice(r.Context(), reg, apply, a.client(r.Request))
		}
	default:
		t, err = a.Accounts.Register(r.Context(), apply, body.Auth, a.client(r.Request))
	}
	if err != nil {
		return nil, err
	}
	return a.tokens(t), nil
}

// checkUsernameAvailability tells whether a user name can be registered.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3registeravailable
func (a *API) checkUsernameAvailability(r *request) (any, error) {
	name := r.URL.Query().Get("username")
	if name == "" {
		return nil, matrix.Errorf(matrix.MissingParam, "username is needed")
	}
	if err := a.Accounts.Available(r.Context(), name); err != nil {
		return nil, err
	}
	return map[string]bool{"available": true}, nil
}

// registrationTokenValidity tells whether a registration token can be used.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1registermloginregistration_tokenvalidity
func (a *API) registrationTokenValidity(r *request) (any, error) {
	token := r.URL.Query().Get("token")
	if token == "" {
		return nil, matrix.Errorf(matrix.MissingParam, "token is needed")
	}
	valid, err := a.Accounts.RegistrationTokenValid(r.Context(), token)
	if err != nil {
		return nil, err
	}
	return map[string]bool{"valid": valid}, nil
}

// sharedSecretNonce gives a nonce for sharedSecretRegister.
func (a *API) sharedSecretNonce(*request) (any, error) {
	nonce, err := a.Accounts.Nonce()
	if err != nil {
		return nil, err
	}
	return map[string]string{"nonce": nonce}, nil
}

// sharedSecretRegister makes an account for who knows the shared secret, as
// Synapse's scripts and many tools do.
func (a *API) sharedSecretRegister(r *request) (any, error) {
	var body account.Shared
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	t, err := a.Accounts.RegisterShared(r.Context(), body, a.client(r.Request))
	if err != nil {
		return nil, err
	}
	if body.DisplayName != "" {
		name, err := json.Marshal(body.DisplayName)
		if err != nil {
			return nil, err
		}
		if err := a.Accounts.SetProfile(r.Context(), t.User, account.DisplayName, name); err != nil {
			return nil, err
		}
	}
	return a.tokens(t), nil
}
