package media

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/blob"
	"switchboard/homeserver/store"
)

const (
	sweepEvery = time.Hour
	walkEvery  = 24 * time.Hour
	reapEvery  = 5 * time.Minute // where deleting failed

	// unswept is how old a blob must be before it is deleted for want of a row.
	unswept = 24 * time.Hour

	// atOnce is how many files are forgotten in one transaction, and mostSwept in
	// one sweep.
	atOnce    = 100
	mostSwept = 20_000
)

// bellDropped rings when blobs are to be deleted.
const bellDropped = "media dropped"

// Run deletes what is not needed any more, until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	log := zerolog.Ctx(ctx)
	var sweep, walk time.Time
	for {
		dropped, now := s.bell.Listen(bellDropped), time.Now()
		if now.After(sweep) {
			if err := s.Sweep(ctx, now); err != nil && ctx.Err() == nil {
				log.Error().Err(err).Msg("sweeping media")
			}
			sweep = now.Add(sweepEvery)
		}
		if now.After(walk) {
			walk = now.Add(walkEvery)
			if err := s.Walk(ctx, now); err != nil && ctx.Err() == nil {
				log.Error().Err(err).Msg("looking for media that nothing refers to; it will be tried again")
				walk = now.Add(sweepEvery)
			}
		}
		if err := s.Reap(ctx, quietly); err != nil && ctx.Err() == nil {
			log.Error().Err(err).Msg("deleting media; it will be tried again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-dropped:
		case <-time.After(reapEvery):
		}
	}
}

// Sweep forgets IDs whose upload has expired by now, and files that are too old
// or too many, of this server and of others; of very many only a part. Reap
// deletes their blobs.
func (s *Service) Sweep(ctx context.Context, now time.Time) error {
	err := s.store.Update(ctx, func(tx *store.Tx) error { return tx.ExpireMedia(ctx, now.UnixMilli()) })
	if err != nil {
		return err
	}
	expired, err := s.expire(ctx, now)
	if err != nil {
		return err
	}
	trimmed, err := s.trim(ctx, now, blob.Digest{})
	if expired+trimmed > 0 {
		zerolog.Ctx(ctx).Info().Int("own", expired).Int("remote", trimmed).Msg("media that were old or too many are gone")
	}
	return err
}

// Walk deletes blobs that nothing refers to, as uploads leave them behind that
// failed in the end, and what crashed uploads left.
func (s *Service) Walk(ctx context.Context, now time.Time) error {
	if err := s.blobs.Clean(ctx, now); err != nil {
		return err
	}
	return s.blobs.Walk(ctx, func(b blob.Info) error {
		if now.UnixMilli()-b.Put < unswept.Milliseconds() {
			return nil
		}
		_, err := s.remove(ctx, b.Digest)
		return err
	})
}

// remove deletes a blob unless something needs it. It is not done if somebody is
// uploading the same.
func (s *Service) remove(ctx context.Context, d blob.Digest) (done bool, err error) {
	release, ok := s.locks.own(d)
	if !ok {
		return false, nil
	}
	defer release()
	needed, err := s.store.MediaNeeded(ctx, d[:])
	if err == nil && !needed {
		err = s.blobs.Delete(ctx, d)
	}
	return err == nil, err
}

// Reap deletes the blobs of files that were forgotten. What it does not reach
// stays on the list for the next time, be it for a crash or because the place of
// the blobs is away. It tells now and then how many it has deleted.
func (s *Service) Reap(ctx context.Context, tell func(n int)) error {
	n := 0
	for {
		list, err := s.store.DroppedBlobs(ctx, atOnce)
		if err != nil || len(list) == 0 {
			return err
		}
		var gone []store.DroppedBlob
		for _, b := range list {
			done, err := s.remove(ctx, blob.Digest(b.Digest))
			if err != nil {
				return err
			}
			if done {
				gone = append(gone, b)
				n++
				tell(n)
			}
		}
		if err := s.store.Update(ctx, func(tx *store.Tx) error { return tx.ForgetBlobs(ctx, gone) }); err != nil || len(gone) < atOnce {
			return err
		}
	}
}

// dropAll forgets the files that list gives, some at once, until it gives none,
// and has their blobs deleted. It answers how many, tells so as it goes on, and
// stops at most of them.
func dropAll[T any](ctx context.Context, s *Service, most int, list func() ([]T, error), drop func(tx *store.Tx, m T, now int64) error, tell func(n int)) (n int, err error) {
	defer func() {
		if n > 0 {
			s.bell.Ring(bellDropped)
		}
	}()
	for n < most {
		some, err := list()
		if err != nil || len(some) == 0 {
			return n, err
		}
		err = s.store.Update(ctx, func(tx *store.Tx) error {
			for _, m := range some {
				if err := drop(tx, m, time.Now().UnixMilli()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return n, err
		}
		n += len(some)
		tell(n)
	}
	return n, nil
}

// quietly tells nobody.
func quietly(int) {}

// expire forgets files of this server for which nobody has asked for too long.
func (s *Service) expire(ctx context.Context, now time.Time) (int, error) {
	if s.config.LocalKeep == 0 {
		return 0, nil
	}
	oldest := now.Add(-s.config.LocalKeep).UnixMilli()
	return dropAll(ctx, s, mostSwept,
		func() ([]store.Media, error) { return s.store.UnusedMedia(ctx, s.server, oldest, atOnce) },
		func(tx *store.Tx, m store.Media, now int64) error { return tx.DropMedia(ctx, m, now) }, quietly)
}

// trim forgets files of other servers for which nobody has asked for long, and
// others until the rest fits into the quota. What has the digest spare stays.
func (s *Service) trim(ctx context.Context, now time.Time, spare blob.Digest) (int, error) {
	total, err := s.store.RemoteMediaSize(ctx)
	if err != nil {
		return 0, err
	}
	oldest := now.Add(-s.config.RemoteKeep).UnixMilli()
	next := func() (some []store.RemoteMedia, err error) {
		list, err := s.store.LeastUsedMedia(ctx, atOnce)
		for _, m := range list {
			over := s.config.RemoteQuota > 0 && total > s.config.RemoteQuota
			if !over && (s.config.RemoteKeep == 0 || m.UsedTS >= oldest) {
				break
			}
			if blob.Digest(m.Digest) != spare {
				some = append(some, m)
				total -= m.Size
			}
		}
		return some, err
	}
	return dropAll(ctx, s, mostSwept, next, func(tx *store.Tx, m store.RemoteMedia, now int64) error { return tx.DropRemoteMedia(ctx, m, now) }, quietly)
}
