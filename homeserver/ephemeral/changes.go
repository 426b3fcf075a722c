package ephemeral

import (
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// TypingSince gives the rooms in which who types changed behind a serial
// number, each with who types there now, and the serial number up to which that
// is all.
func (s *Service) TypingSince(since int64) (rooms map[matrix.RoomID][]matrix.UserID, serial int64) {
	t := &s.typing
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin()
	if since >= t.serial {
		return nil, t.serial
	}
	rooms = map[matrix.RoomID][]matrix.UserID{}
	for id, r := range t.rooms {
		if r.serial <= since {
			continue
		}
		users := make([]matrix.UserID, 0, len(r.until))
		for u := range r.until {
			users = append(users, u)
		}
		slices.Sort(users)
		rooms[id] = users
	}
	return rooms, t.serial
}

// StatusOf is what others are told of a presence.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mpresence
func (s *Service) StatusOf(p store.Presence) Status { return s.status(p) }
