package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"switchboard/appservices"
	"switchboard/homeserver"
	"switchboard/homeserver/blob"
	"switchboard/homeserver/clientapi"
	"switchboard/homeserver/media"
	"switchboard/homeserver/push"
	"switchboard/jitsi"
	"switchboard/registrations"
	"switchboard/voip"
)

// serveCommand runs the server.
type serveCommand struct{}

// Run serves until the context of the terminal ends, then stops in order.
func (serveCommand) Run(t *terminal) error {
	conf, err := t.load()
	if err != nil {
		return err
	}
	log := newLogger(conf.Log, t.err)
	for _, w := range conf.warnings {
		log.Warn().Msg(w)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50) // a third less memory for a few percent more work
	}
	if conf.Memory > 0 {
		debug.SetMemoryLimit(conf.Memory)
	}
	if err := os.MkdirAll(conf.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	lock, err := lockDir(conf.DataDir)
	if errors.Is(err, errLocked) {
		return fmt.Errorf("another server uses the data directory %s", conf.DataDir)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	p, err := newProcess(log.WithContext(t.ctx), log, conf.Config)
	if err != nil {
		return err
	}
	if err := p.greet(t.ctx, t.out, t.called()); err != nil {
		return errors.Join(err, p.close())
	}
	return errors.Join(p.run(log.WithContext(t.ctx)), p.close())
}

// process is everything that runs in a server.
type process struct {
	log         zerolog.Logger
	conf        Config
	server      *homeserver.Server
	edges       homeserver.Handlers
	metrics     *metrics
	appservices *appservices.Service
	meet        *jitsi.Verifier // nil: there is no Jitsi server
	callTest    *callTest       // nil: there is none
	bridges     []hosted
	bridging    bool // the bridges run, and close themselves
	calls       *voip.Service
	relay       *voip.Relay // nil: calls are not relayed here
	listeners   []*listener
	control     *control
	acme        *acme
	certs       []*certificate
	draining    atomic.Bool
}

// newProcess opens the data and all listeners. Nothing is served yet. ctx is
// for opening alone.
func newProcess(ctx context.Context, log zerolog.Logger, conf Config) (*process, error) {
	server, err := homeserver.New(ctx, conf.Config, registrations.NewSet(string(conf.ServerName)))
	if err != nil {
		return nil, err
	}
	if err := reachMedia(ctx, log, server.Media); err != nil {
		return nil, errors.Join(err, server.Close())
	}
	p := &process{log: log, conf: conf, server: server, metrics: newMetrics(logPosition(server.Store.Position))}
	p.appservices = newAppservices(server, conf.Appservices)
	p.calls = newCalls(server, conf.VoIP)
	p.meet = newMeet(server, conf.Jitsi)
	err = p.appservices.Load(ctx)
	if err == nil {
		p.edges = server.Handlers()
		p.bridges, err = openBridges(log.WithContext(context.WithoutCancel(ctx)), server, conf.Bridges, p.appservices, p.edges.Client)
	}
	if err == nil {
		err = p.metrics.registry.Register(bridgeMetrics(p.bridges))
	}
	if err == nil {
		err = p.open(ctx)
	}
	if err == nil {
		err = p.openRelay(ctx)
	}
	if err == nil {
		err = p.openCallTest(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// reachMedia refuses a configuration with which no file could be kept. A place
// that cannot be reached now is no reason not to start.
func reachMedia(ctx context.Context, log zerolog.Logger, m *media.Service) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err := m.Reach(ctx)
	if errors.Is(err, blob.ErrRefused) {
		return fmt.Errorf("media.s3: %w", err)
	}
	if err != nil {
		log.Warn().Err(err).Msg("files can be neither stored nor fetched yet")
	}
	return nil
}

// newAppservices makes what talks to appservices, and lets the edge and the
// services below ask them.
func newAppservices(s *homeserver.Server, c appservices.Config) *appservices.Service {
	a := &appservices.Service{
		Store: s.Store, Bell: s.Bell, Rooms: s.Rooms, Ephemeral: s.Ephemeral, Keys: s.Keys, ServerName: s.Config.ServerName,
		Registrations: s.Appservices, Folder: filepath.Join(s.Config.DataDir, "registrations"), Files: c.Files,
	}
	s.Directory.AskAlias = a.AskAlias
	s.Accounts.AskUser = a.AskUser
	s.ClientRoutes.Appservices = clientapi.Appservices{
		Ping: a.Ping, Protocols: a.Protocols, Protocol: a.Protocol,
		Locations: a.Locations, Users: a.Users, LocationsOf: a.LocationsOf, UsersOf: a.UsersOf,
		NoBatches: !c.BatchSend,
	}
	return a
}

// open opens all listeners.
func (p *process) open(ctx context.Context) error {
	listeners := p.conf.listeners()
	if slices.ContainsFunc(listeners, func(l ListenerConfig) bool { return l.TLS.ACME }) {
		var err error
		if p.acme, err = newACME(p.conf, p.log); err != nil {
			return err
		}
	}
	p.conf.Listeners = slices.Clone(listeners) // with the ports that they get
	for i, l := range listeners {
		tlsConfig, err := p.tlsConfig(l.TLS)
		if err == nil {
			err = p.add(ctx, l.Address, p.edge(l.Serve), tlsConfig)
		}
		if err != nil {
			return fmt.Errorf("listeners[%d]: %w", i, err)
		}
		if at := p.listeners[i].net.Addr(); at.Network() != "unix" {
			p.conf.Listeners[i].Address = at.String()
		}
	}
	for _, plain := range []struct {
		key, address string
		handler      func() http.Handler
	}{
		{"metrics.address", p.conf.Metrics.Address, p.metrics.handler},
		{"pprof.address", p.conf.Pprof.Address, profiles},
		{"acme.http", p.acmeHTTP(), func() http.Handler { return p.acme.plain() }},
	} {
		if plain.address == "" {
			continue
		}
		if err := p.add(ctx, plain.address, plain.handler(), nil); err != nil {
			return fmt.Errorf("%s: %w", plain.key, err)
		}
	}
	var err error
	if p.control, err = openControl(p.conf.DataDir, p.server); err == nil {
		p.control.conf, p.control.meet, p.control.calls = p.conf, p.meet, p.calls
	}
	return err
}

func (p *process) acmeHTTP() string {
	if p.acme == nil {
		return ""
	}
	return p.conf.ACME.HTTP
}

// add opens one listener.
func (p *process) add(ctx context.Context, address string, h http.Handler, t *tls.Config) error {
	n, err := listen(ctx, address)
	if err != nil {
		return err
	}
	server := newServer(p.log, p.conf.HTTP, h)
	server.TLSConfig = t
	p.listeners = append(p.listeners, &listener{name: address, net: n, server: server, tls: t != nil})
	return nil
}

// tlsConfig is how a listener encrypts; nil if it does not.
func (p *process) tlsConfig(c ListenerTLSConfig) (*tls.Config, error) {
	switch {
	case c.ACME:
		return p.acme.tls(), nil
	case c.Cert == "":
		return nil, nil
	}
	cert, err := loadCertificate(c.Cert, c.Key)
	if err != nil {
		return nil, err
	}
	p.certs = append(p.certs, cert)
	return cert.config(), nil
}

// edge is what a listener serves: the APIs, pages for browsers, and /health.
func (p *process) edge(serve []string) http.Handler {
	client, federation := slices.Contains(serve, "client"), slices.Contains(serve, "federation")
	var meet http.Handler
	if p.meet != nil {
		meet = p.meet.Handler()
	}
	apis := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/health":
			p.health(w)
		case client && isStartPage(r):
			p.serveStartPage(w)
		case client && strings.HasPrefix(r.URL.Path, bridgePaths):
			p.bridgeMedia(w, r)
		case client && p.edges.Mail != nil && r.URL.Path == push.UnsubscribePath:
			p.edges.Mail.ServeHTTP(w, r)
		case client && meet != nil && isJitsi(r.URL.Path):
			meet.ServeHTTP(w, r)
		case client && p.callTest != nil && isCallTest(r.URL.Path):
			p.callTest.page.ServeHTTP(w, r)
		case federation && isFederation(r.URL.Path):
			p.edges.Federation.ServeHTTP(w, r)
		case client && !isFederation(r.URL.Path), strings.HasPrefix(r.URL.Path, "/.well-known/matrix/"):
			p.edges.Client.ServeHTTP(w, r)
		default:
			notServed(w)
		}
	})
	return p.metrics.count(behindProxies(p.conf.TrustedProxies, apis))
}

// bridgePaths is where the links begin that bridges give to people elsewhere.
const bridgePaths = "/_switchboard/bridges/"

// bridgeMedia serves the files behind such links.
func (p *process) bridgeMedia(w http.ResponseWriter, r *http.Request) {
	for _, b := range p.bridges {
		if strings.HasPrefix(r.URL.Path, b.mediaPath) {
			b.Media().ServeHTTP(w, r)
			return
		}
	}
	notServed(w)
}

// isFederation tells whether a path belongs to the API between servers.
func isFederation(path string) bool {
	for _, prefix := range []string{"/_matrix/federation/", "/_matrix/key/", "/_matrix/policy/"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

func notServed(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNotFound)
	io.WriteString(w, `{"errcode":"M_UNRECOGNIZED","error":"this is not served here"}`)
}

// health tells a load balancer whether to send requests here.
func (p *process) health(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if p.draining.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "stopping\n")
		return
	}
	io.WriteString(w, "OK\n")
}

// run serves until ctx ends, and stops so that nothing is lost: no new
// connections, requests are finished, what waits for news is answered at once,
// and then those who read the log end. A part that fails stops all of them.
func (p *process) run(ctx context.Context) error {
	parts, partsCtx := errgroup.WithContext(p.log.WithContext(context.WithoutCancel(ctx)))
	partsCtx, endParts := context.WithCancel(partsCtx)
	parts.Go(func() error { return p.server.Run(partsCtx) })
	parts.Go(func() error { return p.appservices.Run(partsCtx) })
	if p.relay != nil {
		parts.Go(func() error { p.examineCalls(partsCtx); return nil })
	}
	if p.callTest != nil {
		parts.Go(func() error { return p.callTest.Run(partsCtx) })
		if p.callTest.bot != nil {
			parts.Go(func() error { return p.callTest.bot.Run(partsCtx) })
		}
	}
	p.bridging = true
	for _, b := range p.bridges {
		parts.Go(func() error { return b.Run(partsCtx) })
	}
	for _, c := range p.certs {
		parts.Go(func() error { return c.Run(partsCtx, 10*time.Second) })
	}
	parts.Go(func() error { return p.control.Run(partsCtx) })
	if p.relay != nil {
		parts.Go(func() error { return p.relay.Run(partsCtx) })
	}
	served := make(chan error, len(p.listeners))
	for _, l := range p.listeners {
		go func() { served <- l.serve() }()
	}
	var err error
	if p.acme != nil {
		err = p.acme.start(partsCtx)
	}
	if err == nil {
		select {
		case <-ctx.Done():
			p.log.Info().Msg("stopping")
		case <-partsCtx.Done(): // its error is what Wait gives
		case err = <-served:
		}
	}
	p.draining.Store(true)
	p.server.Drain()
	if p.relay != nil {
		p.relay.Drain()
	}
	err = errors.Join(err, p.shutdown())
	endParts()
	return errors.Join(err, parts.Wait())
}

// shutdown stops accepting and lets requests finish, as long as the grace goes.
func (p *process) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), p.conf.HTTP.Grace)
	defer cancel()
	var all errgroup.Group
	for _, l := range p.listeners {
		all.Go(func() error {
			err := l.server.Shutdown(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				p.log.Warn().Str("address", l.name).Msg("requests were still running and are broken off")
				err = l.server.Close()
			}
			return err
		})
	}
	return all.Wait()
}

// close closes what is open. Whoever called newProcess calls it in the end.
func (p *process) close() error {
	for _, l := range p.listeners {
		l.net.Close() // an error means that it is closed
	}
	for _, b := range p.bridges {
		if !p.bridging {
			b.Close()
		}
	}
	if p.relay != nil {
		p.relay.Close()
	}
	if p.control != nil {
		p.control.net.Close()
	}
	if p.acme != nil {
		p.acme.stop()
	}
	return p.server.Close()
}

// greet tells where the server is and, while nobody has an account, how to get
// the first one.
func (p *process) greet(ctx context.Context, out io.Writer, program string) error {
	token, err := p.server.Accounts.FirstToken(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Switchboard %s serves %s\n", version(), p.conf.ServerName)
	for _, l := range p.listeners {
		fmt.Fprintf(out, "  listening   %s\n", l.url())
	}
	url := p.conf.clientURL()
	fmt.Fprintf(out, "  homeserver  %s   (what to enter in a Matrix client)\n", url)
	if token == "" {
		return nil
	}
	_, err = fmt.Fprintf(out, `
Nobody has an account here yet. The first one will be an administrator. Either

  - register in a Matrix client with the homeserver %[1]s
    and the registration token

        %[2]s

  - or make it here:  %[3]s user create NAME --admin

The token works once. More of them: %[3]s token create
`, url, token, program)
	return err
}

// url is the address of a listener as one would enter it.
func (l *listener) url() string {
	scheme := "http://"
	if l.tls {
		scheme = "https://"
	}
	if l.net.Addr().Network() == "unix" {
		return "unix:" + l.net.Addr().String()
	}
	return scheme + l.net.Addr().String()
}
