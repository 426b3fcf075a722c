package ephemeral

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// The types of receipts.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#receipts
const (
	Read        = "m.read"
	ReadPrivate = "m.read.private"
	FullyRead   = "m.fully_read" // kept as account data
)

// mainThread is the thread of the events that are in no thread.
const mainThread = "main"

// hops is how many relations are followed to find the thread of an event.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts
const hops = 3

// Mark is a place up to which a user has read.
type Mark struct {
	Type   string // Read, ReadPrivate or FullyRead
	Event  matrix.EventID
	Thread *string // nil for the whole room
}

// SetMarks moves what a user has read in a room forward. Marks at older events
// than before change nothing. The errors are M_FORBIDDEN for who is not in the
// room, M_NOT_FOUND for an event that is not in it, and M_INVALID_PARAM.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidread_markers
func (s *Service) SetMarks(ctx context.Context, user matrix.UserID, room matrix.RoomID, marks ...Mark) error {
	r, err := s.joined(ctx, user, room)
	if err != nil {
		return err
	}
	var receipts []store.Receipt
	var fullyRead *store.Event
	for _, m := range marks {
		e, err := s.marked(ctx, r, m)
		if err != nil {
			return err
		}
		if m.Type == FullyRead {
			fullyRead = e
			continue
		}
		receipt := store.Receipt{Room: r.Num, User: user, Type: m.Type, Event: m.Event, Place: e.Pos, TS: now()}
		if m.Thread != nil {
			receipt.Thread = *m.Thread
		}
		old, err := s.Store.HasReceipt(ctx, receipt)
		if err != nil {
			return err
		}
		if !old {
			receipts = append(receipts, receipt)
		}
	}
	if fullyRead != nil {
		if fullyRead, err = s.ahead(ctx, user, room, fullyRead); err != nil {
			return err
		}
	}
	if len(receipts) == 0 && fullyRead == nil {
		return nil
	}
	return s.putMarks(ctx, user, r, receipts, fullyRead)
}

// marked checks a mark and gives its event.
func (s *Service) marked(ctx context.Context, r *store.Room, m Mark) (*store.Event, error) {
	switch {
	case m.Type != Read && m.Type != ReadPrivate && m.Type != FullyRead:
		return nil, matrix.Errorf(matrix.InvalidParam, "%q is no type of receipt", m.Type)
	case m.Thread != nil && m.Type == FullyRead:
		return nil, matrix.Errorf(matrix.InvalidParam, "%s cannot have a thread_id", FullyRead)
	case m.Thread != nil && *m.Thread == "":
		return nil, matrix.Errorf(matrix.InvalidParam, "thread_id field must be a non-empty string")
	}
	if _, err := matrix.ParseEventID(string(m.Event)); err != nil {
		return nil, err
	}
	e, err := s.Store.Event(ctx, m.Event)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err != nil || e.Room != r.Num || e.Pos == 0 {
		return nil, matrix.Errorf(matrix.NotFound, "there is no such event in this room")
	}
	if m.Thread == nil {
		return e, nil
	}
	ok, err := s.inThread(ctx, e, *m.Thread)
	if err == nil && !ok {
		err = matrix.Errorf(matrix.InvalidParam, "the event is not in the thread %q", *m.Thread)
	}
	return e, err
}

// inThread tells whether a receipt of a thread may name an event: it is in the
// thread, or its root, or belongs to one of these.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts
func (s *Service) inThread(ctx context.Context, e *store.Event, thread string) (bool, error) {
	for range hops + 1 {
		if string(e.PDU.ID) == thread {
			return true, nil
		}
		relType, parent := relation(e)
		if relType == "m.thread" {
			return string(parent) == thread, nil
		}
		if parent == "" {
			break
		}
		next, err := s.Store.Event(ctx, parent)
		if errors.Is(err, store.ErrNotFound) {
			break
		}
		if err != nil {
			return false, err
		}
		e = next
	}
	return thread == mainThread, nil
}

// relation is how an event relates to which other one, empty if it does not.
func relation(e *store.Event) (relType string, parent matrix.EventID) {
	var c struct {
		Relates struct {
			Type  string         `json:"rel_type"`
			Event matrix.EventID `json:"event_id"`
		} `json:"m.relates_to"`
	}
	if json.Unmarshal(e.PDU.Content, &c) != nil {
		return "", ""
	}
	if _, err := matrix.ParseEventID(string(c.Relates.Event)); err != nil {
		return "", ""
	}
	return c.Relates.Type, c.Relates.Event
}

// ahead gives e if the user's fully-read marker stands before it, else nil.
func (s *Service) ahead(ctx context.Context, user matrix.UserID, room matrix.RoomID, e *store.Event) (*store.Event, error) {
	raw, ok, err := s.Store.AccountData(ctx, user, room, FullyRead)
	if err != nil || !ok {
		return e, err
	}
	var c struct {
		Event matrix.EventID `json:"event_id"`
	}
	if json.Unmarshal(raw, &c) != nil {
		return e, nil
	}
	if _, err := matrix.ParseEventID(string(c.Event)); err != nil {
		return e, nil
	}
	old, err := s.Store.Event(ctx, c.Event)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return e, nil
	case err != nil:
		return nil, err
	case old.Room == e.Room && old.Pos >= e.Pos:
		return nil, nil
	}
	return e, nil
}

// putMarks writes receipts and a fully-read marker, which may be nil.
func (s *Service) putMarks(ctx context.Context, user matrix.UserID, r *store.Room, receipts []store.Receipt, fullyRead *store.Event) error {
	public := false
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		public = false
		for _, receipt := range receipts {
			moved, err := tx.PutReceipt(ctx, receipt)
			if err != nil {
				return err
			}
			public = public || moved && receipt.Type == Read
		}
		if fullyRead == nil {
			return nil
		}
		content, err := json.Marshal(map[string]matrix.EventID{"event_id": fullyRead.PDU.ID})
		if err != nil {
			return err
		}
		_, err = tx.PutAccountData(ctx, store.AccountData{User: user, Room: r.ID, Type: FullyRead, Content: content})
		return err
	})
	switch {
	case err != nil:
		return err
	case public:
		s.ringRoom(r.Num)
	default:
		s.Bell.Ring(string(user))
	}
	return nil
}

// Contents makes the contents of m.receipt events of receipts in one room, one
// for each thread, the whole room first.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mreceipt
func Contents(receipts []store.Receipt) []ReceiptContent {
	threads := map[string]ReceiptContent{}
	for _, r := range receipts {
		if threads[r.Thread] == nil {
			threads[r.Thread] = ReceiptContent{}
		}
		threads[r.Thread].Add(r)
	}
	list := make([]ReceiptContent, 0, len(threads))
	for _, thread := range slices.Sorted(maps.Keys(threads)) {
		list = append(list, threads[thread])
	}
	return list
}

// ReceiptContent is the content of an m.receipt event: receipts by event, type
// and user.
type ReceiptContent map[matrix.EventID]map[string]map[matrix.UserID]Receipt

// Add puts a receipt in. Of several by one user at one event, which differ in
// their threads, the last one stays.
func (c ReceiptContent) Add(r store.Receipt) {
	if c[r.Event] == nil {
		c[r.Event] = map[string]map[matrix.UserID]Receipt{}
	}
	if c[r.Event][r.Type] == nil {
		c[r.Event][r.Type] = map[matrix.UserID]Receipt{}
	}
	c[r.Event][r.Type][r.User] = Receipt{TS: r.TS, Thread: r.Thread}
}

// Receipt is a receipt in the content of an m.receipt event.
type Receipt struct {
	TS     int64  `json:"ts"` // milliseconds
	Thread string `json:"thread_id,omitempty"`
}
