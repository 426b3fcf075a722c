package clientapi

import "switchboard/homeserver/clientsync"

var filterRoutes = []route{
	{"defineFilter", "POST /_matrix/client/v3/user/{userId}/filter", guests, (*API).defineFilter},
	{"getFilter", "GET /_matrix/client/v3/user/{userId}/filter/{filterId}", guests, (*API).getFilter},
}

// defineFilter stores a filter for /sync.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter
func (a *API) defineFilter(r *request) (any, error) {
	if err := r.self(); err != nil {
		return nil, err
	}
	filter, err := r.Object()
	if err != nil {
		return nil, err
	}
	if _, err := clientsync.ParseFilter(filter); err != nil {
		return nil, err
	}
	id, err := a.Accounts.AddFilter(r.Context(), r.User, filter)
	if err != nil {
		return nil, err
	}
	return map[string]string{"filter_id": id}, nil
}

// getFilter reads a filter that was stored.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridfilterfilterid
func (a *API) getFilter(r *request) (any, error) {
	if err := r.self(); err != nil {
		return nil, err
	}
	return a.Accounts.Filter(r.Context(), r.User, r.PathValue("filterId"))
}
