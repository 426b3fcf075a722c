package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/commands"
	"maunium.net/go/mautrix/bridgev2/matrix"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/id"

	"switchboard/registrations"
)

const (
	stopTimeout  = 10 * time.Second // for the logins of a bridge to say good-bye
	firstRestart = time.Second
	lastRestart  = 5 * time.Minute
)

// Host runs one connector.
type Host struct {
	place     Place
	config    Config
	name      string
	connector func() bridgev2.NetworkConnector
	wire      http.RoundTripper

	db      *dbutil.Database
	closeDB func()
	inbox   *inbox
	secrets secrets
	regs    []*registrations.Registration
	told    [len(statuses)]atomic.Int64 // how often each was told of an event

	running  atomic.Pointer[runner] // the running connector, or nil
	starting atomic.Pointer[runner] // the connector that starts, or nil
}

// New opens the bridge's database and prepares its registrations. The wire
// carries the bridge's requests to the homeserver. Connector makes a new
// connector; it is called for every start, so more than once after a fault.
//
// Close, or Run when it ends, closes the database.
func New(ctx context.Context, place Place, config Config, connector func() bridgev2.NetworkConnector, wire http.RoundTripper) (*Host, error) {
	if place.ID == "" || strings.ContainsFunc(place.ID, func(r rune) bool { return r < 'a' || r > 'z' }) {
		return nil, fmt.Errorf("bridge %q: the name may hold only a-z", place.ID)
	}
	log := zerolog.Ctx(ctx).With().Str("bridge", place.ID).Logger()
	ctx = log.WithContext(ctx)
	h := &Host{place: place, config: config, connector: connector, wire: wire}
	h.name = connector().GetName().DisplayName + " bridge"
	var err error
	if h.db, h.closeDB, err = openDatabase(ctx, place.Database, "bridge_"+place.ID); err != nil {
		return nil, err
	}
	if h.inbox, err = openInbox(ctx, h.db); err == nil {
		h.secrets, err = loadSecrets(ctx, h.db, registrations.Token)
	}
	if err == nil {
		h.regs, err = h.registrations()
	}
	if err != nil {
		h.closeDB()
		return nil, err
	}
	return h, nil
}

// Close frees a host whose Run is never called.
func (h *Host) Close() { h.closeDB() }

// Registrations returns the registrations that the homeserver must know before
// Run: first the bridge's own, whose transactions go to Handler, then one
// without transactions, by which the bridge acts for users who are logged in.
func (h *Host) Registrations() []*registrations.Registration { return h.regs }

// Handler takes the homeserver's requests to the bridge: transactions, pings
// and queries. While the connector is not running it answers 503, but a
// connector that starts may already be pinged, as it makes the homeserver do.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#homeserver--gt-application-service-api
func (h *Host) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		run := h.running.Load()
		if run == nil && r.URL.Path == "/_matrix/app/v1/ping" {
			run = h.starting.Load()
		}
		if run == nil {
			refuse(w, http.StatusServiceUnavailable, "the bridge is not running")
			return
		}
		if txn, ok := strings.CutPrefix(r.URL.Path, transactionPath); ok && h.known(r) {
			// Who has waited too long sends a transaction again while it is still being
			// taken: what is not in the inbox, such as a command, would be done twice.
			select {
			case run.turn <- struct{}{}:
				defer func() { <-run.turn }()
			case <-r.Context().Done():
				refuse(w, http.StatusServiceUnavailable, "the bridge still takes the transaction before")
				return
			}
			if err := h.keep(r, txn, run); err != nil {
				zerolog.Ctx(r.Context()).Err(err).Str("bridge", h.place.ID).Msg("a transaction could not be kept")
				refuse(w, http.StatusInternalServerError, "the transaction could not be kept, send it again")
				return
			}
		}
		run.mx.AS.Router.ServeHTTP(w, r)
	})
}

// Media serves files from Matrix to the world, under links that the bridge has
// given to people on the network and that nobody can guess. It belongs under
// Place.MediaPath of the public listener.
func (h *Host) Media() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		run := h.running.Load()
		rest, ok := strings.CutPrefix(r.URL.Path, h.place.MediaPath())
		if run == nil || !ok || r.Method != http.MethodGet || h.place.PublicURL == "" {
			http.NotFound(w, r)
			return
		}
		inner := r.Clone(r.Context())
		inner.URL.Path, inner.URL.RawPath = "/_mautrix/publicmedia/"+rest, ""
		inner.RequestURI = ""
		run.mx.AS.Router.ServeHTTP(w, inner)
	})
}

// Run starts the connector and serves until ctx is done; then it says good-bye
// to the network, waits for what is under way, and returns nil. A connector
// that can not start or panics is logged and started again, less and less
// often: no fault of a bridge ends the server.
func (h *Host) Run(ctx context.Context) error {
	defer h.closeDB()
	log := zerolog.Ctx(ctx).With().Str("bridge", h.place.ID).Logger()
	ctx = log.WithContext(ctx)
	for wait := firstRestart; ; wait = min(2*wait, lastRestart) {
		err := h.runOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		log.Err(err).Dur("retry", wait).Msg("bridge could not start")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// runOnce runs one connector from start to stop.
func (h *Host) runOnce(ctx context.Context) error {
	run, err := h.build(ctx)
	if err != nil {
		return err
	}
	defer h.stop(run)
	h.starting.Store(run)
	if err := contained(func() error { return run.br.Start(ctx) }); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := h.resume(ctx, run); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	h.running.Store(run)
	zerolog.Ctx(ctx).Info().Str("bot", string(run.mx.Bot.UserID)).Msg("bridge is running")
	<-ctx.Done()
	return nil
}

// runner is a connector from its start to its stop.
type runner struct {
	br   *bridgev2.Bridge
	mx   *side
	turn chan struct{} // has room for the transaction that is being taken
}

// build makes the bridge and brings its database up to date.
func (h *Host) build(ctx context.Context) (*runner, error) {
	settings, err := h.settings()
	if err != nil {
		return nil, err
	}
	// mautrix logs what it does in much detail. Its debug lines are of no use
	// to an operator, and may name what users write.
	log := *zerolog.Ctx(ctx)
	log = log.Level(max(log.GetLevel(), zerolog.InfoLevel))
	mx := newSide(matrix.NewConnector(settings))
	var br *bridgev2.Bridge
	err = contained(func() error {
		br = bridgev2.NewBridge(networkid.BridgeID(h.place.ID), h.db, log, &settings.Bridge, mx, h.connector(), commands.NewProcessor)
		return nil
	})
	if err != nil {
		return nil, err
	}
	br.Commands.(*commands.Processor).AddHandlers(mx.commands()...)
	br.Commands = &orderly{CommandProcessor: br.Commands, last: make(map[id.UserID]chan struct{})}
	mx.withoutCheckpoints()
	mx.AS.HTTPClient.Transport = statusWire{patientWire{h.wire}, h}
	mx.AS.DoublePuppetValue = h.puppetMark()
	state := newRoomState(mx.StateStore, h.own)
	mx.AS.StateStore, mx.Bot.StateStore = state, state
	br.ExternallyManagedDB = true // it outlives the connector
	if err := br.DB.Upgrade(ctx); err != nil {
		return nil, fmt.Errorf("bring the database up to date: %w", err)
	}
	return &runner{br, mx, make(chan struct{}, 1)}, nil
}

// stop ends a bridge, also one that did not start.
func (h *Host) stop(run *runner) {
	h.starting.Store(nil)
	h.running.Store(nil)
	err := contained(func() error {
		run.br.StopWithTimeout(stopTimeout)
		run.mx.states.stop()
		run.mx.telling.wait(stopTimeout)
		for _, login := range run.br.GetAllCachedUserLogins() {
			if login.BridgeState != nil {
				login.BridgeState.Destroy() // ends its goroutine, which Stop forgets
			}
		}
		return nil
	})
	if err != nil {
		run.br.Log.Err(err).Msg("stop the bridge")
	}
}

// contained calls f and turns a panic into an error with the stack.
func contained(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &Panic{Value: r, Stack: debug.Stack()}
		}
	}()
	return f()
}

// Panic is a panic of a connector that was contained.
type Panic struct {
	Value any
	Stack []byte
}

// Error tells what was thrown and where.
func (p *Panic) Error() string { return fmt.Sprintf("panic: %v\n%s", p.Value, p.Stack) }

// Contain runs f and logs its error, or its panic, which thus ends nothing
// else.
func Contain(ctx context.Context, what string, f func() error) {
	if err := contained(f); err != nil && !errors.Is(err, context.Canceled) {
		zerolog.Ctx(ctx).Err(err).Msg(what)
	}
}

// Go is Contain in a goroutine. Connectors start their goroutines with it.
func Go(ctx context.Context, what string, f func() error) { go Contain(ctx, what, f) }
