package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"switchboard/bridges/bridge"
)

// bridgeCommands let a bridge run without a server around it. They use the
// keys server_name, public_url, data_dir, database, outbound, bridges, http,
// log and metrics of the configuration.
type bridgeCommands struct {
	Registration bridgeRegistration `cmd:"" help:"Write the two registration files by which a homeserver knows the bridge: its own, and the one by which it acts for people who are logged in."`
	Run          bridgeRun          `cmd:"" help:"Run the bridge for a homeserver that has its registrations."`
}

// alone is which bridge to run, and for whom.
type alone struct {
	Network string `arg:"" help:"The bridge: irc, whatsapp or xmpp."`
}

// open reads the configuration and opens the bridge as it is when the
// homeserver reaches it at url.
func (a alone) open(t *terminal, url string, wire bridge.Wire) (*loaded, hosted, error) {
	conf, err := t.load()
	if err != nil {
		return nil, hosted{}, err
	}
	conf.Bridges.IRC.Enabled, conf.Bridges.WhatsApp.Enabled, conf.Bridges.XMPP.Enabled = true, true, true
	list := conf.Bridges.networks()
	i := slices.IndexFunc(list, func(n network) bool { return n.id == a.Network })
	if i < 0 {
		return nil, hosted{}, fmt.Errorf("there is no bridge called %q", a.Network)
	}
	if err := list[i].check(); err != nil {
		return nil, hosted{}, err
	}
	if err := os.MkdirAll(conf.DataDir, 0o700); err != nil {
		return nil, hosted{}, fmt.Errorf("data directory: %w", err)
	}
	at := place(a.Network, conf.Config.Config)
	at.URL, at.PublicURL = url, conf.PublicURL
	host, err := list[i].open(newLogger(conf.Log, t.err).WithContext(t.ctx), at, wire)
	return conf, hosted{host, a.Network, at.MediaPath()}, err
}

type bridgeRegistration struct {
	alone
	URL    string `help:"Where the homeserver reaches the bridge." default:"http://127.0.0.1:29318"`
	Folder string `help:"Where to write the files." default:"." type:"existingdir"`
}

// Run writes the files. The tokens in them are the same each time.
func (c *bridgeRegistration) Run(t *terminal) error {
	_, b, err := c.open(t, strings.TrimRight(c.URL, "/"), nil)
	if err != nil {
		return err
	}
	defer b.Close()
	for _, reg := range b.Registrations() {
		text, err := reg.YAML()
		if err != nil {
			return err
		}
		file := filepath.Join(c.Folder, reg.ID+".yaml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return fmt.Errorf("write the registration: %w", err)
		}
		fmt.Fprintln(t.out, file)
	}
	_, err = io.WriteString(t.out, `
Both files belong to the homeserver, and nobody else may read them:
  Synapse      name them under app_service_config_files in homeserver.yaml, and restart it
  Switchboard  put them into the folder registrations of its data directory
`)
	return err
}

type bridgeRun struct {
	alone
	Homeserver string `help:"Address of the homeserver's client-server API." required:"" placeholder:"http://127.0.0.1:8008"`
	Listen     string `help:"Address and port at which the homeserver reaches the bridge." default:"127.0.0.1:29318"`
}

// Run runs the bridge until the context of the terminal ends.
func (c *bridgeRun) Run(t *terminal) error {
	wire, err := bridge.Remote(c.Homeserver)
	if err != nil {
		return err
	}
	conf, b, err := c.open(t, "", wire)
	if err != nil {
		return err
	}
	lock, err := lockDir(conf.DataDir)
	if err != nil {
		b.Close()
		return fmt.Errorf("%s: %w; a bridge that runs alone needs one of its own", conf.DataDir, err)
	}
	defer lock.Close()
	p := &process{log: newLogger(conf.Log, t.err), conf: conf.Config, metrics: newMetrics(bridgeMetrics{b})}
	err = p.add(t.ctx, c.Listen, p.metrics.count(aloneEdge(b)), nil)
	if err == nil && conf.Metrics.Address != "" {
		err = p.add(t.ctx, conf.Metrics.Address, p.metrics.handler(), nil)
	}
	if err != nil {
		b.Close()
		for _, l := range p.listeners {
			l.net.Close()
		}
		return err
	}
	fmt.Fprintf(t.out, "Switchboard %s bridges %s to %s\n  listening   %s\n  homeserver  %s\n",
		version(), conf.ServerName, c.Network, p.listeners[0].url(), c.Homeserver)
	return p.runAlone(p.log.WithContext(t.ctx), b)
}

// aloneEdge is what a bridge that runs alone serves: the homeserver's requests,
// the files behind its links, and /health.
func aloneEdge(b hosted) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/_matrix/", b.Handler())
	mux.Handle(b.mediaPath, b.Media())
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if !b.Health().Running {
			http.Error(w, "the bridge is not running", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "OK\n")
	})
	return mux
}

// runAlone serves until ctx ends; then it takes no more from the homeserver,
// and at last the bridge says good-bye.
func (p *process) runAlone(ctx context.Context, b hosted) error {
	parts, partsCtx := errgroup.WithContext(p.log.WithContext(context.WithoutCancel(ctx)))
	partsCtx, endParts := context.WithCancel(partsCtx)
	parts.Go(func() error { return b.Run(partsCtx) })
	for _, l := range p.listeners {
		parts.Go(l.serve)
	}
	select {
	case <-ctx.Done():
		p.log.Info().Msg("stopping")
	case <-partsCtx.Done(): // its error is what Wait gives
	}
	err := p.shutdown()
	endParts()
	return errors.Join(err, parts.Wait())
}
