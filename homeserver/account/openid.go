package account

import (
	"context"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// openIDLife is how long an OpenID token is good.
const openIDLife = time.Hour

// NewOpenID makes a token by which a user proves to somebody else, who asks this
// server, who it is. It is good for nothing else.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridopenidrequest_token
func (s *Service) NewOpenID(ctx context.Context, user matrix.UserID) (token string, expires time.Duration, err error) {
	token = secret(32)
	at := time.Now()
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		return tx.AddOpenIDToken(ctx, sum(token), user, at.Add(openIDLife).UnixMilli(), at.UnixMilli())
	})
	return token, openIDLife, err
}

// OpenIDUser tells whose OpenID token this is. It is nobody's when the account was
// deactivated or locked. The error is M_UNKNOWN_TOKEN.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1openiduserinfo
func (s *Service) OpenIDUser(ctx context.Context, token string) (matrix.UserID, error) {
	user, expires, ok, err := s.Store.OpenIDUser(ctx, sum(token))
	if err == nil && ok {
		var u store.User
		u, ok, err = s.Store.User(ctx, user)
		ok = ok && !u.Deactivated && !u.Locked
	}
	if err == nil && (!ok || expires <= time.Now().UnixMilli()) {
		err = matrix.Errorf(matrix.UnknownToken, "the token is unknown or has expired")
	}
	if err != nil {
		return "", err
	}
	return user, nil
}
