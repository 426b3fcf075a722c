package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
)

// ErrNotFound says that there is no such row.
var ErrNotFound = errors.New("not found")

// RoomNum is the number by which the store knows a room.
type RoomNum int64

// Room is what the next event of a room builds on. It is never changed; each
// event makes a new one.
type Room struct {
	Num     RoomNum
	ID      matrix.RoomID
	Version *matrix.RoomVersion
	Current statetree.ID // root of the current state
	Heads   []EventNum   // forward extremities
	Last    int64        // place of the newest event
	Joined  int          // members
	Invited int
	Open    bool // everybody may join or read it
}

const roomColumns = `num, room_id, version, current, heads, last, joined, invited, open`

// Room finds a room by its ID, or answers ErrNotFound.
func (s *Store) Room(ctx context.Context, id matrix.RoomID) (*Room, error) {
	if num, ok := s.roomNums.Find(id); ok {
		return s.RoomByNum(ctx, num)
	}
	return s.readRoom(s.db.QueryRow(ctx, `SELECT `+roomColumns+` FROM rooms WHERE room_id = $1`, id))
}

// RoomByNum finds a room by its number, or answers ErrNotFound.
func (s *Store) RoomByNum(ctx context.Context, num RoomNum) (*Room, error) {
	if r, ok := s.rooms.Find(num); ok {
		return r, nil
	}
	return s.readRoom(s.db.QueryRow(ctx, `SELECT `+roomColumns+` FROM rooms WHERE num = $1`, num))
}

// RoomsByNum finds rooms by their numbers, in the order of these. Unknown ones are left out.
func (s *Store) RoomsByNum(ctx context.Context, nums []RoomNum) ([]*Room, error) {
	found := make(map[RoomNum]*Room, len(nums))
	var missing []RoomNum
	for _, num := range nums {
		if r, ok := s.rooms.Find(num); ok {
			found[num] = r
		} else {
			missing = append(missing, num)
		}
	}
	if err := s.readRooms(ctx, missing, found); err != nil {
		return nil, err
	}
	list := make([]*Room, 0, len(nums))
	for _, num := range nums {
		if r := found[num]; r != nil {
			list = append(list, r)
		}
	}
	return list, nil
}

// readRooms adds rooms that are not in memory to found.
func (s *Store) readRooms(ctx context.Context, nums []RoomNum, found map[RoomNum]*Room) error {
	if len(nums) == 0 {
		return nil
	}
	rows, err := s.db.Query(ctx, `SELECT `+roomColumns+` FROM rooms WHERE num IN LIST($1)`, nums)
	if err != nil {
		return fmt.Errorf("read rooms: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		r, err := scanRoom(rows.Scan)
		if err != nil {
			return err
		}
		found[r.Num] = s.keepRoom(r)
	}
	return rows.Err()
}

func (s *Store) readRoom(row *database.Row) (*Room, error) {
	r, err := scanRoom(row.Scan)
	if err != nil {
		return nil, err
	}
	return s.keepRoom(r), nil
}

func scanRoom(scan func(...any) error) (*Room, error) {
	var r Room
	var version, heads string
	err := scan(&r.Num, &r.ID, &version, &r.Current, &heads, &r.Last, &r.Joined, &r.Invited, &r.Open)
	if errors.Is(err, database.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read room: %w", err)
	}
	var ok bool
	if r.Version, ok = matrix.Version(version); !ok {
		return nil, fmt.Errorf("room %s has the unknown version %q", r.ID, version)
	}
	for _, h := range strings.Split(heads, ",") {
		if n, err := strconv.ParseInt(h, 10, 64); err == nil {
			r.Heads = append(r.Heads, EventNum(n))
		}
	}
	return &r, nil
}

// keepRoom caches r, if no newer state of the room is known, and gives the newest.
func (s *Store) keepRoom(r *Room) *Room {
	s.roomMu.Lock()
	defer s.roomMu.Unlock()
	if old, ok := s.rooms.Find(r.Num); ok && old.Last >= r.Last {
		return old
	}
	s.rooms.Put(r.Num, r, 300+16*len(r.Heads))
	s.roomNums.Put(r.ID, r.Num, 150+len(r.ID))
	return r
}

// PutRoom writes r, new or changed.
func (tx *Tx) PutRoom(ctx context.Context, r *Room) error {
	heads := make([]string, len(r.Heads))
	for i, h := range r.Heads {
		heads[i] = strconv.FormatInt(int64(h), 10)
	}
	const q = `
		INSERT INTO rooms (` + roomColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (num) DO UPDATE SET current = excluded.current, heads = excluded.heads,
			last = excluded.last, joined = excluded.joined, invited = excluded.invited, open = excluded.open`
	err := tx.Exec(ctx, q, r.Num, r.ID, r.Version.ID, r.Current, strings.Join(heads, ","), r.Last, r.Joined, r.Invited, r.Open)
	if err != nil {
		return fmt.Errorf("put room: %w", err)
	}
	tx.OnCommit(func() { tx.s.keepRoom(r) })
	return nil
}
