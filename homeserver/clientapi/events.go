package clientapi

import (
	"encoding/json"

	"switchboard/homeserver/clientsync"
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

var eventRoutes = []route{
	{"sendMessage", "PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}", guests, (*API).sendMessage},
	{"setRoomStateWithKey", "PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}", guests, (*API).setRoomStateWithKey},
	{"", "PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{$}", guests, (*API).setRoomStateWithKey},
	{"", "PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}", guests, (*API).setRoomStateWithKey},
	{"redactEvent", "PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}", users, (*API).redactEvent},
	{"", "POST /_matrix/client/v3/rooms/{roomId}/redact/{eventId}", users, (*API).redactEvent},
	{"", "POST /_matrix/client/v3/rooms/{roomId}/send/{eventType}", guests, (*API).sendMessage},
	{"getOneRoomEvent", "GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}", guests, (*API).getOneRoomEvent},
	{"getRoomStateWithKey", "GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}", guests, (*API).getRoomStateWithKey},
	{"", "GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{$}", guests, (*API).getRoomStateWithKey},
	{"", "GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}", guests, (*API).getRoomStateWithKey},
	{"getRoomState", "GET /_matrix/client/v3/rooms/{roomId}/state", guests, (*API).getRoomState},
	{"getMembersByRoom", "GET /_matrix/client/v3/rooms/{roomId}/members", guests, (*API).getMembersByRoom},
	{"getJoinedMembersByRoom", "GET /_matrix/client/v3/rooms/{roomId}/joined_members", guests, (*API).getJoinedMembersByRoom},
	{"getRoomEvents", "GET /_matrix/client/v3/rooms/{roomId}/messages", guests, (*API).getRoomEvents},
	{"getEventContext", "GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}", guests, (*API).getEventContext},
}

// timestamp is the time (ms) that an appservice gives its event.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#timestamp-massaging
func (r *request) timestamp() (int64, error) {
	if r.Appservice == nil {
		return 0, nil
	}
	return r.Time("ts")
}

// sending reads what the operations that send an event have in common.
func (r *request) sending() (room.Sending, error) {
	id, err := r.Room()
	if err != nil {
		return room.Sending{}, err
	}
	at, err := r.timestamp()
	return room.Sending{
		User: r.User, Device: r.Device, Room: id, Type: r.PathValue("eventType"), Txn: r.PathValue("txnId"), At: at,
		Suspended: r.Suspended, Guest: r.Guest,
	}, err
}

// sent is the answer to operations that send an event.
func sent(id matrix.EventID, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return map[string]matrix.EventID{"event_id": id}, nil
}

// sendMessage sends an event that is no state.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid
func (a *API) sendMessage(r *request) (any, error) {
	d, err := r.sending()
	if err != nil {
		return nil, err
	}
	if r.URL.Query().Has(unstableDelay) {
		if id, err := a.Delayed.Repeated(r.Context(), d); id != "" || err != nil {
			return map[string]string{"delay_id": id}, err
		}
	}
	if d.Content, err = r.Object(); err != nil {
		return nil, err
	}
	return a.send(r, d)
}

// send sends an event for who may and is there.
func (a *API) send(r *request, d room.Sending) (any, error) {
	if err := r.active(); err != nil {
		return nil, err
	}
	a.Ephemeral.Active(r.User)
	if delay, err := r.delayed(); delay != 0 || err != nil {
		if err != nil {
			return nil, err
		}
		return a.delay(r, d, delay)
	}
	return sent(a.Rooms.Send(r.Context(), d))
}

// setRoomStateWithKey sends a state event.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey
func (a *API) setRoomStateWithKey(r *request) (any, error) {
	d, err := r.sending()
	if err != nil {
		return nil, err
	}
	key := r.PathValue("stateKey")
	d.StateKey = &key
	if d.Content, err = r.Object(); err != nil {
		return nil, err
	}
	var c struct {
		Membership string `json:"membership"`
	}
	if d.Type == event.TypeMember && json.Unmarshal(d.Content, &c) == nil && c.Membership == event.Invite {
		if err := a.limitMore(r, classInvite, 1); err != nil {
			return nil, err
		}
	}
	return a.send(r, d)
}

// redactEvent takes the content out of an event.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid
func (a *API) redactEvent(r *request) (any, error) {
	d, err := r.sending()
	if err != nil {
		return nil, err
	}
	if d.Redacts, err = r.Event(); err != nil {
		return nil, err
	}
	var b struct {
		Reason *string `json:"reason"`
	}
	if err := r.OptionalJSON(&b); err != nil {
		return nil, err
	}
	return sent(a.Rooms.Redact(r.Context(), d, b.Reason))
}

// getOneRoomEvent gives one event.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid
func (a *API) getOneRoomEvent(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	event, err := r.Event()
	if err != nil {
		return nil, err
	}
	return a.Rooms.Event(r.Context(), r.reader(), id, event)
}

// getRoomStateWithKey gives the content of one state event, or all of it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstateeventtypestatekey
func (a *API) getRoomStateWithKey(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	p, err := a.Rooms.StateContent(r.Context(), r.User, id, r.PathValue("eventType"), r.PathValue("stateKey"))
	if err != nil {
		return nil, err
	}
	switch r.URL.Query().Get("format") {
	case "", "content":
		return p.Content, nil
	case "event":
		return json.RawMessage(p.Client(nil, nil)), nil
	}
	return nil, matrix.Errorf(matrix.InvalidParam, "format must be content or event")
}

// getRoomState gives the whole state of a room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate
func (a *API) getRoomState(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	return a.Rooms.State(r.Context(), r.reader(), id)
}

// getMembersByRoom gives the member events of a room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers
func (a *API) getMembersByRoom(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	list, err := a.Rooms.Members(r.Context(), r.reader(), id, room.MembersAsked{
		Is: q.Get("membership"), Not: q.Get("not_membership"), At: q.Get("at"),
	})
	if err != nil {
		return nil, err
	}
	return map[string][]json.RawMessage{"chunk": list}, nil
}

// getJoinedMembersByRoom lists who is in a room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidjoined_members
func (a *API) getJoinedMembersByRoom(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	var owns func(matrix.UserID) bool
	if r.Appservice != nil {
		owns = func(u matrix.UserID) bool { return r.Appservice.CoversUser(string(u)) }
	}
	members, err := a.Rooms.JoinedMembers(r.Context(), r.User, owns, id)
	if err != nil {
		return nil, err
	}
	return map[string]any{"joined": members}, nil
}

// The sizes of pages of a timeline.
const (
	pageDefault = 10
	pageMost    = 1000
)

// getRoomEvents gives a part of a room's timeline.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages
func (a *API) getRoomEvents(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	p := room.Page{Room: id, From: q.Get("from"), To: q.Get("to")}
	switch q.Get("dir") {
	case "b":
	case "f", "": // clients of before v1.1 leave it out
		p.Forward = true
	default:
		return nil, matrix.Errorf(matrix.InvalidParam, "dir must be b or f")
	}
	if p.Limit, err = r.Number("limit", pageDefault, pageMost); err != nil {
		return nil, err
	}
	if p.Filter, err = clientsync.ParseEventFilter([]byte(q.Get("filter"))); err != nil {
		return nil, err
	}
	return a.Federation.Messages(r.Context(), r.reader(), p)
}

// getEventContext gives what surrounds an event.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid
func (a *API) getEventContext(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	event, err := r.Event()
	if err != nil {
		return nil, err
	}
	limit, err := r.Number("limit", pageDefault, 100)
	if err != nil {
		return nil, err
	}
	f, err := clientsync.ParseEventFilter([]byte(r.URL.Query().Get("filter")))
	if err != nil {
		return nil, err
	}
	return a.Rooms.Context(r.Context(), r.reader(), id, event, limit, f)
}
