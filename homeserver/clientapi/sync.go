package clientapi

import (
	"encoding/json"
	"strings"
	"time"

	"switchboard/homeserver/clientsync"
)

var syncRoutes = []route{
	{"sync", "GET /_matrix/client/v3/sync", guests, (*API).sync},
}

// longestPoll bounds how long a sync waits.
const longestPoll = 5 * time.Minute

// sync answers with what is new for a client.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
func (a *API) sync(r *request) (any, error) {
	q := r.URL.Query()
	timeout, err := r.Number("timeout", 0, int(longestPoll.Milliseconds()))
	if err != nil {
		return nil, err
	}
	ask := clientsync.Request{
		User: r.User, Device: r.Device, Since: q.Get("since"), Timeout: time.Duration(timeout) * time.Millisecond,
	}
	if ask.FullState, err = r.Flag("full_state"); err != nil {
		return nil, err
	}
	if ask.StateAfter, err = r.Flag("use_state_after"); err != nil {
		return nil, err
	}
	if !ask.StateAfter {
		if ask.MSC4222, err = r.Flag("org.matrix.msc4222.use_state_after"); err != nil {
			return nil, err
		}
		ask.StateAfter = ask.MSC4222
	}
	if ask.Filter, err = a.filter(r, q.Get("filter")); err != nil {
		return nil, err
	}
	if err := a.Ephemeral.Syncing(r.Context(), r.User, r.Device, q.Get("set_presence")); err != nil {
		return nil, err
	}
	answer, err := a.Sync.Sync(r.Context(), ask)
	if err != nil {
		return nil, err
	}
	return answer.JSON()
}

// filter reads the filter of a sync: JSON, or the ID of a stored one.
func (a *API) filter(r *request, s string) (*clientsync.Filter, error) {
	if s == "" || strings.HasPrefix(s, "{") {
		return clientsync.ParseFilter([]byte(s))
	}
	return a.Sync.StoredFilter(r.User, s, func() (json.RawMessage, error) { return a.Accounts.Filter(r.Context(), r.User, s) })
}
