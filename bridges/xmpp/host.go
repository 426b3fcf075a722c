package xmpp

import (
	"context"
	"net/http"

	"maunium.net/go/mautrix/bridgev2"

	"switchboard/bridges/bridge"
	"switchboard/bridges/xmpp/client"
)

// NewHost prepares the bridge to run at place. The wire carries its requests to
// the homeserver; dial makes the connections to XMPP servers, and to those that
// keep files, whose names anybody can choose. The configuration must have passed
// Check.
func NewHost(ctx context.Context, place bridge.Place, config Config, wire http.RoundTripper, dial client.Dial) (*bridge.Host, error) {
	return bridge.New(ctx, place, config.Config, func() bridgev2.NetworkConnector { return New(config, dial) }, wire)
}
