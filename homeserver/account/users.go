package account

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/pushrule"
	"switchboard/homeserver/store"
)

// The type of account data that holds the push rules.
const pushRulesType = "m.push_rules"

// NewUser is an account that the operator makes.
type NewUser struct {
	Localpart string
	Password  string // "" for one that cannot log in by password
	Admin     bool
}

// CreateUser makes an account, whatever the mode of registration. The errors
// are M_INVALID_USERNAME, M_USER_IN_USE and those of a password.
func (s *Service) CreateUser(ctx context.Context, n NewUser) (matrix.UserID, error) {
	id, err := s.userID(n.Localpart)
	if err != nil {
		return "", err
	}
	u := store.User{ID: id, Admin: n.Admin, CreatedTS: time.Now().UnixMilli()}
	if n.Password != "" {
		if err := s.acceptable(n.Password); err != nil {
			return "", err
		}
		if u.Password, err = s.hash(ctx, n.Password); err != nil {
			return "", err
		}
	}
	err = s.Store.Update(ctx, func(tx *store.Tx) error { return s.addUser(ctx, tx, u) })
	return id, err
}

// User finds an account. The errors are M_INVALID_PARAM for users of other
// servers and M_NOT_FOUND.
func (s *Service) User(ctx context.Context, id matrix.UserID) (store.User, error) {
	if id.Server() != s.ServerName {
		return store.User{}, matrix.Errorf(matrix.InvalidParam, "%s is not a user of this server", id)
	}
	u, ok, err := s.Store.User(ctx, id)
	if err == nil && !ok {
		err = errNoUser()
	}
	return u, err
}

// Users lists accounts in order of their IDs, at most limit of them, beginning
// behind after ("" for the first page).
func (s *Service) Users(ctx context.Context, after matrix.UserID, limit int) ([]store.User, error) {
	return s.Store.Users(ctx, after, limit)
}

// SetAdmin makes a user an administrator of the server, or takes that away.
func (s *Service) SetAdmin(ctx context.Context, id matrix.UserID, admin bool) error {
	return s.change(ctx, id, func(u *store.User) { u.Admin = admin })
}

// SetLocked locks an account, or unlocks it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#account-locking
func (s *Service) SetLocked(ctx context.Context, id matrix.UserID, locked bool) error {
	return s.change(ctx, id, func(u *store.User) { u.Locked = locked })
}

// SetSuspended suspends an account, or ends that.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#account-suspension
func (s *Service) SetSuspended(ctx context.Context, id matrix.UserID, suspended bool) error {
	return s.change(ctx, id, func(u *store.User) { u.Suspended = suspended })
}

// change edits an account that is not deactivated.
func (s *Service) change(ctx context.Context, id matrix.UserID, edit func(*store.User)) error {
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		u, ok, err := tx.User(ctx, id)
		if err != nil {
			return err
		}
		if !ok || u.Deactivated {
			return errNoUser()
		}
		edit(&u)
		return tx.SetUser(ctx, u)
	})
	s.cache.dropUser(id, "")
	return err
}

// SetPassword gives a user another password and ends all sessions but one. With
// keep == "" all end; with logout false none does.
func (s *Service) SetPassword(ctx context.Context, id matrix.UserID, password string, logout bool, keep matrix.DeviceID) error {
	if err := s.acceptable(password); err != nil {
		return err
	}
	hashed, err := s.hash(ctx, password)
	if err != nil {
		return err
	}
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		u, ok, err := tx.User(ctx, id)
		if err != nil {
			return err
		}
		if !ok || u.Deactivated {
			return errNoUser()
		}
		u.Password = hashed
		if err := tx.SetUser(ctx, u); err != nil {
			return err
		}
		if !logout {
			return nil
		}
		return deleteDevices(ctx, tx, id, keep)
	})
	s.cache.dropUser(id, "")
	s.wake(id)
	return err
}

// Deactivate ends an account for good. The name stays taken. With erase the
// user also asks that the messages be hidden from who comes later. Leaving the
// rooms is up to the caller.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
func (s *Service) Deactivate(ctx context.Context, id matrix.UserID, erase bool) error {
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		u, ok, err := tx.User(ctx, id)
		if err != nil {
			return err
		}
		if !ok {
			return errNoUser()
		}
		u.Password, u.Deactivated, u.Admin = "", true, false
		u.Erased = u.Erased || erase
		if err := tx.SetUser(ctx, u); err != nil {
			return err
		}
		if err := deleteDevices(ctx, tx, id, ""); err != nil {
			return err
		}
		if err := tx.DeletePushers(ctx, id); err != nil {
			return err
		}
		if err := tx.DeleteThreepids(ctx, id); err != nil {
			return err
		}
		if err := tx.DeleteProfile(ctx, id); err != nil {
			return err
		}
		return tx.DeleteAllAccountData(ctx, id)
	})
	s.cache.dropUser(id, "")
	s.wake(id)
	s.Bell.Ring(store.PushersBell)
	return err
}

// addUser writes a new account with its push rules and, of who has chosen it, the
// name as the first display name. The error is M_USER_IN_USE if the name is taken.
func (s *Service) addUser(ctx context.Context, tx *store.Tx, u store.User) error {
	added, err := tx.AddUser(ctx, u)
	if err != nil {
		return err
	}
	if !added {
		return matrix.Errorf(matrix.UserInUse, "this user name is taken")
	}
	if u.Kind == store.AppserviceUser { // has no clients that would read the rules
		return nil
	}
	rules, err := json.Marshal(pushrule.Default(u.ID))
	if err != nil {
		return fmt.Errorf("default push rules: %w", err)
	}
	if _, err := tx.PutAccountData(ctx, store.AccountData{User: u.ID, Type: pushRulesType, Content: rules}); err != nil || u.Kind == store.Guest {
		return err
	}
	name, err := json.Marshal(u.ID.Localpart()) // until the user chooses another
	if err != nil {
		return fmt.Errorf("display name: %w", err)
	}
	return tx.SetProfileField(ctx, u.ID, DisplayName, name)
}

// userID makes the ID of a new user. Capitals become small.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#user-identifiers
func (s *Service) userID(localpart string) (matrix.UserID, error) {
	localpart = strings.ToLower(localpart)
	if !matrix.ValidLocalpart(localpart, s.ServerName) {
		return "", matrix.Errorf(matrix.InvalidUsername, "a user name may hold only a-z, 0-9 and ._=-/+ and must not be too long")
	}
	return matrix.NewUserID(localpart, s.ServerName), nil
}

func errNoUser() error { return matrix.Errorf(matrix.NotFound, "there is no such user") }

// letters makes n random characters of A-Z and 2-7.
func letters(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return base32.StdEncoding.EncodeToString(b)[:n]
}

// printable is s without what no database stores and no terminal shows, and
// at most about most bytes.
func printable(s string, most int) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == utf8.RuneError {
			return -1
		}
		return c
	}, s)
	for len(s) > most {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
