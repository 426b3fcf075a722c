package store

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sort"

	"switchboard/homeserver/cache"
)

// ending is where the newest events of a room's timeline stand. The next event of
// the room takes it out of memory. It is never changed.
type ending struct {
	spots []spot // in order
	whole bool   // the timeline begins with the first of them
}

// spot is a place of a timeline and the event there.
type spot struct {
	pos int64
	num EventNum
}

// endings are those that were read for many rooms at once.
type endings struct{ *cache.Cache[RoomNum, *ending] }

// newest gives the numbers of up to limit events of a room behind since and not
// behind upto, the newest ones, in order, and false if memory does not hold them.
func (m endings) newest(room RoomNum, since, upto int64, limit int) ([]EventNum, bool) {
	e, ok := m.Find(room)
	if !ok {
		return nil, false
	}
	behind := func(pos int64) int {
		return sort.Search(len(e.spots), func(i int) bool { return e.spots[i].pos > pos })
	}
	begin, end := behind(since), behind(upto)
	if end < limit && begin == 0 && !e.whole {
		return nil, false
	}
	var nums []EventNum
	for _, s := range e.spots[min(max(begin, end-limit), end):end] {
		nums = append(nums, s.num)
	}
	return nums, true
}

// Endings gives up to limit newest events of each of some rooms, in order of the
// timelines. It keeps in memory where they and older ones stand, known together, so
// that Newest has them there.
func (s *Store) Endings(ctx context.Context, rooms []RoomNum, limit, known int) (map[RoomNum][]*Event, error) {
	nums := make(map[RoomNum][]EventNum, len(rooms))
	lists := make(map[RoomNum][]*Event, len(rooms))
	var missing []RoomNum
	for _, room := range rooms {
		if list, ok := s.log.newest(room, math.MaxInt64, limit); ok {
			lists[room] = list
		} else if nums[room], ok = s.endings.newest(room, math.MinInt64, math.MaxInt64, limit); !ok {
			missing = append(missing, room)
		}
	}
	if err := s.readEndings(ctx, missing, max(limit, known), nums); err != nil {
		return nil, err
	}
	for _, room := range missing {
		nums[room] = nums[room][max(0, len(nums[room])-limit):]
	}
	var all []EventNum
	for _, list := range nums {
		all = append(all, list...)
	}
	slices.Sort(all)
	found, err := s.EventsByNum(ctx, all)
	if err != nil {
		return nil, err
	}
	for room, list := range nums {
		lists[room] = inOrder(found, list)
	}
	return lists, nil
}

// NewestAhead brings into memory the events that Newest gives of rooms behind some
// places and not behind upto, where Endings has found out which these are: up to
// most of them and some more.
func (s *Store) NewestAhead(ctx context.Context, behind map[RoomNum]int64, upto int64, most int) error {
	var all []EventNum
	for room, since := range behind {
		if nums, ok := s.endings.newest(room, since, upto, most); ok {
			all = append(all, nums...)
		}
		if len(all) >= most {
			break
		}
	}
	slices.Sort(all)
	_, err := s.EventsByNum(ctx, all)
	return err
}

// readEndings reads endings that are not in memory, and adds the numbers of their
// events to nums.
func (s *Store) readEndings(ctx context.Context, missing []RoomNum, limit int, nums map[RoomNum][]EventNum) error {
	if len(missing) == 0 {
		return nil
	}
	none := &ending{} // an event that comes before the answer is here takes it away
	for _, room := range missing {
		s.endings.Put(room, none, 100)
	}
	rows, err := s.db.Query(ctx, `SELECT e.room, e.pos, e.num FROM rooms r CROSS JOIN events e
		WHERE r.num IN LIST($1) AND e.room = r.num AND e.pos >= COALESCE(
			(SELECT x.pos FROM events x WHERE x.room = r.num AND x.pos IS NOT NULL ORDER BY x.pos DESC LIMIT 1 OFFSET $2), -9223372036854775807)
		ORDER BY e.room, e.pos`, missing, limit-1)
	if err != nil {
		return fmt.Errorf("read endings: %w", err)
	}
	defer rows.Close()
	read := make(map[RoomNum][]spot, len(missing))
	for rows.Next() {
		var room RoomNum
		var at spot
		if err := rows.Scan(&room, &at.pos, &at.num); err != nil {
			return fmt.Errorf("read endings: %w", err)
		}
		read[room], nums[room] = append(read[room], at), append(nums[room], at.num)
	}
	if err := rows.Err(); err != nil { // of the last room, some are missing
		return fmt.Errorf("read endings: %w", err)
	}
	for room, list := range read {
		e := &ending{list, len(list) < limit}
		s.endings.Replace(room, e, 120+16*len(list), func(old *ending) bool { return old == none })
	}
	return nil
}
