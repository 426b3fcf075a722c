package account

import (
	"context"
	"regexp"
	"strings"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// Email is the medium of e-mail addresses.
const Email = "email"

// longestEmail bounds an e-mail address, in bytes (RFC 5321).
const longestEmail = 254

// An e-mail address as mail servers take it without quotes. What a header or a
// command of SMTP could be broken with is in none.
var emailAddress = regexp.MustCompile(`^[A-Za-z0-9.!#$%&'*+/=?^_{|}~\x60-]{1,64}@([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$`)

// ParseEmail gives an e-mail address in the form in which it is compared: in
// small letters. The error is M_INVALID_PARAM.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#3pid-types
func ParseEmail(address string) (string, error) {
	if len(address) > longestEmail || !emailAddress.MatchString(address) {
		return "", matrix.Errorf(matrix.InvalidParam, "this is no e-mail address, such as alice@example.org")
	}
	return strings.ToLower(address), nil
}

// Threepids lists the addresses of a user outside of Matrix.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3account3pid
func (s *Service) Threepids(ctx context.Context, user matrix.UserID) ([]store.Threepid, error) {
	return s.Store.Threepids(ctx, user)
}

// AddEmail gives an e-mail address to a user. That it is the user's, the caller
// has made sure. The errors are M_INVALID_PARAM, M_NOT_FOUND and
// M_THREEPID_IN_USE.
func (s *Service) AddEmail(ctx context.Context, user matrix.UserID, address string) error {
	address, err := ParseEmail(address)
	if err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		u, ok, err := tx.User(ctx, user)
		if err != nil {
			return err
		}
		if !ok || u.Deactivated {
			return errNoUser()
		}
		owner, err := tx.AddThreepid(ctx, store.Threepid{User: user, Medium: Email, Address: address, ValidatedTS: now, AddedTS: now})
		if err == nil && owner != user {
			err = matrix.Errorf(matrix.ThreepidInUse, "this e-mail address is another user's")
		}
		return err
	})
}

// RemoveEmail takes an e-mail address from a user; nothing is sent there any
// more. The errors are M_INVALID_PARAM and M_THREEPID_NOT_FOUND.
func (s *Service) RemoveEmail(ctx context.Context, user matrix.UserID, address string) error {
	address, err := ParseEmail(address)
	if err != nil {
		return err
	}
	defer s.Bell.Ring(store.PushersBell)
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		was, err := tx.DeleteThreepid(ctx, user, Email, address)
		if err != nil {
			return err
		}
		if !was {
			return errNoEmail()
		}
		return tx.DeleteEmailPushers(ctx, user, address)
	})
}

func errNoEmail() error {
	return matrix.Errorf(matrix.ThreepidNotFound, "this e-mail address does not belong to your account; the administrators of this server can add it")
}

// ownEmail puts the address of a pusher of kind "email" into the form in which
// it is compared, if it is the user's. The errors are M_INVALID_PARAM and
// M_THREEPID_NOT_FOUND.
func (s *Service) ownEmail(ctx context.Context, p *store.Pusher) error {
	if !s.SendsMail {
		return matrix.Errorf(matrix.InvalidParam, "this server sends no e-mail")
	}
	address, err := ParseEmail(p.Pushkey)
	if err != nil {
		return err
	}
	owner, err := s.Store.ThreepidUser(ctx, Email, address)
	if err != nil {
		return err
	}
	if owner != p.User {
		return errNoEmail()
	}
	p.Pushkey, p.Device = address, "" // it lasts longer than a session
	return nil
}
