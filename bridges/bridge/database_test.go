package bridge_test

import (
	"testing"

	"maunium.net/go/mautrix/bridgev2"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/homeserver/database/databasetest"
)

// TestOneDatabase lets two bridges share a database, each in a schema of its own.
func TestOneDatabase(t *testing.T) {
	url := databasetest.PostgreSQL(t)
	for _, id := range []string{"mirror", "twin", "mirror"} { // fails if one does not start
		bridgetest.Start(t, bridgetest.Options{ID: id, Database: url, Connector: func() bridgev2.NetworkConnector { return &mirror{} }}).Stop()
	}
}
