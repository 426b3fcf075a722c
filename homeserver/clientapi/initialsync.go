package clientapi

import (
	"time"

	"switchboard/homeserver/clientsync"
	"switchboard/homeserver/matrix"
)

// initialSyncRoutes are what clients used before /sync, and what still lets them
// look into a room without being there.
var initialSyncRoutes = []route{
	{"peekEvents", "GET /_matrix/client/v3/events", guests, (*API).peekEvents},
	{"getOneEvent", "GET /_matrix/client/v3/events/{eventId}", guests, (*API).getOneEvent},
	{"initialSync", "GET /_matrix/client/v3/initialSync", guests, (*API).initialSync},
	{"roomInitialSync", "GET /_matrix/client/v3/rooms/{roomId}/initialSync", guests, (*API).roomInitialSync},
}

// peekEvents waits for what happens in a room that the user may read, or without
// a room (getEvents) for everything that concerns the user.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#peeking_get_matrixclientv3events
func (a *API) peekEvents(r *request) (any, error) {
	timeout, err := r.Number("timeout", 0, int(longestPoll.Milliseconds()))
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	f := clientsync.Following{Reader: r.reader(), From: q.Get("from"), Timeout: time.Duration(timeout) * time.Millisecond}
	if q.Has("room_id") {
		if f.Room, err = matrix.ParseRoomID(q.Get("room_id")); err != nil {
			return nil, err
		}
	}
	return a.Sync.Events(r.Context(), f)
}

// getOneEvent gives an event of whichever room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3eventseventid
func (a *API) getOneEvent(r *request) (any, error) {
	id, err := r.Event()
	if err != nil {
		return nil, err
	}
	return a.Rooms.EventAnywhere(r.Context(), r.reader(), id)
}

// initialSync describes all rooms of the user.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3initialsync
func (a *API) initialSync(r *request) (any, error) {
	limit, err := r.Number("limit", 0, pageMost)
	if err != nil {
		return nil, err
	}
	left, err := r.Flag("archived")
	if err != nil {
		return nil, err
	}
	return a.Sync.Everything(r.Context(), r.reader(), limit, left)
}

// roomInitialSync describes a room that the user may read.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync
func (a *API) roomInitialSync(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	limit, err := r.Number("limit", 0, pageMost)
	if err != nil {
		return nil, err
	}
	return a.Sync.Snapshot(r.Context(), r.reader(), id, limit)
}
