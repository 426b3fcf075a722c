package federation

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"

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

	keys   *fedclient.KeyRing
	mu     sync.Mutex // tier 1; guards what follows
	change sync.Cond  // on mu: of all that follows
	queue  []*event.PDU
	place  map[*event.PDU]int // in errs
	errs   []error            // of the events that are verified, in the order in which they came
	ended  bool               // nothing more comes
	gone   error              // why the rest is not verified
}

func (s *Service) newArriving(v *matrix.RoomVersion, room matrix.RoomID) *arriving {
	a := &arriving{
		version: v, room: room, limit: s.Config.MaxState, keys: s.Keys,
		seed: maphash.MakeSeed(), seen: map[uint64]*event.PDU{}, place: map[*event.PDU]int{},
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
	a.place[p] = len(a.place)
	a.queue = append(a.queue, p)
	a.change.Broadcast()
	return p
}

// end tells that the answer has been read.
func (a *arriving) end(ctx context.Context) {
	if a.bad > 0 {
		zerolog.Ctx(ctx).Warn().Str("room", string(a.room)).Int("events", a.bad).Msg("events of a room's state were left out: they are broken")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	a.change.Broadcast()
}

// verifiedAtOnce is after how many events those who wait are told.
const verifiedAtOnce = 512

// verify begins to verify what arrives and gives the function that ends that.
// Keys are fetched for all events together that have come until then, so that
// servers which do not answer cost their time once, not for each part.
func (a *arriving) verify(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		for batch := a.take(); len(batch) > 0 && ctx.Err() == nil; batch = a.take() {
			a.keys.Learn(ctx, batch)
			for part := range slices.Chunk(batch, verifiedAtOnce) {
				if ctx.Err() != nil {
					break
				}
				a.verified(a.keys.VerifyEvents(ctx, part), ctx.Err())
			}
		}
		a.verified(nil, ctx.Err())
	})
	return func() {
		cancel()
		a.mu.Lock()
		a.ended = true
		a.change.Broadcast()
		a.mu.Unlock()
		group.Wait()
	}
}

// take waits for events and gives all that have come; none at the end.
func (a *arriving) take() []*event.PDU {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.queue) == 0 && !a.ended {
		a.change.Wait()
	}
	batch := a.queue
	a.queue = nil
	return batch
}

// verified tells those who wait what came out, or that nothing more will.
func (a *arriving) verified(errs []error, gone error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.errs, a.gone = append(a.errs, errs...), gone
	a.change.Broadcast()
}

// wait gives what came out for some of the events, once it is known.
func (a *arriving) wait(_ context.Context, events []*event.PDU) []error {
	a.mu.Lock()
	defer a.mu.Unlock()
	errs := make([]error, len(events))
	for i, p := range events {
		for a.place[p] >= len(a.errs) && a.gone == nil {
			a.change.Wait()
		}
		if errs[i] = a.gone; a.place[p] < len(a.errs) {
			errs[i] = a.errs[a.place[p]]
		}
	}
	return errs
}

// good gives the events that are what they say, when all are verified.
func (a *arriving) good(ctx context.Context) (state, auth []*event.PDU, err error) {
	drop := func(list []*event.PDU) (kept []*event.PDU) {
		for i, err := range a.wait(ctx, list) {
			if err == nil {
				kept = append(kept, list[i])
			}
		}
		return kept
	}
	state, auth = drop(a.state), drop(a.auth)
	if n := len(a.state) + len(a.auth) - len(state) - len(auth); n > 0 {
		zerolog.Ctx(ctx).Warn().Str("room", string(a.room)).Int("events", n).Msg("events of a room's state were left out: they are forged")
	}
	return state, auth, ctx.Err()
}

var _ fedclient.Each = (*arriving)(nil).add
