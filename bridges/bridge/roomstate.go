package bridge

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
	"maunium.net/go/mautrix/sqlstatestore"
)

// roomState is mautrix' store of the state of rooms. What the bridge does is
// written there at once, and comes back in a transaction, perhaps long after: there
// it must not undo what the bridge has done since. A ghost that was invited, joined
// and left would be invited again, so that its next leaving is none.
type roomState struct {
	*sqlstatestore.SQLStateStore
	own func(*event.Event) bool // the bridge has sent it

	mu    sync.Mutex // tier 2; held from a look at ahead until the store is written; guards what follows
	ahead map[stateKey]*deeds
	limit int // of ahead, at which it is swept
}

type stateKey struct {
	room      id.RoomID
	kind, key string
}

// deeds are the changes of one state that have not come back yet, the oldest
// first: the membership, or else the content.
type deeds struct {
	list []string
	last time.Time
}

// comesBack is how long a change may take to come back. Some never do, because
// they changed nothing.
const comesBack = 10 * time.Minute

func newRoomState(store *sqlstatestore.SQLStateStore, own func(*event.Event) bool) *roomState {
	return &roomState{SQLStateStore: store, own: own, ahead: make(map[stateKey]*deeds)}
}

// SetMembership implements mautrix.StateStore: the bridge has changed it.
func (s *roomState) SetMembership(ctx context.Context, room id.RoomID, user id.UserID, m event.Membership) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did(ctx, stateKey{room, event.StateMember.Type, string(user)}, string(m), time.Now())
	return s.SQLStateStore.SetMembership(ctx, room, user, m)
}

// UpdateState implements mautrix.StateStoreUpdater, for what the bridge has sent,
// which has no ID there, and for what comes in transactions.
func (s *roomState) UpdateState(ctx context.Context, e *event.Event) {
	what := essence(e.Content.Parsed)
	if what == "" {
		mautrix.UpdateStateStore(ctx, s.SQLStateStore, e)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := stateKey{e.RoomID, e.Type.Type, e.GetStateKey()}
	switch {
	case e.ID == "":
		s.did(ctx, key, what, time.Now())
	case s.own(e) && s.outdated(key, what):
		return
	}
	mautrix.UpdateStateStore(ctx, s.SQLStateStore, e)
}

// essence is by what a state is known again, or empty if it is none that matters.
// Mautrix has its own words for what it reads from the homeserver, so that only what
// it understands can be compared.
func essence(content any) string {
	switch c := content.(type) {
	case *event.MemberEventContent:
		return string(c.Membership)
	case *event.PowerLevelsEventContent, *event.JoinRulesEventContent, *event.HistoryVisibilityEventContent:
		out, _ := json.Marshal(c) // what was parsed can be written
		return string(out)
	}
	return ""
}

// stored is the essence of what the store has, as far as the bridge changes it often.
func (s *roomState) stored(ctx context.Context, key stateKey) string {
	var content any
	var err error
	switch key.kind {
	case event.StateMember.Type:
		content, err = s.GetMember(ctx, key.room, id.UserID(key.key))
	case event.StatePowerLevels.Type:
		content, err = s.GetPowerLevels(ctx, key.room)
	}
	if err != nil {
		return ""
	}
	return essence(content)
}

// did notes a change of the bridge, unless it is none, or has come back before this:
// a note that nothing takes away would make all that comes later outdated.
func (s *roomState) did(ctx context.Context, key stateKey, what string, now time.Time) {
	d := s.ahead[key]
	if d == nil {
		if s.stored(ctx, key) == what {
			return
		}
		if len(s.ahead) >= s.limit {
			for k, old := range s.ahead {
				if now.Sub(old.last) > comesBack {
					delete(s.ahead, k)
				}
			}
			s.limit = 2*len(s.ahead) + 100
		}
		d = new(deeds)
		s.ahead[key] = d
	}
	if d.last = now; len(d.list) == 0 || d.list[len(d.list)-1] != what {
		d.list = append(d.list, what)
	}
}

// outdated notes that a change of the bridge has come back, and reports whether
// there was a later one.
func (s *roomState) outdated(key stateKey, what string) bool {
	d := s.ahead[key]
	if d == nil {
		return false
	}
	i := slices.Index(d.list, what)
	if i < 0 {
		return false
	}
	if d.list = d.list[i+1:]; len(d.list) == 0 {
		delete(s.ahead, key)
		return false
	}
	return true
}
