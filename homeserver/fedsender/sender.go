// Package fedsender carries what happens here to other servers: a reader of the
// log with a queue for each of them. It decides nothing about rooms; a server
// that cannot be reached holds up no other one.
package fedsender

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/store"
)

// Service sends. Run does it.
type Service struct {
	Store      *store.Store
	Client     *fedclient.Client
	Bell       *notify.Bell
	Keys       *e2ee.Service
	Ephemeral  *ephemeral.Service
	ServerName matrix.ServerName

	mu     sync.Mutex // tier 1; guards queues; never held while calling out
	queues map[matrix.ServerName]*queue
	work   sync.WaitGroup
	saved  int64 // how far the log was read when it was written down last; Run's alone
}

const (
	readAtOnce = 500             // events that are read from the log in one go
	saveEvery  = 2 * time.Second // how often is written down what was sent
)

// Run sends until ctx is done. It begins where every server was left.
func (s *Service) Run(ctx context.Context) error {
	s.mu.Lock()
	s.queues = map[matrix.ServerName]*queue{}
	s.mu.Unlock()
	defer s.work.Wait()
	r := reader{Service: s, pos: s.Store.Position(), typing: s.Ephemeral.Serial()}
	if err := s.resume(ctx, r.pos); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		rung := s.Bell.Listen(store.LogBell)
		if err := r.read(ctx); err != nil {
			if ctx.Err() != nil {
				break
			}
			zerolog.Ctx(ctx).Err(err).Msg("what is to be sent to other servers could not be read")
			r.wait(ctx, saveEvery)
		}
		select {
		case <-rung:
		case <-tick.C:
			s.save(ctx, r.pos)
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
	}
	s.save(context.WithoutCancel(ctx), r.pos)
	return nil
}

// everybody is the name under which is written down how far the log was read:
// for servers of which nothing else is known.
const everybody matrix.ServerName = ""

// resume makes queues for the servers that may lack something, up to pos.
func (s *Service) resume(ctx context.Context, pos int64) error {
	base, known, err := s.Store.Destination(ctx, everybody)
	if err != nil {
		return err
	}
	if !known {
		base.Pos = pos // the first start
	}
	servers, err := s.Store.AllServers(ctx)
	if err != nil {
		return err
	}
	for _, name := range servers {
		d, _, err := s.Store.Destination(ctx, name)
		if err != nil {
			return err
		}
		since := d.Pos
		if since == 0 {
			since = base.Pos
		}
		if name != s.ServerName && since < pos {
			s.queue(name).fallBehind(since)
			s.start(ctx, s.queue(name))
		}
	}
	servers, _, err = s.Store.OutboxServers(ctx, 0)
	for _, name := range servers {
		s.start(ctx, s.queue(name))
	}
	s.save(ctx, pos)
	return err
}

// queue gives the queue of a server.
func (s *Service) queue(server matrix.ServerName) *queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[server]
	if q == nil {
		q = &queue{server: server}
		s.queues[server] = q
	}
	return q
}

// start lets a queue be worked on, if nobody does.
func (s *Service) start(ctx context.Context, q *queue) {
	if q.begin() {
		s.work.Go(func() { s.serve(ctx, q) })
	}
}

// save writes down up to where each server was sent everything. The queues of
// servers that lack nothing are forgotten.
func (s *Service) save(ctx context.Context, pos int64) {
	sent := map[matrix.ServerName]int64{everybody: pos}
	s.mu.Lock()
	for name, q := range s.queues {
		at, changed, idle := q.sentUpTo(pos)
		if changed {
			sent[name] = at
		}
		if idle {
			delete(s.queues, name)
		}
	}
	s.mu.Unlock()
	if len(sent) == 1 && pos == s.saved {
		return
	}
	s.saved = pos
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		for name, at := range sent {
			if err := tx.PutSent(ctx, name, at); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		zerolog.Ctx(ctx).Err(err).Msg("what was sent to other servers could not be written down")
	}
}

// reader reads the log and gives everything to the queues that it concerns.
type reader struct {
	*Service
	pos    int64 // events up to here are in queues
	typing int64 // the same for who types
	outbox int64 // and for messages to devices

	typists map[matrix.RoomID][]matrix.UserID // who was told to type
}

// read takes in what is new.
func (r *reader) read(ctx context.Context) error { return r.readUpTo(ctx, r.Store.Position()) }

// readUpTo is read up to a position. What comes meanwhile waits for the next time:
// of what stands beside the events there, nothing would be told any more.
func (r *reader) readUpTo(ctx context.Context, upto int64) error {
	if err := r.readEphemeral(ctx, r.pos, upto); err != nil {
		return err
	}
	for r.pos < upto {
		list, err := r.Store.Log(ctx, r.pos, readAtOnce)
		if err != nil {
			return err
		}
		for _, e := range list {
			if e.Pos > upto {
				break
			}
			if err := r.route(ctx, e); err != nil {
				return fmt.Errorf("event %s: %w", e.PDU.ID, err)
			}
			r.pos = e.Pos
		}
		if len(list) < readAtOnce || list[len(list)-1].Pos > upto {
			break
		}
	}
	r.pos = max(r.pos, upto)
	return nil
}

// wait lets some time pass.
func (r *reader) wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// route puts an event of this server, or one that it let in, into the queues of
// the servers in its room.
func (r *reader) route(ctx context.Context, e *store.Event) error {
	if err := r.introduce(ctx, e); err != nil {
		return err
	}
	if e.PDU.Sender.Server() != r.ServerName && !e.Relay || e.Told || e.PDU.Local {
		return nil
	}
	servers, err := r.audience(ctx, e)
	if err != nil {
		return err
	}
	for _, name := range servers {
		if name == r.ServerName || e.Relay && name == e.PDU.Sender.Server() {
			continue
		}
		q := r.queue(name)
		q.add(e)
		r.start(ctx, q)
	}
	return nil
}

// audience are the servers in the room, and the one whose user an event put out.
func (r *reader) audience(ctx context.Context, e *store.Event) ([]matrix.ServerName, error) {
	servers, err := r.Store.Servers(ctx, e.Room)
	if err != nil {
		return nil, err
	}
	if m := e.PDU.Membership(); e.PDU.Type == event.TypeMember && (m == event.Leave || m == event.Ban) {
		servers = append(servers, matrix.UserID(*e.PDU.StateKey).Server())
	}
	return servers, nil
}

// serve sends what stands in a queue until nothing is left. While the server
// does not answer it waits, as long as the client says, or until the server is
// heard. One that is heard but takes nothing is asked less and less often.
func (s *Service) serve(ctx context.Context, q *queue) {
	for early := time.Duration(0); ctx.Err() == nil; {
		heard := s.Bell.Listen(fedclient.BellKey(q.server))
		more, err := s.sendSome(ctx, q)
		switch {
		case err == nil && !more:
			if q.rest() {
				return
			}
		case err != nil:
			q.fail()
			if errors.Is(err, fedclient.ErrNotPermitted) {
				q.end()
				return
			}
			if s.pause(ctx, q, err, heard, min(early*early*pauseStep, pauseMost)) {
				early++
			}
			continue
		}
		early = 0
	}
	q.end()
}

// The shortest pauses before retries that come early, because the server was
// heard, grow from nothing by these.
const (
	pauseStep = 100 * time.Millisecond
	pauseMost = 30 * time.Second
)

// pause waits until a server may be asked again, or until it is heard, but at
// least some time. It tells whether the server was heard before its time.
func (s *Service) pause(ctx context.Context, q *queue, err error, heard <-chan struct{}, least time.Duration) (early bool) {
	select {
	case <-time.After(least):
	case <-ctx.Done():
		return false
	}
	var backoff *fedclient.BackoffError
	until := time.Now().Add(saveEvery)
	if errors.As(err, &backoff) {
		until = backoff.Until
	} else if at, rerr := s.Client.RetryAt(ctx, q.server); rerr == nil && at.After(until) {
		until = at
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-heard:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}
