package fedapi

import (
	"encoding/json"
	"runtime/debug"

	"switchboard/homeserver/matrix"
)

var serverRoutes = []route{
	{"getVersion", "GET /_matrix/federation/v1/version", public, small, (*API).getVersion},
	{"exchangeOpenIdToken", "GET /_matrix/federation/v1/openid/userinfo", public, small, (*API).exchangeOpenIDToken},
}

// getVersion tells what program this is.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1version
func (a *API) getVersion(*request) (any, error) {
	return map[string]any{"server": map[string]string{"name": "Switchboard", "version": version()}}, nil
}

// version is the version of this program.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}

// exchangeOpenIDToken tells whose token somebody has.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1openiduserinfo
func (a *API) exchangeOpenIDToken(r *request) (any, error) {
	token := r.URL.Query().Get("access_token")
	if token == "" {
		return nil, matrix.Errorf(matrix.MissingToken, "access_token is missing")
	}
	user, err := a.Accounts.OpenIDUser(r.Context(), token)
	if err != nil {
		return nil, err
	}
	return map[string]matrix.UserID{"sub": user}, nil
}

var keyRoutes = []route{
	{"getServerKey", "GET /_matrix/key/v2/server", public, small, (*API).getServerKey},
	{"", "GET /_matrix/key/v2/server/{keyId...}", public, small, (*API).getServerKey},
	{"perspectivesKeyQuery", "GET /_matrix/key/v2/query/{serverName}", public, small, (*API).perspectivesKeyQuery},
	{"", "GET /_matrix/key/v2/query/{serverName}/{keyId}", public, small, (*API).perspectivesKeyQuery},
	{"bulkPerspectivesKeyQuery", "POST /_matrix/key/v2/query", public, small, (*API).bulkPerspectivesKeyQuery},
}

// getServerKey publishes the keys of this server.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server
func (a *API) getServerKey(*request) (any, error) { return a.KeyRing.Published() }

// perspectivesKeyQuery tells the keys of another server, as a notary.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2queryservername
func (a *API) perspectivesKeyQuery(r *request) (any, error) {
	server, err := matrix.ParseServerName(r.PathValue("serverName"))
	if err != nil {
		return nil, err
	}
	until, err := r.Time("minimum_valid_until_ts")
	if err != nil {
		return nil, err
	}
	keys := map[string]int64{}
	if id := r.PathValue("keyId"); id != "" {
		keys[id] = until
	}
	return a.notary(r, map[matrix.ServerName]map[string]int64{server: keys})
}

// bulkPerspectivesKeyQuery tells the keys of other servers, as a notary.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixkeyv2query
func (a *API) bulkPerspectivesKeyQuery(r *request) (any, error) {
	var body struct {
		Keys map[matrix.ServerName]map[string]struct {
			Until int64 `json:"minimum_valid_until_ts"`
		} `json:"server_keys"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	ask := map[matrix.ServerName]map[string]int64{}
	for server, keys := range body.Keys {
		if _, err := matrix.ParseServerName(string(server)); err != nil {
			return nil, err
		}
		ask[server] = map[string]int64{}
		for id, k := range keys {
			ask[server][id] = max(k.Until, 0)
		}
	}
	return a.notary(r, ask)
}

func (a *API) notary(r *request, ask map[matrix.ServerName]map[string]int64) (any, error) {
	list, err := a.KeyRing.Notary(r.Context(), ask)
	if err != nil {
		return nil, err
	}
	if list == nil {
		list = []json.RawMessage{}
	}
	return answer{{name: "server_keys", list: list}}, nil
}
