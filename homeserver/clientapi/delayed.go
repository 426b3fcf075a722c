package clientapi

import (
	"cmp"
	"encoding/json"
	"time"

	"switchboard/homeserver/edge"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

var delayedRoutes = []route{
	{"", "PUT /_matrix/client/v3/rooms/{roomId}/delayed_event/{eventType}/{txnId}", guests, (*API).delayEvent},
	{"", "PUT /_matrix/client/unstable/org.matrix.msc4140/rooms/{roomId}/delayed_event/{eventType}/{txnId}", guests, (*API).delayEvent},
	{"", "GET /_matrix/client/v1/delayed_events", guests, (*API).delayedEvents},
	{"", "GET /_matrix/client/unstable/org.matrix.msc4140/delayed_events", guests, (*API).delayedEventsBefore},
	{"", "GET /_matrix/client/v1/delayed_events/{delayId}", guests, (*API).delayedEvent},
	{"", "GET /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId}", guests, (*API).delayedEvent},
	{"", "POST /_matrix/client/v1/delayed_events/{delayId}/{action}", public, (*API).manageDelayedEvent},
	{"", "POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId}/{action}", public, (*API).manageDelayedEvent},
	{"", "POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId}", public, (*API).manageDelayedEventBefore},
}

// delayEvent sends an event later.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/4140
func (a *API) delayEvent(r *request) (any, error) {
	d, err := r.sending()
	if err != nil {
		return nil, err
	}
	var body struct {
		Delay    int64           `json:"delay_ms"`
		Old      int64           `json:"delay"` // as the proposal had it before
		StateKey *string         `json:"state_key"`
		Content  json.RawMessage `json:"content"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	var content map[string]json.RawMessage
	if json.Unmarshal(body.Content, &content) != nil || content == nil {
		return nil, matrix.Errorf(matrix.BadJSON, "content must be an object")
	}
	d.StateKey, d.Content = body.StateKey, body.Content
	return a.delay(r, d, cmp.Or(body.Delay, body.Old))
}

// delay schedules an event. Delay is in milliseconds.
func (a *API) delay(r *request, d room.Sending, delay int64) (any, error) {
	if err := r.active(); err != nil {
		return nil, err
	}
	id, err := a.Delayed.Schedule(r.Context(), d, time.Duration(min(delay, int64(1<<40)))*time.Millisecond)
	if err != nil {
		return nil, err
	}
	return map[string]string{"delay_id": id}, nil
}

// unstableDelay is the parameter by which the proposal delayed events first.
const unstableDelay = "org.matrix.msc4140.delay"

// delayed reads the delay (ms) of a request to send an event, as the proposal had
// it first; 0 if there is none.
func (r *request) delayed() (int64, error) {
	if !r.URL.Query().Has(unstableDelay) {
		return 0, nil
	}
	n, err := r.Time(unstableDelay)
	if err == nil && n <= 0 {
		err = matrix.Errorf(matrix.InvalidParam, "%s must be a positive number of milliseconds", unstableDelay)
	}
	return n, err
}

// delayedEvents lists the user's delayed events.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/4140
func (a *API) delayedEvents(r *request) (any, error) {
	return a.listDelayed(r, r.URL.Query().Get("status"))
}

// delayedEventsBefore is delayedEvents as the proposal had it first: only what is
// still to be sent.
func (a *API) delayedEventsBefore(r *request) (any, error) {
	if s := r.URL.Query().Get("status"); s != "" {
		return a.listDelayed(r, s)
	}
	return a.listDelayed(r, "scheduled")
}

func (a *API) listDelayed(r *request, of string) (any, error) {
	list, err := a.Delayed.List(r.Context(), r.User, of)
	if err != nil {
		return nil, err
	}
	return map[string]any{"delayed_events": list}, nil
}

// delayedEvent gives one of the user's delayed events.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/4140
func (a *API) delayedEvent(r *request) (any, error) {
	return a.Delayed.One(r.Context(), r.User, r.PathValue("delayId"))
}

// manageDelayedEvent sends, cancels or restarts a delayed event. Who knows its ID
// needs no token.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/4140
func (a *API) manageDelayedEvent(r *request) (any, error) {
	return edge.Empty{}, a.Delayed.Manage(r.Context(), r.PathValue("delayId"), r.PathValue("action"))
}

// manageDelayedEventBefore is manageDelayedEvent with the action in the body, as
// the proposal had it first.
func (a *API) manageDelayedEventBefore(r *request) (any, error) {
	var body struct {
		Action string `json:"action"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Action == "" {
		return nil, matrix.Errorf(matrix.MissingParam, "action is missing")
	}
	return edge.Empty{}, a.Delayed.Manage(r.Context(), r.PathValue("delayId"), body.Action)
}
