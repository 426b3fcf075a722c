package federation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
)

// arriving collects the events of a long answer with the state of a room. Their
// signatures are verified on all cores while more of them arrive.
type arriving struct {
	version     *matrix.RoomVersion
	room        matrix.RoomID
	limit       int // events
	most        int // events of state that are not too complex; 0 sets no limit
	state, auth []*event.PDU
	bad         int // events that were none

	seed maphash.Seed
	seen map[uint64]*event.PDU // by a hash of the JSON

	keys    *fedclient.KeyRing
	keeping atomic.Int32 // 1 while some are being kept: that gets a core, so that it does not fall behind

	mu     sync.Mutex // tier 1; guards what follows
	change sync.Cond  // on mu: of all that follows
	queue  []*event.PDU
	proved []*event.PDU            // verified, and not yet taken
	forged map[*event.PDU]struct{} // verified, to no good
	ended  bool                    // nothing more comes
	done   bool                    // nothing more will be verified
}

func (s *Service) newArriving(v *matrix.RoomVersion, room matrix.RoomID) *arriving {
	a := &arriving{
		version: v, room: room, limit: s.Config.MaxState, keys: s.Keys,
		seed: maphash.MakeSeed(), seen: map[uint64]*event.PDU{}, forged: map[*event.PDU]struct{}{},
	}
	a.change.L = &a.mu
	return a
}

// add implements fedclient.Each.
func (a *arriving) add(part fedclient.Part, raw json.RawMessage) error {
	if len(a.state)+len(a.auth) >= a.limit {
		return fmt.Errorf("the room has more than %d events of state; federation.max_state_events may be raised", a.limit)
	}
	p := a.parse(raw)
	switch {
	case p == nil:
		a.bad++
	case part == fedclient.State && a.most > 0 && len(a.state) >= a.most:
		return errComplex
	case part == fedclient.State:
		a.state = append(a.state, p)
	default:
		a.auth = append(a.auth, p)
	}
	return nil
}

// parse reads an event, nil if it is none. Much of what authorizes the state is
// a part of it and comes twice.
func (a *arriving) parse(raw json.RawMessage) *event.PDU {
	hash := maphash.Bytes(a.seed, raw)
	if p := a.seen[hash]; p != nil && bytes.Equal(p.JSON, raw) {
		return p
	}
	p, err := event.Parse(a.version, raw)
	if err != nil || p.Room != a.room || !p.IsState() {
		return nil
	}
	a.seen[hash] = p
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue = append(a.queue, p)
	a.change.Broadcast()
	return p
}

// read reads an answer by call, which gives it to add, while what has come is
// verified and what is verified is given to keep. It returns when all of it is
// kept, or with the first error, of whom ever.
func (a *arriving) read(ctx context.Context, call func(context.Context) error, keep func(context.Context, []*event.PDU) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	settle := func(err error) {
		if err != nil {
			cancel(err)
		}
	}
	verified := beside(func() error {
		defer a.set(&a.done)
		return a.verify(ctx)
	})
	kept := beside(func() (err error) {
		for batch := a.take(&a.proved, &a.done); len(batch) > 0 && err == nil; batch = a.take(&a.proved, &a.done) {
			a.keeping.Store(1)
			err = keep(ctx, batch)
			a.keeping.Store(0)
			settle(err)
		}
		return err
	})
	settle(call(ctx))
	a.set(&a.ended)
	settle(verified())
	settle(kept())
	if a.bad+len(a.forged) > 0 {
		zerolog.Ctx(ctx).Warn().Str("room", string(a.room)).Int("broken", a.bad).Int("forged", len(a.forged)).Msg("events of a room's state were left out")
	}
	return context.Cause(ctx)
}

// beside runs f in a goroutine and gives the function that waits for it. A panic
// is an error.
func beside(f func() error) (wait func() error) {
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
			done <- err
		}()
		err = f()
	}()
	return func() error { return <-done }
}

// verifiedAtOnce is after how many events those who wait are told.
const verifiedAtOnce = 512

// verify verifies what arrives. Keys are fetched for all events together that
// have come until then, so that servers which do not answer cost their time
// once, not for each part.
func (a *arriving) verify(ctx context.Context) error {
	for batch := a.take(&a.queue, &a.ended); len(batch) > 0 && ctx.Err() == nil; batch = a.take(&a.queue, &a.ended) {
		if lacking := a.judge(ctx, batch, true); len(lacking) > 0 {
			a.keys.Learn(ctx, lacking)
			a.judge(ctx, lacking, false)
		}
	}
	return ctx.Err()
}

// judge tells those who wait which events are what they say. With more, the
// events are given back for which a key is not known.
func (a *arriving) judge(ctx context.Context, events []*event.PDU, more bool) (lacking []*event.PDU) {
	for part := range slices.Chunk(events, verifiedAtOnce) {
		errs := a.keys.VerifyKnown(ctx, part, int(a.keeping.Load()))
		if ctx.Err() != nil {
			return nil
		}
		a.mu.Lock()
		for i, err := range errs {
			switch {
			case err == nil:
				a.proved = append(a.proved, part[i])
			case more && errors.Is(err, fedclient.ErrNoKey):
				lacking = append(lacking, part[i])
			default:
				a.forged[part[i]] = struct{}{}
			}
		}
		a.change.Broadcast()
		a.mu.Unlock()
	}
	return lacking
}

// take waits for events on a list and gives all that have come; none at the end.
func (a *arriving) take(list *[]*event.PDU, end *bool) []*event.PDU {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(*list) == 0 && !*end {
		a.change.Wait()
	}
	batch := *list
	*list = nil
	return batch
}

// set sets one of the flags.
func (a *arriving) set(flag *bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*flag = true
	a.change.Broadcast()
}

// good gives the events that are what they say, when the answer has been read.
func (a *arriving) good() (state, auth []*event.PDU) {
	forged := func(p *event.PDU) bool { _, ok := a.forged[p]; return ok }
	return slices.DeleteFunc(a.state, forged), slices.DeleteFunc(a.auth, forged)
}

var _ fedclient.Each = (*arriving)(nil).add
