package federation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// inboxBell is rung when there is a reason to look at what waits.
const inboxBell = "inbox"

const (
	inboxServers   = 4                      // how many servers are asked for what one event lacks
	inboxQuestions = 100                    // how many are asked in one attempt on a room
	inboxBegin     = 3 * time.Second        // how long what is new waits: the server that sent it has just been asked
	inboxFirst     = 10 * time.Second       // after the first attempt, twice as long after each other one
	inboxMost      = time.Hour              // at most
	inboxStep      = 100 * time.Millisecond // times the square of the attempts: how soon the next may follow
	inboxSoonest   = time.Minute            // at most
	deafTime       = 30 * time.Second       // for how long a server that does not answer is not asked within its transactions
)

// inbox knows for which rooms events wait. The events are in the store.
type inbox struct {
	deaf store.Recent[matrix.ServerName, time.Time] // when servers did not answer

	mu      sync.Mutex // tier 1; guards all below; never held while calling out
	rooms   map[matrix.RoomID]*waiting
	working int // on how many of them
}

// waiting is what waits for one room.
type waiting struct {
	attempts int                        // in a row that changed nothing
	due      time.Time                  // when the next attempt is made
	soonest  time.Time                  // not before, whoever is heard
	silent   map[matrix.ServerName]bool // who did not answer at the last attempt
	working  bool
	again    bool // there was a new reason meanwhile
}

// stir has what waits for a room tried soon. With more there is something new,
// else there may be nothing. It tells whether there is something.
func (b *inbox) stir(id matrix.RoomID, more bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.rooms[id]
	switch {
	case w == nil && !more:
		return false
	case w == nil:
		if b.rooms == nil {
			b.rooms = map[matrix.RoomID]*waiting{}
		}
		begin := time.Now().Add(inboxBegin)
		b.rooms[id] = &waiting{due: begin, soonest: begin}
	default:
		w.again = w.working
		w.due = w.soonest
	}
	return true
}

// resting are the rooms that nobody works on.
func (b *inbox) resting() map[matrix.RoomID]waiting {
	b.mu.Lock()
	defer b.mu.Unlock()
	rooms := make(map[matrix.RoomID]waiting, len(b.rooms))
	for id, w := range b.rooms {
		if !w.working {
			rooms[id] = *w
		}
	}
	return rooms
}

// begin tells whether one more room may be worked on.
func (b *inbox) begin(id matrix.RoomID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.working >= roomsAtOnce {
		return false
	}
	b.working++
	b.rooms[id].working, b.rooms[id].again = true, false
	return true
}

// end notes what came of an attempt: whether something was settled, whether
// something is left, and who did not answer.
func (b *inbox) end(id matrix.RoomID, settled, left bool, silent map[matrix.ServerName]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.rooms[id]
	b.working--
	if w.working = false; !left && !w.again {
		delete(b.rooms, id)
		return
	}
	if w.attempts++; settled {
		w.attempts = 0
	}
	now := time.Now()
	pause := min(inboxFirst<<min(w.attempts, 20), inboxMost)
	w.due = now.Add(time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64())))
	w.soonest = now.Add(min(time.Duration(w.attempts*w.attempts)*inboxStep, inboxSoonest))
	if w.silent = silent; w.again {
		w.due = w.soonest
	}
}

// hold keeps events for later which a server sent.
func (s *Service) hold(ctx context.Context, origin matrix.ServerName, list []*event.PDU) error {
	if len(list) == 0 {
		return nil
	}
	most := store.InboxBounds{Server: s.Config.MaxInboxPerServer, Room: s.Config.MaxInboxPerRoom, Total: s.Config.MaxInbox}
	now := time.Now().UnixMilli()
	dropped := int64(0)
	err := s.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		dropped = 0
		for _, p := range list {
			n, err := tx.PutIncoming(ctx, store.Incoming{Room: p.Room, ID: p.ID, Origin: origin, JSON: p.JSON, ReceivedTS: now}, most)
			if err != nil {
				return err
			}
			dropped += n
		}
		return nil
	})
	if err != nil {
		return err
	}
	if dropped > 0 {
		zerolog.Ctx(ctx).Warn().Str("server", string(origin)).Int64("events", dropped).Msg("too many events wait for others that cannot be had; the oldest were dropped")
	}
	for _, p := range list {
		s.inbox.stir(p.Room, true)
	}
	s.Bell.Ring(inboxBell)
	return nil
}

// runInbox tries what waits until ctx is done.
func (s *Service) runInbox(ctx context.Context) error {
	rooms, err := s.Store.InboxRooms(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	for _, id := range rooms {
		s.inbox.stir(id, true)
	}
	var group sync.WaitGroup
	defer group.Wait()
	for ctx.Err() == nil {
		before := s.Bell.Listen(inboxBell)
		resting := s.inbox.resting()
		keys := []string{inboxBell}
		for _, w := range resting {
			for name := range w.silent {
				keys = append(keys, fedclient.BellKey(name))
			}
		}
		rung := s.Bell.ListenAll(keys...)
		timer := time.NewTimer(s.tryDue(ctx, &group, resting))
		select {
		case <-before: // while the others were listed
		case <-rung:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// tryDue begins to try what is due, and tells how long nothing else is.
func (s *Service) tryDue(ctx context.Context, group *sync.WaitGroup, resting map[matrix.RoomID]waiting) time.Duration {
	pause := inboxMost
	for id, w := range resting {
		at := w.due
		for name := range w.silent {
			if w.soonest.Before(at) && s.heard(ctx, name) {
				at = w.soonest
			}
		}
		if left := time.Until(at); left > 0 {
			pause = min(pause, left)
			continue
		}
		if !s.inbox.begin(id) {
			break // who ends rings
		}
		group.Go(func() { s.tryRoom(ctx, id) })
	}
	return pause
}

// heard tells whether a server that did not answer was heard since.
func (s *Service) heard(ctx context.Context, server matrix.ServerName) bool {
	at, err := s.Client.RetryAt(ctx, server)
	return err == nil && at.IsZero()
}

// tryRoom tries what waits for a room, in the order in which it came.
func (s *Service) tryRoom(ctx context.Context, id matrix.RoomID) {
	defer s.Bell.Ring(inboxBell)
	t := &attempt{Service: s, questions: inboxQuestions, silent: map[matrix.ServerName]bool{}}
	list, err := s.Store.Inbox(ctx, id, s.Config.MaxInboxPerRoom)
	var settled []int64
	for _, in := range list {
		if ctx.Err() == nil && t.settles(ctx, in) {
			settled = append(settled, in.Num)
		}
	}
	if err == nil {
		err = s.strike(ctx, settled)
	}
	s.inbox.end(id, len(settled) > 0, err != nil || len(settled) < len(list), t.silent)
	if err != nil && ctx.Err() == nil {
		zerolog.Ctx(ctx).Err(err).Str("room", string(id)).Msg("what waits for a room could not be tried")
	}
}

// strike drops events that are settled, and those that have waited too long.
func (s *Service) strike(ctx context.Context, settled []int64) error {
	old := int64(0)
	err := s.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) (err error) {
		if err = tx.DropIncoming(ctx, settled); err == nil {
			old, err = tx.DropOldIncoming(ctx, time.Now().Add(-s.Config.InboxAge).UnixMilli())
		}
		return err
	})
	if old > 0 && err == nil {
		zerolog.Ctx(ctx).Warn().Int64("events", old).Msg("events whose earlier ones nobody could give were dropped")
	}
	return err
}

// attempt is one on what waits for a room.
type attempt struct {
	*Service
	questions int                        // that may still be asked
	silent    map[matrix.ServerName]bool // who did not answer
}

// settles tells whether an event need not wait any longer: it is in its room,
// may not be, or follows on what does not exist.
func (t *attempt) settles(ctx context.Context, w store.Incoming) (settled bool) {
	settled = true // also if what follows panics
	defer t.recovered(ctx)
	in, _, err := t.read(ctx, w.Origin, w.JSON)
	if err == nil {
		err = t.Keys.VerifyEvents(ctx, []*event.PDU{in.pdu})[0]
	}
	switch {
	case err != nil:
	case in.room == nil:
		err = t.takeIn(ctx, w.Origin, in)
	default:
		err = t.take(ctx, w.Origin, in.pdu)
	}
	switch {
	case err == nil, errors.Is(err, errLost):
	case errors.Is(err, fedclient.ErrNoKey), ctx.Err() != nil:
		settled = false
	default:
		settled = verdict(err)
	}
	if !settled || err != nil {
		zerolog.Ctx(ctx).Debug().Err(err).Str("event", string(w.ID)).Str("room", string(w.Room)).Bool("dropped", settled).Msg("an event that waits was not taken")
	}
	return settled
}

// errLost is errMissing where every server that was asked said so.
var errLost = fmt.Errorf("%w: no server has them", errMissing)

// take takes an event that waits. What it lacks is asked for at the server that
// sent it and then at others of the room. The error is errMissing or errLost
// where that is of no avail.
func (t *attempt) take(ctx context.Context, origin matrix.ServerName, p *event.PDU) error {
	_, err := t.Rooms.Receive(ctx, p)
	if missingOf(err) == nil {
		return err
	}
	servers, err := t.sources(ctx, origin, p)
	if err != nil {
		return err
	}
	none := errLost
	asked := 0
	for _, name := range servers {
		if asked == inboxServers {
			break
		}
		if t.silent[name] || t.questions == 0 {
			none = errMissing
			continue
		}
		asked++
		t.questions--
		g := t.gap(name, p)
		g.client = t.Client
		if err := g.bring(ctx, p, true); !errors.Is(err, errMissing) {
			return err
		}
		if g.later {
			none = errMissing
			if g.silent { // even if it was heard since: then the next attempt may follow soon
				t.silent[name] = true
			}
		}
	}
	return none
}

// sources are the servers that may have what an event lacks: who sent it, and
// the others in the room in any order.
func (t *attempt) sources(ctx context.Context, origin matrix.ServerName, p *event.PDU) ([]matrix.ServerName, error) {
	r, err := t.Store.Room(ctx, p.Room)
	if err != nil {
		return nil, err
	}
	list, err := t.Store.Servers(ctx, r.Num)
	list = slices.DeleteFunc(list, func(name matrix.ServerName) bool { return name == origin || name == t.ServerName })
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return append([]matrix.ServerName{origin}, list...), err
}
