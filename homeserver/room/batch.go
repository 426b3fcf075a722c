package room

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"slices"
	"strings"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// Batch are messages of another network that an appservice brings into a room at
// once, with their senders and times. They become local events (event.Local), so
// that they may have the IDs that the appservice wants and the senders need not be
// in the room; therefore no other server may be in it. The appservice that brings
// them is not told of them, and neither is another one.
//
// Source: https://pkg.go.dev/maunium.net/go/mautrix#ReqBeeperBatchSend
type Batch struct {
	Room matrix.RoomID            `json:"-"`
	User matrix.UserID            `json:"-"` // who brings them
	Owns func(matrix.UserID) bool `json:"-"` // tells the appservice's own users
	List []BatchEvent             `json:"events"`

	// Forward puts the events at the end of the timeline, and so does
	// ForwardIfEmpty where no message is in it yet. Else they stand before all
	// messages, behind the events that made the room.
	Forward        bool `json:"forward"`
	ForwardIfEmpty bool `json:"forward_if_no_messages"`

	Notify bool          `json:"send_notification"` // only of what stands at the end
	ReadBy matrix.UserID `json:"mark_read_by"`      // who has read all of them
}

// BatchEvent is one event of a batch. Without an ID it gets one, without a time
// that of now.
type BatchEvent struct {
	ID       matrix.EventID  `json:"event_id"`
	Type     string          `json:"type"`
	Sender   matrix.UserID   `json:"sender"`
	StateKey *string         `json:"state_key"`
	Content  json.RawMessage `json:"content"`
	At       int64           `json:"origin_server_ts"` // ms
}

// Bounds of history: how many events one batch may have, and how many places stay
// free for it in a room that an appservice makes.
const (
	MostBatch = 10_000
	pastRoom  = 1 << 20
)

// Batch puts a batch into a room, all of it or nothing, and gives the IDs of its
// events in order. Events that a batch has brought before are left as they are. The
// errors are M_FORBIDDEN, M_INVALID_PARAM, M_TOO_LARGE and those of event.Local.
func (s *Service) Batch(ctx context.Context, b Batch) ([]matrix.EventID, error) {
	if len(b.List) > MostBatch {
		return nil, matrix.Errorf(matrix.TooLarge, "a batch may have %d events: send several", MostBatch)
	}
	defer s.locks.lock(b.Room)()
	r, err := s.joinedRoom(ctx, b.Room, b.User)
	if err != nil {
		return nil, err
	}
	if !b.Forward && b.ForwardIfEmpty {
		full, err := s.Store.HasMessages(ctx, r.Num)
		if err != nil {
			return nil, err
		}
		b.Forward = !full
	}
	w := batchWriter{Batch: b, room: r, state: r.Current, events: make([]*store.Event, len(b.List))}
	current := s.view(ctx, r.Current)
	if err := s.mayBatch(ctx, r, current, &b); err != nil {
		return nil, err
	}
	if err := s.makeBatch(ctx, &w, current); err != nil {
		return nil, err
	}
	if !b.Forward {
		if err := s.lookBack(ctx, &w); err != nil {
			return nil, err
		}
	}
	if err := s.Store.Update(ctx, func(tx *store.Tx) error { return w.write(ctx, tx) }); err != nil {
		return nil, err
	}
	s.ring(r.Num, nil)
	return w.ids, nil
}

// mayBatch refuses batches to rooms that other servers know, and to who has no say
// there.
func (s *Service) mayBatch(ctx context.Context, r *store.Room, now *view, b *Batch) error {
	if r.Version.EventIDInEvent {
		return matrix.Errorf(matrix.Forbidden, "rooms of version %s take no batches: upgrade the room", r.Version.ID)
	}
	servers, err := s.Store.Servers(ctx, r.Num)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(servers, func(name matrix.ServerName) bool { return name != s.ServerName }) {
		return matrix.Errorf(matrix.Forbidden, "users of other servers are in this room, and batches could not be shown to them: send the events one by one")
	}
	levels, err := now.PowerLevels()
	if err != nil {
		return err
	}
	need, what := levels.Event("m.room.message", false), "send messages"
	if !b.Forward {
		need, what = levels.Event("m.room.name", true), "change the room"
	}
	if levels.User(b.User) < need {
		return matrix.Errorf(matrix.Forbidden, "%s has not the power to %s here, as batches need", b.User, what)
	}
	return nil
}

// makeBatch finds those events of a batch that are here already, and makes the
// others.
func (s *Service) makeBatch(ctx context.Context, w *batchWriter, current *view) error {
	if err := w.identify(s.ServerName); err != nil {
		return err
	}
	speaksFor := s.spokenFor(current, &w.Batch)
	if w.ReadBy != "" && (!speaksFor(w.ReadBy) || s.Store.Membership(w.ReadBy, w.room.Num).Membership != event.Join) {
		return matrix.Errorf(matrix.Forbidden, "%s is not in the room, or not of the appservice", w.ReadBy)
	}
	old, err := s.Store.EventsByID(ctx, w.ids)
	if err != nil {
		return err
	}
	for i, e := range w.List {
		if !speaksFor(e.Sender) {
			return matrix.Errorf(matrix.Forbidden, "event %d: the appservice does not speak for %s here", i, e.Sender)
		}
		if o := old[e.ID]; o != nil {
			if o.Room != w.room.Num || !o.PDU.Local || o.PDU.Sender != e.Sender {
				return matrix.Errorf(matrix.InvalidParam, "event %d: the ID %s is that of another event", i, e.ID)
			}
			w.events[i] = o
			continue
		}
		d := event.Draft{Room: w.room.ID, Type: e.Type, Sender: e.Sender, Content: e.Content, OriginServerTS: e.At}
		p, err := event.Local(w.room.Version, d, e.ID, !w.Forward || !w.Notify)
		if err != nil {
			return err
		}
		w.made = append(w.made, p)
	}
	return current.err
}

// identify checks the events of a batch and their IDs.
func (w *batchWriter) identify(server matrix.ServerName) error {
	seen := make(map[matrix.EventID]bool, len(w.List))
	for i := range w.List {
		e := &w.List[i]
		if err := e.check(); err != nil {
			return matrix.Errorf(err.Code, "event %d: %s", i, err.Text)
		}
		if e.ID == "" {
			e.ID = newEventID(server)
		}
		if seen[e.ID] {
			return matrix.Errorf(matrix.InvalidParam, "event %d: the ID %s stands in the batch twice", i, e.ID)
		}
		seen[e.ID] = true
		w.ids = append(w.ids, e.ID)
	}
	return nil
}

// check completes an event of a batch and refuses what cannot be one.
func (e *BatchEvent) check() *matrix.Error {
	if _, err := matrix.ParseUserID(string(e.Sender)); err != nil {
		return matrix.Errorf(matrix.InvalidParam, "sender must be a user ID")
	}
	switch _, err := matrix.ParseEventID(string(e.ID)); {
	case e.StateKey != nil:
		return matrix.Errorf(matrix.InvalidParam, "a batch cannot hold state events")
	case e.Type == "" || e.Type == event.TypeRedaction:
		return matrix.Errorf(matrix.InvalidParam, "a batch cannot hold events of the type %q", e.Type)
	case e.At < 0 || e.At > maxDepth:
		return matrix.Errorf(matrix.InvalidParam, "origin_server_ts must be a time in milliseconds")
	case e.ID != "" && (err != nil || !strings.Contains(string(e.ID), ":")):
		return matrix.Errorf(matrix.InvalidParam, "event_id must be of the form $something:domain, which no hash has")
	}
	e.At = cmp.Or(e.At, now())
	return nil
}

// spokenFor tells for whom the appservice that brings a batch speaks in the room:
// its own users, and in a room that it made also the users of this server who are
// in it or invited, as bridges have messages that these sent elsewhere.
func (s *Service) spokenFor(now *view, b *Batch) func(matrix.UserID) bool {
	create := now.Event(event.TypeCreate, "")
	made := create != nil && b.Owns(create.Sender)
	known := map[matrix.UserID]bool{}
	return func(u matrix.UserID) bool {
		yes, ok := known[u]
		if !ok {
			m := now.membership(u)
			yes = u.Server() == s.ServerName && (b.Owns(u) || made && (m == event.Join || m == event.Invite))
			known[u] = yes
		}
		return yes
	}
}

// batchWriter is a batch on its way into a room.
type batchWriter struct {
	Batch
	room   *store.Room
	ids    []matrix.EventID
	events []*store.Event // those that are here already; nil for the others
	made   []*event.PDU   // the others
	state  statetree.ID   // at these
	places []int64        // of these, where they do not stand at the end
	past   store.Past     // what will be left of it
}

// lookBack finds places before the messages of the room, or where none is left
// before everything, and the state there.
func (s *Service) lookBack(ctx context.Context, w *batchWriter) error {
	past, err := s.Store.Past(ctx, w.room.Num)
	if err != nil {
		return err
	}
	n := int64(len(w.made))
	if past.Upto-past.Since >= n {
		past.Upto -= n
		for i := range n {
			w.places = append(w.places, past.Upto+1+i)
		}
	} else {
		past.Upto = past.Since
		if w.places, err = s.pastPlaces(ctx, int(n)); err != nil {
			return err
		}
	}
	w.past = past
	if n == 0 {
		return nil
	}
	near, err := s.Store.Newest(ctx, w.room.Num, math.MinInt64, w.places[0], 1)
	if err == nil && len(near) == 0 {
		near, err = s.Store.Oldest(ctx, w.room.Num, w.places[0], w.room.Last, 1)
	}
	if err == nil {
		w.state = near[0].State
	}
	return err
}

// write is the transaction. It may be run more than once.
func (w *batchWriter) write(ctx context.Context, tx *store.Tx) error {
	room := *w.room
	var last *store.Event
	made := 0
	for _, e := range w.events {
		if e == nil {
			pos, err := tx.NextPosition(ctx)
			if err != nil {
				return err
			}
			e = &store.Event{PDU: w.made[made], Num: store.EventNum(pos), Pos: pos, Room: room.Num, State: w.state, Current: w.state}
			if w.Forward {
				room.Last = pos
			} else {
				e.Pos = w.places[made]
			}
			if err := tx.AppendEvent(ctx, e); err != nil {
				return err
			}
			made++
		}
		last = e
	}
	if w.ReadBy != "" && last != nil {
		read := store.Receipt{Room: room.Num, User: w.ReadBy, Type: "m.read", Event: last.PDU.ID, Place: last.Pos, TS: now()}
		if _, err := tx.PutReceipt(ctx, read); err != nil {
			return err
		}
	}
	if w.Forward {
		return tx.PutRoom(ctx, &room)
	}
	return tx.PutPast(ctx, room.Num, w.past)
}
