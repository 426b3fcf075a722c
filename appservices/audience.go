package appservices

import (
	"context"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/registrations"
)

// audience knows what an appservice is interested in. It is used by one
// goroutine.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#registration
type audience struct {
	*Service
	reg     *registrations.Registration
	owned   map[matrix.UserID]bool
	aliases map[store.RoomNum]aliasInterest
}

// aliasInterest is whether a room had an alias of the appservice, until when
// that is believed.
type aliasInterest struct {
	yes   bool
	until time.Time
}

// Bounds of what an audience remembers.
const (
	mostOwned   = 1 << 16
	aliasesKeep = 5 * time.Second
)

func newAudience(s *Service, reg *registrations.Registration) *audience {
	return &audience{Service: s, reg: reg, owned: map[matrix.UserID]bool{}, aliases: map[store.RoomNum]aliasInterest{}}
}

// owns tells whether a user is the appservice's.
func (a *audience) owns(user matrix.UserID) bool {
	yes, known := a.owned[user]
	if !known {
		if len(a.owned) >= mostOwned {
			clear(a.owned)
		}
		yes = a.Registrations.Owns(a.reg, string(user))
		a.owned[user] = yes
	}
	return yes
}

// inRoom tells whether a room matters to the appservice now: by its ID, by an
// alias, or because one of its users is in it.
func (a *audience) inRoom(ctx context.Context, num store.RoomNum, id matrix.RoomID) (bool, error) {
	if a.reg.CoversRoom(string(id)) {
		return true, nil
	}
	for _, u := range a.Store.LocalMembers(num) {
		if a.owns(u) {
			return true, nil
		}
	}
	return a.byAlias(ctx, num)
}

// byAlias tells whether a room has an alias in the namespaces.
func (a *audience) byAlias(ctx context.Context, num store.RoomNum) (bool, error) {
	if len(a.reg.Aliases) == 0 {
		return false, nil
	}
	now := time.Now()
	if known, ok := a.aliases[num]; ok && now.Before(known.until) {
		return known.yes, nil
	}
	list, err := a.Store.Aliases(ctx, num)
	if err != nil {
		return false, err
	}
	if len(a.aliases) >= mostOwned {
		clear(a.aliases)
	}
	yes := false
	for _, alias := range list {
		yes = yes || a.reg.CoversAlias(string(alias))
	}
	a.aliases[num] = aliasInterest{yes, now.Add(aliasesKeep)}
	return yes, nil
}

// shares tells whether the appservice has a user in a room with user.
func (a *audience) shares(user matrix.UserID) bool {
	if a.owns(user) {
		return true
	}
	for _, n := range a.Store.Neighbours(user) {
		if a.owns(n) {
			return true
		}
	}
	return false
}

// window is a stretch of the log that is looked at together.
type window struct {
	*audience
	members  map[store.RoomNum][]store.Membership // the appservice's users who are in a room now
	departed map[store.RoomNum][]matrix.UserID    // those who left it behind the window's start
	since    int64                                // where the window starts
	whole    bool                                 // the window reaches the end of the log, so that departed has all
}

// newWindow looks through the events of a stretch of the log for users of the
// appservice who leave.
func (a *audience) newWindow(events []*store.Event, since int64, whole bool) *window {
	w := &window{
		audience: a, members: map[store.RoomNum][]store.Membership{}, departed: map[store.RoomNum][]matrix.UserID{},
		since: since, whole: whole,
	}
	if !whole { // there are more behind it: departures asks the store
		return w
	}
	for _, e := range events {
		if user, ok := member(e); ok && e.PDU.Membership() != "join" && a.owns(user) {
			w.departed[e.Room] = append(w.departed[e.Room], user)
		}
	}
	return w
}

// member gives whose membership an event is about.
func member(e *store.Event) (matrix.UserID, bool) {
	if e.PDU.Type != "m.room.member" || e.PDU.StateKey == nil {
		return "", false
	}
	return matrix.UserID(*e.PDU.StateKey), true
}

// wants tells whether the appservice is to be told of an event: it is about its
// users, or came into a room that mattered to it at that time.
func (w *window) wants(ctx context.Context, e *store.Event) (bool, error) {
	if e.PDU.Local { // an appservice brought it, and is not to take it for something new
		return false, nil
	}
	if user, ok := member(e); ok && w.owns(user) || w.owns(e.PDU.Sender) || w.reg.CoversRoom(string(e.PDU.Room)) {
		return true, nil
	}
	if yes, err := w.wasIn(ctx, e); yes || err != nil {
		return yes, err
	}
	return w.byAlias(ctx, e.Room)
}

// wasIn tells whether a user of the appservice was in the room when the event
// came. The memberships at hand are those of today, so that for whom they have
// changed since then the state at the event decides.
func (w *window) wasIn(ctx context.Context, e *store.Event) (bool, error) {
	for _, m := range w.joined(e.Room) {
		if m.Event <= e.Num {
			return true, nil
		}
		if yes, err := w.joinedAt(ctx, e, m.User); yes || err != nil {
			return yes, err
		}
	}
	departed, err := w.departures(ctx, e)
	if err != nil {
		return false, err
	}
	for _, user := range departed {
		if yes, err := w.joinedAt(ctx, e, user); yes || err != nil {
			return yes, err
		}
	}
	return false, nil
}

// joined lists the appservice's users who are in a room now.
func (w *window) joined(room store.RoomNum) []store.Membership {
	list, known := w.members[room]
	if !known {
		for _, u := range w.Store.LocalMembers(room) {
			if w.owns(u) {
				list = append(list, w.Store.Membership(u, room))
			}
		}
		w.members[room] = list
	}
	return list
}

// departures lists the appservice's users who left the room of an event behind
// the window's start.
func (w *window) departures(ctx context.Context, e *store.Event) ([]matrix.UserID, error) {
	list, known := w.departed[e.Room]
	if w.whole || known {
		return list, nil
	}
	all, err := w.Store.DepartedSince(ctx, e.Room, w.since)
	if err != nil {
		return nil, err
	}
	for _, u := range all {
		if w.owns(u) {
			list = append(list, u)
		}
	}
	w.departed[e.Room] = list
	return list, nil
}

// joinedAt tells whether a user was in the room right after an event.
func (w *window) joinedAt(ctx context.Context, e *store.Event, user matrix.UserID) (bool, error) {
	m, err := w.Rooms.StateEvent(ctx, e.State, "m.room.member", string(user))
	if err != nil || m == nil {
		return false, err
	}
	return m.PDU.Membership() == "join", nil
}
