package fedapi

import (
	"encoding/json"

	"switchboard/homeserver/edge"

	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/federation"
	"switchboard/homeserver/matrix"
)

var membershipRoutes = []route{
	{"makeJoin", "GET /_matrix/federation/v1/make_join/{roomId}/{userId}", servers, small, (*API).makeJoin},
	{"sendJoinV2", "PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}", servers, small, (*API).sendJoinV2},
	{"", "PUT /_matrix/federation/v1/send_join/{roomId}/{eventId}", servers, small, (*API).sendJoinV1},
	{"makeLeave", "GET /_matrix/federation/v1/make_leave/{roomId}/{userId}", servers, small, (*API).makeLeave},
	{"sendLeaveV2", "PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}", servers, small, (*API).sendLeaveV2},
	{"", "PUT /_matrix/federation/v1/send_leave/{roomId}/{eventId}", servers, small, (*API).sendLeaveV1},
	{"makeKnock", "GET /_matrix/federation/v1/make_knock/{roomId}/{userId}", servers, small, (*API).makeKnock},
	{"sendKnock", "PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId}", servers, small, (*API).sendKnock},
	{"", "GET /_matrix/federation/unstable/rooms/{roomId}/complexity", servers, small, (*API).complexity},
	{"sendInviteV2", "PUT /_matrix/federation/v2/invite/{roomId}/{eventId}", servers, small, (*API).sendInviteV2},
	{"sendInviteV1", "PUT /_matrix/federation/v1/invite/{roomId}/{eventId}", servers, small, (*API).sendInviteV1},
	{"exchangeThirdPartyInvite", "PUT /_matrix/federation/v1/exchange_third_party_invite/{roomId}", servers, small, (*API).exchangeThirdPartyInvite},
	{"onBindThirdPartyIdentifier", "PUT /_matrix/federation/v1/3pid/onbind", public, small, (*API).onBindThirdPartyIdentifier},
}

// template drafts a membership.
func (a *API) template(r *request, membership string, versions []string) (any, error) {
	room, err := r.Room()
	if err != nil {
		return nil, err
	}
	user, err := matrix.ParseUserID(r.PathValue("userId"))
	if err != nil {
		return nil, err
	}
	t, err := a.Federation.Make(r.Context(), r.origin, room, user, membership, versions)
	if err != nil {
		return nil, err
	}
	return map[string]any{"room_version": t.Version.ID, "event": t.Event}, nil
}

// versions are the room versions that the other server knows; the first one
// where it does not say.
func (r *request) versions() []string {
	if v := r.URL.Query()["ver"]; len(v) > 0 {
		return v
	}
	return []string{"1"}
}

// makeJoin drafts a join.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid
func (a *API) makeJoin(r *request) (any, error) { return a.template(r, event.Join, r.versions()) }

// makeLeave drafts a leave.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_leaveroomiduserid
func (a *API) makeLeave(r *request) (any, error) { return a.template(r, event.Leave, nil) }

// makeKnock drafts a knock.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_knockroomiduserid
func (a *API) makeKnock(r *request) (any, error) { return a.template(r, event.Knock, r.versions()) }

// sendJoinV2 lets a user in.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
func (a *API) sendJoinV2(r *request) (any, error) {
	omit, err := r.Flag("omit_members")
	if err != nil {
		return nil, err
	}
	return a.sendJoin(r, omit)
}

func (a *API) sendJoin(r *request, omit bool) (answer, error) {
	room, id, err := r.roomEvent()
	if err != nil {
		return nil, err
	}
	raw, err := r.Object()
	if err != nil {
		return nil, err
	}
	j, err := a.Federation.SendJoin(r.Context(), r.origin, room, id, raw, omit)
	if err != nil {
		return nil, err
	}
	out := answer{
		{name: "origin", value: a.ServerName}, {name: "members_omitted", value: j.MembersOmitted}, {name: "event", value: j.Event},
		{name: "state", each: j.State}, {name: "auth_chain", each: j.Auth},
	}
	if j.Servers != nil {
		out = append(out, member{name: "servers_in_room", value: j.Servers})
	}
	return out, nil
}

// sendJoinV1 is the older form, whose answer stands in a pair with a status.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
func (a *API) sendJoinV1(r *request) (any, error) {
	out, err := a.sendJoin(r, false)
	if err != nil {
		return nil, err
	}
	return pair{out}, nil
}

// sendLeaveV2 lets a user out.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_leaveroomideventid
func (a *API) sendLeaveV2(r *request) (any, error) {
	room, id, err := r.roomEvent()
	if err != nil {
		return nil, err
	}
	raw, err := r.Object()
	if err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Federation.SendLeave(r.Context(), r.origin, room, id, raw)
}

// sendLeaveV1 is the older form, whose answer stands in a pair with a status.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_leaveroomideventid
func (a *API) sendLeaveV1(r *request) (any, error) {
	if _, err := a.sendLeaveV2(r); err != nil {
		return nil, err
	}
	return pair{answer{}}, nil
}

// sendKnock takes a knock.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_knockroomideventid
func (a *API) sendKnock(r *request) (any, error) {
	room, id, err := r.roomEvent()
	if err != nil {
		return nil, err
	}
	raw, err := r.Object()
	if err != nil {
		return nil, err
	}
	state, err := a.Federation.SendKnock(r.Context(), r.origin, room, id, raw)
	if err != nil {
		return nil, err
	}
	return answer{{name: "knock_room_state", list: state}}, nil
}

// complexity tells how much work it is to join a room. Synapse asks for it.
func (a *API) complexity(r *request) (any, error) {
	id, err := r.Room()
	if err != nil {
		return nil, err
	}
	v1, err := a.Federation.Complexity(r.Context(), r.origin, id)
	return map[string]float64{"v1": v1}, err
}

// sendInviteV2 takes an invitation of a user of this server.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid
func (a *API) sendInviteV2(r *request) (any, error) {
	var in federation.Invitation
	if err := r.JSON(&in); err != nil {
		return nil, err
	}
	return a.invite(r, in)
}

func (a *API) invite(r *request, in federation.Invitation) (answer, error) {
	room, id, err := r.roomEvent()
	if err != nil {
		return nil, err
	}
	if len(in.Event) == 0 || in.Version == "" {
		return nil, matrix.Errorf(matrix.MissingParam, "room_version and event are needed")
	}
	signed, err := a.Federation.ReceiveInvite(r.Context(), r.origin, room, id, in)
	if err != nil {
		return nil, err
	}
	return answer{{name: "event", value: signed}}, nil
}

// sendInviteV1 is the older form, for rooms of the versions 1 and 2: the event is
// the body, what it tells of the room stands in its unsigned part.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1inviteroomideventid
func (a *API) sendInviteV1(r *request) (any, error) {
	var body struct {
		Unsigned struct {
			State []json.RawMessage `json:"invite_room_state"`
		} `json:"unsigned"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	raw, err := r.Object()
	if err != nil {
		return nil, err
	}
	out, err := a.invite(r, federation.Invitation{Version: "1", Event: raw, State: body.Unsigned.State})
	if err != nil {
		return nil, err
	}
	return pair{out}, nil
}

// exchangeThirdPartyInvite turns the invitation of an address into one of a user.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid
func (a *API) exchangeThirdPartyInvite(r *request) (any, error) {
	room, err := r.Room()
	if err != nil {
		return nil, err
	}
	raw, err := r.Object()
	if err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Federation.Exchange(r.Context(), r.origin, room, raw)
}

// onBindThirdPartyIdentifier takes the news that an address is a user's.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv13pidonbind
func (a *API) onBindThirdPartyIdentifier(r *request) (any, error) {
	var b fedclient.Binding
	if err := r.JSON(&b); err != nil {
		return nil, err
	}
	return edge.Empty{}, a.Federation.Bound(r.Context(), b)
}
