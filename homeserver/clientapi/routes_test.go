package clientapi

import (
	"net/http"
	"strings"
	"testing"

	"switchboard/homeserver/account"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// filled is a path of the table with something in the place of its parameters.
func filled(path string) string {
	return strings.NewReplacer(
		"{roomId}", "!r:a.test", "{eventId}", "$e", "{roomIdOrAlias}", "!r:a.test", "{roomAlias}", "%23x:a.test", "{userId}", "@alice:a.test",
		"{serverName}", "a.test", "{mediaId}", "x", "{fileName}", "f", "{$}", "", "{version}", "1", "{", "", "}", "",
	).Replace(path)
}

// TestEveryRouteNeedsItsToken asks every route without a token, with one that
// was logged out, and with rubbish.
func TestEveryRouteNeedsItsToken(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		out := s.as("alice")
		out.want(200, `{}`, "POST", v3+"logout", "")
		rubbish := s.with("@alice:a.test", "syt_rubbish", "D")
		n := 0
		for _, rt := range routes() {
			method, path, _ := strings.Cut(rt.pattern, " ")
			path = filled(path)
			if rt.access == public {
				continue
			}
			n++
			if rt.access != optional {
				s.nobody().want(401, `"errcode":"M_MISSING_TOKEN"`, method, path, "{}")
			}
			out.want(401, `"errcode":"M_UNKNOWN_TOKEN"`, method, path, "{}")
			rubbish.want(401, `"errcode":"M_UNKNOWN_TOKEN"`, method, path, "{}")
			sep := "?"
			if strings.Contains(path, "?") {
				sep = "&"
			}
			s.nobody().want(401, `"errcode":"M_UNKNOWN_TOKEN"`, method, path+sep+"access_token=rubbish", "{}")
		}
		if n < 50 {
			t.Errorf("only %d routes need a token", n)
		}
	})
}

// guestRoutes are the operations that the specification opens to guests, and
// those beside them without which a guest could not use them.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#guest-access
var guestRoutes = strings.Fields(`
	getRoomState getEventContext getOneRoomEvent getRoomStateWithKey getRoomEvents getMembersByRoom sync
	getContentAuthed getContentOverrideNameAuthed getContentThumbnailAuthed
	joinRoomById leaveRoom sendMessage setRoomStateWithKey sendToDevice
	getDevices getDevice updateDevice getTokenOwner uploadKeys queryKeys claimKeys`)

// TestGuestRoutes checks that a guest gets what the specification says, and
// nothing that concerns accounts of others or the making of rooms.
func TestGuestRoutes(t *testing.T) {
	access := map[string]access{}
	for _, rt := range routes() {
		if rt.operation != "" {
			access[rt.operation] = rt.access
		}
	}
	for _, op := range guestRoutes {
		if a, ok := access[op]; !ok || a == users || a == admins {
			t.Errorf("%s is not open to guests (known: %v)", op, ok)
		}
	}
	for _, op := range strings.Fields(`createRoom inviteUser kick ban unban setRoomAlias deleteRoomAlias setRoomVisibilityOnDirectory
		searchUserDirectory knockRoom redactEvent setAccountData createContent uploadContent`) {
		if a, ok := access[op]; !ok || a != users {
			t.Errorf("%s is open to guests (known: %v)", op, ok)
		}
	}
}

// guest makes a guest; the server must welcome them.
func (s *server) guest() *server {
	s.t.Helper()
	tokens, err := s.api.Accounts.RegisterGuest(s.t.Context(), "browser", account.Client{})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.with(tokens.User, tokens.Access, tokens.Device)
}

func TestCORSAndMethods(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		for _, path := range []string{v3 + "sync", v3 + "rooms/!r:a.test/send/m.room.message/1", v3 + "nothing", "/_matrix/client/versions"} {
			w := s.nobody().do("OPTIONS", path, "")
			h := w.Header()
			if w.Code/100 != 2 || h.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("OPTIONS %s: %d %v", path, w.Code, h)
			}
			for header, needs := range map[string]string{
				"Access-Control-Allow-Methods": "GET POST PUT DELETE OPTIONS",
				"Access-Control-Allow-Headers": "X-Requested-With Content-Type Authorization",
			} {
				for _, need := range strings.Fields(needs) {
					if !strings.Contains(h.Get(header), need) {
						t.Errorf("OPTIONS %s: %s lacks %s", path, header, need)
					}
				}
			}
			if got := s.do("GET", path, "").Header().Get("Access-Control-Allow-Origin"); got != "*" {
				t.Errorf("GET %s: Access-Control-Allow-Origin %q", path, got)
			}
		}
		for _, path := range []string{"/", "/_matrix/", "/_matrix/client/v3/", v3 + "nothing", v3 + "sync/", v3 + "//sync", v3 + "rooms/../sync", v3 + "./sync",
			"/_matrix/client/v4/nothing", v3 + "rooms/!r:a.test/state/a/b/c", v3 + "rooms//state"} {
			s.want(404, `"errcode":"M_UNRECOGNIZED"`, "GET", path, "")
		}
		for method, path := range map[string]string{
			"DELETE": v3 + "sync", "PATCH": v3 + "rooms/!r:a.test/messages", "POST": v3 + "rooms/!r:a.test/state", "PUT": "/_matrix/client/versions",
			"GET": v3 + "createRoom", "HEAD": v3 + "createRoom",
		} {
			s.want(405, `"errcode":"M_UNRECOGNIZED"`, method, path, "{}")
		}
		if w := s.do("HEAD", "/_matrix/client/versions", ""); w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("HEAD: %d %v", w.Code, w.Header())
		}
	})
}
