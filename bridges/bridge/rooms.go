package bridge

import (
	"context"
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/simplevent"
)

// openings holds back events for rooms that are just being made. mautrix looks
// at a room without a lock when an event is queued, which must not happen while
// it writes down the new room's ID.
type openings struct {
	mu      sync.Mutex // tier 1; guards what follows
	waiting map[networkid.PortalKey][]queued
	touched map[networkid.UserLoginID]map[networkid.PortalKey]bool
}

// queued is an event with the login that saw it.
type queued struct {
	login *bridgev2.UserLogin
	event bridgev2.RemoteEvent
}

// Queue gives an event to its room, which handles it after all that the same
// goroutine has given before, and introduces its sender. It is false if the
// bridge stops. Connectors call it instead of the login's QueueRemoteEvent.
func Queue(login *bridgev2.UserLogin, e bridgev2.RemoteEvent) bool {
	s := sideOf(login.Bridge)
	ctx := login.Log.WithContext(login.Bridge.BackgroundCtx)
	if ctx.Err() != nil {
		return false
	}
	if sender := e.GetSender(); sender.Sender != "" {
		Introduce(ctx, login, sender.Sender, nil)
	}
	o, q, key := &s.openings, queued{login, e}, e.GetPortalKey()
	opens := creates(e) && !Exists(ctx, login, key)
	o.mu.Lock()
	if o.touched[login.ID] == nil {
		o.touched[login.ID] = make(map[networkid.PortalKey]bool)
	}
	o.touched[login.ID][key] = true
	list, opening := o.waiting[key]
	if opening || opens {
		o.waiting[key] = append(list, q)
		o.mu.Unlock()
		if !opening {
			Go(ctx, "open a room", func() error { s.open(ctx, key); return nil })
		}
		return true
	}
	o.mu.Unlock()
	return login.QueueRemoteEvent(e).Queued
}

// open makes a room and then gives it what was held back.
func (s *side) open(ctx context.Context, key networkid.PortalKey) {
	for ctx.Err() == nil {
		s.openings.mu.Lock()
		list := s.openings.waiting[key]
		if len(list) == 0 {
			delete(s.openings.waiting, key)
			s.openings.mu.Unlock()
			return
		}
		q := list[0]
		s.openings.waiting[key] = list[1:]
		s.openings.mu.Unlock()
		Contain(ctx, "make a room", func() error { return q.enter(ctx, key) })
	}
}

// enter gives an event to its room, which it makes first if there is none.
func (q queued) enter(ctx context.Context, key networkid.PortalKey) error {
	if !creates(q.event) || Exists(ctx, q.login, key) {
		q.login.QueueRemoteEvent(q.event)
		return nil
	}
	portal, err := q.login.Bridge.GetPortalByKey(ctx, key)
	if err != nil {
		return err
	}
	q.login.MarkInPortal(ctx, portal)
	var info *bridgev2.ChatInfo
	resync, told := q.event.(bridgev2.RemoteChatResyncWithInfo)
	if told {
		if info, err = resync.GetChatInfo(ctx, portal); err != nil {
			return err
		}
	}
	if err := portal.CreateMatrixRoom(ctx, q.login, info); err != nil {
		return err
	}
	if !told {
		q.login.QueueRemoteEvent(q.event)
	} else if p, ok := q.event.(bridgev2.RemotePostHandler); ok {
		p.PostHandle(ctx, portal) // the new room is what a resync wanted
	}
	return nil
}

// fence is an event that does nothing but to call passed, when its room has
// handled all that came before.
func fence(key networkid.PortalKey, passed func()) bridgev2.RemoteEvent {
	return &simplevent.EventMeta{
		Type: bridgev2.RemoteEventUnknown, PortalKey: key,
		MutateContextFunc: func(ctx context.Context) context.Context { passed(); return ctx },
	}
}

// creates reports whether an event makes its room if there is none.
func creates(e bridgev2.RemoteEvent) bool {
	c, ok := e.(bridgev2.RemoteEventThatMayCreatePortal)
	return ok && c.ShouldCreatePortal()
}

// Exists reports whether a chat has a room.
func Exists(ctx context.Context, login *bridgev2.UserLogin, key networkid.PortalKey) bool {
	portal, err := login.Bridge.GetExistingPortalByKey(ctx, key)
	if err != nil && ctx.Err() == nil {
		zerolog.Ctx(ctx).Err(err).Msg("a room could not be looked up")
	}
	return err == nil && portal != nil && portal.RoomCreated.IsSet()
}

// Deliver is Queue, and waits until the event has been handled, however that
// ended. It is false if the bridge stops before that.
func Deliver(ctx context.Context, login *bridgev2.UserLogin, e bridgev2.RemoteEvent) bool {
	done := make(chan struct{})
	if !Queue(login, e) || !Queue(login, fence(e.GetPortalKey(), func() { close(done) })) {
		return false
	}
	select {
	case <-done:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	case <-login.Bridge.BackgroundCtx.Done():
		return false
	}
}

// Drain waits until the rooms have handled what a login has queued, for the time
// given. A login calls it when it disconnects.
func Drain(login *bridgev2.UserLogin, timeout time.Duration) {
	o := &sideOf(login.Bridge).openings
	o.mu.Lock()
	keys := slices.Collect(maps.Keys(o.touched[login.ID]))
	delete(o.touched, login.ID)
	o.mu.Unlock()
	ctx, cancel := context.WithTimeout(login.Bridge.BackgroundCtx, timeout)
	defer cancel()
	passed := make(chan struct{}, len(keys))
	for _, key := range keys {
		if !Queue(login, fence(key, func() { passed <- struct{}{} })) {
			return
		}
	}
	for range keys {
		select {
		case <-passed:
		case <-ctx.Done():
			return
		}
	}
}

// ghosts are the users of the network on Matrix, as far as they have a name.
type ghosts struct {
	seed  maphash.Seed
	locks [64]sync.Mutex // tier 2; by hash of the ID

	mu         sync.Mutex // tier 1; guards introduced
	introduced map[networkid.UserID]bool
}

// Introduce gives a ghost its name and picture before a room asks for them, since
// mautrix lets two rooms do that at once. Without info they are what the login's
// GetUserInfo knows, when the ghost is seen for the first time. It returns the
// ghost's name, or nothing if it can not be told.
func Introduce(ctx context.Context, login *bridgev2.UserLogin, user networkid.UserID, info *bridgev2.UserInfo) string {
	g := &sideOf(login.Bridge).ghosts
	lock := &g.locks[maphash.String(g.seed, string(user))%uint64(len(g.locks))]
	lock.Lock()
	defer lock.Unlock()
	ghost, err := login.Bridge.GetGhostByID(ctx, user)
	if err != nil {
		zerolog.Ctx(ctx).Err(err).Msg("a ghost could not be named")
		return ""
	}
	g.mu.Lock()
	known := g.introduced[user]
	g.introduced[user] = true
	g.mu.Unlock()
	if info != nil {
		ghost.UpdateInfo(ctx, info)
	} else if !known {
		ghost.UpdateInfoIfNecessary(ctx, login, bridgev2.RemoteEventUnknown)
	}
	return ghost.Name
}
