package fedclient

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"switchboard/homeserver/matrix"
)

// PublishedRoom is a room as directories show it.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1publicrooms
type PublishedRoom struct {
	ID             matrix.RoomID `json:"room_id"`
	Name           string        `json:"name,omitempty"`
	Topic          string        `json:"topic,omitempty"`
	CanonicalAlias string        `json:"canonical_alias,omitempty"`
	AvatarURL      string        `json:"avatar_url,omitempty"`
	Members        int64         `json:"num_joined_members"`
	WorldReadable  bool          `json:"world_readable"`
	GuestCanJoin   bool          `json:"guest_can_join"`
	JoinRule       string        `json:"join_rule,omitempty"`
	Type           string        `json:"room_type,omitempty"`
}

// PublicRooms is a page of a server's directory.
type PublicRooms struct {
	Rooms     []PublishedRoom `json:"chunk"`
	NextBatch string          `json:"next_batch,omitempty"`
	PrevBatch string          `json:"prev_batch,omitempty"`
	Estimate  *int64          `json:"total_room_count_estimate,omitempty"`
}

// PublicRoomsQuery tells which rooms of a directory are wanted.
type PublicRoomsQuery struct {
	Limit       int    // 0: no limit
	Since       string // a NextBatch or PrevBatch; "": from the beginning
	AllNetworks bool
	Network     string // instance ID of a third-party network; "": Matrix

	// Filter is the filter object as clients send it; nil: none.
	Filter json.RawMessage
}

// PublicRooms asks for a page of a server's directory.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1publicrooms
func (c *Client) PublicRooms(ctx context.Context, server matrix.ServerName, q PublicRoomsQuery) (*PublicRooms, error) {
	k := call{op: "getPublicRooms", method: http.MethodGet, path: "/_matrix/federation/v1/publicRooms"}
	if q.Filter == nil {
		k.query = values("since", q.Since, "third_party_instance_id", q.Network)
		if q.Limit > 0 {
			k.query.Set("limit", strconv.Itoa(q.Limit))
		}
		if q.AllNetworks {
			k.query.Set("include_all_networks", "true")
		}
	} else {
		k.op, k.method = "queryPublicRooms", http.MethodPost
		k.body = struct {
			Limit   int             `json:"limit,omitempty"`
			Since   string          `json:"since,omitempty"`
			Filter  json.RawMessage `json:"filter"`
			All     bool            `json:"include_all_networks,omitempty"`
			Network string          `json:"third_party_instance_id,omitempty"`
		}{q.Limit, q.Since, q.Filter, q.AllNetworks, q.Network}
	}
	var answer struct {
		PublicRooms
		Rooms []json.RawMessage `json:"chunk"`
	}
	if err := c.do(ctx, server, k, &answer); err != nil {
		return nil, err
	}
	answer.PublicRooms.Rooms = readRooms(answer.Rooms, func(r PublishedRoom) matrix.RoomID { return r.ID })
	return &answer.PublicRooms, nil
}

// readRooms reads those of a list of rooms that can be read.
func readRooms[R any](list []json.RawMessage, id func(R) matrix.RoomID) []R {
	rooms := make([]R, 0, len(list))
	for _, raw := range list {
		var r R
		if json.Unmarshal(raw, &r) != nil {
			continue
		}
		if _, err := matrix.ParseRoomID(string(id(r))); err == nil {
			rooms = append(rooms, r)
		}
	}
	return rooms
}

// SpaceRoom is a room of a space.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid
type SpaceRoom struct {
	PublishedRoom
	AllowedRooms []matrix.RoomID `json:"allowed_room_ids,omitempty"`
	Encryption   string          `json:"encryption,omitempty"`
	Version      string          `json:"room_version,omitempty"`

	// Children are the room's m.space.child events, stripped but for their
	// time. Only the room that was asked for has them.
	Children []json.RawMessage `json:"children_state,omitempty"`
}

// Hierarchy is a space and its children, one level deep.
type Hierarchy struct {
	Room         SpaceRoom       `json:"room"`
	Children     []SpaceRoom     `json:"children"`
	Inaccessible []matrix.RoomID `json:"inaccessible_children"`
}

// Hierarchy asks for a space and those of its children that the server knows.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid
func (c *Client) Hierarchy(ctx context.Context, server matrix.ServerName, room matrix.RoomID, suggestedOnly bool) (*Hierarchy, error) {
	k := call{op: "getSpaceHierarchy", method: http.MethodGet, path: path("/_matrix/federation/v1/hierarchy/{}", room)}
	if suggestedOnly {
		k.query = values("suggested_only", "true")
	}
	var answer struct {
		Hierarchy
		Children []json.RawMessage `json:"children"`
	}
	if err := c.do(ctx, server, k, &answer); err != nil {
		return nil, err
	}
	if answer.Room.ID != room {
		return nil, wrap(k.op, &AnswerError{server, errors.New("another room")})
	}
	answer.Hierarchy.Children = readRooms(answer.Children, func(r SpaceRoom) matrix.RoomID { return r.ID })
	return &answer.Hierarchy, nil
}

// Version is the program that a server runs, as it says itself.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1version
type Version struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Version asks a server what it runs.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1version
func (c *Client) Version(ctx context.Context, server matrix.ServerName) (Version, error) {
	var answer struct {
		Server Version `json:"server"`
	}
	err := c.do(ctx, server, call{op: "getVersion", method: http.MethodGet, path: "/_matrix/federation/v1/version", unsigned: true}, &answer)
	return Version{clean(answer.Server.Name), clean(answer.Server.Version)}, err
}
