package federation

import (
	"context"
	"errors"
	"math"

	"github.com/rs/zerolog"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// askedForTime is how many servers are asked for an event by its time.
const askedForTime = 3

// clockSkew is by how much (ms) the clocks of servers may differ where a gap in
// the history is told apart from what stands elsewhere.
const clockSkew = 10 * 60 * 1000

// Moment is an event and when it was sent, in milliseconds.
type Moment struct {
	Event matrix.EventID `json:"event_id"`
	TS    int64          `json:"origin_server_ts"`
}

// search looks for the event of a room next to a time, for a user of this server.
type search struct {
	*Service
	room      *store.Room
	user      matrix.UserID
	ts        int64 // milliseconds
	backwards bool
}

// UserByTime finds the event of a room next to a time that a user of this server
// may see, who can read the room. Where history is missing here in which a nearer
// one may be, other servers are asked, and what leads to theirs is fetched. The
// errors are M_FORBIDDEN and M_NOT_FOUND.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
func (s *Service) UserByTime(ctx context.Context, user matrix.UserID, id matrix.RoomID, ts int64, backwards bool) (Moment, error) {
	r, err := s.Rooms.Readable(ctx, id, user)
	if err != nil {
		return Moment{}, err
	}
	q := &search{s, r, user, ts, backwards}
	best, err := q.here(ctx)
	if err != nil {
		return Moment{}, err
	}
	missing, err := q.missing(ctx, best)
	if err != nil {
		return Moment{}, err
	}
	if missing {
		fetched, err := q.fetch(ctx, best)
		if err == nil && fetched {
			best, err = q.here(ctx)
		}
		if err != nil {
			return Moment{}, err
		}
	}
	if best == nil {
		return Moment{}, matrix.Errorf(matrix.NotFound, "there is no event at that time")
	}
	return Moment{best.PDU.ID, best.PDU.OriginServerTS}, nil
}

// here finds the event in what this server has.
func (q *search) here(ctx context.Context) (*store.Event, error) {
	return q.Rooms.ByTime(ctx, q.room, q.ts, q.backwards, func(list []*store.Event) ([]*store.Event, error) {
		seen, err := q.Rooms.Visible(ctx, q.room, q.user, list)
		shown := make([]*store.Event, len(seen))
		for i, e := range seen {
			shown[i] = e.Event
		}
		return shown, err
	})
}

// missing tells whether there is a gap in the history in which an event nearer
// than best may be: what is missing is hardly younger than the event behind the
// gap, nor older than the one before it.
func (q *search) missing(ctx context.Context, best *store.Event) (bool, error) {
	low, high := q.ts, int64(math.MaxInt64)
	if q.backwards {
		low, high = 0, q.ts
	}
	if best != nil {
		at := best.PDU.OriginServerTS
		if at == q.ts {
			return false, nil
		}
		if q.backwards {
			low = at
		} else {
			high = at
		}
	}
	gaps, err := q.gaps(ctx, q.room.ID)
	if err != nil {
		return false, err
	}
	for _, g := range gaps {
		if g.PDU.OriginServerTS < low-clockSkew {
			continue
		}
		before, err := q.Store.Newest(ctx, q.room.Num, math.MinInt64, g.Pos-1, 1)
		if err != nil || len(before) == 0 || before[0].PDU.OriginServerTS-clockSkew <= high {
			return err == nil, err
		}
	}
	return false, nil
}

// fetch asks other servers and tells whether history was fetched for what one of
// them found.
func (q *search) fetch(ctx context.Context, best *store.Event) (bool, error) {
	servers, err := q.Hosts(ctx, q.room.ID)
	if err != nil {
		return false, err
	}
	servers = servers[1:] // without this one
	for _, name := range servers[:min(len(servers), askedForTime)] {
		found, at, err := q.Client.EventByTimestamp(ctx, name, q.room.ID, q.ts, q.backwards)
		if err != nil {
			zerolog.Ctx(ctx).Debug().Err(err).Str("room", string(q.room.ID)).Str("server", string(name)).Msg("a server found no event at a time")
			continue
		}
		right := at == q.ts || (at < q.ts) == q.backwards
		if !right || best != nil && (at == best.PDU.OriginServerTS || (at < best.PDU.OriginServerTS) == q.backwards) {
			return false, nil
		}
		return true, q.fetchUpTo(ctx, q.room.ID, found)
	}
	return false, ctx.Err()
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
