package clientapi

import (
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

var batchRoutes = []route{
	{"", "POST /_matrix/client/unstable/com.beeper.backfill/rooms/{roomId}/batch_send", users, (*API).batchSend},
}

// batchFeature is by what bridges know that the operation is there.
const batchFeature = "com.beeper.batch_sending"

// batchBody is how large the body of a batch may be, in bytes.
const batchBody = 64 << 20

// batchSend lets an appservice put many messages with their own senders and times
// into a room.
//
// Source: https://pkg.go.dev/maunium.net/go/mautrix#Client.BeeperBatchSend
func (a *API) batchSend(r *request) (any, error) {
	if a.Appservices.NoBatches {
		return nil, matrix.Errorf(matrix.Unrecognized, "this server takes no batches")
	}
	if r.Appservice == nil {
		return nil, matrix.Errorf(matrix.Forbidden, "only appservices may do this")
	}
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	r.Limit = max(r.Limit, batchBody)
	var b room.Batch
	if err := r.JSON(&b); err != nil {
		return nil, err
	}
	b.Room, b.User, b.Owns = id, r.User, r.owns
	ids, err := a.Rooms.Batch(r.Context(), b)
	if err != nil {
		return nil, err
	}
	return map[string][]matrix.EventID{"event_ids": ids}, nil
}

// owns tells whether a user of this server is one of the appservice that asks.
func (r *request) owns(user matrix.UserID) bool {
	return r.Appservice.CoversUser(string(user)) || string(user) == r.Appservice.Sender(string(user.Server()))
}
