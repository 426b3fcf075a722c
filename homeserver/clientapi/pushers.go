package clientapi

import (
	"switchboard/homeserver/account"
	"switchboard/homeserver/edge"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/unread"
)

var pusherRoutes = []route{
	{"getNotifications", "GET /_matrix/client/v3/notifications", users, (*API).getNotifications},
	{"getPushers", "GET /_matrix/client/v3/pushers", users, (*API).getPushers},
	{"postPusher", "POST /_matrix/client/v3/pushers/set", users, (*API).postPusher},
}

// getPushers lists where the user's notifications are sent.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushers
func (a *API) getPushers(r *request) (any, error) {
	list, err := a.Accounts.Pushers(r.Context(), r.User)
	if err != nil {
		return nil, err
	}
	if list == nil {
		list = []account.Pusher{}
	}
	return map[string][]account.Pusher{"pushers": list}, nil
}

// postPusher makes, replaces or ends a pusher.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset
func (a *API) postPusher(r *request) (any, error) {
	var body struct {
		account.Pusher
		Kind   *string `json:"kind"` // null ends it
		Append bool    `json:"append"`
	}
	b, err := r.Object()
	if err != nil {
		return nil, err
	}
	if err := edge.Decode(b, &body); err != nil {
		return nil, err
	}
	p := body.Pusher
	if body.Kind == nil {
		if p.AppID == "" || p.Pushkey == "" {
			return nil, matrix.Errorf(matrix.MissingParam, "app_id and pushkey are needed")
		}
		return edge.Empty{}, a.Accounts.DeletePusher(r.Context(), r.User, p.AppID, p.Pushkey)
	}
	p.User, p.Device, p.Kind = r.User, r.Device, *body.Kind
	return edge.Empty{}, a.Accounts.SetPusher(r.Context(), p, body.Append)
}

// The sizes of pages of notifications.
const (
	notificationsDefault = 20
	notificationsMost    = 200
)

// getNotifications lists what the user was notified of.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3notifications
func (a *API) getNotifications(r *request) (any, error) {
	q := r.URL.Query()
	asked := unread.Asked{From: q.Get("from"), Highlight: q.Get("only") == "highlight"}
	var err error
	if asked.Limit, err = r.Number("limit", notificationsDefault, notificationsMost); err != nil {
		return nil, err
	}
	asked.Limit = max(asked.Limit, 1)
	return a.Unread.Notifications(r.Context(), r.reader(), asked)
}
