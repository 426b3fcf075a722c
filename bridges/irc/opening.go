package irc

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/simplevent"

	"switchboard/bridges/irc/client"
)

// openings holds back events for rooms that are just being made. bridgev2 looks
// at a room without a lock when an event is queued, which must not happen while
// it writes down the new room's ID.
type openings struct {
	mu      sync.Mutex // tier 1; guards waiting
	waiting map[networkid.PortalKey][]queued
}

// queued is an event with the session that saw it.
type queued struct {
	session *session
	event   bridgev2.RemoteEvent
}

// roomTimeout is how long it may take to make the room of a channel, which
// takes a while where hundreds of users are.
const roomTimeout = 2 * time.Minute

// queue gives an event to its room, where it is handled after all earlier ones.
// It reports whether the event was taken.
func (s *session) queue(e bridgev2.RemoteEvent) bool {
	key := e.GetPortalKey()
	s.mu.Lock()
	s.touched[key] = true
	s.mu.Unlock()
	o := &s.network.connector.openings
	o.mu.Lock()
	if list, opening := o.waiting[key]; opening {
		o.waiting[key] = append(list, queued{s, e})
		o.mu.Unlock()
		return true
	}
	if creates(e) && !s.exists(key) {
		o.waiting[key] = []queued{}
		release := sync.OnceFunc(func() { o.release(s, key) })
		late := time.AfterFunc(roomTimeout, release) // the room could not be made
		after(e, func() { late.Stop(); release() })
	}
	o.mu.Unlock()
	return s.login.QueueRemoteEvent(e).Queued
}

// release queues what waited for a room.
func (o *openings) release(s *session, key networkid.PortalKey) {
	s.tasks.add(s.context(), func() {
		o.mu.Lock()
		list := o.waiting[key]
		delete(o.waiting, key)
		o.mu.Unlock()
		for _, q := range list {
			q.session.queue(q.event)
		}
	})
}

// exists reports whether a room has been made.
func (s *session) exists(key networkid.PortalKey) bool {
	ctx := s.context()
	portal, err := s.network.connector.br.GetExistingPortalByKey(ctx, key)
	if err != nil {
		zerolog.Ctx(ctx).Err(err).Msg("a room could not be looked up")
	}
	return err == nil && portal != nil && portal.RoomCreated.IsSet()
}

// creates reports whether an event makes its room if there is none.
func creates(e bridgev2.RemoteEvent) bool {
	c, ok := e.(bridgev2.RemoteEventThatMayCreatePortal)
	return ok && c.ShouldCreatePortal()
}

// after adds a call to what follows when an event that makes rooms has been
// handled.
func after(e bridgev2.RemoteEvent, call func()) {
	var meta *simplevent.EventMeta
	switch e := e.(type) {
	case *simplevent.ChatResync:
		meta = &e.EventMeta
	case *simplevent.Message[client.Message]:
		meta = &e.EventMeta
	default:
		return
	}
	before := meta.PostHandleFunc
	meta.PostHandleFunc = func(ctx context.Context, p *bridgev2.Portal) {
		if before != nil {
			before(ctx, p)
		}
		call()
	}
}
