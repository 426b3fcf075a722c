package room

import (
	"context"
	"errors"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// longestReason bounds the reason of a report, in bytes.
const longestReason = 4000

// Reported is what a user finds inappropriate, and why: an event with its room, a
// room alone, or another user.
type Reported struct {
	By     matrix.UserID
	Room   matrix.RoomID
	Event  matrix.EventID
	User   matrix.UserID
	Reason string
}

// Report stores for the administrators what a user finds inappropriate. An event
// must be in a room that the user is in; whether a user exists is not told. The
// errors are M_NOT_FOUND and M_TOO_LARGE.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#reporting-content
func (s *Service) Report(ctx context.Context, r Reported) error {
	if len(r.Reason) > longestReason {
		return matrix.Errorf(matrix.TooLarge, "a reason has up to %d bytes", longestReason)
	}
	if r.Event != "" {
		e, err := s.Store.Event(ctx, r.Event)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err != nil || e.PDU.Room != r.Room || s.Store.Membership(r.By, e.Room).Membership != "join" {
			return matrix.Errorf(matrix.NotFound, "there is no such event, or you are not in its room")
		}
		r.User = e.PDU.Sender
	}
	if r.Room != "" && r.Event == "" {
		_, err := s.Store.Room(ctx, r.Room)
		if errors.Is(err, store.ErrNotFound) {
			err = matrix.Errorf(matrix.NotFound, "this server knows no such room")
		}
		if err != nil {
			return err
		}
	}
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		return tx.PutReport(ctx, store.Report{Reporter: r.By, Room: r.Room, Event: r.Event, User: r.User, Reason: r.Reason, TS: now()})
	})
}
