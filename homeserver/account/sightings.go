package account

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// flushEvery is how long a sighting may wait to be written.
const flushEvery = 10 * time.Second

// sightings are when and where devices were seen, until they are written. What
// is not written when the process dies is seen again.
type sightings struct {
	mu      sync.Mutex // tier 1; guards waiting
	waiting map[deviceKey]store.Sighting
}

type deviceKey struct {
	user   matrix.UserID
	device matrix.DeviceID
}

// saw notes where a device was seen, at most once in a while.
func (s *Service) saw(e *remembered, c Client, now time.Time) {
	before := e.seen.Load()
	ms := now.UnixMilli()
	if e.session.Device == "" || ms-before < seenEvery.Milliseconds() || !e.seen.CompareAndSwap(before, ms) {
		return
	}
	s.seen.mu.Lock()
	defer s.seen.mu.Unlock()
	if s.seen.waiting == nil {
		s.seen.waiting = make(map[deviceKey]store.Sighting)
	}
	if len(s.seen.waiting) < mostSightings {
		s.seen.waiting[deviceKey{e.session.User, e.session.Device}] = store.Sighting{TS: ms, Address: c.Address, UserAgent: printable(c.UserAgent, 500)}
	}
}

// Run writes, until ctx is done, what is written late: where devices were last
// seen. What waits at the end is written before it returns.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushEvery)
			defer cancel()
			s.flush(last)
			return nil
		}
		s.flush(ctx)
	}
}

// flush writes the sightings that wait.
func (s *Service) flush(ctx context.Context) {
	s.seen.mu.Lock()
	waiting := s.seen.waiting
	s.seen.waiting = nil
	s.seen.mu.Unlock()
	if len(waiting) == 0 {
		return
	}
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		for k, at := range waiting {
			if err := tx.SetDeviceSeen(ctx, k.user, k.device, at); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		zerolog.Ctx(ctx).Err(err).Msg("last seen of devices not written")
	}
}
