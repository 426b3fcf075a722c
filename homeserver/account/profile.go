package account

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"time"

	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// The bounds of a profile, in bytes.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#profiles
const (
	longestProfile     = 64 << 10
	longestProfileKey  = 255
	longestDisplayName = 256 // a display name goes into an event of every room
	longestAvatarURL   = 1000
)

// The fields that go into rooms.
const (
	DisplayName = "displayname"
	AvatarURL   = "avatar_url"
)

// profileKey is the grammar of names: those of the specification, and
// namespaced ones.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#common-namespaced-identifier-grammar
var profileKey = regexp.MustCompile(`^[a-z][a-z0-9_.-]*$`)

// profileTime is how long another server has to tell a profile. Somebody waits
// for it, and can do without.
const profileTime = 10 * time.Second

// Profile gives what a user tells about itself. The server of a user who is not
// one of ours is asked; an appservice may make one of ours because of the
// question. The errors are M_NOT_FOUND if there is no such user; of other servers
// also M_FORBIDDEN, and M_UNKNOWN with status 502 where the server does not help.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuserid
func (s *Service) Profile(ctx context.Context, user matrix.UserID) (store.Profile, error) {
	if user.Server() != s.ServerName {
		return s.profileElsewhere(ctx, user)
	}
	p, err := s.Store.Profile(ctx, user)
	if err != nil || len(p) > 0 {
		return p, err
	}
	u, ok, err := s.Store.User(ctx, user)
	if err == nil && !ok && s.AskUser != nil {
		if made, err := s.AskUser(ctx, user); err != nil || made {
			if err == nil {
				p, err = s.Store.Profile(ctx, user)
			}
			return p, err
		}
	}
	if err == nil && (!ok || u.Deactivated) {
		err = matrix.Errorf(matrix.NotFound, "there is no profile of this user")
	}
	return p, err
}

// profileElsewhere asks the server of a user.
func (s *Service) profileElsewhere(ctx context.Context, user matrix.UserID) (store.Profile, error) {
	none := matrix.Errorf(matrix.NotFound, "there is no profile of this user")
	if s.Client == nil {
		return nil, none
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(s.patience, profileTime))
	defer cancel()
	fields, err := s.Client.Profile(ctx, user, "")
	var refused *fedclient.ResponseError
	switch {
	case err == nil:
	case errors.As(err, &refused) && refused.Status == http.StatusNotFound:
		return nil, none
	case errors.As(err, &refused) && refused.Status == http.StatusForbidden:
		return nil, matrix.Errorf(matrix.Forbidden, "the user's server does not show the profile")
	default:
		return nil, &matrix.Error{Code: matrix.Unknown, Status: http.StatusBadGateway, Text: string(user.Server()) + " did not tell the profile", Cause: err}
	}
	p := store.Profile{}
	for name, value := range fields {
		if !profileKey.MatchString(name) || len(name) > longestProfileKey {
			continue
		}
		if value, err := profileValue(name, value); err == nil && value != nil {
			p[name] = value
		}
	}
	if p.Size() > longestProfile {
		return nil, &matrix.Error{Code: matrix.Unknown, Status: http.StatusBadGateway, Text: "the profile is too large"}
	}
	return p, nil
}

// SetProfile writes one field of a user's profile; a value of nil deletes it.
// It does not carry display name and avatar into rooms. The errors are
// M_KEY_TOO_LARGE, M_PROFILE_TOO_LARGE, M_INVALID_PARAM and M_BAD_JSON.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname
func (s *Service) SetProfile(ctx context.Context, user matrix.UserID, name string, value json.RawMessage) error {
	return s.SetProfileFields(ctx, user, map[string]json.RawMessage{name: value})
}

// SetProfileFields is SetProfile for several fields, all or none.
func (s *Service) SetProfileFields(ctx context.Context, user matrix.UserID, fields map[string]json.RawMessage) error {
	checked := make(map[string]json.RawMessage, len(fields))
	for name, value := range fields {
		if len(name) > longestProfileKey {
			return matrix.Errorf(matrix.KeyTooLarge, "the name of a field may have %d bytes", longestProfileKey)
		}
		if !profileKey.MatchString(name) {
			return matrix.Errorf(matrix.InvalidParam, "not the name of a profile field")
		}
		var err error
		if checked[name], err = profileValue(name, value); err != nil {
			return err
		}
	}
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		p, err := tx.Profile(ctx, user)
		if err != nil {
			return err
		}
		grows := false
		for name, value := range checked {
			if value == nil {
				if err := tx.DeleteProfileField(ctx, user, name); err != nil {
					return err
				}
				delete(p, name)
				continue
			}
			if err := tx.SetProfileField(ctx, user, name, value); err != nil {
				return err
			}
			p[name], grows = value, true
		}
		if grows && p.Size() > longestProfile {
			return matrix.Errorf(matrix.ProfileTooLarge, "a profile may have %d bytes", longestProfile)
		}
		return nil
	})
}

// profileValue checks the value of a field. An empty display name or avatar is
// none.
func profileValue(name string, value json.RawMessage) (json.RawMessage, error) {
	most := map[string]int{DisplayName: longestDisplayName, AvatarURL: longestAvatarURL}[name]
	if most == 0 || value == nil {
		return value, nil
	}
	var text *string
	if json.Unmarshal(value, &text) != nil {
		return nil, matrix.Errorf(matrix.BadJSON, "%s must be a text", name)
	}
	if text == nil || *text == "" {
		return nil, nil
	}
	if err := checkText(name, *text, most); err != nil {
		return nil, err
	}
	return value, nil
}
