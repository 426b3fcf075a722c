package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	"switchboard/appservices"
	"switchboard/bridges/bridge"
	"switchboard/bridges/irc"
	"switchboard/bridges/xmpp"
	"switchboard/homeserver"
	"switchboard/homeserver/fedclient"
)

// BridgesConfig is the section "bridges".
type BridgesConfig struct {
	// IRC connects rooms with channels on IRC networks.
	IRC irc.Config `yaml:"irc"`

	// WhatsApp links WhatsApp accounts.
	WhatsApp whatsAppConfig `yaml:"whatsapp"`

	// XMPP logs in to XMPP accounts.
	XMPP xmpp.Config `yaml:"xmpp"`
}

func defaultXMPP() (c xmpp.Config) {
	c.SetDefaults()
	c.Config = bridge.DefaultConfig()
	return c
}

// network is a bridge as the configuration has it.
type network struct {
	id      string
	enabled bool
	check   func() error
	open    func(context.Context, bridge.Place, bridge.Wire) (*bridge.Host, error)
}

// networks are all bridges that this program knows.
func (c BridgesConfig) networks() []network {
	return []network{
		{"irc", c.IRC.Enabled, c.IRC.Check, func(ctx context.Context, at bridge.Place, wire bridge.Wire) (*bridge.Host, error) {
			return irc.NewHost(ctx, at, c.IRC, wire)
		}},
		{"whatsapp", c.WhatsApp.Enabled, c.WhatsApp.Check, func(ctx context.Context, at bridge.Place, wire bridge.Wire) (*bridge.Host, error) {
			return openWhatsApp(ctx, at, c.WhatsApp, wire)
		}},
		{"xmpp", c.XMPP.Enabled, c.XMPP.Check, func(ctx context.Context, at bridge.Place, wire bridge.Wire) (*bridge.Host, error) {
			return xmpp.NewHost(ctx, at, c.XMPP, wire)
		}},
	}
}

// Check returns everything that is wrong with the bridges that are enabled.
func (c BridgesConfig) Check() error {
	var errs []error
	for _, n := range c.networks() {
		if n.enabled {
			errs = append(errs, n.check())
		}
	}
	return errors.Join(errs...)
}

// hosted is a bridge of this process.
type hosted struct {
	*bridge.Host
	id        string
	mediaPath string // where its links to media begin
}

// openBridges prepares the bridges that are enabled and puts their registrations
// in force. They reach the homeserver through h.
func openBridges(ctx context.Context, s *homeserver.Server, c BridgesConfig, a *appservices.Service, h http.Handler) (list []hosted, err error) {
	defer func() {
		if err != nil {
			for _, b := range list {
				b.Close()
			}
			list = nil
		}
	}()
	for _, n := range c.networks() {
		if !n.enabled {
			continue
		}
		at := place(n.id, s.Config)
		host, err := n.open(ctx, at, &appservices.Wire{Handler: h, Values: ctx})
		if err != nil {
			return list, fmt.Errorf("bridge %s: %w", n.id, err)
		}
		list = append(list, hosted{host, n.id, at.MediaPath()})
		for i, reg := range host.Registrations() {
			var calls http.Handler
			if i == 0 { // only the first one is told anything
				calls = host.Handler()
			}
			if err := a.Attach(reg, calls); err != nil {
				return list, fmt.Errorf("bridge %s: %w", n.id, err)
			}
		}
	}
	return list, nil
}

// place is where a bridge runs. On SQLite it has a database of its own.
func place(id string, c homeserver.Config) bridge.Place {
	p := bridge.Place{
		ID: id, ServerName: string(c.ServerName), Ephemeral: true,
		Database: "sqlite:" + filepath.Join(c.DataDir, "bridge_"+id+".db"),
		Dial:     fedclient.NewDialer(c.Outbound, nil).DialContext,
	}
	if c.Database.URL != "" && !strings.HasPrefix(c.Database.URL, "sqlite:") {
		p.Database = c.Database.URL
	}
	if c.PublicURL != "" || c.ServerName != "localhost" {
		p.PublicURL = c.BaseURL()
	}
	return p
}
