package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	"switchboard/appservices"
	"switchboard/bridges/bridge"
	"switchboard/bridges/irc"
	"switchboard/homeserver"
)

// BridgesConfig is the section "bridges".
type BridgesConfig struct {
	// IRC connects rooms with channels on IRC networks.
	IRC irc.Config `yaml:"irc"`
}

// Check returns everything that is wrong with the bridges that are enabled.
func (c BridgesConfig) Check() error {
	if !c.IRC.Enabled {
		return nil
	}
	return c.IRC.Check()
}

// hosted is a bridge of this process.
type hosted struct {
	*bridge.Host
	mediaPath string // where its links to media begin
}

// openBridges prepares the bridges that are enabled and puts their registrations
// in force. They reach the homeserver through h.
func openBridges(ctx context.Context, s *homeserver.Server, c BridgesConfig, a *appservices.Service, h http.Handler) ([]hosted, error) {
	if !c.IRC.Enabled {
		return nil, nil
	}
	at := place("irc", s.Config)
	host, err := irc.NewHost(ctx, at, c.IRC, &appservices.Wire{Handler: h, Values: ctx})
	if err != nil {
		return nil, fmt.Errorf("bridge irc: %w", err)
	}
	for i, reg := range host.Registrations() {
		var calls http.Handler
		if i == 0 { // only the first one is told anything
			calls = host.Handler()
		}
		if err := a.Attach(reg, calls); err != nil {
			host.Close()
			return nil, fmt.Errorf("bridge irc: %w", err)
		}
	}
	return []hosted{{host, at.MediaPath()}}, nil
}

// place is where a bridge runs. On SQLite it has a database of its own.
func place(id string, c homeserver.Config) bridge.Place {
	p := bridge.Place{
		ID: id, ServerName: string(c.ServerName), Ephemeral: true,
		Database: "sqlite:" + filepath.Join(c.DataDir, "bridge_"+id+".db"),
	}
	if c.Database.URL != "" && !strings.HasPrefix(c.Database.URL, "sqlite:") {
		p.Database = c.Database.URL
	}
	if c.PublicURL != "" || c.ServerName != "localhost" {
		p.PublicURL = c.BaseURL()
	}
	return p
}
