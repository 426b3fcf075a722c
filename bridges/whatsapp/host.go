package whatsapp

import (
	"context"
	"net/http"

	"maunium.net/go/mautrix/bridgev2"

	"switchboard/bridges/bridge"
)

// NewHost prepares the bridge to run at place. The wire carries its requests to
// the homeserver. The configuration must have passed Check.
func NewHost(ctx context.Context, place bridge.Place, config Config, wire http.RoundTripper) (*bridge.Host, error) {
	return bridge.New(ctx, place, config.Config, func() bridgev2.NetworkConnector { return New(config) }, wire)
}
