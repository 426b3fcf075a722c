package clientapi

import (
	"net/http"
	"net/netip"

	"switchboard/homeserver/account"
	"switchboard/homeserver/clientsync"
	"switchboard/homeserver/delayed"
	"switchboard/homeserver/directory"
	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/federation"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/media"
	"switchboard/homeserver/notices"
	"switchboard/homeserver/room"
	"switchboard/homeserver/search"
	"switchboard/homeserver/unread"
)

// API serves the client-server API. All fields are set before Handler is
// called and never changed.
type API struct {
	ServerName matrix.ServerName
	Accounts   *account.Service
	Rooms      *room.Service
	Directory  *directory.Service
	Federation *federation.Service
	Sync       *clientsync.Service
	Unread     *unread.Service
	Delayed    *delayed.Service
	Notices    *notices.Service
	Search     *search.Service
	Keys       *e2ee.Service
	Ephemeral  *ephemeral.Service
	Media      *media.Service

	// Appservices asks appservices something on behalf of a client.
	Appservices Appservices

	// TURN tells users which TURN server relays their calls; nil means none.
	TURN AskTURN

	// MaxBody is the largest body of a request in bytes, media excepted. 0 means 8 MiB.
	MaxBody int64

	// Limits bounds requests; nil means no limits.
	Limits *Limits

	// PublicURL is the address that clients use, without a "/" at its end. ""
	// tells them nothing.
	PublicURL string

	// WellKnown is told beside PublicURL, by key: what clients know that is not in
	// the specification.
	WellKnown map[string]any

	// Delegate is the host and port where other servers reach this one. ""
	// tells them nothing.
	Delegate string

	// PolicyServerKey is the public key, in base64, of a policy server under our
	// name. "" tells of none.
	PolicyServerKey string

	// Support tells users whom to ask about the server.
	Support Support

	// DefaultRoomVersion is the version of new rooms; "" means ours.
	DefaultRoomVersion string

	windows windows
}

func (a *API) maxBody() int64 {
	if a.MaxBody > 0 {
		return a.MaxBody
	}
	return 8 << 20
}

// client describes where a request came from, for the list of devices.
func (a *API) client(r *http.Request) account.Client {
	return account.Client{Address: address(r), UserAgent: r.UserAgent()}
}

// address is the IP address of the client. The listener has already replaced
// RemoteAddr where a trusted proxy told another.
func address(r *http.Request) string {
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return a.Addr().Unmap().String()
	}
	return r.RemoteAddr
}
