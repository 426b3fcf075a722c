package clientapi

import (
	"encoding/json"

	"switchboard/homeserver/edge"

	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/matrix"
)

var receiptRoutes = []route{
	{"postReceipt", "POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}", users, (*API).postReceipt},
	{"setReadMarker", "POST /_matrix/client/v3/rooms/{roomId}/read_markers", users, (*API).setReadMarker},
}

// postReceipt says that the user has read up to an event.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreceiptreceipttypeeventid
func (a *API) postReceipt(r *request) (any, error) {
	room, err := r.Room()
	if err != nil {
		return nil, err
	}
	var body struct {
		Thread json.RawMessage `json:"thread_id"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	mark := ephemeral.Mark{Type: r.PathValue("receiptType"), Event: matrix.EventID(r.PathValue("eventId"))}
	if body.Thread != nil && json.Unmarshal(body.Thread, &mark.Thread) != nil {
		return nil, matrix.Errorf(matrix.InvalidParam, "thread_id field must be a non-empty string")
	}
	return edge.Empty{}, a.Ephemeral.SetMarks(r.Context(), r.User, room, mark)
}

// setReadMarker moves the fully-read marker and receipts together.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidread_markers
func (a *API) setReadMarker(r *request) (any, error) {
	room, err := r.Room()
	if err != nil {
		return nil, err
	}
	var body struct {
		FullyRead   matrix.EventID `json:"m.fully_read"`
		Read        matrix.EventID `json:"m.read"`
		ReadPrivate matrix.EventID `json:"m.read.private"`
	}
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	var marks []ephemeral.Mark
	for _, m := range []ephemeral.Mark{
		{Type: ephemeral.FullyRead, Event: body.FullyRead},
		{Type: ephemeral.Read, Event: body.Read},
		{Type: ephemeral.ReadPrivate, Event: body.ReadPrivate},
	} {
		if m.Event != "" {
			marks = append(marks, m)
		}
	}
	return edge.Empty{}, a.Ephemeral.SetMarks(r.Context(), r.User, room, marks...)
}
