package ephemeral

import (
	"sync"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

const (
	// perWake is the time that has to pass for each user who is woken to hear of
	// presence. What presence costs is bounded so, however often it changes: the
	// others wait until the next wave, and hear of all changes at once.
	perWake = 4 * time.Millisecond

	// few is how many may be woken at any time.
	few = 20
)

// wavesBell is rung when changes wait for the next wave.
const wavesBell = "presence waits"

// waves tells of presence in waves.
type waves struct {
	mu       sync.Mutex                 // tier 1; guards all below
	changed  map[matrix.UserID]struct{} // whose neighbours are to be woken
	audience map[matrix.UserID]struct{} // who is to be woken
	next     time.Time                  // not before that
	under    bool                       // one is under way, and the next is not known yet
}

// announce wakes those who may see the changed presence of some users, now or
// with the next wave: the local neighbours of these users, and an audience.
func (s *Service) announce(users, audience []matrix.UserID) {
	if s.waves.add(users, audience) {
		s.wave()
	} else {
		s.Bell.Ring(wavesBell)
	}
}

// add notes changes, and tells whether a wave may begin now.
func (w *waves) add(users, audience []matrix.UserID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed, w.audience = map[matrix.UserID]struct{}{}, map[matrix.UserID]struct{}{}
	}
	for _, u := range users {
		w.changed[u] = struct{}{}
	}
	for _, u := range audience {
		w.audience[u] = struct{}{}
	}
	return w.may()
}

// may tells whether a wave may begin now. w.mu is held.
func (w *waves) may() bool { return !w.under && !time.Now().Before(w.next) }

// time fires when the next wave may begin; never if nothing waits for it, or
// while one is under way, whose end rings wavesBell.
func (w *waves) time() <-chan time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.under || len(w.changed) == 0 {
		return nil
	}
	return time.After(time.Until(w.next))
}

// take begins a wave and empties what waits for it; nothing if it may not begin,
// or another one was faster. Whoever got something must call rest.
func (w *waves) take() (changed []matrix.UserID, audience map[matrix.UserID]struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.may() {
		return nil, nil
	}
	for u := range w.changed {
		changed = append(changed, u)
	}
	audience = w.audience
	w.changed, w.audience = nil, nil
	w.under = len(changed) > 0
	return changed, audience
}

// rest lets the next wave wait after one that woke n.
func (w *waves) rest(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.under = false
	if n > few {
		w.next = time.Now().Add(time.Duration(n) * perWake)
	}
}

// wave wakes all who may see what has changed, and those of whom it hears
// meanwhile, as long as the next wave may begin at once.
func (s *Service) wave() {
	for {
		users, audience := s.waves.take()
		if len(users) == 0 {
			return
		}
		for _, u := range s.Store.Neighbours(users...) {
			audience[u] = struct{}{}
		}
		s.waves.rest(len(audience))
		keys := make([]string, 0, len(audience)+2)
		keys = append(keys, store.LogBell, wavesBell)
		for u := range audience {
			keys = append(keys, string(u))
		}
		s.Bell.Ring(keys...)
	}
}
