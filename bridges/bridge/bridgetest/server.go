// Package bridgetest runs a bridge on a real homeserver in one process, with
// Matrix users who speak through the client-server API. It knows no network.
package bridgetest

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/bridgev2"

	"switchboard/appservices"
	"switchboard/bridges/bridge"
	"switchboard/homeserver"
	"switchboard/registrations"
)

// ServerName is that of the homeserver.
const ServerName = "switchboard.test"

// PublicURL is where the homeserver says it can be reached.
const PublicURL = "https://switchboard.test"

// Server is a homeserver with one bridge.
type Server struct {
	T    *testing.T
	Host *bridge.Host

	door    sync.RWMutex // tier 1; held by each request; guards client
	client  http.Handler // nil while the server is down
	dir     string
	options Options
	log     *log // of all runs
	stop    func()
}

// ServeHTTP is the client-server API, for users. While the server is down they
// get 503.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.door.RLock()
	defer s.door.RUnlock()
	if s.client == nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	s.client.ServeHTTP(w, r)
}

// setClient opens the door to users, or with nil closes it when the last of
// them is out.
func (s *Server) setClient(h http.Handler) {
	s.door.Lock()
	defer s.door.Unlock()
	s.client = h
}

// Options say how to run a bridge.
type Options struct {
	Beside    []Options // other bridges in the same process, which Run does not wait for
	ID        string
	Config    bridge.Config
	Connector func() bridgev2.NetworkConnector
	Database  string // of the bridge; empty means an SQLite file
	Shared    bool   // the homeserver uses Database, too
	NoMedia   bool   // the server offers no public links

	// Wire, unless it is nil, is put around what carries the bridge's requests to
	// the homeserver.
	Wire func(bridge.Wire) bridge.Wire
}

// Start runs a homeserver with a bridge until the test ends.
func Start(t *testing.T, o Options) *Server {
	t.Helper()
	s := &Server{T: t, dir: t.TempDir(), options: o}
	s.Run()
	t.Cleanup(func() {
		if s.stop != nil {
			s.Stop()
		}
	})
	return s
}

// Run starts the server, on what an earlier run left.
func (s *Server) Run() {
	t := s.T
	t.Helper()
	if s.log == nil {
		s.log = logOf(t)
	}
	logger := zerolog.New(s.log).Level(zerolog.WarnLevel).With().Timestamp().Logger()
	ctx, cancel := context.WithCancel(logger.WithContext(context.Background()))

	config := homeserver.DefaultConfig()
	config.ServerName, config.DataDir = ServerName, filepath.Join(s.dir, "data")
	config.Registration.Mode, config.RateLimits.Enabled = "open", false
	if s.options.Shared {
		config.Database.URL = s.options.Database
	}
	set := registrations.NewSet(ServerName)
	hs, err := homeserver.New(ctx, config, set)
	if err != nil {
		t.Fatal(err)
	}
	as := &appservices.Service{
		Store: hs.Store, Bell: hs.Bell, Rooms: hs.Rooms, Ephemeral: hs.Ephemeral, Keys: hs.Keys,
		ServerName: ServerName, Registrations: set,
	}
	hs.ClientRoutes.Appservices.Ping = as.Ping
	client := hs.Handlers().Client
	s.setClient(client)
	runs := []func(context.Context) error{hs.Run, as.Run}
	for i, o := range append([]Options{s.options}, s.options.Beside...) {
		host := s.attach(ctx, o, as, client)
		if runs = append(runs, host.Run); i == 0 {
			s.Host = host
		}
	}
	var ended []chan error
	var stops []func()
	for _, run := range runs {
		one, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- run(one) }()
		ended, stops = append(ended, done), append(stops, stop)
	}
	s.stop = func() {
		hs.Drain()
		s.setClient(nil)
		for i := len(ended) - 1; i >= 0; i-- { // the bridge first
			stops[i]()
			select {
			case err := <-ended[i]:
				if err != nil {
					t.Errorf("run: %v", err)
				}
			case <-time.After(patience):
				t.Fatal("a part of the server does not stop")
			}
		}
		cancel()
		if err := hs.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	s.waitForBridge()
}

// attach prepares a bridge and puts its registrations in force.
func (s *Server) attach(ctx context.Context, o Options, as *appservices.Service, client http.Handler) *bridge.Host {
	s.T.Helper()
	place := bridge.Place{ID: o.ID, ServerName: ServerName, PublicURL: PublicURL, Database: o.Database, Ephemeral: true}
	if place.Database == "" {
		place.Database = "sqlite:" + filepath.Join(s.dir, o.ID+".db")
	}
	if o.NoMedia {
		place.PublicURL = ""
	}
	var wire bridge.Wire = &appservices.Wire{Handler: client, Values: ctx}
	if o.Wire != nil {
		wire = o.Wire(wire)
	}
	host, err := bridge.New(ctx, place, o.Config, o.Connector, wire)
	if err != nil {
		s.T.Fatal(err)
	}
	for i, reg := range host.Registrations() {
		var handler http.Handler
		if i == 0 { // only the first one is told anything
			handler = host.Handler()
		}
		if err := as.Attach(reg, handler); err != nil {
			s.T.Fatal(err)
		}
	}
	return host
}

// Stop ends the server. Run may follow.
func (s *Server) Stop() {
	s.T.Helper()
	s.stop()
	s.stop = nil
}

// waitForBridge waits until the connector takes transactions.
func (s *Server) waitForBridge() {
	s.T.Helper()
	wire := &appservices.Wire{Handler: s.Host.Handler()}
	Eventually(s.T, "the bridge starts", func() bool {
		r, err := http.NewRequest(http.MethodGet, "http://bridge.invalid/_matrix/mau/ready", nil)
		if err != nil {
			s.T.Fatal(err)
		}
		answer, err := wire.RoundTrip(r)
		if err != nil {
			return false
		}
		_ = answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

// Fetch gets an address of the homeserver's public listener that belongs to
// the bridge.
func (s *Server) Fetch(address string) (status int, body string) {
	s.T.Helper()
	r, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		s.T.Fatal(err)
	}
	answer, err := (&appservices.Wire{Handler: s.Host.Media()}).RoundTrip(r)
	if err != nil {
		s.T.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		s.T.Fatal(err)
	}
	return answer.StatusCode, string(b)
}

// patience is how long something may take that must happen.
const patience = 2 * time.Minute

// Eventually fails the test if cond does not become true.
func Eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("waited in vain: %s", what)
}
