package fedclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// Backfill asks for the events from and what came before them, up to limit
// altogether. More are left out.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid
func (c *Client) Backfill(ctx context.Context, server matrix.ServerName, room matrix.RoomID, from []matrix.EventID, limit int) ([]json.RawMessage, error) {
	k := call{op: "backfillRoom", method: http.MethodGet, path: path("/_matrix/federation/v1/backfill/{}", room), query: values("limit", strconv.Itoa(limit))}
	for _, id := range from {
		k.query.Add("v", string(id))
	}
	var answer struct {
		PDUs []json.RawMessage `json:"pdus"`
	}
	err := c.do(ctx, server, k, &answer)
	return answer.PDUs[:min(limit, len(answer.PDUs))], err
}

// Gap is what lies between events that we have and events that we got.
type Gap struct {
	Latest   []matrix.EventID `json:"latest_events"`   // whose predecessors are missing
	Earliest []matrix.EventID `json:"earliest_events"` // that we have
	Limit    int              `json:"limit"`
	MinDepth int64            `json:"min_depth"`
}

// MissingEvents asks for the events in a gap, up to its limit. More are left
// out.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid
func (c *Client) MissingEvents(ctx context.Context, server matrix.ServerName, room matrix.RoomID, gap Gap) ([]json.RawMessage, error) {
	var answer struct {
		Events []json.RawMessage `json:"events"`
	}
	if gap.Earliest == nil {
		gap.Earliest = []matrix.EventID{}
	}
	err := c.do(ctx, server, call{
		op: "getMissingPreviousEvents", method: http.MethodPost, path: path("/_matrix/federation/v1/get_missing_events/{}", room), body: gap,
	}, &answer)
	return answer.Events[:min(gap.Limit, len(answer.Events))], err
}

// Event asks for one event. It is not checked to be the one that was asked for:
// event.Parse tells its ID.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid
func (c *Client) Event(ctx context.Context, server matrix.ServerName, id matrix.EventID) (json.RawMessage, error) {
	var answer struct {
		PDUs []json.RawMessage `json:"pdus"`
	}
	k := call{op: "getEvent", method: http.MethodGet, path: path("/_matrix/federation/v1/event/{}", id)}
	if err := c.do(ctx, server, k, &answer); err != nil {
		return nil, err
	}
	if len(answer.PDUs) != 1 {
		return nil, wrap(k.op, &AnswerError{server, fmt.Errorf("%d events, not 1", len(answer.PDUs))})
	}
	return answer.PDUs[0], nil
}

// EventAuth asks for the auth chain of an event and gives it to each while it
// arrives.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid
func (c *Client) EventAuth(ctx context.Context, server matrix.ServerName, room matrix.RoomID, id matrix.EventID, each Each) error {
	k := call{op: "getEventAuth", method: http.MethodGet, path: path("/_matrix/federation/v1/event_auth/{}/{}", string(room), string(id))}
	return c.stream(ctx, server, k, func(d *document, key string) error {
		if key == "auth_chain" {
			return eachEvent(d, AuthChain, each)
		}
		return d.skip()
	})
}

// RoomState asks for the state of a room before an event and what authorizes
// it, and gives it to each while it arrives.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1stateroomid
func (c *Client) RoomState(ctx context.Context, server matrix.ServerName, room matrix.RoomID, at matrix.EventID, each Each) error {
	k := call{op: "getRoomState", method: http.MethodGet, path: path("/_matrix/federation/v1/state/{}", room), query: values("event_id", string(at))}
	return c.stream(ctx, server, k, func(d *document, key string) error {
		switch key {
		case "pdus":
			return eachEvent(d, State, each)
		case "auth_chain":
			return eachEvent(d, AuthChain, each)
		}
		return d.skip()
	})
}

// maxIDs is how many IDs of events one answer may have.
const maxIDs = 2_000_000

// RoomStateIDs asks for the IDs of the state of a room before an event, and of
// what authorizes it.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid
func (c *Client) RoomStateIDs(ctx context.Context, server matrix.ServerName, room matrix.RoomID, at matrix.EventID) (state, auth []matrix.EventID, err error) {
	k := call{op: "getRoomStateIds", method: http.MethodGet, path: path("/_matrix/federation/v1/state_ids/{}", room), query: values("event_id", string(at))}
	err = c.stream(ctx, server, k, func(d *document, key string) error {
		switch key {
		case "pdu_ids":
			return eventIDs(d, &state)
		case "auth_chain_ids":
			return eventIDs(d, &auth)
		}
		return d.skip()
	})
	if err != nil {
		return nil, nil, err
	}
	return state, auth, nil
}

func eventIDs(d *document, list *[]matrix.EventID) error {
	return d.list(func(v []byte) error {
		var s string
		if err := json.Unmarshal(v, &s); err != nil {
			return err
		}
		id, err := matrix.ParseEventID(s)
		if err != nil {
			return err
		}
		if len(*list) == maxIDs {
			return ErrAnswerSize
		}
		*list = append(*list, id)
		return nil
	})
}

// EventByTimestamp asks for the event next to a time in milliseconds: the first
// one not before it, or with backwards the last one not after it. It answers
// its ID and time.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid
func (c *Client) EventByTimestamp(ctx context.Context, server matrix.ServerName, room matrix.RoomID, ts int64, backwards bool) (matrix.EventID, int64, error) {
	dir := "f"
	if backwards {
		dir = "b"
	}
	k := call{
		op: "getEventByTimestamp", method: http.MethodGet, path: path("/_matrix/federation/v1/timestamp_to_event/{}", room),
		query: values("ts", strconv.FormatInt(ts, 10), "dir", dir),
	}
	var answer struct {
		ID matrix.EventID `json:"event_id"`
		TS int64          `json:"origin_server_ts"`
	}
	if err := c.do(ctx, server, k, &answer); err != nil {
		return "", 0, err
	}
	if _, err := matrix.ParseEventID(string(answer.ID)); err != nil {
		return "", 0, wrap(k.op, &AnswerError{server, err})
	}
	return answer.ID, answer.TS, nil
}

// PolicySign asks a policy server to sign an event, and answers the event with
// its signature, which is not verified yet: the key stands in the room's state.
// A refusal is a ResponseError. Whether it answers says nothing about the server
// of that name, and is not remembered.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixpolicyv1sign
func (c *Client) PolicySign(ctx context.Context, server matrix.ServerName, e *event.PDU) (*event.PDU, error) {
	k := call{op: "askPolicyServerToSign", method: http.MethodPost, path: "/_matrix/policy/v1/sign", body: json.RawMessage(e.JSON), aside: true}
	var answer map[string]json.RawMessage
	if err := c.do(ctx, server, k, &answer); err != nil {
		return nil, err
	}
	var keys map[string]string
	if err := json.Unmarshal(answer[string(server)], &keys); err != nil || keys[signing.PolicyKeyID] == "" {
		return nil, wrap(k.op, &AnswerError{server, errors.New("no signature")})
	}
	signed, err := e.AddSignature(server, signing.PolicyKeyID, keys[signing.PolicyKeyID])
	return signed, wrap(k.op, err)
}

// EDU is an ephemeral message to another server.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#edus
type EDU struct {
	Type    string          `json:"edu_type"`
	Content json.RawMessage `json:"content"`
}

// Transaction is what is pushed to another server in one go: at most 50 PDUs
// and 100 EDUs.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#transactions
type Transaction struct {
	ID             string // no other one to this server had it
	OriginServerTS int64  // milliseconds since 1970
	PDUs           []json.RawMessage
	EDUs           []EDU
}

// The limits of a transaction.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#transactions
const (
	MaxPDUs = 50
	MaxEDUs = 100
)

// Send sends a transaction and answers what the other server says about events
// that it did not take. Every failure counts for the back-off: until the server
// has taken the transaction, it must be sent no other one.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid
func (c *Client) Send(ctx context.Context, server matrix.ServerName, t Transaction) (map[matrix.EventID]string, error) {
	k := call{op: "sendTransaction", method: http.MethodPut, path: path("/_matrix/federation/v1/send/{}", t.ID), aside: true}
	body := struct {
		Origin matrix.ServerName `json:"origin"`
		TS     int64             `json:"origin_server_ts"`
		PDUs   []json.RawMessage `json:"pdus"`
		EDUs   []EDU             `json:"edus,omitempty"`
	}{c.server, t.OriginServerTS, t.PDUs, t.EDUs}
	if body.PDUs == nil {
		body.PDUs = []json.RawMessage{}
	}
	k.body = body
	if !c.insist {
		if err := c.reach.check(ctx, server); err != nil {
			return nil, wrap(k.op, err)
		}
	}
	var answer struct {
		PDUs map[matrix.EventID]struct {
			Error string `json:"error"`
		} `json:"pdus"`
	}
	err := c.do(ctx, server, k, &answer)
	var refused *ResponseError
	switch {
	case err == nil:
		c.reach.heard(ctx, server)
	case errors.Is(ctx.Err(), context.Canceled) || errors.Is(err, ErrNotPermitted):
	case errors.As(err, &refused) && refused.Status == http.StatusTooManyRequests:
	default:
		c.reach.failed(ctx, server)
	}
	if err != nil {
		return nil, err
	}
	problems := map[matrix.EventID]string{}
	for id, p := range answer.PDUs {
		if p.Error != "" {
			problems[id] = clean(p.Error)
		}
	}
	return problems, nil
}
