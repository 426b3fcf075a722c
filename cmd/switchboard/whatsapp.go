//go:build !nowhatsapp

package main

import (
	"context"

	"switchboard/bridges/bridge"
	"switchboard/bridges/whatsapp"
)

// whatsAppConfig is the section "bridges.whatsapp".
type whatsAppConfig = whatsapp.Config

func defaultWhatsApp() (c whatsAppConfig) {
	c.SetDefaults()
	c.Config = bridge.DefaultConfig()
	return c
}

func openWhatsApp(ctx context.Context, at bridge.Place, c whatsAppConfig, wire bridge.Wire) (*bridge.Host, error) {
	return whatsapp.NewHost(ctx, at, c, wire)
}
