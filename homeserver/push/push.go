// Package push tells push gateways what users have to be notified of, and users
// by e-mail what they have left unread: a reader of the log for each pusher, with
// a position of its own. What is to be told it asks of package unread. A gateway
// that does not answer holds up nobody but its own pusher.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#push-notifications
package push

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
	"switchboard/homeserver/unread"
)

// Service runs the pushers of all users.
type Service struct {
	Store  *store.Store
	Rooms  *room.Service
	Unread *unread.Service
	Bell   *notify.Bell

	// Client asks gateways. It is guarded: users name them.
	Client *http.Client

	// Mail sends e-mail. Nil: pushers of kind "email" rest.
	Mail *Mail
}

// The waits after failures: the first, and the longest.
const (
	firstRetry = time.Second
	lastRetry  = time.Hour
)

// staleAfter is how long a notification is worth telling.
const staleAfter = 24 * time.Hour

// unsaved is how far a position may be ahead of the saved one while there is
// nothing to tell. After a crash that much is looked at again.
const unsaved = 5000

// Run tells gateways of the log until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	running := map[key]*worker{}
	for ctx.Err() == nil {
		rung := s.Bell.Listen(store.PushersBell)
		list, err := s.Store.AllPushers(ctx)
		if err != nil {
			if ctx.Err() == nil {
				zerolog.Ctx(ctx).Error().Err(err).Msg("cannot read the pushers; trying again")
				pause(ctx, backoff(3), nil)
			}
			continue
		}
		s.employ(ctx, list, running, &group)
		pause(ctx, time.Hour, rung)
	}
	return nil
}

// employ starts workers for the pushers that have none, and stops those whose
// pushers are gone.
func (s *Service) employ(ctx context.Context, list []store.Pusher, running map[key]*worker, group *sync.WaitGroup) {
	now := map[key]bool{}
	for _, p := range list {
		if p.Kind != "http" && (p.Kind != "email" || s.Mail == nil) {
			continue
		}
		now[keyOf(p)] = true
		if w := running[keyOf(p)]; w != nil && !w.over.Load() {
			continue
		}
		workCtx, stop := context.WithCancel(ctx)
		w := &worker{Service: s, pusher: p, stop: stop}
		running[keyOf(p)] = w
		group.Go(func() { w.run(workCtx) })
	}
	for k, w := range running {
		if !now[k] {
			w.stop()
			delete(running, k)
		}
	}
}

// key names a pusher.
type key struct{ user, app, pushkey, kind string }

func keyOf(p store.Pusher) key { return key{string(p.User), p.AppID, p.Pushkey, p.Kind} }

// run tells one gateway, or one e-mail address, until ctx is done. Faults and panics end only one
// attempt.
func (w *worker) run(ctx context.Context) {
	log := zerolog.Ctx(ctx).With().Str("user", string(w.pusher.User)).Str("app", w.pusher.AppID).Logger()
	ctx = log.WithContext(ctx)
	defer w.leave(ctx)
	for ctx.Err() == nil {
		rung := w.Bell.Listen(string(w.pusher.User))
		wait, err := w.guardedTurn(ctx)
		if err == nil {
			w.failures, w.failingSince = 0, time.Time{}
			pause(ctx, wait, rung)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if w.failures++; w.failures == 1 {
			w.failingSince = time.Now()
			log.Warn().Err(err).Str("kind", w.pusher.Kind).Msg("a pusher cannot tell of notifications; it goes on trying")
		}
		pause(ctx, backoff(w.failures-1), nil)
	}
}

// guardedTurn tells everything up to now, and how long to wait if nothing
// happens. Panics are errors.
func (w *worker) guardedTurn(ctx context.Context) (wait time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			zerolog.Ctx(ctx).Error().Interface("panic", p).Bytes("stack", debug.Stack()).Msg("pusher panicked")
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	if w.pusher.Kind == "email" {
		return w.mailTurn(ctx)
	}
	return time.Hour, w.turn(ctx)
}

// backoff is how long to wait after failures+1 attempts: twice as long each
// time, and not all at the same moment.
func backoff(failures int) time.Duration {
	d := lastRetry
	if failures < 12 {
		d = min(firstRetry<<failures, lastRetry)
	}
	return d - time.Duration(rand.Int64N(int64(d/5)))
}

// pause waits for a while or until wake or ctx is done.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-wake:
	}
}
