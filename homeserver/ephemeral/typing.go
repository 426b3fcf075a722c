package ephemeral

import (
	"context"
	"slices"
	"sync"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

const (
	typingDefault = 30 * time.Second // where the client names no time
	typingMost    = 2 * time.Minute  // whatever the client names

	// mostQuiet is how many rooms are remembered in which nobody types.
	mostQuiet = 1 << 16

	// mostRecent is how many of the newest changes are remembered at least.
	mostRecent = 1024
)

// typing is who types where. Each change has a serial number, which grows over
// restarts too, because it begins at the time.
type typing struct {
	mu     sync.Mutex // tier 1; guards all below
	rooms  map[matrix.RoomID]*typingRoom
	quiet  int           // rooms in which nobody types
	serial int64         // of the newest change
	floor  int64         // of rooms that are not remembered: nobody types there since then
	recent []typingNews  // the newest changes, in their order
	wake   chan struct{} // has room for one; Run looks again
}

type typingRoom struct {
	num    store.RoomNum
	serial int64 // of the newest change
	until  map[matrix.UserID]time.Time
}

// typingNews is that a user began or stopped to type in a room.
type typingNews struct {
	room store.RoomNum
	user matrix.UserID
}

// begin must be called under mu before anything else.
func (t *typing) begin() {
	if t.rooms != nil {
		return
	}
	t.rooms = map[matrix.RoomID]*typingRoom{}
	t.serial = now()
	t.floor = t.serial
	t.wake = make(chan struct{}, 1)
}

// set starts or ends typing and tells whether that is news. The zero time ends
// it.
func (t *typing) set(room *store.Room, user matrix.UserID, until time.Time) (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin()
	r := t.rooms[room.ID]
	if r == nil {
		if until.IsZero() {
			return false
		}
		t.tidy()
		r = &typingRoom{num: room.Num, until: map[matrix.UserID]time.Time{}}
		t.rooms[room.ID] = r
		t.quiet++
	}
	before := len(r.until)
	if until.IsZero() {
		delete(r.until, user)
	} else {
		r.until[user] = until
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
	if len(r.until) == before {
		return false
	}
	t.changed(r, user, before)
	return true
}

// changed counts a change by user of a room in which before users typed.
func (t *typing) changed(r *typingRoom, user matrix.UserID, before int) {
	t.serial++
	r.serial = t.serial
	if len(t.recent) == 2*mostRecent {
		t.recent = slices.Delete(t.recent, 0, mostRecent)
	}
	t.recent = append(t.recent, typingNews{r.num, user})
	if before == 0 {
		t.quiet--
	}
	if len(r.until) == 0 {
		t.quiet++
	}
}

// tidy forgets the quiet rooms when there are too many.
func (t *typing) tidy() {
	if t.quiet < mostQuiet {
		return
	}
	for id, r := range t.rooms {
		if len(r.until) == 0 {
			delete(t.rooms, id)
		}
	}
	t.quiet = 0
	t.floor = t.serial
}

// expire ends the typing whose time is up. It lists the rooms in which somebody
// stopped and says when to look again; the zero time is when there is news.
func (t *typing) expire(at time.Time) (rooms []store.RoomNum, next time.Time, wake <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin()
	for _, r := range t.rooms {
		stopped := false
		for user, until := range r.until {
			switch {
			case !until.After(at):
				delete(r.until, user)
				t.changed(r, user, len(r.until)+1)
				stopped = true
			case next.IsZero() || until.Before(next):
				next = until
			}
		}
		if stopped {
			rooms = append(rooms, r.num)
		}
	}
	return rooms, next, t.wake
}

// runTyping ends typing in time.
func (s *Service) runTyping(ctx context.Context) error {
	for {
		rooms, next, wake := s.typing.expire(time.Now())
		for _, r := range rooms {
			s.ringRoom(r)
		}
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = time.After(time.Until(next))
		}
		select {
		case <-timer:
		case <-wake:
			// Others begin to type meanwhile: look at all of them together.
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// SetTyping says that a user types in a room for a time, which is bounded; 0
// means a usual one. Without on the user stopped. The error is M_FORBIDDEN for
// who is not in the room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid
func (s *Service) SetTyping(ctx context.Context, user matrix.UserID, room matrix.RoomID, on bool, timeout time.Duration) error {
	r, err := s.joined(ctx, user, room)
	if err != nil {
		return err
	}
	if timeout <= 0 {
		timeout = typingDefault
	}
	var until time.Time
	if on {
		until = time.Now().Add(min(timeout, typingMost))
	}
	if s.typing.set(r, user, until) {
		s.ringRoom(r.Num)
	}
	return nil
}

// Serial is the number of the newest change of who types.
func (s *Service) Serial() int64 {
	t := &s.typing
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin()
	return t.serial
}

// TypingRooms lists the rooms in which who types may have changed behind a serial
// number, and false if that may be in any room.
func (s *Service) TypingRooms(since int64) (rooms []store.RoomNum, sure bool) {
	t := &s.typing
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin()
	news, sure := t.behind(since)
	if !sure || since < t.floor {
		return nil, false
	}
	for _, n := range news {
		rooms = append(rooms, n.room)
	}
	return rooms, true
}

// behind lists the changes behind a serial number, and false if not all of them
// are remembered.
func (t *typing) behind(since int64) ([]typingNews, bool) {
	first := t.serial - int64(len(t.recent))
	if since < first {
		return nil, false
	}
	return t.recent[min(since-first, int64(len(t.recent))):], true
}

// Typing lists who types in a room but for those in without, in order of their
// IDs, and tells whether that may have changed behind a serial number. To 0, which
// is for clients that know nothing, only somebody who types is a change.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#typing-notifications
func (s *Service) Typing(room matrix.RoomID, since int64, without map[matrix.UserID]bool) (users []matrix.UserID, changed bool) {
	t := &s.typing
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin()
	users = []matrix.UserID{}
	r := t.rooms[room]
	if r == nil {
		return users, since != 0 && since < t.floor
	}
	for u := range r.until {
		if !without[u] {
			users = append(users, u)
		}
	}
	slices.Sort(users)
	if since == 0 {
		return users, len(users) > 0
	}
	if r.serial <= since {
		return users, false
	}
	news, sure := t.behind(since)
	return users, !sure || slices.ContainsFunc(news, func(n typingNews) bool { return n.room == r.num && !without[n.user] })
}
