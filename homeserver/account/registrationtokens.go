package account

import (
	"context"
	"regexp"
	"strings"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// registrationToken is the grammar of tokens.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration
var registrationToken = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,64}$`)

// NewToken is a registration token to be made.
type NewToken struct {
	Token    string        // "" for a random one
	Uses     int           // 0: any number
	Lifetime time.Duration // 0: for ever
	Admin    bool          // who registers with it is an administrator, and registration may be closed
}

// CreateRegistrationToken makes a registration token. The errors are
// M_INVALID_PARAM, also for one that exists.
func (s *Service) CreateRegistrationToken(ctx context.Context, n NewToken) (store.RegistrationToken, error) {
	now := time.Now()
	t := store.RegistrationToken{Token: n.Token, Admin: n.Admin, CreatedTS: now.UnixMilli()}
	if t.Token == "" {
		t.Token = strings.ToLower(letters(24))
	}
	if !registrationToken.MatchString(t.Token) {
		return t, matrix.Errorf(matrix.InvalidParam, "a registration token has up to 64 characters of A-Z, a-z, 0-9 and ._~-")
	}
	if n.Uses < 0 || n.Lifetime < 0 {
		return t, matrix.Errorf(matrix.InvalidParam, "uses and lifetime cannot be negative")
	}
	if n.Uses > 0 {
		uses := int64(n.Uses)
		t.UsesAllowed = &uses
	}
	if n.Lifetime > 0 {
		t.ExpiresTS = now.Add(n.Lifetime).UnixMilli()
	}
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		added, err := tx.AddRegistrationToken(ctx, t)
		if err == nil && !added {
			err = matrix.Errorf(matrix.InvalidParam, "this registration token exists already")
		}
		return err
	})
	return t, err
}

// RegistrationTokens lists the registration tokens, the oldest first.
func (s *Service) RegistrationTokens(ctx context.Context) ([]store.RegistrationToken, error) {
	return s.Store.RegistrationTokens(ctx)
}

// RevokeRegistrationToken deletes a registration token. The error is
// M_NOT_FOUND.
func (s *Service) RevokeRegistrationToken(ctx context.Context, token string) error {
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		deleted, err := tx.DeleteRegistrationToken(ctx, token)
		if err == nil && !deleted {
			err = matrix.Errorf(matrix.NotFound, "there is no such registration token")
		}
		return err
	})
}

// FirstToken gives the token by which the first account can be made while
// nobody has one. It makes the token if need be. Where somebody has an account
// it gives "".
func (s *Service) FirstToken(ctx context.Context) (string, error) {
	some, err := s.Store.HasUsers(ctx)
	if err != nil || some {
		return "", err
	}
	list, err := s.Store.RegistrationTokens(ctx)
	if err != nil {
		return "", err
	}
	for _, t := range list {
		if t.Admin && t.Valid(time.Now().UnixMilli()) {
			return t.Token, nil
		}
	}
	t, err := s.CreateRegistrationToken(ctx, NewToken{Uses: 1, Admin: true})
	return t.Token, err
}

// RegistrationTokenValid tells whether an account can be made with a token now.
// The error is M_FORBIDDEN where registration is closed to tokens.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1registermloginregistration_tokenvalidity
func (s *Service) RegistrationTokenValid(ctx context.Context, token string) (bool, error) {
	if _, err := s.registrationFlows(ctx); err != nil {
		return false, err
	}
	if !registrationToken.MatchString(token) {
		return false, nil
	}
	t, ok, err := s.Store.RegistrationToken(ctx, token)
	return ok && s.opens(t), err
}
