package clientapi

import (
	"cmp"
	"errors"
	"maps"
	"net/url"
	"strings"

	"switchboard/homeserver/delayed"
	"switchboard/homeserver/matrix"
)

var serverRoutes = []route{
	{"getVersions", "GET /_matrix/client/versions", public, (*API).getVersions},
	{"getCapabilities", "GET /_matrix/client/v3/capabilities", guests, (*API).getCapabilities},
	{"getWellknown", "GET /.well-known/matrix/client", public, (*API).getWellknown},
	{"getWellKnown", "GET /.well-known/matrix/server", public, (*API).getWellKnown}, // an operation of the server-server API
	{"getWellknownPolicy", "GET /.well-known/matrix/policy_server", public, (*API).getWellknownPolicy},
	{"getWellknownSupport", "GET /.well-known/matrix/support", public, (*API).getWellknownSupport},
}

// Support tells users whom to ask about the server.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixsupport
type Support struct {
	Contacts []Contact `json:"contacts,omitempty"`
	Page     string    `json:"support_page,omitempty"`
}

// Contact is one person or office to ask.
type Contact struct {
	MatrixID string `json:"matrix_id,omitempty"`
	Email    string `json:"email_address,omitempty"`
	Role     string `json:"role"`
}

// versions are the versions of the specification that clients may count on.
var versions = []string{
	"r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10",
	"v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
}

// features are proposals and newer parts of the specification that work here.
var features = map[string]bool{
	"com.beeper.arbitrary_profile_meta":              true, // several profile fields at once
	batchFeature:                                     true, // the past of rooms that are bridged
	"com.beeper.msc4169":                             true, // redactions by /send
	"org.matrix.e2e_cross_signing":                   true,
	"org.matrix.msc2285.stable":                      true, // private read receipts
	"org.matrix.simplified_msc3575":                  true, // sliding sync
	"org.matrix.msc3814":                             true, // dehydrated devices
	"org.matrix.msc3391":                             true, // deletion of account data
	"org.matrix.msc3827.stable":                      true, // spaces in the public directory
	"org.matrix.msc3981":                             true, // relations of relations
	"org.matrix.msc4140":                             true, // delayed events
	"org.matrix.msc4140.stable":                      true,
	"uk.timedout.msc4323.stable":                     true, // locking and suspending accounts
	"org.matrix.msc4380":                             true, // blocking invitations
	"org.matrix.msc4380.stable":                      true,
	"uk.half-shot.msc2666.query_mutual_rooms":        true,
	"uk.half-shot.msc2666.query_mutual_rooms.stable": true,
	"uk.tcpip.msc4133":                               true, // profile fields
	"uk.tcpip.msc4133.stable":                        true,
}

// getVersions tells what the server can do.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientversions
func (a *API) getVersions(*request) (any, error) {
	offered := maps.Clone(features)
	offered[batchFeature] = !a.Appservices.NoBatches
	return map[string]any{"versions": versions, "unstable_features": offered}, nil
}

// getCapabilities tells what the user can do.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3capabilities
func (a *API) getCapabilities(r *request) (any, error) {
	u, err := a.Accounts.User(r.Context(), r.User)
	if err != nil {
		return nil, err
	}
	type enabled struct {
		Enabled bool `json:"enabled"`
	}
	rooms := struct {
		Default   string            `json:"default"`
		Available map[string]string `json:"available"`
	}{a.DefaultRoomVersion, make(map[string]string)}
	if rooms.Default == "" {
		rooms.Default = matrix.DefaultRoomVersion
	}
	for _, v := range matrix.Versions() {
		rooms.Available[v.ID] = "unstable"
		if v.Stable {
			rooms.Available[v.ID] = "stable"
		}
	}
	member := enabled{!r.Guest}
	delays := map[string]int64{"max_delay_ms": delayed.Longest.Milliseconds(), "max_scheduled": delayed.MostScheduled}
	return map[string]any{"capabilities": map[string]any{
		"m.room_versions":                   rooms,
		"m.change_password":                 enabled{u.Password != ""},
		"m.set_displayname":                 enabled{true},
		"m.set_avatar_url":                  member,
		"m.profile_fields":                  member,
		"m.3pid_changes":                    enabled{false},
		"m.get_login_token":                 enabled{a.Accounts.Config.LoginTokens && u.Password != ""},
		"m.delayed_events":                  delays,
		"org.matrix.msc4140.delayed_events": delays,
		"m.account_moderation":              map[string]bool{"suspend": r.Admin, "lock": r.Admin},
	}}, nil
}

// discovery tells clients where the server is.
func (a *API) discovery() map[string]map[string]string {
	return map[string]map[string]string{"m.homeserver": {"base_url": a.PublicURL}}
}

// getWellknown tells clients where the server is.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixclient
func (a *API) getWellknown(*request) (any, error) {
	if a.PublicURL == "" {
		return nil, matrix.Errorf(matrix.NotFound, "nothing is told here")
	}
	told := map[string]any{}
	for key, value := range a.discovery() {
		told[key] = value
	}
	maps.Copy(told, a.WellKnown)
	return told, nil
}

// getWellKnown tells other servers where the server is.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver
func (a *API) getWellKnown(*request) (any, error) {
	if a.Delegate == "" {
		return nil, matrix.Errorf(matrix.NotFound, "nothing is told here")
	}
	return map[string]string{"m.server": a.Delegate}, nil
}

// getWellknownSupport tells whom to ask about the server.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixsupport
func (a *API) getWellknownSupport(*request) (any, error) {
	if len(a.Support.Contacts) == 0 && a.Support.Page == "" {
		return nil, matrix.Errorf(matrix.NotFound, "nothing is told here")
	}
	return a.Support, nil
}

// withContact adds to an error about a limit of the server where to ask for help.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#common-error-codes
func (a *API) withContact(err error) error {
	var e *matrix.Error
	if !errors.As(err, &e) || e.Code != matrix.ResourceLimitExceeded {
		return err
	}
	full := *e
	full.Extra = maps.Clone(e.Extra)
	if full.Extra == nil {
		full.Extra = map[string]any{}
	}
	full.Extra["admin_contact"] = a.contact()
	return &full
}

// contact is a URL where users get help: what is told of support, or the server's
// own page.
func (a *API) contact() string {
	if a.Support.Page != "" {
		return a.Support.Page
	}
	for _, c := range a.Support.Contacts {
		if c.Email != "" {
			return "mailto:" + c.Email
		}
		if user, ok := strings.CutPrefix(c.MatrixID, "@"); ok {
			return "matrix:u/" + url.PathEscape(user)
		}
	}
	return cmp.Or(a.PublicURL, "https://"+string(a.ServerName)) + "/"
}

// getWellknownPolicy tells the key of the policy server that runs under our
// name.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixpolicy_server
func (a *API) getWellknownPolicy(*request) (any, error) {
	if a.PolicyServerKey == "" {
		return nil, matrix.Errorf(matrix.NotFound, "there is no policy server here")
	}
	return map[string]any{"public_keys": map[string]string{"ed25519": a.PolicyServerKey}}, nil
}
