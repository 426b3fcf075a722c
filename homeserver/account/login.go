package account

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/registrations"
)

// Credentials are a user's name and password.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#identifier-types
type Credentials struct {
	Identifier *Identifier `json:"identifier"`
	User       string      `json:"user"` // instead of an identifier, as older clients do
	Password   string      `json:"password"`
}

// Identifier names a user. We know the type m.id.user.
type Identifier struct {
	Type string `json:"type"`
	User string `json:"user"` // user ID or localpart
}

// Login is what a client asks for when it logs in.
type Login struct {
	Device     matrix.DeviceID // "" for a new one
	DeviceName string          // of a new device
	Refresh    bool            // the client can refresh tokens
}

// Tokens are what a client gets when it logs in.
type Tokens struct {
	User      matrix.UserID
	Device    matrix.DeviceID
	Access    string
	Refresh   string        // "" where the client cannot refresh
	ExpiresIn time.Duration // of Access; 0: never
}

// The bounds of what clients choose, in bytes.
const (
	longestDevice     = 255
	longestDeviceName = 255
)

// LoginPassword logs a user in by password. The errors are M_FORBIDDEN,
// M_USER_DEACTIVATED and M_USER_LOCKED; how long it takes does not tell whether
// the user exists.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login
func (s *Service) LoginPassword(ctx context.Context, by Credentials, l Login, c Client) (Tokens, error) {
	id, err := s.localUser(by)
	if err != nil {
		return Tokens{}, err
	}
	u, ok, err := s.Store.User(ctx, id)
	if err == nil && !ok && lower(id) != string(id) { // a historical user may have capitals, others are meant without
		u, _, err = s.Store.User(ctx, matrix.UserID(lower(id)))
	}
	if err != nil {
		return Tokens{}, err
	}
	ok, err = s.passes(ctx, u, by.Password)
	if err != nil {
		return Tokens{}, err
	}
	if !ok {
		return Tokens{}, matrix.Errorf(matrix.Forbidden, "wrong user name or password")
	}
	return s.begin(ctx, u.ID, l, c)
}

// LoginAppservice logs in a user of an appservice.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions
func (s *Service) LoginAppservice(ctx context.Context, reg *registrations.Registration, by Credentials, l Login, c Client) (Tokens, error) {
	id, err := s.localUser(by)
	if err != nil {
		return Tokens{}, err
	}
	if !s.Appservices.Owns(reg, string(id)) {
		return Tokens{}, matrix.Errorf(matrix.Exclusive, "this user is outside the namespaces of the application service")
	}
	return s.begin(ctx, id, l, c)
}

// LoginToken logs in whoever's device made the token.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login
func (s *Service) LoginToken(ctx context.Context, token string, l Login, c Client) (Tokens, error) {
	var id matrix.UserID
	var ok bool
	err := s.Store.Update(ctx, func(tx *store.Tx) (err error) {
		id, ok, err = tx.TakeLoginToken(ctx, sum(token), time.Now().UnixMilli())
		return err
	})
	if err != nil {
		return Tokens{}, err
	}
	if !ok {
		return Tokens{}, matrix.Errorf(matrix.Forbidden, "the login token is not valid")
	}
	return s.begin(ctx, id, l, c)
}

// loginTokenKeeps is how long a login token lives.
const loginTokenKeeps = 2 * time.Minute

// NewLoginToken makes a token by which another device of the user may log in
// once, and tells how long it lives.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1loginget_token
func (s *Service) NewLoginToken(ctx context.Context, user matrix.UserID) (token string, expires time.Duration, err error) {
	token = secret(24)
	until := time.Now().Add(loginTokenKeeps).UnixMilli()
	err = s.Store.Update(ctx, func(tx *store.Tx) error { return tx.AddLoginToken(ctx, sum(token), user, until) })
	return token, loginTokenKeeps, err
}

// localUser finds out whom credentials name. The errors are M_FORBIDDEN for
// users of other servers, and M_INVALID_PARAM, M_MISSING_PARAM.
func (s *Service) localUser(by Credentials) (matrix.UserID, error) {
	name := by.User
	if by.Identifier != nil {
		switch by.Identifier.Type {
		case "m.id.user":
			name = by.Identifier.User
		case "m.id.thirdparty", "m.id.phone":
			return "", matrix.Errorf(matrix.Forbidden, "wrong user name or password") // nobody has any
		default:
			return "", matrix.Errorf(matrix.InvalidParam, "unknown type of identifier")
		}
	}
	switch {
	case name == "":
		return "", matrix.Errorf(matrix.MissingParam, "a user name is needed")
	case name[0] != '@':
		name = string(matrix.NewUserID(name, s.ServerName))
	}
	id, err := matrix.ParseUserID(name)
	if err != nil || id.Server() != s.ServerName {
		return "", matrix.Errorf(matrix.Forbidden, "wrong user name or password")
	}
	return id, nil
}

// lower is id with a small localpart.
func lower(id matrix.UserID) string {
	return string(matrix.NewUserID(strings.ToLower(id.Localpart()), id.Server()))
}

// passes tells whether it is the user's password, and hashes it anew if that
// has become cheap. The zero user takes as long.
func (s *Service) passes(ctx context.Context, u store.User, password string) (bool, error) {
	ok, stale, err := s.matches(ctx, password, u.Password)
	if err != nil || !ok || !stale {
		return ok, err
	}
	hashed, err := s.hash(ctx, password)
	if err != nil {
		return false, err
	}
	return true, s.Store.Update(ctx, func(tx *store.Tx) error {
		now, ok, err := tx.User(ctx, u.ID)
		if err != nil || !ok || now.Password != u.Password {
			return err
		}
		now.Password = hashed
		return tx.SetUser(ctx, now)
	})
}

// begin logs a user in on a device. What sessions the device had end.
func (s *Service) begin(ctx context.Context, id matrix.UserID, l Login, c Client) (Tokens, error) {
	t, row, err := s.mint(id, l)
	if err != nil {
		return Tokens{}, err
	}
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		u, ok, err := tx.User(ctx, id)
		switch {
		case err != nil:
			return err
		case !ok:
			return matrix.Errorf(matrix.Forbidden, "wrong user name or password")
		}
		if err := remember(u, "").standing(); err != nil {
			return err
		}
		return startSession(ctx, tx, row, l, c)
	})
	if err != nil {
		return Tokens{}, err
	}
	s.cache.dropUser(id, t.Device)
	return t, nil
}

// startSession writes the device and the token of a login.
func startSession(ctx context.Context, tx *store.Tx, row store.Token, l Login, c Client) error {
	if err := tx.DeleteDeviceTokens(ctx, row.User, row.Device); err != nil {
		return err
	}
	err := tx.PutDevice(ctx, store.Device{
		User: row.User, ID: row.Device, DisplayName: l.DeviceName, CreatedTS: row.CreatedTS,
		LastSeen: store.Sighting{TS: row.CreatedTS, Address: c.Address, UserAgent: printable(c.UserAgent, 500)},
	})
	if err != nil {
		return err
	}
	return tx.AddToken(ctx, row)
}

// mint makes tokens, and what is stored of them.
func (s *Service) mint(user matrix.UserID, l Login) (Tokens, store.Token, error) {
	if err := checkText("device_id", string(l.Device), longestDevice); err != nil {
		return Tokens{}, store.Token{}, err
	}
	if err := checkText("initial_device_display_name", l.DeviceName, longestDeviceName); err != nil {
		return Tokens{}, store.Token{}, err
	}
	now := time.Now()
	t := Tokens{User: user, Device: l.Device, Access: secret(32)}
	if t.Device == "" {
		t.Device = matrix.DeviceID(letters(10))
	}
	row := store.Token{Access: sum(t.Access), User: user, Device: t.Device, CreatedTS: now.UnixMilli()}
	if l.Refresh {
		t.Refresh, t.ExpiresIn = secret(32), s.Config.TokenLifetime
		row.Refresh, row.ExpiresTS = sum(t.Refresh), now.Add(t.ExpiresIn).UnixMilli()
	}
	return t, row, nil
}

// checkText refuses text that is too long or cannot be stored.
func checkText(name, s string, most int) error {
	if len(s) > most || strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
		return matrix.Errorf(matrix.InvalidParam, "%s must be UTF-8 of at most %d bytes without U+0000", name, most)
	}
	return nil
}

// Refresh gives new tokens for a refresh token. The old pair ends when one of
// the new ones is first used. The error is M_UNKNOWN_TOKEN.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens
func (s *Service) Refresh(ctx context.Context, refresh string) (Tokens, error) {
	fresh, row, err := s.mint("", Login{Refresh: true, Device: "?"})
	if err != nil {
		return Tokens{}, err
	}
	var old store.Token
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		var ok bool
		var err error
		if old, ok, err = tx.TokenByRefresh(ctx, sum(refresh)); err != nil {
			return err
		}
		if !ok {
			return &matrix.Error{Code: matrix.UnknownToken, Text: "unknown refresh token", Extra: map[string]any{"soft_logout": false}}
		}
		u, _, err := tx.User(ctx, old.User)
		if err != nil {
			return err
		}
		if err := remember(u, "").standing(); err != nil {
			return err
		}
		if old.Replaces != nil {
			if err := tx.UseToken(ctx, old); err != nil {
				return err
			}
		}
		if err := tx.DeleteSuccessors(ctx, old.Access); err != nil {
			return err
		}
		next := row
		next.User, next.Device, next.Replaces = old.User, old.Device, old.Access
		return tx.AddToken(ctx, next)
	})
	if err != nil {
		return Tokens{}, err
	}
	s.cache.drop(string(old.Replaces))
	fresh.User, fresh.Device = old.User, old.Device
	return fresh, nil
}

// Logout ends a session and deletes its device.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout
func (s *Service) Logout(ctx context.Context, session Session) error {
	if session.Device == "" {
		return matrix.Errorf(matrix.Forbidden, "an application service without a device has nothing to log out of")
	}
	return s.DeleteDevices(ctx, session.User, []matrix.DeviceID{session.Device})
}

// LogoutAll ends all sessions of a user and deletes the devices.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logoutall
func (s *Service) LogoutAll(ctx context.Context, user matrix.UserID) error {
	err := s.Store.Update(ctx, func(tx *store.Tx) error { return deleteDevices(ctx, tx, user, "") })
	s.cache.dropUser(user, "")
	s.wake(user)
	return err
}

// Appservice finds the registration of an appservice's token. The error is
// M_UNKNOWN_TOKEN.
func (s *Service) Appservice(token string) (*registrations.Registration, error) {
	if s.Appservices != nil {
		if reg := s.Appservices.ByToken(token); reg != nil {
			return reg, nil
		}
	}
	return nil, &matrix.Error{Code: matrix.UnknownToken, Text: "not the token of an application service", Extra: map[string]any{"soft_logout": false}}
}
