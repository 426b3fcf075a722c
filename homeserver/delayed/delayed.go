// Package delayed sends events later than clients ask for it, unless they change
// their minds: so a call's member is taken out of the room when the app that
// would do it is gone. What waits is in the database; it survives a restart.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/4140
package delayed

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// The bounds of what may wait.
const (
	// Longest is the longest delay.
	Longest = 24 * time.Hour

	// MostScheduled is how many delayed events one user may have that are to be sent.
	MostScheduled = 100

	kept = 7 * 24 * time.Hour
)

// bell is rung when something else is due first than before.
const bell = "delayed events"

// Service holds delayed events. Its methods may be called from several
// goroutines.
type Service struct {
	Store *store.Store
	Rooms *room.Service
	Bell  *notify.Bell

	sending sync.Mutex // tier 2; held by who sends what is due
	adding  sync.Mutex // tier 2; held by who adds to all; guards from
	from    int64      // position of the log when all were read

	mu   sync.Mutex                     // tier 1; guards all below
	all  map[string]*store.DelayedEvent // that are to be sent; nil until they are read
	busy map[string]bool                // that are being sent
}

// Schedule takes an event that is to be sent after a delay, and gives the ID by
// which it can be managed. A repeated request, known by its transaction ID, gets
// the first one's. The errors are M_INVALID_PARAM, M_TOO_LARGE,
// M_MAX_DELAY_EXCEEDED and M_LIMIT_EXCEEDED.
func (s *Service) Schedule(ctx context.Context, d room.Sending, delay time.Duration) (string, error) {
	switch {
	case delay <= 0:
		return "", matrix.Errorf(matrix.InvalidParam, "delay must be a positive number of milliseconds")
	case delay > Longest:
		return "", &matrix.Error{Code: matrix.MaxDelayExceeded, Text: fmt.Sprint("the delay may be up to ", Longest), Extra: map[string]any{
			"max_delay": Longest.Milliseconds(), "org.matrix.msc4140.errcode": matrix.MaxDelayExceeded, "org.matrix.msc4140.max_delay": Longest.Milliseconds(),
		}}
	case len(d.Content) > event.MaxSize: // no room will take it
		return "", matrix.Errorf(matrix.TooLarge, "content has %d bytes, an event may have %d", len(d.Content), event.MaxSize)
	case d.Type == "" || d.Type == "m.room.create":
		return "", matrix.Errorf(matrix.InvalidParam, "an event of this type cannot be sent")
	}
	if err := s.load(ctx); err != nil {
		return "", err
	}
	s.adding.Lock()
	defer s.adding.Unlock()
	if id, err := s.Repeated(ctx, d); id != "" || err != nil {
		return id, err
	}
	if mine, first := s.scheduled(d.User); mine >= MostScheduled {
		wait := max(time.Until(time.UnixMilli(first)), time.Second)
		return "", &matrix.Error{Code: matrix.LimitExceeded, Text: fmt.Sprintf("you may have up to %d delayed events", MostScheduled), RetryAfter: wait}
	}
	e := &store.DelayedEvent{
		ID: strings.ToLower(rand.Text()), User: d.User, Device: d.Device, Txn: d.Txn, Room: d.Room, Type: d.Type, StateKey: d.StateKey,
		Content: d.Content, At: d.At, Delay: delay.Milliseconds(), SinceTS: time.Now().UnixMilli(),
	}
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		tx.OnCommit(func() { // before anybody is told of a later event that overtakes it
			s.mu.Lock()
			defer s.mu.Unlock()
			s.all[e.ID] = e
		})
		return tx.PutDelayedEvent(ctx, *e)
	})
	if err != nil {
		return "", err
	}
	s.Bell.Ring(bell)
	return e.ID, nil
}

// scheduled is how many events of a user wait, and when the first is due.
func (s *Service) scheduled(user matrix.UserID) (n int, first int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.all {
		if e.User != user {
			continue
		}
		if n++; first == 0 || e.Due() < first {
			first = e.Due()
		}
	}
	return n, first
}

// Repeated gives the ID of the event that the same request has scheduled, whatever
// became of it since; "" if there is none.
func (s *Service) Repeated(ctx context.Context, d room.Sending) (string, error) {
	if d.Txn == "" {
		return "", nil
	}
	e, err := s.Store.DelayedByTxn(ctx, store.DelayedEvent{User: d.User, Device: d.Device, Txn: d.Txn, Room: d.Room, Type: d.Type})
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return e.ID, err
}

// load reads what is scheduled, once. What was overtaken just before an earlier
// server ended is cancelled.
func (s *Service) load(ctx context.Context) error {
	s.adding.Lock()
	defer s.adding.Unlock()
	s.mu.Lock()
	loaded := s.all != nil
	s.mu.Unlock()
	if loaded {
		return nil
	}
	s.from = s.Store.Position()
	list, err := s.Store.ScheduledEvents(ctx)
	if err != nil {
		return err
	}
	all := map[string]*store.DelayedEvent{}
	for i := range list {
		e := &list[i]
		by, err := s.inPlaceOf(ctx, e)
		if err != nil {
			return err
		}
		if by == nil || !overtakes(by, e) {
			all[e.ID] = e
			continue
		}
		e.FinalTS = time.Now().UnixMilli()
		if err := s.Store.Update(ctx, func(tx *store.Tx) error { return tx.PutDelayedEvent(ctx, *e) }); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.all, s.busy = all, map[string]bool{}
	s.mu.Unlock()
	return nil
}

// inPlaceOf is the event that stands where a state event would; nil if there is
// none.
func (s *Service) inPlaceOf(ctx context.Context, e *store.DelayedEvent) (*store.Event, error) {
	if e.StateKey == nil {
		return nil, nil
	}
	r, err := s.Store.Room(ctx, e.Room)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.Rooms.StateEvent(ctx, r.Current, e.Type, *e.StateKey)
}

// Manage carries out an action on a delayed event: "send", "cancel" or "restart".
// Whoever knows the ID may do that. To do again what was done is no error. The
// errors are M_NOT_FOUND, M_INVALID_PARAM, M_UNKNOWN with status 409 where
// something else became of the event, and those of sending.
func (s *Service) Manage(ctx context.Context, id, action string) error {
	if !slices.Contains([]string{"send", "cancel", "restart"}, action) {
		return matrix.Errorf(matrix.InvalidParam, "action must be send, cancel or restart")
	}
	if err := s.load(ctx); err != nil {
		return err
	}
	e, err := s.take(ctx, id)
	if err != nil {
		return err
	}
	if e == nil {
		return s.settled(ctx, id, action)
	}
	now := time.Now().UnixMilli()
	switch action {
	case "restart":
		e.SinceTS = now
		return s.put(ctx, *e)
	case "cancel":
		e.FinalTS = now
		return s.put(ctx, *e)
	}
	if e.Event, err = s.send(ctx, e); err != nil {
		s.giveBack(e.ID)
		return err
	}
	e.FinalTS = time.Now().UnixMilli()
	return s.put(ctx, *e)
}

// take reserves a scheduled event, so that nobody else sends it meanwhile; nil if
// there is none. One that is being sent is waited for.
func (s *Service) take(ctx context.Context, id string) (*store.DelayedEvent, error) {
	for {
		done := s.Bell.Listen(bell)
		s.mu.Lock()
		e, busy := s.all[id], s.busy[id]
		if e != nil && !busy {
			s.busy[id] = true
			c := *e
			s.mu.Unlock()
			return &c, nil
		}
		s.mu.Unlock()
		if e == nil {
			return nil, nil
		}
		select {
		case <-done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// giveBack ends a reservation.
func (s *Service) giveBack(id string) {
	s.mu.Lock()
	delete(s.busy, id)
	s.mu.Unlock()
	s.Bell.Ring(bell)
}

// put writes what became of an event that was taken.
func (s *Service) put(ctx context.Context, e store.DelayedEvent) error {
	err := s.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.PutDelayedEvent(ctx, e) })
	if err == nil {
		s.mu.Lock()
		if s.all[e.ID] = &e; e.FinalTS > 0 {
			delete(s.all, e.ID)
		}
		s.mu.Unlock()
	}
	s.giveBack(e.ID)
	return err
}

// settled answers who wants to manage an event that is settled.
func (s *Service) settled(ctx context.Context, id, action string) error {
	e, err := s.Store.DelayedEvent(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return matrix.Errorf(matrix.NotFound, "there is no delayed event with this ID")
	}
	if err != nil {
		return err
	}
	sent := e.Event != ""
	if sent && action == "send" || !sent && action == "cancel" {
		return nil
	}
	text := "the event was cancelled"
	if sent {
		text = "the event was sent"
	}
	return &matrix.Error{Code: matrix.Unknown, Status: http.StatusConflict, Text: text}
}

// send puts the event into its room. Its ID is the transaction's, so that it is
// never sent twice, not by a server that ended in the middle either. Who was suspended
// or locked since may not say in this way what they can no longer say in others.
func (s *Service) send(ctx context.Context, e *store.DelayedEvent) (matrix.EventID, error) {
	u, _, err := s.Store.User(ctx, e.User)
	if err != nil || u.Suspended || u.Locked {
		return "", cmp.Or(err, error(matrix.Errorf(matrix.UserSuspended, "the account has been suspended or locked")))
	}
	return s.Rooms.Send(ctx, room.Sending{
		User: e.User, Device: e.Device, Room: e.Room, Type: e.Type, StateKey: e.StateKey, Content: e.Content, At: e.At, Delayed: e.ID,
		Guest: u.Kind == store.Guest,
	})
}

// Delayed is a delayed event as its user sees it. Where the proposal changed on
// its way, it has the older members, too.
type Delayed struct {
	ID       string          `json:"delay_id"`
	Room     matrix.RoomID   `json:"room_id"`
	Type     string          `json:"type"`
	StateKey *string         `json:"state_key,omitempty"`
	Delay    int64           `json:"delay_ms"`
	Since    int64           `json:"delayed_since_ts"`
	Content  json.RawMessage `json:"content"`
	Final    *Finalised      `json:"finalised,omitempty"`

	OldDelay int64           `json:"delay"`
	OldSince int64           `json:"running_since"`
	OldError json.RawMessage `json:"error,omitempty"`
	OldEvent matrix.EventID  `json:"event_id,omitempty"`
	OldFinal int64           `json:"origin_server_ts,omitempty"`
}

// Finalised is what became of a delayed event: it was sent, or an error kept it
// from being sent, or, with neither, it was cancelled.
type Finalised struct {
	TS    int64           `json:"finalised_ts"`
	Event matrix.EventID  `json:"event_id,omitempty"`
	Error json.RawMessage `json:"error,omitempty"`
}

func shown(e store.DelayedEvent) Delayed {
	d := Delayed{
		ID: e.ID, Room: e.Room, Type: e.Type, StateKey: e.StateKey, Delay: e.Delay, Since: e.SinceTS, Content: e.Content,
		OldDelay: e.Delay, OldSince: e.SinceTS, OldEvent: e.Event, OldFinal: e.FinalTS,
	}
	if e.Error != "" {
		d.OldError = json.RawMessage(e.Error)
	}
	if e.FinalTS > 0 {
		d.Final = &Finalised{e.FinalTS, e.Event, d.OldError}
	}
	return d
}

// List gives a user's delayed events, those first that are due first. Of is
// "scheduled", "finalised", or "" for both.
func (s *Service) List(ctx context.Context, user matrix.UserID, of string) ([]Delayed, error) {
	if of != "" && of != "scheduled" && of != "finalised" {
		return nil, matrix.Errorf(matrix.InvalidParam, "status must be scheduled or finalised")
	}
	err := s.load(ctx)
	if err == nil {
		err = s.sendDue(ctx) // after a restart that may be some, and they would be told as waiting
	}
	if err != nil {
		return nil, err
	}
	all, err := s.Store.DelayedEvents(ctx, user)
	list := []Delayed{}
	for _, e := range all {
		if of == "" || (of == "scheduled") == (e.FinalTS == 0) {
			list = append(list, shown(e))
		}
	}
	return list, err
}

// One gives one of a user's delayed events, or M_NOT_FOUND.
func (s *Service) One(ctx context.Context, user matrix.UserID, id string) (*Delayed, error) {
	e, err := s.Store.DelayedEvent(ctx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && e.User != user {
		return nil, matrix.Errorf(matrix.NotFound, "you have no delayed event with this ID")
	}
	if err != nil {
		return nil, err
	}
	d := shown(e)
	return &d, nil
}

// Run sends what is due, and cancels what another user's event has overtaken,
// until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	at, swept := int64(0), time.Time{}
	for ctx.Err() == nil {
		if err := s.load(ctx); err != nil {
			zerolog.Ctx(ctx).Error().Err(err).Msg("cannot read the delayed events; trying again")
			sleep(ctx, time.Minute, nil)
			continue
		}
		at = max(at, s.from) // which nobody changes any more
		rung := s.Bell.ListenAll(bell, store.LogBell)
		var err error
		if at, err = s.overtake(ctx, at); err == nil {
			err = s.sendDue(ctx)
		}
		if err == nil && time.Since(swept) > time.Hour {
			swept = time.Now()
			err = s.Store.Update(ctx, func(tx *store.Tx) error { return tx.DropDelayedEvents(ctx, swept.Add(-kept).UnixMilli()) })
		}
		if err != nil && ctx.Err() == nil {
			zerolog.Ctx(ctx).Error().Err(err).Msg("sending delayed events")
			sleep(ctx, time.Second, nil)
		}
		sleep(ctx, s.untilNext(), rung)
	}
	return nil
}

// sleep waits for a while or until wake or ctx is done.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-wake:
	}
}

// untilNext is the time until something is due, or an hour.
func (s *Service) untilNext() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := time.Hour
	for id, e := range s.all {
		if !s.busy[id] {
			next = min(next, time.Until(time.UnixMilli(e.Due())))
		}
	}
	return max(next, 0)
}

// sendDue sends what is due, in order. What a room refuses is given up.
func (s *Service) sendDue(ctx context.Context) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	now := time.Now().UnixMilli()
	var due []*store.DelayedEvent
	s.mu.Lock()
	for id, e := range s.all {
		if !s.busy[id] && e.Due() <= now {
			c := *e
			due, s.busy[id] = append(due, &c), true
		}
	}
	s.mu.Unlock()
	slices.SortFunc(due, func(a, b *store.DelayedEvent) int { return int(a.Due() - b.Due()) })
	var failed error
	for _, e := range due {
		id, err := s.send(ctx, e)
		var refused *matrix.Error
		switch {
		case err == nil:
			e.Event = id
		case errors.As(err, &refused):
			b, err := json.Marshal(map[string]any{"errcode": refused.Code, "error": refused.Text})
			if err != nil {
				return err
			}
			e.Error = string(b)
		default:
			failed = err
			s.giveBack(e.ID)
			continue
		}
		e.FinalTS = time.Now().UnixMilli()
		if err := s.put(ctx, *e); err != nil {
			failed = err
		}
	}
	return failed
}

// overtake cancels the state events in whose place another user put a newer one,
// by what is behind a position of the log; it gives up to where that was read.
func (s *Service) overtake(ctx context.Context, since int64) (int64, error) {
	for {
		upto := s.Store.Position()
		list, err := s.Store.Log(ctx, since, 1000)
		if err != nil || len(list) == 0 {
			return max(since, upto), err
		}
		for _, e := range list {
			if since = e.Pos; e.PDU.IsState() && e.Status == store.Accepted {
				if err := s.cancelFor(ctx, e); err != nil {
					return since, err
				}
			}
		}
	}
}

// overtakes reports whether a state event of another user has come in the place
// of one that is to be sent.
func overtakes(by *store.Event, e *store.DelayedEvent) bool {
	return e.StateKey != nil && e.Room == by.PDU.Room && by.PDU.Is(e.Type, *e.StateKey) && e.User != by.PDU.Sender && by.PDU.OriginServerTS >= e.SinceTS
}

// cancelFor cancels what a state event has overtaken.
func (s *Service) cancelFor(ctx context.Context, by *store.Event) error {
	var over []string
	s.mu.Lock()
	for id, e := range s.all {
		if overtakes(by, e) {
			over = append(over, id)
		}
	}
	s.mu.Unlock()
	for _, id := range over {
		e, err := s.take(ctx, id)
		if err != nil {
			return err
		}
		if e != nil {
			e.FinalTS = time.Now().UnixMilli()
			if err := s.put(ctx, *e); err != nil {
				return err
			}
		}
	}
	return nil
}
