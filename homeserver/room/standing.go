package room

import (
	"context"
	"errors"
	"slices"

	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// Attends tells whether a server has members in a room that this server is in,
// too.
func (s *Service) Attends(ctx context.Context, id matrix.RoomID, server matrix.ServerName) (bool, error) {
	r, err := s.Store.Room(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	in, err := s.Store.ServerInRoom(ctx, s.ServerName, r.Num) // or else nobody tells us who is in
	if err != nil || !in || server == s.ServerName {
		return in, err
	}
	return s.Store.ServerInRoom(ctx, server, r.Num)
}

// Standing gives the power levels of a room that a user of any server is in now;
// nil if the user is not, as far as this server knows.
func (s *Service) Standing(ctx context.Context, id matrix.RoomID, user matrix.UserID) (*eventauth.PowerLevels, error) {
	if in, err := s.Attends(ctx, id, user.Server()); err != nil || !in {
		return nil, err
	}
	r, err := s.Store.Room(ctx, id)
	if err != nil {
		return nil, err
	}
	st, err := s.sight(ctx, r.Current, user)
	if err != nil || st.membership != "join" {
		return nil, err
	}
	return s.Levels(ctx, r)
}

// Ablest is the user of this server with the most power in a room, if it is
// enough for state events of a type: "" if it is not, or nobody is there.
func (s *Service) Ablest(ctx context.Context, id matrix.RoomID, typ string) (matrix.UserID, error) {
	r, err := s.find(ctx, id)
	if err != nil {
		return "", err
	}
	levels, err := s.Levels(ctx, r)
	if err != nil {
		return "", err
	}
	members := s.Store.LocalMembers(r.Num)
	slices.Sort(members)
	var ablest matrix.UserID
	for _, u := range members {
		if levels.User(u) >= levels.Event(typ, true) && (ablest == "" || levels.User(u) > levels.User(ablest)) {
			ablest = u
		}
	}
	return ablest, nil
}

// StateOfType gives the state events of one type in a room that user may read,
// ordered by their place.
func (s *Service) StateOfType(ctx context.Context, user matrix.UserID, id matrix.RoomID, typ string) ([]*store.Event, error) {
	a, err := s.access(ctx, id, user)
	if err != nil {
		return nil, err
	}
	return s.OfType(ctx, a.root, typ)
}

// OfType gives the events of one type in the state with a root, ordered by their
// place.
func (s *Service) OfType(ctx context.Context, root statetree.ID, typ string) ([]*store.Event, error) {
	nums := map[statetree.Key]store.EventNum{}
	var keys []statetree.Key
	err := s.tree(root).Walk(s.Store.Nodes(ctx), func(k statetree.Key, v statetree.Value) bool {
		nums[k] = store.EventNum(v)
		keys = append(keys, k)
		return true
	})
	if err != nil {
		return nil, err
	}
	if keys, err = s.Store.KeysOfType(ctx, typ, keys); err != nil {
		return nil, err
	}
	var wanted []store.EventNum
	for _, k := range keys {
		wanted = append(wanted, nums[k])
	}
	return s.ordered(ctx, wanted)
}
