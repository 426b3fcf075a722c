package store

import (
	"context"
	"sync"
	"sync/atomic"

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

	delayers delayers

	receipts    *tail[Receipt]
	accountData *tail[AccountData]
	presence    *tail[Presence]

	roomMu   sync.Mutex // guards the order in which rooms are replaced
	rooms    *cache.Cache[RoomNum, *Room]
	roomNums *cache.Cache[matrix.RoomID, RoomNum]

	events    *cache.Cache[EventNum, *Event]
	eventNums *cache.Cache[matrix.EventID, EventNum]
	endings   endings
	stateKeys *cache.Cache[pair, statetree.Key] // 0 for what has none yet
	keysMade  atomic.Int64                      // changes before stateKeys does, for a new one
	treeNodes *cache.Cache[statetree.ID, []byte]

	memberKeys memberKeys
}

// load makes the caches, which together take up to budget bytes, and reads the
// memberships.
func (s *Store) load(ctx context.Context, budget int) error {
	part := func(percent int) int { return budget / 100 * percent }
	s.memory = memory{
		log: newLog(s.db.Position(), part(23)),
		members: members{
			byUser: map[matrix.UserID]*residence{},
			joined: map[RoomNum]map[matrix.UserID]struct{}{},
		},
		receipts: newTail(s.db.Position(), part(1), func(r *Receipt) int64 { return r.Pos }, func(r *Receipt) int { return 128 + len(r.User) + len(r.Event) + len(r.Thread) }),
		accountData: newTail(s.db.Position(), part(1), func(d *AccountData) int64 { return d.Pos },
			func(d *AccountData) int { return 104 + len(d.User) + len(d.Room) + len(d.Type) + len(d.Content) }),
		presence:  newTail(s.db.Position(), part(1), func(p *Presence) int64 { return p.Pos }, func(p *Presence) int { return 80 + len(p.User) + len(p.StatusMsg) }),
		rooms:     cache.New[RoomNum, *Room](part(5)),
		roomNums:  cache.New[matrix.RoomID, RoomNum](part(4)),
		events:    cache.New[EventNum, *Event](part(30)),
		eventNums: cache.New[matrix.EventID, EventNum](part(4)),
		endings:   endings{cache.New[RoomNum, *ending](part(3))},
		stateKeys: cache.New[pair, statetree.Key](part(10)),
		treeNodes: cache.New[statetree.ID, []byte](part(18)),
	}
	if err := s.loadGaps(ctx); err != nil {
		return err
	}
	if err := s.loadDelayers(ctx); err != nil {
		return err
	}
	return s.loadMembers(ctx)
}
