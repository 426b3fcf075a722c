package clientapi

import "switchboard/homeserver/edge"

var openIDRoutes = []route{
	{"requestOpenIdToken", "POST /_matrix/client/v3/user/{userId}/openid/request_token", guests, (*API).requestOpenIDToken},
}

// requestOpenIDToken makes a token by which the user proves to somebody else who
// it is.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridopenidrequest_token
func (a *API) requestOpenIDToken(r *request) (any, error) {
	if err := r.OptionalJSON(&edge.Empty{}); err != nil { // the body is an object for what may come
		return nil, err
	}
	if err := r.self(); err != nil {
		return nil, err
	}
	token, life, err := a.Accounts.NewOpenID(r.Context(), r.User)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"access_token": token, "token_type": "Bearer", "matrix_server_name": a.ServerName, "expires_in": int64(life.Seconds()),
	}, nil
}
