//go:build nowhatsapp

package main

import (
	"context"
	"errors"

	"switchboard/bridges/bridge"
)

// whatsAppConfig is the section "bridges.whatsapp" of a program without that
// bridge, where it can not be enabled.
type whatsAppConfig struct {
	// Enabled must not be set.
	Enabled bool `yaml:"enabled"`
}

// Check says why the bridge can not be enabled.
func (whatsAppConfig) Check() error {
	return errors.New("bridges.whatsapp.enabled: this program was built with -tags nowhatsapp; build it without them to have the bridge")
}

func defaultWhatsApp() whatsAppConfig { return whatsAppConfig{} }

func openWhatsApp(_ context.Context, _ bridge.Place, c whatsAppConfig, _ bridge.Wire) (*bridge.Host, error) {
	return nil, c.Check()
}
