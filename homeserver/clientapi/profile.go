package clientapi

import (
	"context"
	"encoding/json"

	"switchboard/homeserver/account"
	"switchboard/homeserver/edge"
	"switchboard/homeserver/matrix"
)

var profileRoutes = []route{
	{"getUserProfile", "GET /_matrix/client/v3/profile/{userId}", public, (*API).getUserProfile},
	{"getProfileField", "GET /_matrix/client/v3/profile/{userId}/{keyName}", public, (*API).getProfileField},
	{"", "PATCH /_matrix/client/v3/profile/{userId}", guests, (*API).patchProfile},
	{"setProfileField", "PUT /_matrix/client/v3/profile/{userId}/{keyName}", guests, (*API).setProfileField},
	{"deleteProfileField", "DELETE /_matrix/client/v3/profile/{userId}/{keyName}", guests, (*API).deleteProfileField},
	{"", "GET /_matrix/client/unstable/uk.tcpip.msc4133/profile/{userId}/{keyName}", public, (*API).getProfileField},
	{"", "PUT /_matrix/client/unstable/uk.tcpip.msc4133/profile/{userId}/{keyName}", guests, (*API).setProfileField},
	{"", "DELETE /_matrix/client/unstable/uk.tcpip.msc4133/profile/{userId}/{keyName}", guests, (*API).deleteProfileField},
}

// getUserProfile shows what a user tells about itself.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuserid
func (a *API) getUserProfile(r *request) (any, error) { return a.profile(r) }

func (a *API) profile(r *request) (account.Profile, error) {
	user, err := matrix.ParseUserID(r.PathValue("userId"))
	if err != nil {
		return nil, err
	}
	return a.Accounts.Profile(r.Context(), user)
}

// getProfileField shows one field of a profile.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuseridkeyname
func (a *API) getProfileField(r *request) (any, error) {
	p, err := a.profile(r)
	if err != nil {
		return nil, err
	}
	name := r.PathValue("keyName")
	value, ok := p[name]
	if !ok && (name == account.DisplayName || name == account.AvatarURL) {
		return edge.Empty{}, nil // mautrix looks before it sets them, and takes 404 for a fault
	}
	if !ok {
		return nil, matrix.Errorf(matrix.NotFound, "the profile has no such field")
	}
	return map[string]json.RawMessage{name: value}, nil
}

// setProfileField writes one field of the user's own profile. A name or picture
// goes into the rooms that the user is in.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname
func (a *API) setProfileField(r *request) (any, error) {
	b, err := r.Object()
	if err != nil {
		return nil, err
	}
	var body map[string]json.RawMessage
	if err := edge.Decode(b, &body); err != nil {
		return nil, err
	}
	value, ok := body[r.PathValue("keyName")]
	if !ok {
		return nil, matrix.Errorf(matrix.MissingParam, "the body needs the name of the field as its key")
	}
	return a.putProfileField(r, value)
}

// patchProfile writes several fields of the user's own profile. Bridges tell by it who somebody is on their network.
//
// Source: https://pkg.go.dev/maunium.net/go/mautrix#Client.BeeperUpdateProfile
func (a *API) patchProfile(r *request) (any, error) {
	var fields map[string]json.RawMessage
	if err := r.JSON(&fields); err != nil {
		return nil, err
	}
	return a.putProfile(r, fields)
}

// deleteProfileField deletes one field of the user's own profile.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3profileuseridkeyname
func (a *API) deleteProfileField(r *request) (any, error) { return a.putProfileField(r, nil) }

func (a *API) putProfileField(r *request, value json.RawMessage) (any, error) {
	return a.putProfile(r, map[string]json.RawMessage{r.PathValue("keyName"): value})
}

// putProfile writes fields of a profile, all or none; a value of nil deletes one.
func (a *API) putProfile(r *request, fields map[string]json.RawMessage) (any, error) {
	if err := r.self(); err != nil {
		return nil, err
	}
	inRooms := false
	for name := range fields {
		if r.Guest && name != account.DisplayName {
			return nil, matrix.Errorf(matrix.GuestAccessForbidden, "guests may set no more than their display name")
		}
		inRooms = inRooms || name == account.DisplayName || name == account.AvatarURL
	}
	if err := r.active(); err != nil {
		return nil, err
	}
	if err := a.Accounts.SetProfileFields(r.Context(), r.User, fields); err != nil {
		return nil, err
	}
	if inRooms {
		return edge.Empty{}, a.Rooms.UpdateProfile(context.WithoutCancel(r.Context()), r.User) // not in half of them
	}
	return edge.Empty{}, nil
}
