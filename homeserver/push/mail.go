package push

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/mail"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/homeserver/unread"
)

// Mail is how users are told by e-mail what they have left unread.
type Mail struct {
	Sender     *mail.Sender
	ServerName matrix.ServerName
	PublicURL  string // where clients reach this server, without a "/" at its end

	// Secret signs the links that end a pusher.
	Secret []byte
}

const (
	// patience is how many delays a conversation that does not come to rest is
	// waited for.
	patience = 4

	// growth is how many times longer each pause is than the one before.
	growth = 6

	// forgotten is how long after the end of a pause the next one is short again.
	forgotten = 12 * time.Hour
)

// rest says until when a room is told of in no e-mail of its own, after one was
// sent and while that is not read.
type rest struct {
	Until  int64 `json:"until"`  // ms
	Length int64 `json:"length"` // ms
	Pos    int64 `json:"pos"`    // of the newest event that was told
}

// rests are those of rooms.
type rests map[store.RoomNum]rest

// due is when a room is to be told of: when nothing has come for a delay, or
// after some delays if it goes on.
func (r rest) due(first, last time.Time, delay time.Duration) time.Time {
	at := last.Add(delay)
	if patient := first.Add(patience * delay); patient.Before(at) {
		at = patient
	}
	if until := time.UnixMilli(r.Until); until.After(at) {
		return until
	}
	return at
}

// next is the rest after an e-mail.
func (r rest) next(now time.Time, pos int64, shortest, longest time.Duration) rest {
	length := min(time.Duration(r.Length)*time.Millisecond*growth, longest)
	if length == 0 || now.Sub(time.UnixMilli(r.Until)) > forgotten {
		length = shortest
	}
	return rest{now.Add(length).UnixMilli(), length.Milliseconds(), pos}
}

// mailTurn sends one e-mail, if it is time, and says how long to wait if nothing
// happens.
func (w *worker) mailTurn(ctx context.Context) (time.Duration, error) {
	upto, items, err := w.news(ctx)
	if err != nil {
		return 0, err
	}
	if len(items) == 0 {
		w.seen = nil
		return time.Hour, w.pass(ctx, upto)
	}
	var paused rests
	if len(w.pusher.Pauses) > 0 {
		if err := json.Unmarshal(w.pusher.Pauses, &paused); err != nil {
			return 0, fmt.Errorf("pauses of the pusher: %w", err)
		}
	}
	now := time.Now()
	threads := w.group(items, now)
	due := now.Add(time.Hour)
	for _, c := range threads {
		r, err := w.restOf(ctx, c, paused, upto)
		if err != nil {
			return 0, err
		}
		c.rest = r
		if at := r.due(c.first, c.last, w.Mail.Sender.Config.Delay); at.Before(due) {
			due = at
		}
	}
	if due.After(now) {
		return due.Sub(now), nil
	}
	if err := w.mail(ctx, threads); err != nil {
		return 0, w.ended(err)
	}
	return time.Hour, w.mailed(ctx, threads, paused, now, upto)
}

// conversation is what is to be told of a room.
type conversation struct {
	room        *store.Room
	items       []item
	first, last time.Time // when the items came
	rest        rest
}

// group sorts what is to be told by rooms, that with the oldest event first.
func (w *worker) group(items []item, now time.Time) []*conversation {
	seen := make(map[int64]sighting, len(items))
	byRoom := map[store.RoomNum]*conversation{}
	var list []*conversation
	for _, it := range items {
		s, known := w.seen[it.event.Pos]
		if !known { // other servers' clocks may be anywhere
			s = sighting{it, time.UnixMilli(min(max(it.event.PDU.OriginServerTS, w.pusher.CreatedTS), now.UnixMilli()))}
		}
		seen[it.event.Pos] = s
		at := s.at
		c := byRoom[it.room.Num]
		if c == nil {
			c = &conversation{room: it.room, first: at}
			byRoom[it.room.Num] = c
			list = append(list, c)
		}
		c.items = append(c.items, it)
		if at.Before(c.first) {
			c.first = at
		}
		if at.After(c.last) {
			c.last = at
		}
	}
	w.seen = seen
	return list
}

// restOf is the rest of a room, none if the user has read what was told.
func (w *worker) restOf(ctx context.Context, c *conversation, paused rests, upto int64) (rest, error) {
	r, ok := paused[c.room.Num]
	if !ok || w.Store.Membership(w.pusher.User, c.room.Num).Membership != "join" {
		return r, nil
	}
	notes, err := w.Unread.Notes(ctx, c.room, w.pusher.User, upto)
	if err == nil && len(notes) > 0 && len(notes) < unread.Most && notes[0].Pos > r.Pos {
		return rest{}, nil
	}
	return r, err
}

// mailed notes that everything was told.
func (w *worker) mailed(ctx context.Context, threads []*conversation, paused rests, now time.Time, upto int64) error {
	c := w.Mail.Sender.Config
	after := rests{}
	for room, r := range paused {
		if now.Sub(time.UnixMilli(r.Until)) < forgotten {
			after[room] = r
		}
	}
	for _, t := range threads {
		after[t.room.Num] = t.rest.next(now, t.items[len(t.items)-1].event.Pos, c.Pause, c.LongestPause)
	}
	var err error
	if w.pusher.Pauses, err = json.Marshal(after); err != nil {
		return err
	}
	w.pusher.Pos, w.seen = upto, nil
	return w.save(ctx)
}

// mail sends an e-mail, unless the address is no longer the user's.
func (w *worker) mail(ctx context.Context, threads []*conversation) error {
	if err := w.renew(ctx); err != nil {
		return err
	}
	owner, err := w.Store.ThreepidUser(ctx, "email", w.pusher.Pushkey)
	if err != nil {
		return err
	}
	if owner != w.pusher.User {
		return w.remove(ctx)
	}
	d, err := w.digest(ctx, threads)
	if err != nil {
		return err
	}
	m, err := d.message()
	if err != nil {
		return err
	}
	newest := threads[0].items[0].event.Pos
	for _, c := range threads {
		newest = max(newest, c.items[len(c.items)-1].event.Pos)
	}
	m.To, m.ID, m.Unsubscribe = w.pusher.Pushkey, messageID(w.pusher, newest), d.Unsubscribe
	err = w.Mail.Sender.Send(context.WithoutCancel(ctx), m) // else a stop makes it come twice
	if errors.Is(err, mail.ErrRefused) {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("an e-mail with notifications is refused for good")
		return nil
	}
	return err
}

// messageID is the same when an e-mail is sent again after a crash, so that mail
// programs show it once.
func messageID(p store.Pusher, newest int64) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %d %d", p.User, p.Pushkey, p.CreatedTS, newest))
	return "switchboard." + hex.EncodeToString(sum[:16])
}

// digest makes what an e-mail says.
func (w *worker) digest(ctx context.Context, threads []*conversation) (*digest, error) {
	d := &digest{Server: string(w.Mail.ServerName), User: string(w.pusher.User), Unsubscribe: w.Mail.unsubscribeURL(w.pusher)}
	for i, c := range threads {
		d.Count += len(c.items)
		if i >= mostRooms {
			d.MoreRooms++
			continue
		}
		shown, err := w.shownRoom(ctx, c)
		if err != nil {
			return nil, err
		}
		d.Rooms = append(d.Rooms, shown)
	}
	return d, nil
}

// shownRoom makes what an e-mail says of a room.
func (w *worker) shownRoom(ctx context.Context, c *conversation) (shownRoom, error) {
	link := w.Mail.link(c.room.ID, "")
	shown := shownRoom{Link: link}
	if more := len(c.items) - mostMessages; more > 0 {
		shown.More = more
		c.items = c.items[more:]
	}
	for _, it := range c.items {
		sender, name, alias, err := w.names(ctx, &it)
		if err != nil {
			return shown, err
		}
		e := it.event.PDU
		line := shownMessage{Sender: tidy(cmp.Or(sender, string(e.Sender)), longestName), Time: time.UnixMilli(e.OriginServerTS).UTC()}
		if e.Is("m.room.member", string(w.pusher.User)) {
			line.Does = "invites you"
		} else {
			line.Does, line.Says = words(e)
			line.Link = w.Mail.link(c.room.ID, e.ID)
		}
		shown.Name = tidy(cmp.Or(name, alias, shown.Name, line.Sender), longestName)
		shown.Messages = append(shown.Messages, line)
	}
	return shown, nil
}
