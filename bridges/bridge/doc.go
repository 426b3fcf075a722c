// Package bridge runs connectors to other networks in this process. A
// connector is written against mautrix' bridgev2, which knows portals, ghosts,
// logins, relaying and commands; this package gives it a database of its own,
// a registration, and a wire to the homeserver, starts it, stops it, and keeps
// its faults from the rest of the server. It knows no network.
//
// The homeserver is reached through an http.RoundTripper and reaches the bridge
// through an http.Handler: the bridge is an ordinary appservice that happens to
// need no socket.
package bridge
