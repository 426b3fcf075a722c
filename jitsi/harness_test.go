package jitsi

import (
	"context"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"switchboard/homeserver"
	"switchboard/homeserver/account"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/registrations"
)

// host is a homeserver behind real TLS on loopback that answers Jitsi.
type host struct {
	*testing.T
	*homeserver.Server
	name     matrix.ServerName
	url      string
	http     *http.Client
	verifier *Verifier
	lie      atomic.Pointer[string] // what it answers about every OpenID token; nil: the truth
}

// together runs f with n servers; the first one is on each database.
func together(t *testing.T, n int, f func(t *testing.T, hosts []*host)) {
	t.Helper()
	databasetest.EachURL(t, func(t *testing.T, url string) {
		hosts := []*host{newHost(t, url)}
		for len(hosts) < n {
			hosts = append(hosts, newHost(t, databasetest.SQLite(t)))
		}
		f(t, hosts)
	})
}

func newHost(t *testing.T, database string) *host {
	t.Helper()
	h := &host{T: t}
	var front http.Handler
	open := make(chan struct{}) // closed when front is there
	listener := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-open
		front.ServeHTTP(w, r)
	}))
	listener.Config.ErrorLog = log.New(io.Discard, "", 0)
	listener.StartTLS()
	h.url, h.http = listener.URL, listener.Client()
	h.name = matrix.ServerName(strings.TrimPrefix(listener.URL, "https://"))
	dir := t.TempDir()
	authority := filepath.Join(dir, "ca.pem")
	h.ok(os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: listener.Certificate().Raw}), 0o600))
	c := homeserver.DefaultConfig()
	c.ServerName, c.DataDir, c.Database.URL = h.name, dir, database
	c.Registration.Hash = account.Argon2{Memory: 64, Time: 1, Threads: 1} // cheap
	c.Federation.Asking.RootCA, c.Federation.Asking.Notaries = authority, []fedclient.NotaryConfig{}
	c.Outbound.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	var err error
	h.Server, err = homeserver.New(h.ctx(), c, registrations.NewSet(string(h.name)))
	h.ok(err)
	h.verifier = &Verifier{Token: "secret of Jitsi", ServerName: h.name, Accounts: h.Accounts, Rooms: h.Rooms, Servers: h.Federation.Client}
	edges, verify := h.Handlers(), h.verifier.Handler()
	front = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch lie := h.lie.Load(); {
		case lie != nil && r.URL.Path == "/_matrix/federation/v1/openid/userinfo":
			io.WriteString(w, `{"sub":"`+*lie+`"}`)
		case strings.HasPrefix(r.URL.Path, Path):
			verify.ServeHTTP(w, r)
		default:
			edges.Federation.ServeHTTP(w, r)
		}
	})
	close(open)
	t.Cleanup(func() {
		listener.CloseClientConnections()
		listener.Close()
		if err := h.Close(); err != nil {
			t.Errorf("close the server: %v", err)
		}
	})
	return h
}

func (h *host) ctx() context.Context { return h.Context() }

func (h *host) ok(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// user makes a user.
func (h *host) user(name string) matrix.UserID {
	h.Helper()
	id, err := h.Accounts.CreateUser(h.ctx(), account.NewUser{Localpart: name, Password: "correct horse"})
	h.ok(err)
	return id
}

// openID makes an OpenID token of a user of this server.
func (h *host) openID(user matrix.UserID) string {
	h.Helper()
	token, _, err := h.Accounts.NewOpenID(h.ctx(), user)
	h.ok(err)
	return token
}

// credential is what a user of this server brings to the call of a room.
func (h *host) credential(user matrix.UserID, id matrix.RoomID) Credential {
	h.Helper()
	return Credential{Token: h.openID(user), Room: id, Server: h.name}
}

// room makes a public room.
func (h *host) room(creator matrix.UserID, version string) matrix.RoomID {
	h.Helper()
	id, err := h.Rooms.Create(h.ctx(), room.Creation{Creator: creator, Version: version, Preset: "public_chat"})
	h.ok(err)
	return id
}

// join lets a user of this server into a room of another one.
func (h *host) join(user matrix.UserID, id matrix.RoomID, by *host) {
	h.Helper()
	h.ok(h.Federation.Join(h.ctx(), room.Change{Room: id, Actor: user}, []matrix.ServerName{by.name}))
}
