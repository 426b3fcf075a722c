package room

import (
	"context"
	"math"

	"switchboard/homeserver/store"
)

// timeWindow is how many events around the place that a search by time leads to
// are compared: the clocks of servers are not quite the same.
const timeWindow = 100

// ByTime finds the event of a room next to a time (ms): the first one not before
// it, or with backwards the last one not after it; nil if there is none. Events
// whose server's clock is far off may be missed.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
func (s *Service) ByTime(ctx context.Context, r *store.Room, ts int64, backwards bool) (*store.Event, error) {
	first, err := s.Store.Oldest(ctx, r.Num, math.MinInt64, r.Last, 1)
	if err != nil || len(first) == 0 {
		return nil, err
	}
	past, err := s.Store.Past(ctx, r.Num)
	if err != nil {
		return nil, err
	}
	low, high := first[0].Pos-1, r.Last // the wanted place is behind low, and not behind high
	if past.Upto != 0 {
		low = past.Since // what stands before it is younger than what an appservice brought
	}
	for high-low > 1 {
		middle := low + (high-low)/2
		list, err := s.Store.Newest(ctx, r.Num, low, middle, 1)
		if err != nil {
			return nil, err
		}
		switch {
		case len(list) == 0:
			low = middle
		case list[0].PDU.OriginServerTS < ts:
			low = middle
		default:
			high = list[0].Pos
		}
	}
	before, err := s.Store.Newest(ctx, r.Num, math.MinInt64, high, timeWindow)
	if err != nil {
		return nil, err
	}
	after, err := s.Store.Oldest(ctx, r.Num, high, r.Last, timeWindow)
	if err != nil {
		return nil, err
	}
	var best *store.Event
	for _, e := range append(before, after...) {
		at := e.PDU.OriginServerTS
		switch {
		case backwards && at <= ts && (best == nil || at >= best.PDU.OriginServerTS):
			best = e
		case !backwards && at >= ts && (best == nil || at < best.PDU.OriginServerTS):
			best = e
		}
	}
	return best, nil
}
