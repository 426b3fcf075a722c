// Package account knows the users of this server: who they are, how they prove
// it, their devices and tokens, and what is stored for each of them (profile,
// settings, filters, pushers). It knows no rooms: a changed profile is carried
// into rooms by whoever called.
package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"sync/atomic"
	"time"

	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/store"
	"switchboard/registrations"
)

// Service is the accounts of one server. Its exported fields are set before
// the first call and not changed afterwards; its methods may be called from
// several goroutines. Run writes what is written late.
type Service struct {
	Store      *store.Store
	Bell       *notify.Bell
	ServerName matrix.ServerName
	Config     Config

	// Client asks other servers for the profiles of their users; nil asks none.
	Client *fedclient.Client

	// Appservices are the registrations in force. May be nil.
	Appservices *registrations.Set

	// Reserved is the server's own user, whose name nobody can register.
	Reserved matrix.UserID

	// SendsMail tells whether there are pushers of kind "email".
	SendsMail bool

	// AskUser asks the appservices whether one makes a user of theirs who is not
	// known. Nil asks nobody.
	AskUser func(ctx context.Context, user matrix.UserID) (bool, error)

	cache    sessions
	seen     sightings
	hashing  hasher
	patience time.Duration // with servers that are asked for profiles; 0: profileTime
}

// Session is who asks, and with what right.
type Session struct {
	User   matrix.UserID
	Device matrix.DeviceID // "" for an appservice that names none

	// Appservice is the registration by whose token was asked, nil for anybody
	// else.
	Appservice *registrations.Registration

	Admin     bool // a server administrator
	Guest     bool
	Suspended bool // may read, but do little else

	access [sha256.Size]byte // sum of the access token
}

// User is an account.
type User = store.User

// Device is one of a user's devices.
type Device = store.Device

// Profile is what a user tells about itself.
type Profile = store.Profile

// Pusher is where notifications of a user are sent.
type Pusher = store.Pusher

// Masquerade is the user, and the device of it, that an appservice asks to act
// as. Both may be "".
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#identity-assertion
type Masquerade struct {
	User   matrix.UserID
	Device matrix.DeviceID
}

// Client is where a request came from.
type Client struct {
	Address   string // IP address
	UserAgent string
}

// Authenticate tells whose access token this is. Who uses no appservice's token
// cannot masquerade; m is ignored then. The errors are *matrix.Error:
// M_UNKNOWN_TOKEN, M_USER_LOCKED (the session is valid all the same, because a
// locked user may log out), M_USER_DEACTIVATED, and for appservices M_FORBIDDEN
// and M_UNKNOWN_DEVICE.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens
func (s *Service) Authenticate(ctx context.Context, token string, m Masquerade, c Client) (Session, error) {
	if s.Appservices != nil {
		if reg := s.Appservices.ByToken(token); reg != nil {
			return s.masquerade(ctx, reg, m, c)
		}
	}
	sum := sha256.Sum256([]byte(token))
	e, ok := s.cache.find(string(sum[:]))
	if !ok {
		var err error
		if e, err = s.load(ctx, sum); err != nil {
			return Session{}, err
		}
	}
	now := time.Now()
	if e.expires != 0 && now.UnixMilli() >= e.expires {
		s.cache.drop(string(sum[:]))
		return Session{}, &matrix.Error{Code: matrix.UnknownToken, Text: "the access token has expired", Extra: map[string]any{"soft_logout": e.refreshable}}
	}
	if err := e.standing(); err != nil {
		return e.session, err
	}
	s.saw(e, c, now)
	return e.session, nil
}

// load reads the session of an access token and remembers it.
func (s *Service) load(ctx context.Context, sum [sha256.Size]byte) (*remembered, error) {
	age := s.cache.age()
	t, u, ok, err := s.Store.TokenByAccess(ctx, sum[:])
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, &matrix.Error{Code: matrix.UnknownToken, Text: "unknown access token", Extra: map[string]any{"soft_logout": false}}
	}
	if t.Replaces != nil {
		if err := s.Store.Update(ctx, func(tx *store.Tx) error { return tx.UseToken(ctx, t) }); err != nil {
			return nil, err
		}
		s.cache.drop(string(t.Replaces))
	}
	e := remember(u, t.Device)
	e.expires, e.refreshable = t.ExpiresTS, t.Refresh != nil
	e.session.access = sum
	s.cache.put(string(sum[:]), e, time.Now(), age)
	return e, nil
}

// masquerade is Authenticate for an appservice.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#identity-assertion
func (s *Service) masquerade(ctx context.Context, reg *registrations.Registration, m Masquerade, c Client) (Session, error) {
	user := m.User
	sender := matrix.UserID(reg.Sender(string(s.ServerName)))
	if user == "" {
		user = sender
	}
	if err := checkText("user_id", string(user), matrix.MaxIDLength); err != nil {
		return Session{}, err
	}
	if err := checkText("device_id", string(m.Device), longestDevice); err != nil {
		return Session{}, err
	}
	if !s.Appservices.Owns(reg, string(user)) {
		return Session{}, matrix.Errorf(matrix.Forbidden, "the application service cannot masquerade as this user")
	}
	key := string(user) + "\x00" + string(m.Device)
	e, ok := s.cache.find(key)
	if !ok {
		age := s.cache.age()
		u, ok, err := s.Store.User(ctx, user)
		if err != nil {
			return Session{}, err
		}
		if !ok {
			if user != sender {
				return Session{}, matrix.Errorf(matrix.Forbidden, "the application service has not registered this user")
			}
			if u, err = s.addSender(ctx, reg, sender); err != nil {
				return Session{}, err
			}
		}
		if m.Device != "" {
			_, ok, err := s.Store.Device(ctx, user, m.Device)
			if err != nil {
				return Session{}, err
			}
			if !ok {
				return Session{}, matrix.Errorf(matrix.UnknownDevice, "the user has no such device")
			}
		}
		e = remember(u, m.Device)
		s.cache.put(key, e, time.Now(), age)
	}
	session := e.session
	session.Appservice = reg
	if err := e.standing(); err != nil {
		return session, err
	}
	if m.Device != "" {
		s.saw(e, c, time.Now())
	}
	return session, nil
}

// addSender makes the account of an appservice's own user, which nobody has to
// register.
func (s *Service) addSender(ctx context.Context, reg *registrations.Registration, sender matrix.UserID) (store.User, error) {
	u := store.User{ID: sender, Kind: store.AppserviceUser, Appservice: reg.ID, CreatedTS: time.Now().UnixMilli()}
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.AddUser(ctx, u) // another request may have made it just now
		return err
	})
	return u, err
}

// secret makes a random word of n bytes, in URL-safe base64.
func secret(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// sum is what is stored of a secret.
func sum(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

// remembered is what Authenticate found out. Only seen changes.
type remembered struct {
	session     Session
	expires     int64 // milliseconds; 0: never
	refreshable bool
	deactivated bool
	locked      bool
	seen        atomic.Int64 // when a sighting was last noted, milliseconds
}

func remember(u store.User, device matrix.DeviceID) *remembered {
	return &remembered{
		session:     Session{User: u.ID, Device: device, Admin: u.Admin, Guest: u.Kind == store.Guest, Suspended: u.Suspended},
		deactivated: u.Deactivated, locked: u.Locked,
	}
}

// standing tells why the account may not be used, if so.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#account-locking
func (e *remembered) standing() error {
	switch {
	case e.deactivated:
		return matrix.Errorf(matrix.UserDeactivated, "this account has been deactivated")
	case e.locked:
		return &matrix.Error{Code: matrix.UserLocked, Text: "this account has been locked", Extra: map[string]any{"soft_logout": true}}
	}
	return nil
}
