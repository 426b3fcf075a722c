// Package directory knows how rooms and people are found: aliases, the list of
// public rooms, the search for users. It does not change rooms.
package directory

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
	"switchboard/registrations"
)

// Service finds rooms and people. Its methods may be called from several
// goroutines.
type Service struct {
	Store         *store.Store
	Rooms         *room.Service
	ServerName    matrix.ServerName
	Registrations *registrations.Set

	// Client asks other servers; nil asks none.
	Client *fedclient.Client

	// AskAlias asks the appservices whether one makes a room for an alias that
	// is not known. Nil asks nobody.
	AskAlias func(ctx context.Context, alias matrix.RoomAlias) (bool, error)

	// PolicyLists are the IDs or aliases of the rooms of policy lists to follow.
	PolicyLists []string

	lists []matrix.RoomID // the rooms of PolicyLists, "" where none was found; only for Run
}

// Resolve finds the room that an alias stands for, and servers that are in it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directoryroomroomalias
func (s *Service) Resolve(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	unknown := matrix.Errorf(matrix.NotFound, "no room is known by the name %s", alias)
	if err := s.Rooms.RefuseAlias(ctx, alias); err != nil {
		return "", nil, err
	}
	if alias.Server() != s.ServerName {
		return s.resolveElsewhere(ctx, alias, unknown)
	}
	a, err := s.Store.Alias(ctx, alias)
	if errors.Is(err, store.ErrNotFound) && s.AskAlias != nil {
		made, askErr := s.AskAlias(ctx, alias)
		if askErr != nil {
			return "", nil, askErr
		}
		if made {
			a, err = s.Store.Alias(ctx, alias)
		}
	}
	if errors.Is(err, store.ErrNotFound) || err == nil && a.Room == 0 {
		return "", nil, unknown
	}
	if err != nil {
		return "", nil, err
	}
	r, err := s.Store.RoomByNum(ctx, a.Room)
	if err != nil {
		return "", nil, err
	}
	return r.ID, []matrix.ServerName{s.ServerName}, nil
}

// resolveElsewhere asks the server of an alias.
func (s *Service) resolveElsewhere(ctx context.Context, alias matrix.RoomAlias, unknown error) (matrix.RoomID, []matrix.ServerName, error) {
	if s.Client == nil {
		return "", nil, unknown
	}
	id, servers, err := s.Client.RoomAlias(ctx, alias)
	if err != nil {
		return "", nil, s.answer(alias.Server(), err, unknown)
	}
	if !slices.Contains(servers, alias.Server()) {
		servers = append(servers, alias.Server())
	}
	return id, servers, nil
}

// answer is what a client is told when another server did not help: what that
// server said, or that it cannot be reached.
func (s *Service) answer(server matrix.ServerName, err, unknown error) error {
	var r *fedclient.ResponseError
	switch {
	case errors.Is(err, fedclient.ErrNotPermitted):
		return err
	case errors.As(err, &r) && r.Status == 404:
		return unknown
	case errors.As(err, &r) && r.Status < 500:
		return r.Matrix()
	}
	return &matrix.Error{Code: matrix.Unknown, Status: 502, Text: string(server) + " could not be reached", Cause: err}
}

// PublicRoomsOf gives a part of another server's list of public rooms. Filter is
// the client's filter object, nil for none.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1publicrooms
func (s *Service) PublicRoomsOf(ctx context.Context, server matrix.ServerName, q Query, filter json.RawMessage) (*fedclient.PublicRooms, error) {
	none := matrix.Errorf(matrix.NotFound, "the list of %s cannot be reached", server)
	if s.Client == nil {
		return nil, none
	}
	list, err := s.Client.PublicRooms(ctx, server, fedclient.PublicRoomsQuery{
		Limit: q.Limit, Since: q.Since, AllNetworks: q.AllNetworks, Network: q.Network, Filter: filter,
	})
	if err != nil {
		return nil, s.answer(server, err, none)
	}
	return list, nil
}

// Caller is who asks: a user, or an appservice on behalf of one.
type Caller struct {
	User       matrix.UserID
	Appservice *registrations.Registration // nil for others
	Admin      bool
}

// speaksFor tells whether a user is the caller, or belongs to the appservice that
// is.
func (c Caller) speaksFor(user matrix.UserID) bool {
	return user == c.User || c.Appservice != nil && c.Appservice.CoversUser(string(user))
}

// SetAlias gives a room a name on this server.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias
func (s *Service) SetAlias(ctx context.Context, c Caller, alias matrix.RoomAlias, id matrix.RoomID) error {
	if err := s.mayName(c, alias); err != nil {
		return err
	}
	r, err := s.Store.Room(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return matrix.Errorf(matrix.NotFound, "no such room")
	}
	if err != nil {
		return err
	}
	if c.Appservice == nil && !c.Admin && s.Store.Membership(c.User, r.Num).Membership != "join" {
		return matrix.Errorf(matrix.Forbidden, "you are not in this room")
	}
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		free, err := tx.PutAlias(ctx, store.Alias{Alias: alias, Room: r.Num, Creator: c.User})
		if err == nil && !free {
			return &matrix.Error{Code: matrix.Unknown, Status: 409, Text: "the name " + string(alias) + " is taken"}
		}
		return err
	})
}

// mayName refuses names of other servers, and those that belong to an appservice.
func (s *Service) mayName(c Caller, alias matrix.RoomAlias) error {
	if alias.Server() != s.ServerName {
		return matrix.Errorf(matrix.InvalidParam, "aliases of this server end in :%s", s.ServerName)
	}
	if c.Appservice != nil && !c.Appservice.CoversAlias(string(alias)) {
		return matrix.Errorf(matrix.Exclusive, "%s is outside the appservice's namespace", alias)
	}
	if owner := s.Registrations.ExclusiveAlias(string(alias)); owner != nil && owner != c.Appservice {
		return matrix.Errorf(matrix.Exclusive, "%s belongs to an appservice", alias)
	}
	return nil
}

// MayName tells whether somebody may give a room this name; it is for rooms
// that are to be made.
func (s *Service) MayName(c Caller, alias matrix.RoomAlias) error { return s.mayName(c, alias) }

// DeleteAlias takes a name away. It may be done by who gave it, by the room's
// moderators and by administrators.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias
func (s *Service) DeleteAlias(ctx context.Context, c Caller, alias matrix.RoomAlias) error {
	a, err := s.Store.Alias(ctx, alias)
	if errors.Is(err, store.ErrNotFound) {
		return matrix.Errorf(matrix.NotFound, "no room is known by the name %s", alias)
	}
	if err != nil {
		return err
	}
	if err := s.mayName(c, alias); err != nil {
		return err
	}
	if a.Creator != c.User && !c.Admin && c.Appservice == nil {
		ok, err := s.moderates(ctx, c.User, a.Room, "m.room.canonical_alias")
		if err != nil {
			return err
		}
		if !ok {
			return matrix.Errorf(matrix.Forbidden, "only who gave the name and the room's moderators may take it away")
		}
	}
	if err := s.Store.Update(ctx, func(tx *store.Tx) error { return tx.DropAlias(ctx, alias) }); err != nil {
		return err
	}
	return s.Rooms.ForgetAlias(context.WithoutCancel(ctx), a.Room, c.User, alias) // the name is gone, whoever waits for it
}

// moderates tells whether a member of a room may send a state event there.
func (s *Service) moderates(ctx context.Context, user matrix.UserID, num store.RoomNum, typ string) (bool, error) {
	r, err := s.Store.RoomByNum(ctx, num)
	if err != nil {
		return false, err
	}
	if s.Store.Membership(user, num).Membership != "join" {
		return false, nil
	}
	levels, err := s.Rooms.Levels(ctx, r)
	if err != nil {
		return false, err
	}
	return levels.User(user) >= levels.Event(typ, true), nil
}

// Aliases lists the names of a room that user may read.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidaliases
func (s *Service) Aliases(ctx context.Context, user matrix.UserID, id matrix.RoomID) ([]matrix.RoomAlias, error) {
	r, err := s.Rooms.Readable(ctx, id, user)
	if err != nil {
		return nil, err
	}
	return s.Store.Aliases(ctx, r.Num)
}

// Listed tells whether a room is in the directory.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directorylistroomroomid
func (s *Service) Listed(ctx context.Context, id matrix.RoomID) (bool, error) {
	r, err := s.Store.Room(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return false, matrix.Errorf(matrix.NotFound, "no such room")
	}
	if err != nil {
		return false, err
	}
	return s.Store.Published(ctx, "", r.Num)
}

// List puts a room into the directory or takes it out. Network is "" for the
// server's own list, else a network of the caller, an appservice.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid
func (s *Service) List(ctx context.Context, c Caller, network string, id matrix.RoomID, public bool) error {
	r, err := s.Store.Room(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return matrix.Errorf(matrix.NotFound, "no such room")
	}
	if err != nil {
		return err
	}
	list := ""
	switch {
	case network != "" && c.Appservice == nil:
		return matrix.Errorf(matrix.Forbidden, "only appservices have lists of their own")
	case network != "" && public && !r.Open && !slices.ContainsFunc(s.Store.LocalMembers(r.Num), c.speaksFor):
		return matrix.Errorf(matrix.Forbidden, "an appservice may list rooms that are open, or that a user of its own is in")
	case network != "":
		list = c.Appservice.ID + "|" + network
	case !c.Admin:
		ok, err := s.moderates(ctx, c.User, r.Num, "m.room.canonical_alias")
		if err != nil {
			return err
		}
		if !ok {
			return matrix.Errorf(matrix.Forbidden, "only moderators of the room may change whether it is listed")
		}
	}
	return s.Store.Update(ctx, func(tx *store.Tx) error { return tx.Publish(ctx, list, r.Num, public) })
}

// Query asks for a part of the list of public rooms.
type Query struct {
	Limit  int    `json:"limit"`
	Since  string `json:"since"`
	Filter struct {
		Term      string    `json:"generic_search_term"`
		RoomTypes []*string `json:"room_types"`
	} `json:"filter"`
	AllNetworks bool   `json:"include_all_networks"`
	Network     string `json:"third_party_instance_id"`
}

// PublicRooms is a part of the list of public rooms.
type PublicRooms struct {
	Chunk []*room.Summary `json:"chunk"`
	Next  string          `json:"next_batch,omitempty"`
	Prev  string          `json:"prev_batch,omitempty"`
	Total int             `json:"total_room_count_estimate"`
}

// mostListed is the largest part of the list that one request gets.
const mostListed = 500

// PublicRooms gives a part of the list of public rooms, the largest rooms first.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3publicrooms
func (s *Service) PublicRooms(ctx context.Context, q Query) (*PublicRooms, error) {
	list := q.Network
	if q.AllNetworks {
		list = "*"
		if q.Network != "" {
			return nil, matrix.Errorf(matrix.InvalidParam, "third_party_instance_id names one network, include_all_networks asks for all")
		}
	}
	if q.Limit < 0 {
		return nil, matrix.Errorf(matrix.InvalidParam, "limit must not be negative")
	}
	start := 0
	if q.Since != "" {
		n, err := strconv.Atoi(q.Since)
		if err != nil || n < 0 {
			return nil, matrix.Errorf(matrix.InvalidParam, "since is not a token of this list")
		}
		start = n
	}
	limit := q.Limit
	if limit <= 0 || limit > mostListed {
		limit = mostListed
	}
	rooms, err := s.Store.PublicRooms(ctx, list)
	if err != nil {
		return nil, err
	}
	all, err := s.matching(ctx, rooms, q)
	if err != nil {
		return nil, err
	}
	answer := &PublicRooms{Chunk: []*room.Summary{}, Total: len(all)}
	if start < len(all) {
		end := min(start+limit, len(all))
		answer.Chunk = all[start:end]
		if end < len(all) {
			answer.Next = strconv.Itoa(end)
		}
	}
	if start > 0 {
		answer.Prev = strconv.Itoa(max(0, start-limit))
	}
	return answer, nil
}

// matching describes the rooms that q looks for.
func (s *Service) matching(ctx context.Context, rooms []*store.Room, q Query) ([]*room.Summary, error) {
	var all []*room.Summary
	term := strings.ToLower(q.Filter.Term)
	for _, r := range rooms {
		sum, err := s.Rooms.Summary(ctx, r)
		if err != nil {
			return nil, err
		}
		text := strings.ToLower(sum.Name + "\n" + sum.Topic + "\n" + string(sum.Alias))
		if !strings.Contains(text, term) || !wantsType(q.Filter.RoomTypes, sum.Type) {
			continue
		}
		all = append(all, sum)
	}
	return all, nil
}

// wantsType tells whether a room type is wanted; null stands for rooms with none.
func wantsType(wanted []*string, typ string) bool {
	if wanted == nil {
		return true
	}
	return slices.ContainsFunc(wanted, func(w *string) bool { return w == nil && typ == "" || w != nil && *w == typ })
}
