package push

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/event"
	"switchboard/homeserver/pushrule"
	"switchboard/homeserver/store"
)

// worker tells one gateway, or one e-mail address, of one user's notifications.
type worker struct {
	*Service
	pusher store.Pusher
	stop   func()
	over   atomic.Bool // its pusher was gone; one that came back needs another worker

	saved  int64                 // the position as it stands in the store, 0 for not read
	looked int64                 // counts are those of this position; 0: of none
	counts map[store.RoomNum]int // unread notifications, where there are some
	badge  int                   // as the gateway knows it; -1: it does not

	failures     int
	failingSince time.Time

	seen map[int64]sighting // what an e-mail pusher waits with, by place; nil for others
}

// sighting is when something was seen that is to be told later.
type sighting struct {
	item
	at time.Time
}

// item is something to tell: an event, and what the push rules say of it.
type item struct {
	event   *store.Event
	room    *store.Room
	actions pushrule.Actions
}

// errGone ends a worker whose pusher is there no more.
var errGone = errors.New("the pusher is gone")

// turn tells everything up to now.
func (w *worker) turn(ctx context.Context) error {
	upto, items, err := w.news(ctx)
	if err != nil {
		return err
	}
	for _, it := range items {
		if w.stale(it) {
			continue
		}
		told := &it
		if rangOut(it.event.PDU) {
			told = nil
		}
		if err := w.tell(ctx, told); err != nil {
			return w.ended(err)
		}
		w.pusher.Pos = it.event.Pos
		if err := w.save(ctx); err != nil {
			return err
		}
	}
	if err := w.pass(ctx, upto); err != nil {
		return err
	}
	if badge := w.unread(); w.badge >= 0 && badge < w.badge {
		return w.ended(w.tell(ctx, nil))
	}
	if w.badge < 0 {
		w.badge = w.unread()
	}
	return nil
}

// news gives what is to be told, and up to where that is all.
func (w *worker) news(ctx context.Context) (int64, []item, error) {
	if w.saved == 0 {
		w.saved, w.badge = w.pusher.Pos, -1
	}
	upto := w.Store.Position()
	items, err := w.look(ctx, upto)
	return upto, items, err
}

// pass notes that there is nothing to tell up to a position. It is written down
// now and then.
func (w *worker) pass(ctx context.Context, upto int64) error {
	w.pusher.Pos = max(w.pusher.Pos, upto)
	if w.pusher.Pos-w.saved <= unsaved {
		return nil
	}
	return w.save(ctx)
}

// leave writes down at the end what was passed: push rules may be others when the
// server begins again, and nobody wants to be told of what was muted.
func (w *worker) leave(ctx context.Context) {
	if w.saved == 0 || w.pusher.Pos <= w.saved {
		return
	}
	if err := w.save(ctx); err != nil {
		zerolog.Ctx(ctx).Error().Err(err).Msg("cannot write down how far a pusher has come")
	}
}

// ended ends the worker where its pusher is gone.
func (w *worker) ended(err error) error {
	if errors.Is(err, errGone) {
		w.over.Store(true)
		w.stop()
		w.Bell.Ring(store.PushersBell)
	}
	return err
}

// stale tells whether a notification has waited so long for the gateway that
// nobody wants it any more.
func (w *worker) stale(it item) bool {
	return w.failures > 0 && time.Since(w.failingSince) > staleAfter &&
		time.Since(time.UnixMilli(it.event.PDU.OriginServerTS)) > staleAfter
}

// rangOut tells whether an event is a call that nobody can take any more: it must
// not make a phone ring, and shows as one more on the badge.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mcallinvite
func rangOut(e *event.PDU) bool {
	var call struct {
		Lifetime int64 `json:"lifetime"` // ms
	}
	return e.Type == "m.call.invite" && json.Unmarshal(e.Content, &call) == nil && call.Lifetime > 0 &&
		time.Now().UnixMilli()-e.OriginServerTS > call.Lifetime
}

// unread is the number for the badge.
func (w *worker) unread() int {
	n := 0
	for _, c := range w.counts {
		n += c
	}
	return n
}

// look brings the counts up to a position, and gives what is to be told, in order
// of the log.
func (w *worker) look(ctx context.Context, upto int64) ([]item, error) {
	var items []item
	counts := map[store.RoomNum]int{}
	for _, m := range w.Store.Memberships(w.pusher.User) {
		if m.Membership != "join" && m.Membership != "invite" {
			continue
		}
		r, err := w.Store.RoomByNum(ctx, m.Room)
		if err != nil {
			return nil, err
		}
		var found []item
		n := w.counts[m.Room]
		if m.Membership == "invite" {
			found, n, err = w.invite(ctx, r, m)
		} else if w.looked == 0 || r.Last > w.pusher.Pos || w.Store.ReceiptsChangedSince(m.Room, w.looked) || w.Store.ChangedSince(store.AccountDataChanged, string(w.pusher.User), w.looked) {
			found, n, err = w.lookInto(ctx, r, upto)
		}
		if err != nil {
			return nil, err
		}
		if items = append(items, found...); n > 0 {
			counts[m.Room] = n
		}
	}
	w.counts, w.looked = counts, upto
	// What came meanwhile may be among them, but not all of it.
	items = slices.DeleteFunc(items, func(it item) bool { return it.event.Pos > upto })
	slices.SortFunc(items, func(a, b item) int { return cmp.Compare(a.event.Pos, b.event.Pos) })
	return items, nil
}

// lookInto finds what is unread in a room, and which of it is to be told.
func (w *worker) lookInto(ctx context.Context, r *store.Room, upto int64) ([]item, int, error) {
	notes, err := w.Unread.Notes(ctx, r, w.pusher.User, upto)
	if err != nil {
		return nil, 0, err
	}
	var items []item
	var judge func(*store.Event) pushrule.Actions
	for _, n := range notes {
		if n.Pos <= w.pusher.Pos {
			continue
		}
		if s, ok := w.seen[n.Pos]; ok {
			items = append(items, item{s.event, r, s.actions})
			continue
		}
		list, err := w.Store.Newest(ctx, r.Num, n.Pos-1, n.Pos, 1)
		if err == nil && judge == nil {
			judge, err = w.Unread.Judge(ctx, r, w.pusher.User)
		}
		if err != nil {
			return nil, 0, err
		}
		for _, e := range list {
			items = append(items, item{e, r, judge(e)})
		}
	}
	return items, len(notes), nil
}

// invite tells of an invitation, if the user wants to see it.
func (w *worker) invite(ctx context.Context, r *store.Room, m store.Membership) ([]item, int, error) {
	e, err := w.Store.EventByNum(ctx, m.Event)
	if err != nil {
		return nil, 0, err
	}
	hidden, err := w.Rooms.HidesInvite(ctx, w.pusher.User, e.PDU.Sender)
	if err != nil || hidden {
		return nil, 0, err
	}
	actions, err := w.Unread.JudgeInvite(ctx, r, w.pusher.User, e)
	if err != nil || !actions.Notify {
		return nil, 0, err
	}
	if m.Pos <= w.pusher.Pos {
		return nil, 1, nil
	}
	told := *e
	told.Pos = m.Pos // an invitation from another server stands in no timeline
	return []item{{&told, r, actions}}, 1, nil
}

// save writes the position down.
func (w *worker) save(ctx context.Context) error {
	p := w.pusher
	ctx = context.WithoutCancel(ctx) // what was told is noted also while the server stops
	err := w.Store.Update(ctx, func(tx *store.Tx) error { return tx.MovePusher(ctx, p) })
	if err == nil {
		w.saved = p.Pos
	}
	return err
}

// tell sends one notification, or the badge alone, and notes what the gateway
// answers. Who has logged out meanwhile is told nothing.
func (w *worker) tell(ctx context.Context, it *item) error {
	if err := w.renew(ctx); err != nil {
		return err
	}
	badge := w.unread()
	n, err := w.notification(ctx, it, badge)
	if err != nil {
		return err
	}
	rejected, err := w.post(ctx, n)
	if err != nil {
		return err
	}
	w.badge = badge
	if !slices.Contains(rejected, w.pusher.Pushkey) {
		return nil
	}
	zerolog.Ctx(ctx).Info().Msg("the push gateway says that this device is gone")
	return w.remove(ctx)
}

// renew reads the pusher again; the error is errGone if there is none any more.
func (w *worker) renew(ctx context.Context) error {
	p, ok, err := w.Store.Pusher(ctx, w.pusher.User, w.pusher.AppID, w.pusher.Pushkey)
	if err != nil {
		return err
	}
	if !ok || p.Kind != w.pusher.Kind {
		return errGone
	}
	p.Pos = w.pusher.Pos
	w.pusher = p
	return nil
}

// remove deletes the pusher and gives errGone.
func (w *worker) remove(ctx context.Context) error {
	p := w.pusher
	err := w.Store.Update(ctx, func(tx *store.Tx) error { return tx.DeletePusher(ctx, p.User, p.AppID, p.Pushkey) })
	return cmp.Or(err, errGone)
}
