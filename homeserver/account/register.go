package account

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/registrations"
)

// Application is what somebody who registers asks for.
type Application struct {
	Username string // "" for a random one
	Password string
	NoLogin  bool // the account only, no session
	Login
}

// Available returns nil if a person may register this user name. The errors are
// M_INVALID_USERNAME, M_EXCLUSIVE and M_USER_IN_USE.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3registeravailable
func (s *Service) Available(ctx context.Context, username string) error {
	id, err := s.personID(username)
	if err != nil {
		return err
	}
	_, ok, err := s.Store.User(ctx, id)
	if err == nil && ok {
		err = matrix.Errorf(matrix.UserInUse, "this user name is taken")
	}
	return err
}

// personID makes the ID of a new user who is no appservice's.
func (s *Service) personID(username string) (matrix.UserID, error) {
	if strings.HasPrefix(username, "_") {
		return "", matrix.Errorf(matrix.InvalidUsername, "user names that begin with _ are for application services")
	}
	id, err := s.userID(username)
	if err == nil && id == s.Reserved {
		err = matrix.Errorf(matrix.Exclusive, "this user name belongs to the server")
	}
	if err == nil && s.Appservices != nil && s.Appservices.ExclusiveUser(string(id)) != nil {
		err = matrix.Errorf(matrix.Exclusive, "this user name belongs to an application service")
	}
	return id, err
}

// Register makes an account for who has passed user-interactive
// authentication, and logs in. Auth is nil where the request has none; then the
// error is a *Challenge. Other errors are M_FORBIDDEN where registration is
// closed, those of Available and those of a password.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register
func (s *Service) Register(ctx context.Context, a Application, auth *Auth, c Client) (Tokens, error) {
	flows, err := s.registrationFlows(ctx)
	if err != nil {
		return Tokens{}, err
	}
	if a.Username != "" {
		if err := s.Available(ctx, a.Username); err != nil {
			return Tokens{}, err
		}
	}
	if a.Password != "" || auth != nil {
		if err := s.acceptable(a.Password); err != nil {
			return Tokens{}, err
		}
	}
	stages, err := s.confirm(ctx, Operation{Name: "register", flows: flows}, auth)
	if err != nil {
		return Tokens{}, err
	}
	if a.Username == "" {
		a.Username = "u" + strings.ToLower(letters(11))
	}
	id, err := s.personID(a.Username)
	if err != nil {
		return Tokens{}, err
	}
	u := store.User{ID: id, CreatedTS: time.Now().UnixMilli()}
	if u.Password, err = s.hash(ctx, a.Password); err != nil {
		return Tokens{}, err
	}
	token := ""
	for _, stage := range stages {
		if stage.Type == stageToken {
			token = stage.Result
		}
	}
	return s.create(ctx, u, token, a, c)
}

// registrationFlows are the ways to an account. The error is M_FORBIDDEN if
// there are none.
func (s *Service) registrationFlows(ctx context.Context) ([][]string, error) {
	var flows [][]string
	var terms []string
	if len(s.Config.Terms) > 0 {
		terms = []string{stageTerms}
	}
	if s.Config.Mode == Open {
		if flows = [][]string{terms}; terms == nil {
			flows = [][]string{{stageDummy}}
		}
	}
	needed := s.Config.Mode == Token
	if !needed {
		list, err := s.Store.RegistrationTokens(ctx)
		if err != nil {
			return nil, err
		}
		for _, t := range list {
			needed = needed || s.opens(t)
		}
	}
	if needed {
		flows = append(flows, append([]string{stageToken}, terms...))
	}
	if flows == nil {
		return nil, errClosed()
	}
	return flows, nil
}

// opens tells whether an account can be made with the token now. It does so also
// where registration is closed: whoever has one was given it by the operator.
func (s *Service) opens(t store.RegistrationToken) bool {
	return t.Valid(time.Now().UnixMilli())
}

// create writes an account and the session of its first device. The
// registration token, if there is one, is used up in the same transaction.
func (s *Service) create(ctx context.Context, u store.User, token string, a Application, c Client) (Tokens, error) {
	t, row, err := s.mint(u.ID, a.Login)
	if err != nil {
		return Tokens{}, err
	}
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		u := u // the function may run again
		if token != "" {
			t, _, err := tx.RegistrationToken(ctx, token)
			if err != nil {
				return err
			}
			used, err := tx.UseRegistrationToken(ctx, token, u.CreatedTS)
			if err != nil {
				return err
			}
			if !used {
				return matrix.Errorf(matrix.Forbidden, "the registration token is not valid any more")
			}
			u.Admin = t.Admin
		}
		if err := s.addUser(ctx, tx, u); err != nil {
			return err
		}
		if a.NoLogin {
			return nil
		}
		return startSession(ctx, tx, row, a.Login, c)
	})
	if err != nil {
		return Tokens{}, err
	}
	s.cache.dropUser(u.ID, "") // an appservice may have asked as this user before
	if a.NoLogin {
		return Tokens{User: u.ID}, nil
	}
	return t, nil
}

// RegisterGuest makes an account for a guest.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#guest-access
func (s *Service) RegisterGuest(ctx context.Context, deviceName string, c Client) (Tokens, error) {
	if !s.Config.Guests {
		return Tokens{}, matrix.Errorf(matrix.GuestAccessForbidden, "guests are not welcome on this server")
	}
	u := store.User{
		ID:   matrix.NewUserID("guest-"+strings.ToLower(letters(16)), s.ServerName),
		Kind: store.Guest, CreatedTS: time.Now().UnixMilli(),
	}
	return s.create(ctx, u, "", Application{Login: Login{DeviceName: deviceName}}, c)
}

// RegisterAppservice makes an account for a user of an appservice. The errors
// are M_EXCLUSIVE outside its namespaces and those of Available.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions
func (s *Service) RegisterAppservice(ctx context.Context, reg *registrations.Registration, a Application, c Client) (Tokens, error) {
	if a.Username == "" {
		return Tokens{}, matrix.Errorf(matrix.MissingParam, "a user name is needed")
	}
	id, err := s.userID(a.Username)
	if err != nil {
		return Tokens{}, err
	}
	if !s.Appservices.Owns(reg, string(id)) {
		return Tokens{}, matrix.Errorf(matrix.Exclusive, "this user name is outside the namespaces of the application service")
	}
	if other := s.Appservices.ExclusiveUser(string(id)); other != nil && other != reg {
		return Tokens{}, matrix.Errorf(matrix.Exclusive, "this user name belongs to another application service")
	}
	u := store.User{ID: id, Kind: store.AppserviceUser, Appservice: reg.ID, CreatedTS: time.Now().UnixMilli()}
	return s.create(ctx, u, "", a, c)
}

// nonceKeeps is how long a nonce of registration by shared secret is good.
const nonceKeeps = time.Minute

// Nonce makes a nonce for RegisterShared. The error is M_UNRECOGNIZED where
// there is no shared secret.
func (s *Service) Nonce() (string, error) {
	if s.Config.SharedSecret == "" {
		return "", matrix.Errorf(matrix.Unrecognized, "registration by shared secret is turned off")
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixMilli()))
	b = append(b, sum(secret(16))[:16]...)
	return base64.RawURLEncoding.EncodeToString(append(b, s.signNonce(b)...)), nil
}

func (s *Service) signNonce(b []byte) []byte {
	h := hmac.New(sha256.New, []byte("nonce\x00"+s.Config.SharedSecret))
	h.Write(b)
	return h.Sum(nil)
}

// fresh tells whether we made the nonce, not long ago. A user name can be
// registered once, so it need not be remembered.
func (s *Service) fresh(nonce string) bool {
	b, err := base64.RawURLEncoding.DecodeString(nonce)
	if err != nil || len(b) != 8+16+sha256.Size || !hmac.Equal(b[24:], s.signNonce(b[:24])) {
		return false
	}
	age := time.Since(time.UnixMilli(int64(binary.BigEndian.Uint64(b))))
	return age >= 0 && age < nonceKeeps
}

// Shared is a registration by shared secret.
type Shared struct {
	Nonce       string `json:"nonce"`
	Username    string `json:"username"`
	DisplayName string `json:"displayname"`
	Password    string `json:"password"`
	Admin       bool   `json:"admin"`
	UserType    string `json:"user_type"`
	MAC         string `json:"mac"` // HMAC-SHA1 by the secret over the fields, hexadecimal
}

// RegisterShared makes an account for who knows the shared secret, whatever the
// mode of registration, and logs in. Errors are M_UNRECOGNIZED where there is
// no secret, M_FORBIDDEN for a wrong MAC, and those of a name and a password.
func (s *Service) RegisterShared(ctx context.Context, r Shared, c Client) (Tokens, error) {
	if s.Config.SharedSecret == "" {
		return Tokens{}, matrix.Errorf(matrix.Unrecognized, "registration by shared secret is turned off")
	}
	if !s.fresh(r.Nonce) {
		return Tokens{}, matrix.Errorf(matrix.InvalidParam, "the nonce is unknown or too old")
	}
	role := "notadmin"
	if r.Admin {
		role = "admin"
	}
	parts := []string{r.Nonce, r.Username, r.Password, role}
	if r.UserType != "" {
		parts = append(parts, r.UserType)
	}
	h := hmac.New(sha1.New, []byte(s.Config.SharedSecret))
	h.Write([]byte(strings.Join(parts, "\x00")))
	if got, err := hex.DecodeString(r.MAC); err != nil || !hmac.Equal(got, h.Sum(nil)) {
		return Tokens{}, matrix.Errorf(matrix.Forbidden, "the MAC is wrong")
	}
	id, err := s.userID(r.Username)
	if err != nil {
		return Tokens{}, err
	}
	if err := s.acceptable(r.Password); err != nil {
		return Tokens{}, err
	}
	u := store.User{ID: id, Admin: r.Admin, CreatedTS: time.Now().UnixMilli()}
	if u.Password, err = s.hash(ctx, r.Password); err != nil {
		return Tokens{}, err
	}
	return s.create(ctx, u, "", Application{}, c)
}
