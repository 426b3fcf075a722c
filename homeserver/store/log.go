package store

import (
	"slices"
	"sync"
)

// Kind says what of a user or a room changed, for Note and ChangedSince.
type Kind uint8

// The kinds of what is noted. Each says whose key it goes under.
const (
	AccountDataChanged Kind = iota // a user's ID, and the same with a type behind it
	ToDeviceChanged                // a user's ID, and "" for anybody's
	ReceiptsChanged                // a room's ID, and "" for any room
	DeviceListsChanged             // ""
	PresenceChanged                // ""
	OneTimeKeysChanged             // a user's ID
	OutboxChanged                  // ""
)

// log is the head of the log in memory: the newest events, and for everything
// else when it changed last. A reader whose position lies inside it asks no
// database.
type log struct {
	mu     sync.RWMutex // guards all below; never held while calling out
	events []*Event     // in order of position
	rooms  map[RoomNum][]*Event
	floor  int64 // positions up to this one have left memory
	bytes  int
	most   int // bound of bytes

	noted      map[note]int64
	notedFloor int64 // older changes may have been forgotten
}

type note struct {
	kind Kind
	key  string
}

// mostNotes bounds the memory of changes: about 100 bytes each.
const mostNotes = 200_000

func newLog(pos int64, most int) *log {
	return &log{rooms: map[RoomNum][]*Event{}, floor: pos, most: most, noted: map[note]int64{}, notedFloor: pos}
}

// add takes an event that was committed. Events come in order of position; one
// that fills a gap in the past sends what is older than it out of memory.
func (l *log) add(e *Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := len(l.events) - 1; e.Pos <= l.floor || last >= 0 && e.Pos <= l.events[last].Pos {
		for len(l.events) > 0 && l.events[0].Pos <= e.Pos {
			l.drop()
		}
		l.floor = max(l.floor, e.Pos)
		return
	}
	l.events = append(l.events, e)
	l.rooms[e.Room] = append(l.rooms[e.Room], e)
	l.bytes += e.size()
	for l.bytes > l.most && len(l.events) > 1 {
		l.drop()
	}
}

// drop forgets the oldest event.
func (l *log) drop() {
	old := l.events[0]
	l.events[0] = nil
	l.events = l.events[1:]
	l.bytes -= old.size()
	l.floor = old.Pos
	list := l.rooms[old.Room]
	if len(list) == 1 {
		delete(l.rooms, old.Room)
		return
	}
	list[0] = nil
	l.rooms[old.Room] = list[1:]
}

// replace puts e in the place of the event with its number, as after a
// redaction.
func (l *log) replace(e *Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i, ok := slices.BinarySearchFunc(l.events, e.Pos, byPos); ok {
		l.bytes += e.size() - l.events[i].size()
		l.events[i] = e
	}
	if i, ok := slices.BinarySearchFunc(l.rooms[e.Room], e.Pos, byPos); ok {
		l.rooms[e.Room][i] = e
	}
}

func byPos(e *Event, pos int64) int {
	switch {
	case e.Pos < pos:
		return -1
	case e.Pos > pos:
		return 1
	}
	return 0
}

// after gives the events of the whole log behind since and not behind upto, in
// order, and false if some of them may have left memory.
func (l *log) after(since, upto int64) ([]*Event, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if since < l.floor {
		return nil, false
	}
	return between(l.events, since, upto), true
}

// inRoom is after for one room.
func (l *log) inRoom(room RoomNum, since, upto int64) ([]*Event, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if since < l.floor {
		return nil, false
	}
	return between(l.rooms[room], since, upto), true
}

// newest gives up to limit events of a room that are not behind upto, oldest
// first, and false if there may be more that memory does not hold.
func (l *log) newest(room RoomNum, upto int64, limit int) ([]*Event, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	list := l.rooms[room]
	end := behind(list, upto)
	if end < limit {
		return nil, false
	}
	return slices.Clone(list[end-limit : end]), true
}

// between copies the part of list with since < Pos <= upto.
func between(list []*Event, since, upto int64) []*Event {
	i, j := behind(list, since), behind(list, upto)
	if i >= j {
		return nil
	}
	return slices.Clone(list[i:j])
}

// behind is the index of the first event of list behind a position.
func behind(list []*Event, pos int64) int {
	i, found := slices.BinarySearchFunc(list, pos, byPos)
	if found {
		i++
	}
	return i
}

// note remembers that something changed at pos.
func (l *log) note(kind Kind, key string, pos int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.noted) >= mostNotes {
		clear(l.noted)
		l.notedFloor = pos - 1
	}
	l.noted[note{kind, key}] = pos
}

// Note tells readers, once the transaction is committed, that what kind and
// key name changed at pos.
func (tx *Tx) Note(kind Kind, key string, pos int64) {
	tx.OnCommit(func() { tx.s.log.note(kind, key, pos) })
}

// ChangedSince tells whether what kind and key name may have changed behind
// since. It answers true where it does not know.
func (s *Store) ChangedSince(kind Kind, key string, since int64) bool {
	s.log.mu.RLock()
	defer s.log.mu.RUnlock()
	return since < s.log.notedFloor || s.log.noted[note{kind, key}] > since
}

// RoomsChanged lists the rooms with events behind since and not behind upto,
// and false if memory does not reach back that far.
func (s *Store) RoomsChanged(since, upto int64) (map[RoomNum]bool, bool) {
	events, ok := s.log.after(since, upto)
	if !ok {
		return nil, false
	}
	rooms := make(map[RoomNum]bool)
	for _, e := range events {
		rooms[e.Room] = true
	}
	return rooms, true
}

// size is about how many bytes of memory an event takes.
func (e *Event) size() int { return 2*len(e.PDU.JSON) + 600 }

// LogBell is the bell of those who read the whole log. A user's syncs listen
// to the user's ID.
const LogBell = "log"
