package clientapi

import (
	"context"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestTurnServer(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		const path = v3 + "voip/turnServer"
		var there *TURNServer
		s := start(t, st, func(a *API) {
			a.Accounts.Config.Guests = true
			a.TURN = func(_ context.Context, user matrix.UserID) (*TURNServer, error) {
				if there != nil {
					there.Username = "1:" + string(user)
				}
				return there, nil
			}
		})
		s.want(200, `{}`, "GET", path, "")
		there = &TURNServer{Password: "secret", URIs: []string{"turn:a.test:3478?transport=udp"}, TTL: 3600}
		s.want(200, `{"username":"1:@alice:a.test","password":"secret","uris":["turn:a.test:3478?transport=udp"],"ttl":3600}`, "GET", path, "")
		s.guest().want(403, `M_GUEST_ACCESS_FORBIDDEN`, "GET", path, "")
		s.token = ""
		s.want(401, `M_MISSING_TOKEN`, "GET", path, "")
		s.api.TURN = nil
		s.new("bob").want(200, `{}`, "GET", path, "")
	})
}
