package clientapi

import (
	"net/http"
	"strings"

	"switchboard/homeserver/account"
	"switchboard/homeserver/edge"
	"switchboard/homeserver/matrix"
)

// request is one request on its way through a handler.
type request struct {
	edge.Call
	account.Session // who asks; the zero value where the route is public
}

// admit finds out who asks and refuses who may not.
func (a *API) admit(rt route, r *request) error {
	if rt.access == public {
		return a.limitAddress(r)
	}
	token := bearer(r.Request)
	if token == "" {
		if rt.access == optional {
			return a.limitAddress(r)
		}
		return matrix.Errorf(matrix.MissingToken, "missing access token")
	}
	var err error
	q := r.URL.Query()
	device := q.Get("device_id")
	if device == "" {
		device = q.Get("org.matrix.msc3202.device_id")
	}
	r.Session, err = a.Accounts.Authenticate(r.Context(), token, account.Masquerade{
		User: matrix.UserID(q.Get("user_id")), Device: matrix.DeviceID(device),
	}, a.client(r.Request))
	if err != nil {
		return err
	}
	switch {
	case r.Guest && rt.access == users:
		return matrix.Errorf(matrix.GuestAccessForbidden, "guests may not do this")
	case rt.access == admins && !r.Admin:
		return matrix.Errorf(matrix.Forbidden, "only administrators of the server may do this")
	}
	return a.limitUser(r)
}

// bearer gives the access token, from the header or, as older clients do, from
// the query.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens
func bearer(r *http.Request) string {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return r.URL.Query().Get("access_token")
}

// self refuses a path that names another user than the one who asks.
func (r *request) self() error {
	if r.PathValue("userId") != string(r.User) {
		return matrix.Errorf(matrix.Forbidden, "you may only do this for yourself")
	}
	return nil
}

// active refuses who is suspended what would reach others.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#account-suspension
func (r *request) active() error {
	if r.Suspended {
		return matrix.Errorf(matrix.UserSuspended, "this account has been suspended")
	}
	return nil
}
