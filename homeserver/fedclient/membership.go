package fedclient

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// Template is a membership event that another server prepared for one of our
// users. It was checked to be of the room, the user and the membership that was
// asked for. Its time is now.
type Template struct {
	Version *matrix.RoomVersion
	Draft   event.Draft
}

// MakeJoin asks a server of a room for a template with which user can join. The
// versions are the room versions that we can take part in; the error
// M_INCOMPATIBLE_ROOM_VERSION tells the room's.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid
func (c *Client) MakeJoin(ctx context.Context, server matrix.ServerName, room matrix.RoomID, user matrix.UserID, versions []string) (*Template, error) {
	return c.template(ctx, server, "makeJoin", "/_matrix/federation/v1/make_join/{}/{}", event.Join, room, user, versions)
}

// MakeKnock asks a server of a room for a template with which user can knock.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_knockroomiduserid
func (c *Client) MakeKnock(ctx context.Context, server matrix.ServerName, room matrix.RoomID, user matrix.UserID, versions []string) (*Template, error) {
	return c.template(ctx, server, "makeKnock", "/_matrix/federation/v1/make_knock/{}/{}", event.Knock, room, user, versions)
}

// MakeLeave asks a server of a room for a template with which user can leave,
// or reject an invite.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_leaveroomiduserid
func (c *Client) MakeLeave(ctx context.Context, server matrix.ServerName, room matrix.RoomID, user matrix.UserID) (*Template, error) {
	return c.template(ctx, server, "makeLeave", "/_matrix/federation/v1/make_leave/{}/{}", event.Leave, room, user, nil)
}

func (c *Client) template(ctx context.Context, server matrix.ServerName, op, pattern, membership string, room matrix.RoomID, user matrix.UserID, versions []string) (*Template, error) {
	k := call{op: op, method: http.MethodGet, path: path(pattern, string(room), string(user)), query: values()}
	for _, v := range versions {
		k.query.Add("ver", v)
	}
	var answer struct {
		RoomVersion *string         `json:"room_version"`
		Event       json.RawMessage `json:"event"`
	}
	if err := c.do(ctx, server, k, &answer); err != nil {
		return nil, err
	}
	name := "1" // what servers that do not say have
	if answer.RoomVersion != nil {
		name = *answer.RoomVersion
	}
	version, ok := matrix.Version(name)
	if !ok {
		return nil, wrap(op, matrix.Errorf(matrix.IncompatibleRoomVersion, "the room has the version %q", clean(name)))
	}
	draft, err := readTemplate(version, answer.Event)
	if err == nil {
		err = checkTemplate(draft, membership, room, user)
	}
	if err != nil {
		return nil, wrap(op, &AnswerError{server, err})
	}
	draft.OriginServerTS = time.Now().UnixMilli()
	return &Template{version, draft}, nil
}

// readTemplate reads an event without hashes and signatures.
func readTemplate(v *matrix.RoomVersion, raw []byte) (event.Draft, error) {
	var t struct {
		Type       string            `json:"type"`
		Room       matrix.RoomID     `json:"room_id"`
		Sender     matrix.UserID     `json:"sender"`
		StateKey   *string           `json:"state_key"`
		Content    json.RawMessage   `json:"content"`
		Depth      int64             `json:"depth"`
		PrevEvents []json.RawMessage `json:"prev_events"`
		AuthEvents []json.RawMessage `json:"auth_events"`
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return event.Draft{}, fmt.Errorf("template: %w", err)
	}
	d := event.Draft{Type: t.Type, Room: t.Room, Sender: t.Sender, StateKey: t.StateKey, Content: t.Content, Depth: t.Depth, Hashes: map[matrix.EventID]string{}}
	var err error
	if d.PrevEvents, err = references(v, t.PrevEvents, d.Hashes); err != nil {
		return event.Draft{}, fmt.Errorf("template: prev_events: %w", err)
	}
	if d.AuthEvents, err = references(v, t.AuthEvents, d.Hashes); err != nil {
		return event.Draft{}, fmt.Errorf("template: auth_events: %w", err)
	}
	return d, nil
}

// references reads IDs of events, or pairs of ID and hash in room versions 1
// and 2.
func references(v *matrix.RoomVersion, list []json.RawMessage, hashes map[matrix.EventID]string) ([]matrix.EventID, error) {
	var ids []matrix.EventID
	for _, raw := range list {
		var id matrix.EventID
		if v.EventIDInEvent {
			var hash struct {
				SHA256 string `json:"sha256"`
			}
			pair := []any{&id, &hash}
			if err := json.Unmarshal(raw, &pair); err != nil {
				return nil, err
			}
			hashes[id] = hash.SHA256
		} else if err := json.Unmarshal(raw, &id); err != nil {
			return nil, err
		}
		if _, err := matrix.ParseEventID(string(id)); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// checkTemplate makes the checks that the specification demands before an event
// of another server's making is signed.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid
func checkTemplate(d event.Draft, membership string, room matrix.RoomID, user matrix.UserID) error {
	var content struct {
		Membership string `json:"membership"`
	}
	if err := json.Unmarshal(d.Content, &content); err != nil {
		return fmt.Errorf("template: content: %w", err)
	}
	switch {
	case d.Type != event.TypeMember:
		return errors.New("template: another type of event")
	case d.Room != room:
		return errors.New("template: another room")
	case d.Sender != user || d.StateKey == nil || *d.StateKey != string(user):
		return errors.New("template: another user")
	case content.Membership != membership:
		return errors.New("template: another membership")
	}
	return nil
}

// Joined is what a server answers to a join, beside the events.
type Joined struct {
	// Event is the join with the signatures that the server added.
	Event *event.PDU

	// MembersOmitted tells that the state has not all membership events.
	MembersOmitted bool

	// Servers are those in the room before the join; nil where the server does
	// not say.
	Servers []matrix.ServerName
}

// maxServers is how many servers of a room are read.
const maxServers = 1_000_000

// SendJoin sends a join, which its template's server gets, and gives the room's
// state before it and what authorizes it to each while it arrives. With
// omitMembers the server may leave out membership events.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
func (c *Client) SendJoin(ctx context.Context, server matrix.ServerName, join *event.PDU, omitMembers bool, each Each) (*Joined, error) {
	k := call{op: "sendJoinV2", method: http.MethodPut, path: eventPath("/_matrix/federation/v2/send_join/{}/{}", join), body: json.RawMessage(join.JSON)}
	if omitMembers {
		k.query = values("omit_members", "true")
	}
	answer := &Joined{Event: join}
	err := c.stream(ctx, server, k, func(d *document, key string) error {
		switch key {
		case "state":
			return eachEvent(d, State, each)
		case "auth_chain":
			return eachEvent(d, AuthChain, each)
		case "members_omitted":
			return d.decode(&answer.MembersOmitted)
		case "event":
			raw, err := d.value()
			if err == nil {
				answer.Event = addSignatures(join, raw, server)
			}
			return err
		case "servers_in_room":
			return d.list(func(v []byte) error {
				var name string
				if err := json.Unmarshal(v, &name); err != nil {
					return err
				}
				if s, err := matrix.ParseServerName(name); err == nil && len(answer.Servers) < maxServers {
					answer.Servers = append(answer.Servers, s)
				}
				return nil
			})
		}
		return d.skip()
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func eventPath(pattern string, e *event.PDU) string {
	return path(pattern, string(e.Room), string(e.ID))
}

// addSignatures is ours with the signatures that raw, the same event, has from
// server. If raw is another event, it is just ours.
func addSignatures(ours *event.PDU, raw []byte, server matrix.ServerName) *event.PDU {
	theirs, err := event.Parse(ours.Version, raw)
	if err != nil || theirs.ID != ours.ID || ours.SignedBy(server) {
		return ours
	}
	added := 0
	for id, sig := range signing.Signatures(theirs.Signatures(), string(server)) {
		if added == maxAdded || !validKeyID(id) || len(sig) > 2*ed25519.SignatureSize {
			continue
		}
		if more, err := ours.AddSignature(server, id, sig); err == nil {
			ours = more
			added++
		}
	}
	return ours
}

// maxAdded is how many signatures another server may add to one of our events.
const maxAdded = 4

// SendKnock sends a knock and answers stripped state of the room, which is up
// to the other server.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_knockroomideventid
func (c *Client) SendKnock(ctx context.Context, server matrix.ServerName, knock *event.PDU) ([]json.RawMessage, error) {
	var answer struct {
		State []json.RawMessage `json:"knock_room_state"`
	}
	err := c.do(ctx, server, call{
		op: "sendKnock", method: http.MethodPut, path: eventPath("/_matrix/federation/v1/send_knock/{}/{}", knock), body: json.RawMessage(knock.JSON),
	}, &answer)
	return answer.State, err
}

// SendLeave sends a leave, as its template's server gets it.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_leaveroomideventid
func (c *Client) SendLeave(ctx context.Context, server matrix.ServerName, leave *event.PDU) error {
	return c.do(ctx, server, call{
		op: "sendLeaveV2", method: http.MethodPut, path: eventPath("/_matrix/federation/v2/send_leave/{}/{}", leave), body: json.RawMessage(leave.JSON),
	}, nil)
}

// Complexity asks how much work it is to join a room: 1 for each 500 events of
// state. The specification does not know the question, and not every server
// answers it, nor of every room.
func (c *Client) Complexity(ctx context.Context, server matrix.ServerName, room matrix.RoomID) (float64, error) {
	var answer struct {
		V1 *float64 `json:"v1"`
	}
	k := call{op: "complexity", method: http.MethodGet, path: path("/_matrix/federation/unstable/rooms/{}/complexity", room)}
	err := c.do(ctx, server, k, &answer)
	if err == nil && (answer.V1 == nil || *answer.V1 < 0) {
		err = wrap(k.op, &AnswerError{server, errors.New("no complexity")})
	}
	if err != nil {
		return 0, err
	}
	return *answer.V1, nil
}

// Invite asks the server of an invited user to sign the invite, and answers it
// with that signature, which is not verified yet. State are stripped events, or
// whole ones, by which the user may know the room. Servers that only know the
// old form are asked in that, in room versions 1 and 2.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid
func (c *Client) Invite(ctx context.Context, server matrix.ServerName, invite *event.PDU, state []json.RawMessage) (*event.PDU, error) {
	if state == nil {
		state = []json.RawMessage{}
	}
	var answer struct {
		Event json.RawMessage `json:"event"`
	}
	err := c.do(ctx, server, call{
		op: "sendInviteV2", method: http.MethodPut, path: eventPath("/_matrix/federation/v2/invite/{}/{}", invite),
		body: map[string]any{"room_version": invite.Version.ID, "event": json.RawMessage(invite.JSON), "invite_room_state": state},
	}, &answer)
	var refused *ResponseError
	if errors.As(err, &refused) && (refused.Status == http.StatusNotFound || refused.Status == http.StatusBadRequest) && invite.Version.EventIDInEvent {
		answer.Event, err = c.inviteV1(ctx, server, invite, state)
	}
	if err != nil {
		return nil, err
	}
	signed := addSignatures(invite, answer.Event, server)
	if !signed.SignedBy(server) {
		return nil, wrap("sendInviteV2", &AnswerError{server, errors.New("the invite is not signed")})
	}
	return signed, nil
}

// inviteV1 is the old form, whose answer is a pair of a status and an object.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1inviteroomideventid
func (c *Client) inviteV1(ctx context.Context, server matrix.ServerName, invite *event.PDU, state []json.RawMessage) (json.RawMessage, error) {
	unsigned, err := json.Marshal(map[string]any{"invite_room_state": state})
	if err != nil {
		return nil, err
	}
	body := append(invite.JSON[:len(invite.JSON)-1:len(invite.JSON)-1], `,"unsigned":`...)
	body = append(append(body, unsigned...), '}')
	var answer json.RawMessage
	k := call{op: "sendInviteV1", method: http.MethodPut, path: eventPath("/_matrix/federation/v1/invite/{}/{}", invite), body: json.RawMessage(body)}
	if err := c.do(ctx, server, k, &answer); err != nil {
		return nil, err
	}
	var pair []json.RawMessage
	if json.Unmarshal(answer, &pair) == nil && len(pair) == 2 {
		answer = pair[1]
	}
	var object struct {
		Event json.RawMessage `json:"event"`
	}
	if err := json.Unmarshal(answer, &object); err != nil {
		return nil, wrap(k.op, &AnswerError{server, err})
	}
	return object.Event, nil
}

// ThirdPartyInvite asks a server of a room to invite a user who was invited by
// the address of another network. Member is the membership event without
// hashes, signatures and references.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid
func (c *Client) ThirdPartyInvite(ctx context.Context, server matrix.ServerName, room matrix.RoomID, member json.RawMessage) error {
	return c.do(ctx, server, call{
		op: "exchangeThirdPartyInvite", method: http.MethodPut, path: path("/_matrix/federation/v1/exchange_third_party_invite/{}", room), body: member,
	}, nil)
}
