// Package room is the core: it builds events, authorizes them, appends them to
// the log, knows the state at each of them, who is a member and who may see
// what. It does not talk to other servers: where it lacks events it says which.
// It knows no sync, no push and no sender; those read the log.
package room

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// Config are the choices of the operator about rooms.
type Config struct {
	// DefaultVersion is the room version of new rooms. "" means matrix.DefaultRoomVersion.
	DefaultVersion string
}

// Service acts on rooms. Its methods may be called from several goroutines.
type Service struct {
	Store      *store.Store
	Bell       *notify.Bell
	ServerName matrix.ServerName
	Key        signing.Key
	Config     Config

	// Vet asks a policy server to sign an event, and answers the event with the
	// signature, which is checked here. The error is for the client. Nil: none
	// can be asked.
	Vet func(ctx context.Context, server matrix.ServerName, p *event.PDU) (*event.PDU, error)

	// NoticesUser is the server's own user, whose invitations nobody can reject or
	// block. "" for none.
	NoticesUser matrix.UserID

	locks   locks[matrix.RoomID]
	repeats locks[store.Request] // held while an answer to a request is made
	created atomic.Int64         // time (ms) of the newest room
	trees   store.Recent[statetree.ID, statetree.Tree]
	powers  store.Recent[powersKey, *eventauth.PowerLevels]
	roots   store.Recent[sightKey, sight]

	attendances store.Recent[attendanceKey, attendance]

	unguarded store.Recent[statetree.ID, struct{}] // states without m.room.policy

	ignored  settings[map[matrix.UserID]bool]
	blocking settings[bool] // invitations

	blockingOnce settings[bool] // the same, as it was called before it was accepted
	lists        policyLists
}

// now is the time in milliseconds, as events bear it.
func now() int64 { return time.Now().UnixMilli() }

// locks holds one lock for each thing that is being written to, such as the
// append locks of rooms.
type locks[K comparable] struct {
	mu   sync.Mutex // tier 1; guards held; never held while calling out
	held map[K]*oneLock
}

type oneLock struct {
	mu      sync.Mutex // tier 2; of a room: held from reading its head until the next is committed
	waiting int        // guarded by locks.mu
}

// lock waits for a lock and gives the function that frees it, which does nothing
// when it is called again.
func (l *locks[K]) lock(k K) (free func()) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[K]*oneLock{}
	}
	o := l.held[k]
	if o == nil {
		o = &oneLock{}
		l.held[k] = o
	}
	o.waiting++
	l.mu.Unlock()
	o.mu.Lock()
	freed := false
	return func() {
		if freed {
			return
		}
		freed = true
		o.mu.Unlock()
		l.mu.Lock()
		if o.waiting--; o.waiting == 0 {
			delete(l.held, k)
		}
		l.mu.Unlock()
	}
}

// find gives a room, or M_NOT_FOUND for one that this server does not know.
func (s *Service) find(ctx context.Context, id matrix.RoomID) (*store.Room, error) {
	r, err := s.Store.Room(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, matrix.Errorf(matrix.NotFound, "no such room")
	}
	return r, err
}

// joinedRoom gives a room in which user is, or else M_FORBIDDEN, also where
// the room does not exist, so that a stranger cannot tell.
func (s *Service) joinedRoom(ctx context.Context, id matrix.RoomID, user matrix.UserID) (*store.Room, error) {
	r, err := s.Store.Room(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, notInRoom
	}
	if err != nil {
		return nil, err
	}
	if s.Store.Membership(user, r.Num).Membership != "join" {
		return nil, notInRoom
	}
	return r, nil
}

var notInRoom = matrix.Errorf(matrix.Forbidden, "you are not in this room")

// tree gives the state tree with a root.
func (s *Service) tree(id statetree.ID) statetree.Tree {
	if t, ok := s.trees.Find(id); ok {
		return t
	}
	t := statetree.Open(id)
	s.trees.Put(id, t)
	return t
}

// view is the state of a room at one place. It implements eventauth.State; as
// that knows no errors, the first one is kept in err and must be looked at
// after each use.
type view struct {
	ctx     context.Context
	s       *Service
	tree    statetree.Tree
	pending map[eventauth.Key]*event.PDU // state events that are not stored yet
	err     error
}

func (s *Service) view(ctx context.Context, root statetree.ID) *view {
	return &view{ctx: ctx, s: s, tree: s.tree(root)}
}

// Event implements eventauth.State.
func (v *view) Event(typ, stateKey string) *event.PDU {
	if p := v.pending[eventauth.Key{Type: typ, StateKey: stateKey}]; p != nil {
		return p
	}
	e := v.stored(typ, stateKey)
	if e == nil {
		return nil
	}
	return e.PDU
}

// stored is Event for what is in the store.
func (v *view) stored(typ, stateKey string) *store.Event {
	if v.err != nil {
		return nil
	}
	num, err := v.num(typ, stateKey)
	if err != nil || num == 0 {
		v.err = err
		return nil
	}
	e, err := v.s.Store.EventByNum(v.ctx, num)
	if err != nil {
		v.err = fmt.Errorf("state event %d: %w", num, err)
		return nil
	}
	return e
}

// num is the number of a state event, 0 if there is none.
func (v *view) num(typ, stateKey string) (store.EventNum, error) {
	k, ok, err := v.s.Store.StateKey(v.ctx, typ, stateKey)
	if err != nil || !ok {
		return 0, err
	}
	num, _, err := v.tree.Value(v.s.Store.Nodes(v.ctx), k)
	return store.EventNum(num), err
}

// PowerLevels are the parsed power levels, cached by event. eventauth uses it
// where a State has it.
func (v *view) PowerLevels() (*eventauth.PowerLevels, error) {
	create, levels := v.Event("m.room.create", ""), v.Event("m.room.power_levels", "")
	if v.err != nil {
		return nil, v.err
	}
	return v.s.powerLevels(create, levels)
}

// powerLevels parses power levels, or answers what was parsed before.
func (s *Service) powerLevels(create, levels *event.PDU) (*eventauth.PowerLevels, error) {
	var key powersKey
	switch {
	case levels != nil:
		key = powersKey{levels.ID, len(levels.Content)}
	case create != nil:
		key = powersKey{create.ID, len(create.Content)}
	}
	if p, ok := s.powers.Find(key); ok {
		return p, nil
	}
	p, err := eventauth.ParsePowerLevels(create, levels)
	if err == nil && key.event != "" {
		s.powers.Put(key, p)
	}
	return p, err
}

// powersKey is an event from which power levels were read. A redaction makes its
// content shorter, if it takes something away.
type powersKey struct {
	event  matrix.EventID
	length int
}

// membership is what a user is in this state; "leave" if nothing is known.
func (v *view) membership(user matrix.UserID) string {
	if p := v.Event("m.room.member", string(user)); p != nil {
		return p.Membership()
	}
	return "leave"
}

// content reads a string of a state event's content; absent is "".
func (v *view) content(typ, key string) string {
	if p := v.Event(typ, ""); p != nil {
		return p.ContentString(key)
	}
	return ""
}

// object is a JSON object to be made into a content.
type object map[string]any

func (o object) raw() json.RawMessage {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // o holds only what has been decoded from JSON, and strings and numbers of ours
	}
	return b
}
