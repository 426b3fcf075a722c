package account

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// The bounds of what names a pusher, in bytes.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset
const (
	longestPushkey = 512
	longestAppID   = 64
	longestPusher  = 16 << 10 // data
)

// mostPushers is how many pushers a user may have: each is told of each message.
const mostPushers = 100

// mailApp is the app_id of pushers of kind "email".
const mailApp = "m.email"

// Pushers lists where notifications of a user are sent.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushers
func (s *Service) Pushers(ctx context.Context, user matrix.UserID) ([]store.Pusher, error) {
	return s.Store.Pushers(ctx, user)
}

// SetPusher makes a pusher, or replaces the one with its app and key. Unless
// share is set, other users lose theirs with the same app and key. One of kind
// "email" is for an address of the user's, and lasts longer than the session.
// The errors are M_MISSING_PARAM, M_INVALID_PARAM and M_THREEPID_NOT_FOUND.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset
func (s *Service) SetPusher(ctx context.Context, p store.Pusher, share bool) error {
	if err := checkPusher(p); err != nil {
		return err
	}
	if p.Kind == Email {
		if err := s.ownEmail(ctx, &p); err != nil {
			return err
		}
	}
	have, err := s.Store.Pushers(ctx, p.User)
	if err != nil {
		return err
	}
	same := func(q store.Pusher) bool { return q.AppID == p.AppID && q.Pushkey == p.Pushkey }
	if len(have) >= mostPushers && !slices.ContainsFunc(have, same) {
		return matrix.Errorf(matrix.InvalidParam, "you have %d pushers, which is the most: delete one first", len(have))
	}
	p.CreatedTS, p.Pos = time.Now().UnixMilli(), s.Store.Position()
	defer s.Bell.Ring(store.PushersBell)
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		if !share {
			if err := tx.DeletePushersOfOthers(ctx, p.User, p.AppID, p.Pushkey); err != nil {
				return err
			}
		}
		return tx.PutPusher(ctx, p)
	})
}

// DeletePusher ends a pusher. One that does not exist is ended already.
func (s *Service) DeletePusher(ctx context.Context, user matrix.UserID, appID, pushkey string) error {
	if address, err := ParseEmail(pushkey); err == nil && appID == mailApp {
		pushkey = address
	}
	defer s.Bell.Ring(store.PushersBell)
	return s.Store.Update(ctx, func(tx *store.Tx) error { return tx.DeletePusher(ctx, user, appID, pushkey) })
}

func checkPusher(p store.Pusher) error {
	for _, f := range []struct {
		name, value string
		most        int
	}{
		{"app_id", p.AppID, longestAppID}, {"pushkey", p.Pushkey, longestPushkey}, {"kind", p.Kind, 255},
		{"app_display_name", p.AppName, 1000}, {"device_display_name", p.DeviceName, 1000}, {"lang", p.Lang, 255}, {"profile_tag", p.ProfileTag, 255},
	} {
		if err := checkText(f.name, f.value, f.most); err != nil {
			return err
		}
		if f.value == "" && f.name != "profile_tag" {
			return matrix.Errorf(matrix.MissingParam, "%s is needed", f.name)
		}
	}
	var data map[string]json.RawMessage
	if len(p.Data) > longestPusher || json.Unmarshal(p.Data, &data) != nil || data == nil {
		return matrix.Errorf(matrix.InvalidParam, "data must be an object of at most %d bytes", longestPusher)
	}
	switch p.Kind {
	case "http":
		var gateway string
		if json.Unmarshal(data["url"], &gateway) != nil {
			return matrix.Errorf(matrix.MissingParam, "data.url is needed")
		}
		u, err := url.Parse(gateway)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Path != "/_matrix/push/v1/notify" {
			return matrix.Errorf(matrix.InvalidParam, "data.url must be an https:// or http:// address with the path /_matrix/push/v1/notify")
		}
		return nil
	case Email:
		if p.AppID != mailApp {
			return matrix.Errorf(matrix.InvalidParam, "app_id must be %s", mailApp)
		}
		return nil
	}
	return matrix.Errorf(matrix.InvalidParam, "unknown kind of pusher")
}
