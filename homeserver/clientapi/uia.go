package clientapi

import (
	"errors"
	"strings"
	"time"

	"switchboard/homeserver/account"
	"switchboard/homeserver/matrix"
)

// confirmed is what a request has that needs user-interactive authentication.
type confirmed struct {
	Auth *account.Auth `json:"auth"`
}

// confirm lets a request go on if its user has confirmed the operation. Name
// says what is done, and to what. An appservice confirms nothing.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
func (a *API) confirm(r *request, name string, auth *account.Auth) error {
	if r.Appservice != nil {
		return nil
	}
	return a.guess(string(r.User), func() error {
		return a.Accounts.Confirm(r.Context(), account.Operation{Name: name, User: r.User}, auth)
	})
}

// guess runs what tries a password of an account, and counts those that were
// wrong. The token is taken before, so that no crowd slips through together.
func (a *API) guess(who string, try func() error) error {
	who, _, _ = strings.Cut(strings.TrimPrefix(strings.ToLower(who), "@"), ":")
	if err := a.Limits.take(classFailedLogin, who, time.Now()); err != nil {
		return err
	}
	err := try()
	var c *account.Challenge
	var e *matrix.Error
	wrong := errors.As(err, &c) && c.Refused != nil && c.Refused.Code == matrix.Forbidden || errors.As(err, &e) && e.Code == matrix.Forbidden
	if !wrong {
		a.Limits.give(classFailedLogin, who, time.Now())
	}
	return err
}
