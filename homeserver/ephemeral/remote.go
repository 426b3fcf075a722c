package ephemeral

import (
	"context"
	"errors"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// remoteTyping is how long a user of another server types at most, where that
// server does not say so again.
const remoteTyping = 30 * time.Second

// RemoteTyping says that a user of another server, who is in the room, types or
// has stopped.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#typing-notifications
func (s *Service) RemoteTyping(room *store.Room, user matrix.UserID, on bool) {
	var until time.Time
	if on {
		until = time.Now().Add(remoteTyping)
	}
	if s.typing.set(room, user, until) {
		s.ringRoom(room.Num)
	}
}

// RemoteReceipt says that a user of another server, who is in the room, has
// read up to the last of some events. Events that are not here are passed over.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#receipts
func (s *Service) RemoteReceipt(ctx context.Context, room *store.Room, user matrix.UserID, events []matrix.EventID, data Receipt) error {
	if len(data.Thread) > 255 {
		return matrix.Errorf(matrix.InvalidParam, "a thread_id may have 255 bytes")
	}
	found, err := s.Store.EventsByID(ctx, events)
	if err != nil {
		return err
	}
	var list []store.Receipt
	for id, e := range found {
		if e.Room == room.Num && e.Pos != 0 {
			list = append(list, store.Receipt{
				Room: room.Num, User: user, Type: Read, Thread: data.Thread, Event: id, Place: e.Pos, TS: max(0, min(data.TS, now())),
			})
		}
	}
	if len(list) == 0 {
		return matrix.Errorf(matrix.NotFound, "there is no such event in this room")
	}
	return s.putMarks(ctx, user, room, list, nil)
}

// RemotePresence says who of another server's users is there. Users who share no
// room with one of this server are passed over.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#presence
func (s *Service) RemotePresence(ctx context.Context, list map[matrix.UserID]Status) error {
	if s.NoPresence {
		return nil
	}
	var rows []store.Presence
	var users, neighbours []matrix.UserID
	var errs []error
	for user, st := range list {
		if err := checkPresence(st.Presence, &st.StatusMsg); err != nil {
			errs = append(errs, err)
			continue
		}
		near, err := s.Store.LocalNeighbours(ctx, user)
		if err != nil {
			return err
		}
		if len(near) == 0 {
			continue
		}
		p := store.Presence{User: user, State: st.Presence, StatusMsg: st.StatusMsg}
		if st.LastActiveAgo > 0 || st.CurrentlyActive {
			p.LastActive = max(1, now()-max(0, st.LastActiveAgo))
		}
		old, known, err := s.Store.Presence(ctx, user)
		if err != nil {
			return err
		}
		s.here.heard(user, st.Presence)
		if known && old.State == p.State && old.StatusMsg == p.StatusMsg && p.LastActive-old.LastActive < idleAfter.Milliseconds() {
			continue
		}
		rows = append(rows, p)
		users, neighbours = append(users, user), append(neighbours, near...)
	}
	if len(rows) > 0 {
		err := s.Store.Update(ctx, func(tx *store.Tx) error {
			for _, p := range rows {
				if err := tx.PutPresence(ctx, p, false); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		s.announce(users, neighbours)
	}
	return errors.Join(errs...)
}

// heardFor is how long a user of another server stays there without a word from
// that server.
const heardFor = 30 * time.Minute

// heard notes that a server told of a user of it.
func (h *here) heard(user matrix.UserID, state string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.remote == nil {
		h.remote = map[matrix.UserID]time.Time{}
	}
	if state == Offline {
		delete(h.remote, user)
	} else {
		h.remote[user] = time.Now()
	}
}

// silent gives the users of other servers of whom nothing was heard for long, and
// since when, and forgets them.
func (h *here) silent(at time.Time) map[matrix.UserID]time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	gone := map[matrix.UserID]time.Time{}
	for user, last := range h.remote {
		if at.Sub(last) > heardFor {
			delete(h.remote, user)
			gone[user] = last
		}
	}
	return gone
}

// recall is for those whom silent forgot and who could not be made offline.
func (h *here) recall(silent map[matrix.UserID]time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for user, last := range silent {
		if _, heard := h.remote[user]; !heard {
			h.remote[user] = last
		}
	}
}

// endSilent makes those offline of whom their servers say nothing any more.
func (s *Service) endSilent(ctx context.Context) (err error) {
	silent := s.here.silent(time.Now())
	defer func() {
		if err != nil {
			s.here.recall(silent)
		}
	}()
	gone := map[matrix.UserID]Status{}
	for user := range silent {
		p, ok, err := s.Store.Presence(ctx, user)
		if err != nil {
			return err
		}
		if ok && p.State != Offline {
			gone[user] = Status{Presence: Offline, StatusMsg: p.StatusMsg}
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return s.RemotePresence(ctx, gone)
}
