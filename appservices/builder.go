package appservices

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
	"switchboard/registrations"
)

// Bounds of one transaction.
const (
	mostScanned  = 1000    // events looked at
	mostEvents   = 100     // events told
	mostBytes    = 1 << 20 // of events, unless one alone is larger
	mostMessages = 500     // to-device messages
	mostReceipts = 500
)

// builder makes transactions for one appservice. It is used by one goroutine.
type builder struct {
	*audience
	typing int64 // serial number of who types, up to which the appservice was told
}

func newBuilder(s *Service, reg *registrations.Registration) *builder {
	b := &builder{audience: newAudience(s, reg)}
	_, b.typing = s.Ephemeral.TypingSince(math.MaxInt64)
	return b
}

// transaction is the body of a transaction. Everything but the events also
// bears the name that it had before it was in the specification.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#put_matrixappv1transactionstxnid
type transaction struct {
	Events       []json.RawMessage `json:"events"`
	Ephemeral    []any             `json:"ephemeral,omitempty"`
	OldEphemeral []any             `json:"de.sorunome.msc2409.ephemeral,omitempty"`
	ToDevice     []toDevice        `json:"to_device,omitempty"`
	OldToDevice  []toDevice        `json:"de.sorunome.msc2409.to_device,omitempty"`
	DeviceLists  *deviceLists      `json:"device_lists,omitempty"`
	OldLists     *deviceLists      `json:"org.matrix.msc3202.device_lists,omitempty"`
	Counts       keyCounts         `json:"device_one_time_keys_count,omitempty"`
	OldCounts    keyCounts         `json:"org.matrix.msc3202.device_one_time_keys_count,omitempty"`
	OlderCounts  keyCounts         `json:"org.matrix.msc3202.device_one_time_key_counts,omitempty"`
	Fallback     fallbackTypes     `json:"device_unused_fallback_key_types,omitempty"`
	OldFallback  fallbackTypes     `json:"org.matrix.msc3202.device_unused_fallback_key_types,omitempty"`
}

// toDevice is a message for a device of one of the appservice's users.
type toDevice struct {
	Type    string          `json:"type"`
	Sender  matrix.UserID   `json:"sender"`
	User    matrix.UserID   `json:"to_user_id"`
	Device  matrix.DeviceID `json:"to_device_id"`
	Content json.RawMessage `json:"content"`
}

type deviceLists struct {
	Changed []matrix.UserID `json:"changed"`
	Left    []matrix.UserID `json:"left"`
}

type (
	keyCounts     map[matrix.UserID]map[matrix.DeviceID]map[string]int
	fallbackTypes map[matrix.UserID]map[matrix.DeviceID][]string
)

// stretch is the part of the log from which one transaction is made.
type stretch struct {
	since, upto int64
	events      []*store.Event // of all rooms
	wanted      []*store.Event
	messages    []store.ToDevice // for devices of the appservice's users
	receipts    []store.Receipt
	more        bool // the log goes on behind upto
}

// build makes the transaction for what happened behind since. The body is nil
// if there is nothing to tell; upto is what the position is then, or when the
// transaction is through. more says that there is more to look at at once.
func (b *builder) build(ctx context.Context, since int64) (body []byte, upto int64, more bool, err error) {
	s, err := b.read(ctx, since)
	if err != nil {
		return nil, 0, false, fmt.Errorf("read the log: %w", err)
	}
	t := transaction{Events: []json.RawMessage{}}
	if err := b.addEvents(ctx, &t, s.wanted); err != nil {
		return nil, 0, false, err
	}
	serial := b.typing
	if b.reg.ReceiveEphemeral {
		if serial, err = b.addEphemeral(ctx, &t, s); err != nil {
			return nil, 0, false, err
		}
	}
	if b.reg.MSC3202 {
		if err := b.addKeys(ctx, &t, s); err != nil {
			return nil, 0, false, err
		}
	}
	b.typing = serial
	if len(t.Events)+len(t.Ephemeral)+len(t.ToDevice) == 0 && t.DeviceLists == nil {
		return nil, s.upto, s.more, nil
	}
	body, err = json.Marshal(t)
	if err != nil {
		return nil, 0, false, fmt.Errorf("write transaction: %w", err)
	}
	return body, s.upto, s.more, nil
}

// read reads the log behind since, as much as one transaction can hold.
func (b *builder) read(ctx context.Context, since int64) (s stretch, err error) {
	end := b.Store.Position()
	s = stretch{since: since, upto: end}
	if s.events, err = b.Store.Log(ctx, since, mostScanned); err != nil {
		return s, err
	}
	whole := len(s.events) < mostScanned
	if !whole {
		s.upto = min(s.upto, s.events[len(s.events)-1].Pos)
	}
	if b.reg.MSC3202 {
		if s.messages, err = b.Store.ToDeviceLog(ctx, since, mostMessages); err != nil {
			return s, err
		}
		if n := len(s.messages); n >= mostMessages {
			s.upto = min(s.upto, s.messages[n-1].Num)
		}
	}
	if b.reg.ReceiveEphemeral {
		if s.receipts, err = b.Store.AllReceipts(ctx, since, s.upto, mostReceipts); err != nil {
			return s, err
		}
		if n := len(s.receipts); n >= mostReceipts {
			s.upto = min(s.upto, s.receipts[n-1].Pos)
		}
	}
	if err := b.choose(ctx, &s, whole); err != nil {
		return s, err
	}
	s.messages = slices.DeleteFunc(s.messages, func(m store.ToDevice) bool { return m.Num > s.upto || !b.owns(m.User) })
	s.receipts = slices.DeleteFunc(s.receipts, func(r store.Receipt) bool { return r.Pos > s.upto })
	s.more = s.upto < end
	return s, nil
}

// choose picks the events of a stretch that the appservice wants, and ends the
// stretch where the transaction is full.
func (b *builder) choose(ctx context.Context, s *stretch, whole bool) error {
	w := b.newWindow(s.events, s.since, whole)
	bytes := 0
	for i, e := range s.events {
		if e.Pos > s.upto {
			s.events = s.events[:i]
			return nil
		}
		yes, err := w.wants(ctx, e)
		if err != nil {
			return err
		}
		if !yes {
			continue
		}
		bytes += len(e.PDU.JSON)
		if len(s.wanted) > 0 && (len(s.wanted) == mostEvents || bytes > mostBytes) {
			s.upto, s.events = e.Pos-1, s.events[:i]
			return nil
		}
		s.wanted = append(s.wanted, e)
	}
	return nil
}

// addEvents adds events in the shape in which clients get them.
func (b *builder) addEvents(ctx context.Context, t *transaction, events []*store.Event) error {
	seen := make([]room.Seen, len(events))
	for i, e := range events {
		seen[i] = room.Seen{Event: e}
	}
	list, err := b.Rooms.Clients(ctx, room.Reader{}, seen)
	if err != nil {
		return fmt.Errorf("events of transaction: %w", err)
	}
	for i, e := range events {
		if user, ok := member(e); ok && e.PDU.Membership() == "invite" && b.owns(user) {
			if err := b.introduce(ctx, user); err != nil {
				return err
			}
			if list[i], err = b.withRoomState(ctx, list[i], e, user); err != nil {
				return err
			}
		}
	}
	if list != nil {
		t.Events = list
	}
	return nil
}

// introduce asks the appservice for a user of its own who was invited and does
// not exist yet.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#querying
func (b *builder) introduce(ctx context.Context, user matrix.UserID) error {
	_, known, err := b.Store.User(ctx, user)
	if err != nil || known {
		return err
	}
	_, err = b.AskUser(ctx, user)
	if silent := (*matrix.Error)(nil); errors.As(err, &silent) {
		return nil // it is told of the invitation all the same
	}
	return err
}

// withRoomState adds to an invitation what the invited user may know of the
// room.
func (b *builder) withRoomState(ctx context.Context, raw json.RawMessage, e *store.Event, user matrix.UserID) (json.RawMessage, error) {
	state, err := b.Rooms.Stripped(ctx, e.State, user)
	if err != nil {
		return nil, fmt.Errorf("state for invitation: %w", err)
	}
	var event, unsigned map[string]json.RawMessage
	if err := json.Unmarshal(raw, &event); err != nil {
		return nil, fmt.Errorf("invitation: %w", err)
	}
	if err := json.Unmarshal(event["unsigned"], &unsigned); err != nil {
		return nil, fmt.Errorf("invitation: %w", err)
	}
	if unsigned["invite_room_state"], err = json.Marshal(state); err != nil {
		return nil, fmt.Errorf("invitation: %w", err)
	}
	if event["unsigned"], err = json.Marshal(unsigned); err != nil {
		return nil, fmt.Errorf("invitation: %w", err)
	}
	return json.Marshal(event)
}
