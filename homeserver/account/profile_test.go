package account

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"switchboard/homeserver/fedclient/fedclienttest"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// TestProfileElsewhere asks for profiles of users of another server.
func TestProfileElsewhere(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := &Service{Store: st, ServerName: "a.test", patience: 2 * time.Minute}
		answers := map[string]struct {
			status int
			body   string
		}{
			"good":    {200, `{"displayname":"Carol","avatar_url":null,"m.tz":"Europe/Rome","Not a key":1}`},
			"strange": {200, `{"displayname":7,"avatar_url":"` + strings.Repeat("x", longestAvatarURL+1) + `","m.ok":{}}`},
			"huge":    {200, `{"m.a":"` + strings.Repeat("x", longestProfile) + `"}`},
			"none":    {404, `{"errcode":"M_NOT_FOUND"}`},
			"secret":  {403, `{"errcode":"M_FORBIDDEN"}`},
			"trap":    {401, `{"errcode":"M_UNKNOWN_TOKEN"}`}, // would log a client out
			"broken":  {500, `{"errcode":"M_UNKNOWN"}`},
		}
		server := fedclienttest.Server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Query().Get("user_id"), "@"), ":")
			if r.URL.Path != "/_matrix/federation/v1/query/profile" {
				t.Errorf("asked for %s", r.URL.Path)
			}
			w.WriteHeader(answers[name].status)
			_, _ = w.Write([]byte(answers[name].body))
		}))
		ask := func(name string, server matrix.ServerName) (string, matrix.Code, int) {
			t.Helper()
			p, err := s.Profile(t.Context(), matrix.UserID("@"+name+":"+string(server)))
			var e *matrix.Error
			if err != nil {
				if !errors.As(err, &e) {
					t.Fatalf("%v is no answer for a client", err)
				}
				return "", e.Code, e.HTTPStatus()
			}
			b, _ := json.Marshal(p)
			return string(b), "", 200
		}
		if _, code, status := ask("good", server); code != matrix.NotFound || status != 404 {
			t.Errorf("without a client: %s %d", code, status)
		}
		s.Client = fedclienttest.Client(t, s.ServerName, st)
		for _, c := range []struct {
			name   string
			server matrix.ServerName
			want   string
			code   matrix.Code
			status int
		}{
			{"good", server, `{"displayname":"Carol","m.tz":"Europe/Rome"}`, "", 200},
			{"strange", server, `{"m.ok":{}}`, "", 200},
			{"huge", server, "", matrix.Unknown, 502},
			{"none", server, "", matrix.NotFound, 404},
			{"secret", server, "", matrix.Forbidden, 403},
			{"trap", server, "", matrix.Unknown, 502},
			{"broken", server, "", matrix.Unknown, 502},
			{"good", fedclienttest.Absent, "", matrix.Unknown, 502},
		} {
			if got, code, status := ask(c.name, c.server); got != c.want || code != c.code || status != c.status {
				t.Errorf("%s at %s: got %s %q %d", c.name, c.server, got, code, status)
			}
		}
	})
}
