package federation

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// Make drafts a membership of a user of another server, who wants to join,
// leave or knock. Versions are the room versions that the server knows; nil
// means that it did not say.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid
func (s *Service) Make(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, user matrix.UserID, membership string, versions []string) (*room.Template, error) {
	if err := theirs(origin, user); err != nil {
		return nil, err
	}
	r, err := s.room(ctx, origin, id)
	if err == nil && membership != event.Leave {
		err = s.Rooms.RefuseListed(ctx, id, user)
	}
	if err != nil {
		return nil, err
	}
	if membership == event.Knock && !r.Version.KnockRule {
		return nil, matrix.Errorf(matrix.Forbidden, "rooms of version %s know no knocking", r.Version.ID)
	}
	return s.Rooms.Template(ctx, id, user, membership, versions)
}

// membership reads an event that a server sends for a membership of a user of
// it: signed, for the room and by the ID that the path names.
func (s *Service) membership(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID, raw json.RawMessage, membership string) (*event.PDU, *store.Room, error) {
	r, err := s.room(ctx, origin, id)
	if err != nil {
		return nil, nil, err
	}
	p, err := event.Parse(r.Version, raw)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case p.Room != id:
		return nil, nil, matrix.Errorf(matrix.InvalidParam, "the event belongs to another room")
	case p.ID != eventID:
		return nil, nil, matrix.Errorf(matrix.InvalidParam, "the event has another ID")
	case p.HashMismatch:
		return nil, nil, matrix.Errorf(matrix.InvalidParam, "the content of the event does not belong to its hash")
	case p.Type != event.TypeMember || p.StateKey == nil || p.Membership() != membership:
		return nil, nil, matrix.Errorf(matrix.InvalidParam, "the event is not a membership of the kind %s", membership)
	case *p.StateKey != string(p.Sender):
		return nil, nil, matrix.Errorf(matrix.InvalidParam, "the membership is not that of the sender")
	case p.Sender.Server() != origin:
		return nil, nil, matrix.Errorf(matrix.Forbidden, "the sender is not a user of %s", origin)
	}
	if membership != event.Leave {
		err = s.Rooms.RefuseListed(ctx, id, p.Sender)
	}
	return p, r, err
}

// enter lets an event in for which another server asked.
func (s *Service) enter(ctx context.Context, origin matrix.ServerName, p *event.PDU) (*store.Event, error) {
	if err := s.Keys.VerifyEvents(ctx, []*event.PDU{p})[0]; err != nil {
		return nil, &matrix.Error{Code: matrix.Forbidden, Text: err.Error()}
	}
	err := s.admit(ctx, origin, p)
	if errors.Is(err, errMissing) {
		return nil, matrix.Errorf(matrix.Forbidden, "%s", errMissing)
	}
	if err != nil {
		return nil, err
	}
	e, err := s.Store.Event(ctx, p.ID)
	if err != nil {
		return nil, err
	}
	if e.Status != store.Accepted || e.Pos == 0 {
		return nil, matrix.Errorf(matrix.Forbidden, "the room does not allow that")
	}
	return e, nil
}

// Events tells events one after the other, as servers know them: they may be
// many. Each is good until the function returns.
type Events func(ctx context.Context, each func(json.RawMessage) error) error

// listed are events that are in memory.
func listed(events []*store.Event) Events {
	return func(_ context.Context, each func(json.RawMessage) error) error {
		for _, e := range events {
			if err := each(e.PDU.JSON); err != nil {
				return err
			}
		}
		return nil
	}
}

// Joined is what a server gets whose user joined a room.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
type Joined struct {
	Event          json.RawMessage
	State          Events
	Auth           Events // to be asked for after State
	MembersOmitted bool
	Servers        []matrix.ServerName
}

// SendJoin lets a user of another server into a room, and answers the state
// before that. With omit most members are left out of it.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
func (s *Service) SendJoin(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID, raw json.RawMessage, omit bool) (*Joined, error) {
	p, r, err := s.membership(ctx, origin, id, eventID, raw, event.Join)
	if err != nil {
		return nil, err
	}
	if p, err = s.authorised(ctx, p); err != nil {
		return nil, err
	}
	servers, err := s.Store.Servers(ctx, r.Num)
	if err != nil {
		return nil, err
	}
	e, err := s.enter(ctx, origin, p)
	if err != nil {
		return nil, err
	}
	root, err := s.Rooms.StateBefore(ctx, e)
	if err != nil {
		return nil, err
	}
	if omit {
		return s.withoutMembers(ctx, e, root, servers)
	}
	all, err := s.Rooms.Snapshot(ctx, r, root, p)
	if err != nil {
		return nil, err
	}
	return &Joined{Event: e.PDU.JSON, State: all.State, Auth: all.Auth}, nil
}

// withoutMembers is the answer to the server of a join that does not want most
// members. What stands in the state is left out of what authorizes it.
func (s *Service) withoutMembers(ctx context.Context, join *store.Event, root statetree.ID, servers []matrix.ServerName) (*Joined, error) {
	state, err := s.Rooms.StateEvents(ctx, root)
	if err != nil {
		return nil, err
	}
	keep := heroes(state, join.PDU.Sender)
	state = slices.DeleteFunc(state, func(e *store.Event) bool { return e.PDU.Type == event.TypeMember && !keep[e.PDU.ID] })
	chain, err := s.Rooms.AuthChain(ctx, append(pdus(state), join.PDU))
	if err != nil {
		return nil, err
	}
	there := make(map[matrix.EventID]bool, len(state))
	for _, e := range state {
		there[e.PDU.ID] = true
	}
	chain = slices.DeleteFunc(chain, func(e *store.Event) bool { return there[e.PDU.ID] })
	return &Joined{Event: join.PDU.JSON, State: listed(state), Auth: listed(chain), MembersOmitted: true, Servers: servers}, nil
}

// authorised adds our signature to a join that a user of ours is said to
// authorize, if the room's rules are met.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#restricted-rooms
func (s *Service) authorised(ctx context.Context, p *event.PDU) (*event.PDU, error) {
	via := p.ContentString("join_authorised_via_users_server")
	if !p.Version.RestrictedRule || via == "" {
		return p, nil
	}
	user, err := matrix.ParseUserID(via)
	if err != nil {
		return nil, matrix.Errorf(matrix.InvalidParam, "join_authorised_via_users_server is not a user ID")
	}
	if !s.local(user) {
		return p, nil
	}
	if _, err := s.Rooms.Template(ctx, p.Room, p.Sender, event.Join, nil); err != nil {
		return nil, err
	}
	return s.Rooms.Sign(p)
}

// mostHeroes is how many members the summary of a room without a name shows.
const mostHeroes = 5

// heroes are the member events by which a room without a name is called, as
// user sees it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary
func heroes(state []*store.Event, user matrix.UserID) map[matrix.EventID]bool {
	keep := map[matrix.EventID]bool{}
	var in, out []matrix.EventID
	for _, e := range state {
		named := e.PDU.Is("m.room.name", "") && e.PDU.ContentString("name") != ""
		if named || e.PDU.Is("m.room.canonical_alias", "") && e.PDU.ContentString("alias") != "" {
			return nil
		}
		if e.PDU.Type != event.TypeMember || *e.PDU.StateKey == string(user) {
			continue
		}
		switch e.PDU.Membership() {
		case event.Join, event.Invite:
			in = append(in, e.PDU.ID)
		case event.Leave, event.Ban:
			out = append(out, e.PDU.ID)
		}
	}
	list := in
	if len(list) == 0 {
		list = out
	}
	for _, id := range list[:min(len(list), mostHeroes)] {
		keep[id] = true
	}
	return keep
}

// pdus are the events as servers know them.
func pdus(events []*store.Event) []*event.PDU {
	list := make([]*event.PDU, len(events), len(events)+1)
	for i, e := range events {
		list[i] = e.PDU
	}
	return list
}

// raws is the JSON of events.
func raws(events []*store.Event) []json.RawMessage {
	list := make([]json.RawMessage, len(events))
	for i, e := range events {
		list[i] = e.PDU.JSON
	}
	return list
}

// SendLeave lets a user of another server leave a room, or reject an
// invitation.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_leaveroomideventid
func (s *Service) SendLeave(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID, raw json.RawMessage) error {
	p, _, err := s.membership(ctx, origin, id, eventID, raw, event.Leave)
	if err != nil {
		return err
	}
	_, err = s.enter(ctx, origin, p)
	return err
}

// SendKnock lets a user of another server knock, and answers stripped state of
// the room.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_knockroomideventid
func (s *Service) SendKnock(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID, raw json.RawMessage) ([]json.RawMessage, error) {
	p, r, err := s.membership(ctx, origin, id, eventID, raw, event.Knock)
	if err != nil {
		return nil, err
	}
	if !r.Version.KnockRule {
		return nil, matrix.Errorf(matrix.Forbidden, "rooms of version %s know no knocking", r.Version.ID)
	}
	e, err := s.enter(ctx, origin, p)
	if err != nil {
		return nil, err
	}
	return s.Rooms.Stripped(ctx, e.State, p.Sender)
}

// Invitation is what another server sends to invite a user of this one.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid
type Invitation struct {
	Version string            `json:"room_version"`
	Event   json.RawMessage   `json:"event"`
	State   []json.RawMessage `json:"invite_room_state"`
}

// mostStripped is how many events about a room come with an invitation.
const mostStripped = 100

// ReceiveInvite takes an invitation of a user of this server, and answers the event
// with our signature.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid
func (s *Service) ReceiveInvite(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID, in Invitation) (json.RawMessage, error) {
	v, ok := matrix.Version(in.Version)
	if !ok {
		return nil, &matrix.Error{
			Code: matrix.IncompatibleRoomVersion, Text: "this server does not know the room's version", Extra: map[string]any{"room_version": in.Version},
		}
	}
	p, err := event.Parse(v, in.Event)
	if err != nil {
		return nil, err
	}
	if err := s.checkInvitation(ctx, origin, id, eventID, p); err != nil {
		return nil, err
	}
	stripped, err := s.stripped(id, v, in.State)
	if err != nil {
		return nil, err
	}
	signed, err := s.Rooms.Sign(p)
	if err != nil {
		return nil, err
	}
	if err := s.Rooms.PutOutside(ctx, room.Outside{Version: v, Event: signed, Stripped: stripped}); err != nil {
		return nil, err
	}
	return signed.JSON, nil
}

func (s *Service) checkInvitation(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID, p *event.PDU) error {
	switch {
	case p.Room != id:
		return matrix.Errorf(matrix.InvalidParam, "the event belongs to another room")
	case p.ID != eventID:
		return matrix.Errorf(matrix.InvalidParam, "the event has another ID")
	case p.HashMismatch:
		return matrix.Errorf(matrix.InvalidParam, "the content of the event does not belong to its hash")
	case p.Type != event.TypeMember || p.StateKey == nil || p.Membership() != event.Invite:
		return matrix.Errorf(matrix.InvalidParam, "the event is not an invitation")
	case p.Sender.Server() != origin:
		return matrix.Errorf(matrix.Forbidden, "the sender is not a user of %s", origin)
	}
	user, err := matrix.ParseUserID(*p.StateKey)
	if err != nil {
		return err
	}
	if !s.local(user) {
		return matrix.Errorf(matrix.InvalidParam, "%s is not a user of this server", user)
	}
	if r, err := s.Store.Room(ctx, id); err == nil && r.Current != 0 {
		if ok, err := s.Rooms.ACL(ctx, r, origin); err != nil {
			return err
		} else if !ok {
			return matrix.Errorf(matrix.Forbidden, "%s is banned from the room", origin)
		}
	} else if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err := s.Keys.VerifyEvents(ctx, []*event.PDU{p})[0]; err != nil {
		return matrix.Errorf(matrix.Forbidden, "%s", err)
	}
	if err := s.invitations.take("server "+string(origin), s.Config.InvitesPerServer); err != nil {
		return err
	}
	if err := s.invitations.take(string(user), s.Config.InvitesPerUser); err != nil {
		return err
	}
	if err := s.Rooms.RefuseInvite(ctx, user, p.Sender, id); err != nil {
		return err
	}
	u, ok, err := s.Store.User(ctx, user)
	if err == nil && !ok && s.Accounts != nil && s.Accounts.AskUser != nil {
		ok, err = s.Accounts.AskUser(ctx, user)
	}
	if err == nil && (!ok || u.Deactivated) {
		err = matrix.Errorf(matrix.NotFound, "there is no such user")
	}
	return err
}

// stripped brings what an invitation tells of its room into the form in which
// clients get it. Some servers send whole events.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#stripped-state
func (s *Service) stripped(id matrix.RoomID, v *matrix.RoomVersion, list []json.RawMessage) ([]json.RawMessage, error) {
	out := []json.RawMessage{}
	for _, raw := range list[:min(len(list), mostStripped)] {
		var e struct {
			Type     string          `json:"type"`
			StateKey *string         `json:"state_key"`
			Sender   matrix.UserID   `json:"sender"`
			Content  json.RawMessage `json:"content"`
		}
		if json.Unmarshal(raw, &e) != nil || e.StateKey == nil || e.Type == "" || len(e.Content) == 0 || e.Content[0] != '{' || len(raw) > event.MaxSize {
			continue
		}
		b, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}
