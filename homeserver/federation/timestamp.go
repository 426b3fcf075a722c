package federation

import (
	"context"
	"errors"

	"github.com/rs/zerolog"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// askedForTime is how many servers are asked for an event by its time.
const askedForTime = 3

// Moment is an event and when it was sent, in milliseconds.
type Moment struct {
	Event matrix.EventID `json:"event_id"`
	TS    int64          `json:"origin_server_ts"`
}

// nearer tells whether a lies nearer to a time than b, of which one may be empty.
// Both lie on its right side.
func nearer(a, b Moment, backwards bool) bool {
	return a.Event != "" && (b.Event == "" || backwards && a.TS > b.TS || !backwards && a.TS < b.TS)
}

// UserByTime finds the event of a room next to a time for a user of this server
// who can read the room; where this server lacks a part of the room's history,
// others are asked, too. The errors are M_FORBIDDEN and M_NOT_FOUND.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
func (s *Service) UserByTime(ctx context.Context, user matrix.UserID, id matrix.RoomID, ts int64, backwards bool) (Moment, error) {
	r, err := s.Rooms.Readable(ctx, id, user)
	if err != nil {
		return Moment{}, err
	}
	var best Moment
	e, err := s.Rooms.ByTime(ctx, r, ts, backwards)
	if err != nil {
		return best, err
	}
	if e != nil {
		seen, err := s.Rooms.Visible(ctx, r, user, []*store.Event{e})
		if err != nil {
			return best, err
		}
		if len(seen) > 0 {
			best = Moment{e.PDU.ID, e.PDU.OriginServerTS}
		}
	}
	gaps, err := s.Store.Gaps(ctx, r.Num)
	if err != nil {
		return best, err
	}
	if len(gaps) > 0 {
		servers, err := s.Hosts(ctx, id)
		if err != nil {
			return best, err
		}
		servers = servers[1:] // without this one
		for _, name := range servers[:min(len(servers), askedForTime)] {
			found, at, err := s.Client.EventByTimestamp(ctx, name, id, ts, backwards)
			if err != nil {
				zerolog.Ctx(ctx).Debug().Err(err).Str("room", string(id)).Str("server", string(name)).Msg("a server found no event at a time")
				continue
			}
			right := at == ts || (at < ts) == backwards
			if there := (Moment{found, at}); right && nearer(there, best, backwards) {
				best = there
				if err := s.fetchUpTo(ctx, id, found); err != nil {
					return best, err
				}
			}
			break
		}
	}
	if best.Event == "" {
		return best, matrix.Errorf(matrix.NotFound, "there is no event at that time")
	}
	return best, nil
}

// mostPages is how many parts of a room's history are fetched so that an event
// can be shown with what stands around it.
const mostPages = 10

// fetchUpTo fetches history of a room until an event is here.
func (s *Service) fetchUpTo(ctx context.Context, room matrix.RoomID, id matrix.EventID) error {
	for range mostPages {
		e, err := s.Store.Event(ctx, id)
		if err == nil && e.Pos != 0 || err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		gaps, err := s.gaps(ctx, room)
		if err != nil || len(gaps) == 0 {
			return err
		}
		if more, err := s.backfill(ctx, room, gaps[len(gaps)-1]); err != nil || !more {
			return ctx.Err() // who has it may be back later
		}
	}
	return nil
}
