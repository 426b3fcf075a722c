package store

import (
	"context"
	"sync"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
)

// memory is what the store keeps at hand. All of it can be read again from the
// database.
type memory struct {
	log     *log
	members members

	roomMu   sync.Mutex // guards the order in which rooms are replaced
	rooms    *cache[RoomNum, *Room]
	roomNums *cache[matrix.RoomID, RoomNum]

	events    *cache[EventNum, *Event]
	eventNums *cache[matrix.EventID, EventNum]
	stateKeys *cache[pair, statetree.Key]
	treeNodes *cache[statetree.ID, []byte]
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
		rooms:     newCache[RoomNum, *Room](part(5)),
		roomNums:  newCache[matrix.RoomID, RoomNum](part(5)),
		events:    newCache[EventNum, *Event](part(30)),
		eventNums: newCache[matrix.EventID, EventNum](part(5)),
		stateKeys: newCache[pair, statetree.Key](part(10)),
		treeNodes: newCache[statetree.ID, []byte](part(20)),
	}
	return s.loadMembers(ctx)
}
