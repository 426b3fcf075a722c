package main

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"switchboard/homeserver"
	"switchboard/homeserver/clientapi"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/voip"
)

// cloudflareTimeout bounds a request for credentials.
const cloudflareTimeout = 20 * time.Second

// newCalls makes what tells clients where their calls are relayed. The relay of
// this process joins it when the listeners are open.
func newCalls(s *homeserver.Server, c voip.Config) *voip.Service {
	calls := &voip.Service{Config: c, Client: fedclient.NewDialer(s.Config.Outbound, nil).Unguarded().Client(cloudflareTimeout)}
	s.ClientRoutes.TURN = func(ctx context.Context, user matrix.UserID) (*clientapi.TURNServer, error) {
		have, err := calls.Credentials(ctx, string(user))
		if have == nil || err != nil {
			return nil, err
		}
		return &clientapi.TURNServer{Username: have.Username, Password: have.Password, URIs: have.URIs, TTL: int64(have.TTL / time.Second)}, nil
	}
	return calls
}

// openRelay opens the TURN server of this process, if there is to be one. Where
// nobody asked for it, it is left out if its ports are taken.
func (p *process) openRelay(ctx context.Context) error {
	c := p.conf.VoIP
	if !c.Builtin(string(p.conf.ServerName)) {
		return nil
	}
	o := voip.Options{
		Config: c.TURN, Lifetime: c.Lifetime, Realm: string(p.conf.ServerName), Host: cmp.Or(c.TURN.Host, publicHost(p.conf.BaseURL())),
		Vault: vault{p.server.Store}, Unwelcome: hasLeft(p.server.Store), Denied: databaseAddresses(ctx, p.conf.Database.URL),
	}
	if i := slices.IndexFunc(p.listeners, func(l *listener) bool { return l.tls }); i >= 0 {
		o.TLS = p.listeners[i].server.TLSConfig.Clone()
		o.TLS.NextProtos = []string{alpnTURN}
	}
	if c.TURN.HTTPS {
		o.HTTPS = httpsPorts(p.listeners, o.Host)
	}
	relay, err := voip.NewRelay(ctx, o)
	if err != nil {
		if c.Provider == "auto" {
			p.log.Warn().Err(err).Msg("no calls are relayed; voip.turn says at which addresses, voip.provider: off says that it is meant to be so")
			return nil
		}
		return err
	}
	p.relay, p.calls.Relay = relay, relay
	for _, l := range p.listeners {
		if l.tls && c.TURN.HTTPS {
			l.server.TLSConfig.NextProtos = append(l.server.TLSConfig.NextProtos, alpnTURN)
			l.net = newMux(l.net, l.server.TLSConfig, p.conf.HTTP.HeaderTimeout, relay.ServeConn)
		}
	}
	return p.metrics.registry.Register(relay)
}

// hasLeft tells of whom an account was that is deactivated or locked. Others who
// have calls relayed have no account here, such as those of Jitsi.
func hasLeft(st *store.Store) func(ctx context.Context, user string) bool {
	return func(ctx context.Context, user string) bool {
		u, ok, err := st.User(ctx, matrix.UserID(user))
		return err == nil && ok && (u.Deactivated || u.Locked)
	}
}

// httpsPorts are the ports of HTTPS at which clients come that are told a host.
// Listeners for this machine alone are there for a proxy, or for their certificate.
func httpsPorts(listeners []*listener, host string) (ports []uint16) {
	a, err := netip.ParseAddr(host)
	here := host == "localhost" || err == nil && a.IsLoopback()
	for _, l := range listeners {
		if at, ok := l.net.Addr().(*net.TCPAddr); ok && l.tls && (here || !at.IP.IsLoopback()) {
			ports = append(ports, uint16(at.Port))
		}
	}
	return ports
}

// publicHost is the host of a URL.
func publicHost(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// databaseAddresses are those of the database server, to which nobody may relay.
func databaseAddresses(ctx context.Context, database string) []netip.Addr {
	u, err := url.Parse(database)
	if err != nil || !strings.HasPrefix(u.Scheme, "postgres") {
		return nil
	}
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return nil // then it is not reached, either
	}
	for i, a := range list {
		list[i] = a.Unmap()
	}
	return list
}

// vault keeps the secrets of the relay in the database.
type vault struct{ store *store.Store }

// Secrets implements voip.Vault.
func (v vault) Secrets(ctx context.Context) ([]voip.Secret, error) {
	list, err := v.store.TURNSecrets(ctx)
	secrets := make([]voip.Secret, len(list))
	for i, s := range list {
		secrets[i] = voip.Secret{Value: s.Value, Made: time.UnixMilli(s.MadeTS)}
	}
	return secrets, err
}

// AddSecret implements voip.Vault.
func (v vault) AddSecret(ctx context.Context, s voip.Secret, before time.Time) error {
	return v.store.Update(ctx, func(tx *store.Tx) error {
		return tx.AddTURNSecret(ctx, store.TURNSecret{Value: s.Value, MadeTS: s.Made.UnixMilli()}, before.UnixMilli())
	})
}
