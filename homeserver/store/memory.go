package store

import (
	"context"
	"sync"

	"switchboard/homeserver/cache"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
)

// memory is what the store keeps at hand. All of it can be read again from the
// database.
type memory struct {
	log     *log
	members members
	gaps    gaps

	roomMu   sync.Mutex // guards the order in which rooms are replaced
	rooms    *cache.Cache[RoomNum, *Room]
	roomNums *cache.Cache[matrix.RoomID, RoomNum]

	events    *cache.Cache[EventNum, *Event]
	eventNums *cache.Cache[matrix.EventID, EventNum]
	stateKeys *cache.Cache[pair, statetree.Key]
	treeNodes *cache.Cache[statetree.ID, []byte]
}

// load makes the caches, which together take up to budget bytes, and reads the
// memberships.
func (s *Store) load(ctx context.Context, budget int) error {
	part := func(percent int) int { return budget / 100 * percent }
	s.memory = memory{
		log: newLog(s.db.Position(), part(25)),
		members: members{
			byUser: map[matrix.UserID]map[RoomNum]Membership{},
			joined: map[RoomNum]map[matrix.UserID]struct{}{},
		},
		rooms:     cache.New[RoomNum, *Room](part(5)),
		roomNums:  cache.New[matrix.RoomID, RoomNum](part(5)),
		events:    cache.New[EventNum, *Event](part(30)),
		eventNums: cache.New[matrix.EventID, EventNum](part(5)),
		stateKeys: cache.New[pair, statetree.Key](part(10)),
		treeNodes: cache.New[statetree.ID, []byte](part(20)),
	}
	if err := s.loadGaps(ctx); err != nil {
		return err
	}
	return s.loadMembers(ctx)
}
