package bridge

import (
	"slices"
	"strings"

	"maunium.net/go/mautrix/event"
)

// Health is how a bridge is.
type Health struct {
	Running bool    // the connector has started
	Logins  []Login // ordered by ID; none while it is not running

	// Told counts since the start of the process what the bridge told of users'
	// events: SUCCESS, FAIL_RETRIABLE or FAIL_PERMANENT.
	Told map[event.MessageStatus]int64
}

// Login is somebody's account on the network.
type Login struct {
	ID string

	// State is in the words of mautrix: STARTING, CONNECTING, CONNECTED,
	// TRANSIENT_DISCONNECT, BAD_CREDENTIALS, LOGGED_OUT, UNKNOWN_ERROR, …
	State string
}

// Health tells how the bridge is at present.
func (h *Host) Health() Health {
	out := Health{Told: make(map[event.MessageStatus]int64, len(statuses))}
	for i, s := range statuses {
		out.Told[s] = h.told[i].Load()
	}
	run := h.running.Load()
	if run == nil {
		return out
	}
	out.Running = true
	for _, l := range run.br.GetAllCachedUserLogins() {
		out.Logins = append(out.Logins, Login{ID: string(l.ID), State: string(run.mx.states.last(l.ID).StateEvent)})
	}
	slices.SortFunc(out.Logins, func(a, b Login) int { return strings.Compare(a.ID, b.ID) })
	return out
}
