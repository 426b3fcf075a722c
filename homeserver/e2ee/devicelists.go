package e2ee

import (
	"context"
	"math"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// mostUnencrypted is how many members a room without encryption may have, so
// that joining or leaving it tells of all their keys. Clients need them only if
// the room becomes encrypted, and then ask for themselves.
const mostUnencrypted = 1000

// DeviceLists tells whose keys a user's clients must ask for again, because
// they changed or because there is a common room now, and with whom there is
// none any more; both behind since and not behind upto.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user
func (s *Service) DeviceLists(ctx context.Context, user matrix.UserID, since, upto int64) (changed, left []matrix.UserID, err error) {
	m, err := s.moves(ctx, user, since, upto)
	if err != nil {
		return nil, nil, err
	}
	updated, err := s.Store.DeviceListChanges(ctx, user, since, upto)
	if err != nil {
		return nil, nil, err
	}
	for _, u := range updated {
		m[u] = m[u] | came
	}
	for u, how := range m {
		share := u == user
		if !share {
			if share, err = s.Store.SharesRoom(ctx, user, u); err != nil {
				return nil, nil, err
			}
		}
		switch {
		case share && how&came != 0:
			changed = append(changed, u)
		case !share && how&went != 0:
			left = append(left, u)
		}
	}
	slices.Sort(changed)
	slices.Sort(left)
	return changed, left, nil
}

// move is what happened to the rooms that two users share.
type move uint8

const (
	came move = 1 << iota // there may be one more
	went                  // there may be one less
)

// moves lists the users who came into rooms of user or left them, or into whose
// rooms user came or which user left.
func (s *Service) moves(ctx context.Context, user matrix.UserID, since, upto int64) (map[matrix.UserID]move, error) {
	var rooms []store.RoomNum
	news, sure := s.Store.RoomsChanged(since, upto)
	var list []store.Membership
	if sure {
		list = s.Store.MembershipNews(user, news, upto)
	} else {
		list = s.Store.Memberships(user)
	}
	for _, m := range list {
		if m.Membership != "join" && m.Pos <= since || sure && !news[m.Room] {
			continue
		}
		r, err := s.Store.RoomByNum(ctx, m.Room)
		if err != nil {
			return nil, err
		}
		if r.Last > since {
			rooms = append(rooms, m.Room)
		}
	}
	found := map[matrix.UserID]move{}
	if len(rooms) == 0 {
		return found, nil
	}
	events, err := s.Store.MemberEvents(ctx, rooms, since, upto)
	if err != nil {
		return nil, err
	}
	before, err := s.before(ctx, events)
	if err != nil {
		return nil, err
	}
	own := map[store.RoomNum]bool{}
	for _, e := range events {
		was, is := before[e.Replaces], e.PDU.Membership()
		target := matrix.UserID(*e.PDU.StateKey)
		switch {
		case (was == "join") == (is == "join"):
		case target == user:
			own[e.Room] = true
		case is == "join":
			found[target] |= came
		default:
			found[target] |= went
		}
	}
	for room := range own {
		if err := s.others(ctx, user, room, found); err != nil {
			return nil, err
		}
		if err := s.itself(ctx, user, room, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// before gives the memberships that member events replaced, by number.
func (s *Service) before(ctx context.Context, events []*store.Event) (map[store.EventNum]string, error) {
	var nums []store.EventNum
	for _, e := range events {
		if e.Replaces != 0 {
			nums = append(nums, e.Replaces)
		}
	}
	memberships := make(map[store.EventNum]string, len(nums))
	if len(nums) == 0 {
		return memberships, nil
	}
	old, err := s.Store.EventsByNum(ctx, nums)
	for num, e := range old {
		memberships[num] = e.PDU.Membership()
	}
	return memberships, err
}

// others adds the members of a room that user came into or left.
func (s *Service) others(ctx context.Context, user matrix.UserID, room store.RoomNum, found map[matrix.UserID]move) error {
	how := went
	if s.Store.Membership(user, room).Membership == "join" {
		how = came
	}
	most := mostUnencrypted
	encrypted, err := s.encrypted(ctx, room)
	if err != nil {
		return err
	}
	if encrypted {
		most = math.MaxInt32
	}
	members, err := s.Store.Members(ctx, room, "join", most)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.User != user {
			found[m.User] |= how
		}
	}
	return nil
}

// itself adds a user who came into a room with other servers: these learn of the
// user's devices now, so that the devices may look whether all is well.
func (s *Service) itself(ctx context.Context, user matrix.UserID, room store.RoomNum, found map[matrix.UserID]move) error {
	if s.Store.Membership(user, room).Membership != "join" {
		return nil
	}
	servers, err := s.Store.Servers(ctx, room)
	if err == nil && slices.ContainsFunc(servers, func(name matrix.ServerName) bool { return name != s.ServerName }) {
		found[user] |= came
	}
	return err
}

// encrypted tells whether a room is encrypted now.
func (s *Service) encrypted(ctx context.Context, num store.RoomNum) (bool, error) {
	k, ok, err := s.Store.StateKey(ctx, "m.room.encryption", "")
	if err != nil || !ok {
		return false, err
	}
	room, err := s.Store.RoomByNum(ctx, num)
	if err != nil {
		return false, err
	}
	_, ok, err = statetree.Open(room.Current).Value(s.Store.Nodes(ctx), k)
	return ok, err
}
