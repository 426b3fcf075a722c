package appservices

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// ephemeralEvent is m.typing, m.receipt or m.presence.
type ephemeralEvent struct {
	Type    string        `json:"type"`
	Room    matrix.RoomID `json:"room_id,omitempty"`
	Sender  matrix.UserID `json:"sender,omitempty"` // of m.presence
	Content any           `json:"content"`
}

// addEphemeral adds who reads, types and is there, as far as it concerns the
// appservice. It gives the serial number of who types that is told then.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#pushing-ephemeral-data
func (b *builder) addEphemeral(ctx context.Context, t *transaction, s stretch) (serial int64, err error) {
	var list []any
	receipts, err := b.receipts(ctx, s.receipts)
	if err != nil {
		return 0, err
	}
	list = append(list, receipts...)
	typing, serial, err := b.typingEvents(ctx)
	if err != nil {
		return 0, err
	}
	list = append(list, typing...)
	changes, err := b.Store.PresenceChanges(ctx, s.since, s.upto)
	if err != nil {
		return 0, fmt.Errorf("presence: %w", err)
	}
	for _, p := range changes {
		if b.shares(p.User) {
			list = append(list, ephemeralEvent{Type: "m.presence", Sender: p.User, Content: b.Ephemeral.StatusOf(p)})
		}
	}
	t.Ephemeral, t.OldEphemeral = list, list
	return serial, nil
}

// read is a receipt as it stands in m.receipt.
type read struct {
	TS     int64  `json:"ts"`
	Thread string `json:"thread_id,omitempty"`
}

// receiptContent is the content of m.receipt.
type receiptContent map[matrix.EventID]map[string]map[matrix.UserID]read

// receipts makes m.receipt events, one for each room; two where a user has
// receipts of several threads at one event, which m.receipt cannot hold.
// Private receipts are told of the appservice's own users alone.
func (b *builder) receipts(ctx context.Context, list []store.Receipt) ([]any, error) {
	var rooms []store.RoomNum
	byRoom := map[store.RoomNum][]receiptContent{}
	for _, r := range list {
		if r.Type == ephemeral.ReadPrivate && !b.owns(r.User) {
			continue
		}
		if byRoom[r.Room] == nil {
			rooms = append(rooms, r.Room)
		}
		byRoom[r.Room] = addReceipt(byRoom[r.Room], r)
	}
	var events []any
	for _, num := range rooms {
		room, err := b.Store.RoomByNum(ctx, num)
		if err != nil {
			return nil, fmt.Errorf("receipts: %w", err)
		}
		yes, err := b.inRoom(ctx, num, room.ID)
		if err != nil {
			return nil, err
		}
		if !yes {
			continue
		}
		for _, content := range byRoom[num] {
			events = append(events, ephemeralEvent{Type: "m.receipt", Room: room.ID, Content: content})
		}
	}
	return events, nil
}

// addReceipt adds a receipt to the first content that has its place free.
func addReceipt(contents []receiptContent, r store.Receipt) []receiptContent {
	for _, c := range contents {
		if _, taken := c[r.Event][r.Type][r.User]; !taken {
			c.add(r)
			return contents
		}
	}
	c := receiptContent{}
	c.add(r)
	return append(contents, c)
}

func (c receiptContent) add(r store.Receipt) {
	if c[r.Event] == nil {
		c[r.Event] = map[string]map[matrix.UserID]read{}
	}
	if c[r.Event][r.Type] == nil {
		c[r.Event][r.Type] = map[matrix.UserID]read{}
	}
	c[r.Event][r.Type][r.User] = read{r.TS, r.Thread}
}

// typingEvents makes m.typing events for the rooms in which who types changed.
func (b *builder) typingEvents(ctx context.Context) (events []any, serial int64, err error) {
	rooms, serial := b.Ephemeral.TypingSince(b.typing)
	for id, users := range rooms {
		r, err := b.Store.Room(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("typing: %w", err)
		}
		yes, err := b.inRoom(ctx, r.Num, id)
		if err != nil {
			return nil, 0, err
		}
		if yes {
			events = append(events, ephemeralEvent{Type: "m.typing", Room: id, Content: map[string]any{"user_ids": users}})
		}
	}
	slices.SortFunc(events, func(x, y any) int {
		return cmp.Compare(x.(ephemeralEvent).Room, y.(ephemeralEvent).Room)
	})
	return events, serial, nil
}
