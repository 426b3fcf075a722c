package room

import (
	"context"
	"math"
	"slices"

	"switchboard/homeserver/store"
)

const (
	// timeWindow is how many events around the place that a search by time leads
	// to are compared: the clocks of servers are not quite the same.
	timeWindow = 100

	// timeWindows is how many more windows are looked at for an event that may be
	// shown.
	timeWindows = 50
)

// ByTime finds the event of a room next to a time (ms): the first one not before
// it, or with backwards the last one not after it, among those that show leaves;
// nil if there is none. Events whose server's clock is far off may be missed.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
func (s *Service) ByTime(ctx context.Context, r *store.Room, ts int64, backwards bool, show func([]*store.Event) ([]*store.Event, error)) (*store.Event, error) {
	place, err := s.placeOf(ctx, r, ts)
	if err != nil {
		return nil, err
	}
	before, err := s.Store.Newest(ctx, r.Num, math.MinInt64, place, timeWindow)
	if err != nil {
		return nil, err
	}
	after, err := s.Store.Oldest(ctx, r.Num, place, r.Last, timeWindow)
	if err != nil {
		return nil, err
	}
	window := slices.Concat(before, after)
	for n := 0; n <= timeWindows && len(window) > 0; n++ {
		best, err := nearest(window, ts, backwards, show)
		if err != nil || best != nil {
			return best, err
		}
		if backwards {
			window, err = s.Store.Newest(ctx, r.Num, math.MinInt64, window[0].Pos-1, timeWindow)
		} else {
			window, err = s.Store.Oldest(ctx, r.Num, window[len(window)-1].Pos, r.Last, timeWindow)
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// nearest is the event next to a time of those that stand on its right side and
// that show leaves.
func nearest(window []*store.Event, ts int64, backwards bool, show func([]*store.Event) ([]*store.Event, error)) (*store.Event, error) {
	var right []*store.Event
	for _, e := range window {
		if at := e.PDU.OriginServerTS; at == ts || (at < ts) == backwards {
			right = append(right, e)
		}
	}
	shown, err := show(right)
	var best *store.Event
	for _, e := range shown {
		if at := e.PDU.OriginServerTS; best == nil || backwards && at >= best.PDU.OriginServerTS || !backwards && at < best.PDU.OriginServerTS {
			best = e
		}
	}
	return best, err
}

// placeOf finds where in the timeline of a room a time is: an event of that time
// stands about there.
func (s *Service) placeOf(ctx context.Context, r *store.Room, ts int64) (int64, error) {
	first, err := s.Store.Oldest(ctx, r.Num, math.MinInt64, r.Last, 1)
	if err != nil || len(first) == 0 {
		return 0, err
	}
	past, err := s.Store.Past(ctx, r.Num)
	if err != nil {
		return 0, err
	}
	low, high := first[0].Pos-1, r.Last // the wanted place is behind low, and not behind high
	if past.Upto != 0 {
		low = past.Since // what stands before it is younger than what an appservice brought
	}
	for high-low > 1 {
		middle := low + (high-low)/2
		list, err := s.Store.Newest(ctx, r.Num, low, middle, 1)
		if err != nil {
			return 0, err
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
	return high, nil
}
