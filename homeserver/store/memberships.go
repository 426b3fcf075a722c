package store

import (
	"context"
	"fmt"
	"sync"

	"switchboard/homeserver/matrix"
)

// Membership is what a user is in a room now.
type Membership struct {
	User       matrix.UserID
	Room       RoomNum
	Membership string   // "join", "invite", "knock", "leave" or "ban"
	Event      EventNum // the m.room.member event
	Pos        int64    // of the log, when it came to that
	Local      bool     // a user of this server
	Forgotten  bool
}

// members holds the memberships of this server's users, so that an event wakes
// just those whom it concerns.
type members struct {
	mu     sync.RWMutex // guards all below; never held while calling out
	byUser map[matrix.UserID]*residence
	joined map[RoomNum]map[matrix.UserID]struct{}
}

// residence is what a user is in which room.
type residence struct {
	rooms map[RoomNum]Membership
	last  int64 // the newest Pos
	drops int   // see Forgettings
}

// of gives the residence of a user, an empty one for who never was in a room. m.mu
// is held.
func (m *members) of(user matrix.UserID) *residence {
	if r := m.byUser[user]; r != nil {
		return r
	}
	return &residence{}
}

func (m *members) set(ms Membership) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.of(ms.User)
	if r.rooms == nil {
		r.rooms = map[RoomNum]Membership{}
		m.byUser[ms.User] = r
	}
	r.rooms[ms.Room] = ms
	if r.last = max(r.last, ms.Pos); ms.Forgotten {
		r.drops++
	}
	users := m.joined[ms.Room]
	switch {
	case ms.Membership == "join" && users == nil:
		m.joined[ms.Room] = map[matrix.UserID]struct{}{ms.User: {}}
	case ms.Membership == "join":
		users[ms.User] = struct{}{}
	default:
		delete(users, ms.User)
		if len(users) == 0 {
			delete(m.joined, ms.Room)
		}
	}
}

// since is the position since which the first of the users of this server who
// are joined to a room has been; 0 if none is.
func (m *members) since(room RoomNum) (first int64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for u := range m.joined[room] {
		if pos := m.of(u).rooms[room].Pos; first == 0 || pos < first {
			first = pos
		}
	}
	return first
}

// Memberships lists what a user of this server is in which room, forgotten
// rooms included.
func (s *Store) Memberships(user matrix.UserID) []Membership {
	s.members.mu.RLock()
	defer s.members.mu.RUnlock()
	rooms := s.members.of(user).rooms
	list := make([]Membership, 0, len(rooms))
	for _, m := range rooms {
		list = append(list, m)
	}
	return list
}

// MembershipNews is Memberships for some rooms, and those in which the user became
// something behind since. It costs little where a few of many rooms are meant.
func (s *Store) MembershipNews(user matrix.UserID, rooms map[RoomNum]bool, since int64) []Membership {
	s.members.mu.RLock()
	defer s.members.mu.RUnlock()
	var list []Membership
	is := s.members.of(user)
	if is.last <= since && len(rooms) < len(is.rooms) {
		for room := range rooms {
			if m, ok := is.rooms[room]; ok {
				list = append(list, m)
			}
		}
		return list
	}
	for room, m := range is.rooms {
		if m.Pos > since || rooms[room] {
			list = append(list, m)
		}
	}
	return list
}

// Forgettings counts how often a user has forgotten a room. That has no position in
// the log; the number says whether it has happened since an earlier look.
func (s *Store) Forgettings(user matrix.UserID) int {
	s.members.mu.RLock()
	defer s.members.mu.RUnlock()
	return s.members.of(user).drops
}

// Membership is what a user of this server is in a room; the zero value if the
// user never was in it.
func (s *Store) Membership(user matrix.UserID, room RoomNum) Membership {
	s.members.mu.RLock()
	defer s.members.mu.RUnlock()
	return s.members.of(user).rooms[room]
}

// LocalMembers lists the users of this server who are joined to a room.
func (s *Store) LocalMembers(room RoomNum) []matrix.UserID {
	s.members.mu.RLock()
	defer s.members.mu.RUnlock()
	list := make([]matrix.UserID, 0, len(s.members.joined[room]))
	for u := range s.members.joined[room] {
		list = append(list, u)
	}
	return list
}

// ShareRoom tells whether two users of this server are joined to a common room.
func (s *Store) ShareRoom(a, b matrix.UserID) bool {
	s.members.mu.RLock()
	defer s.members.mu.RUnlock()
	ra, rb := s.members.of(a).rooms, s.members.of(b).rooms
	if len(ra) > len(rb) {
		ra, rb = rb, ra
	}
	for room, m := range ra {
		if m.Membership == "join" && rb[room].Membership == "join" {
			return true
		}
	}
	return false
}

// Neighbours lists the users of this server who share a room with one of users.
func (s *Store) Neighbours(users ...matrix.UserID) []matrix.UserID {
	s.members.mu.RLock()
	defer s.members.mu.RUnlock()
	seen := map[matrix.UserID]struct{}{}
	rooms := map[RoomNum]struct{}{}
	for _, user := range users {
		for room, m := range s.members.of(user).rooms {
			if _, done := rooms[room]; done || m.Membership != "join" {
				continue
			}
			rooms[room] = struct{}{}
			for u := range s.members.joined[room] {
				seen[u] = struct{}{}
			}
		}
	}
	list := make([]matrix.UserID, 0, len(seen))
	for u := range seen {
		list = append(list, u)
	}
	return list
}

// SharedRooms lists the rooms that two users are joined to, whatever servers they
// are on, in order of their numbers, which are in nums.
func (s *Store) SharedRooms(ctx context.Context, a, b matrix.UserID) (nums []RoomNum, ids []matrix.RoomID, err error) {
	rows, err := s.db.Query(ctx, `SELECT r.num, r.room_id FROM memberships x JOIN memberships y ON y.room = x.room JOIN rooms r ON r.num = x.room
		WHERE x.user_id = $1 AND y.user_id = $2 AND x.membership = 'join' AND y.membership = 'join' ORDER BY r.num`, a, b)
	if err != nil {
		return nil, nil, fmt.Errorf("read shared rooms: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var num RoomNum
		var id matrix.RoomID
		if err := rows.Scan(&num, &id); err != nil {
			return nil, nil, fmt.Errorf("read shared rooms: %w", err)
		}
		nums, ids = append(nums, num), append(ids, id)
	}
	return nums, ids, rows.Err()
}

// Members lists the members of a room of the given membership, users of other
// servers included.
func (s *Store) Members(ctx context.Context, room RoomNum, membership string, limit int) ([]Membership, error) {
	rows, err := s.db.Query(ctx, `SELECT user_id, membership, event, pos, local FROM memberships
		WHERE room = $1 AND membership = $2 ORDER BY event LIMIT $3`, room, membership, limit)
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	defer rows.Close()
	var list []Membership
	for rows.Next() {
		m := Membership{Room: room}
		if err := rows.Scan(&m.User, &m.Membership, &m.Event, &m.Pos, &m.Local); err != nil {
			return nil, fmt.Errorf("read members: %w", err)
		}
		list = append(list, m)
	}
	return list, rows.Err()
}

// FirstMembers lists up to limit members of the given membership of each of some
// rooms, as Members does.
func (s *Store) FirstMembers(ctx context.Context, rooms []RoomNum, membership string, limit int) (map[RoomNum][]matrix.UserID, error) {
	if len(rooms) == 0 {
		return nil, nil
	}
	rows, err := s.db.Query(ctx, `SELECT m.room, m.user_id FROM rooms r CROSS JOIN memberships m
		WHERE r.num IN LIST($1) AND m.room = r.num AND m.membership = $2 AND m.event <= COALESCE(
			(SELECT x.event FROM memberships x WHERE x.room = r.num AND x.membership = $2 ORDER BY x.event LIMIT 1 OFFSET $3), 9223372036854775807)
		ORDER BY m.room, m.event`, rooms, membership, limit-1)
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	defer rows.Close()
	found := make(map[RoomNum][]matrix.UserID, len(rooms))
	for rows.Next() {
		var room RoomNum
		var user matrix.UserID
		if err := rows.Scan(&room, &user); err != nil {
			return nil, fmt.Errorf("read members: %w", err)
		}
		found[room] = append(found[room], user)
	}
	return found, rows.Err()
}

// GuestMembers lists the guests of this server who are joined to a room.
func (s *Store) GuestMembers(ctx context.Context, room RoomNum) ([]matrix.UserID, error) {
	rows, err := s.db.Query(ctx, `SELECT m.user_id FROM memberships m JOIN users u ON u.user_id = m.user_id
		WHERE m.room = $1 AND m.membership = 'join' AND u.kind = $2 ORDER BY m.event`, room, Guest)
	if err != nil {
		return nil, fmt.Errorf("read guests: %w", err)
	}
	defer rows.Close()
	var list []matrix.UserID
	for rows.Next() {
		var u matrix.UserID
		if err := rows.Scan(&u); err != nil {
			return nil, fmt.Errorf("read guests: %w", err)
		}
		list = append(list, u)
	}
	return list, rows.Err()
}

// PutMembership writes what a user is in a room now.
func (tx *Tx) PutMembership(ctx context.Context, m Membership) error {
	return tx.PutMemberships(ctx, []Membership{m})
}

// PutMemberships writes what some users are in rooms now, each pair of them once.
func (tx *Tx) PutMemberships(ctx context.Context, list []Membership) error {
	args := make([]any, 0, 7*len(list))
	for _, m := range list {
		args = append(args, string(m.User), int64(m.Room), m.Membership, int64(m.Event), m.Pos, m.Local, m.Forgotten)
	}
	err := tx.insert(ctx, `INSERT INTO memberships (user_id, room, membership, event, pos, local, forgotten)`, 7, args,
		`ON CONFLICT (user_id, room) DO UPDATE
		SET membership = excluded.membership, event = excluded.event, pos = excluded.pos, forgotten = excluded.forgotten`)
	if err != nil {
		return fmt.Errorf("put memberships: %w", err)
	}
	for _, m := range list {
		if m.Local {
			tx.OnCommit(func() { tx.s.members.set(m) })
		}
	}
	return nil
}

// loadMembers reads the memberships of this server's users.
func (s *Store) loadMembers(ctx context.Context) error {
	rows, err := s.db.Query(ctx, `SELECT user_id, room, membership, event, pos, forgotten FROM memberships WHERE local`)
	if err != nil {
		return fmt.Errorf("read memberships: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		m := Membership{Local: true}
		if err := rows.Scan(&m.User, &m.Room, &m.Membership, &m.Event, &m.Pos, &m.Forgotten); err != nil {
			return fmt.Errorf("read memberships: %w", err)
		}
		s.members.set(m)
	}
	return rows.Err()
}
