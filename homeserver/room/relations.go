package room

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// Relating asks for the events that refer to another.
type Relating struct {
	Room     matrix.RoomID
	Event    matrix.EventID
	RelType  string // "" for every type
	Type     string // of the events; "" for every type
	From, To string // tokens
	Forward  bool
	Limit    int
	Recurse  bool // also those that refer to the ones found
}

// RelatingAnswer is the answer to Relating.
type RelatingAnswer struct {
	Chunk []json.RawMessage `json:"chunk"`
	Next  string            `json:"next_batch,omitempty"`
	Prev  string            `json:"prev_batch,omitempty"`
	Depth int               `json:"recursion_depth,omitempty"`
}

// deepestRelation is how far Recurse goes.
const deepestRelation = 3

// Relating gives the events that refer to another one, which user may see.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventid
func (s *Service) Relating(ctx context.Context, rd Reader, q Relating) (*RelatingAnswer, error) {
	r, _, err := s.MaySee(ctx, q.Room, rd.User, q.Event)
	if err != nil {
		return nil, err
	}
	from, to, err := q.bounds()
	if err != nil {
		return nil, err
	}
	events, depth, err := s.related(ctx, r, q)
	if err != nil {
		return nil, err
	}
	ignored, err := s.Ignored(ctx, rd.User)
	if err != nil {
		return nil, err
	}
	oldest, newest := to, from
	if q.Forward {
		oldest, newest = from, to
	}
	events = slices.DeleteFunc(events, func(e *store.Event) bool {
		return q.Type != "" && e.PDU.Type != q.Type || e.RedactedBy != 0 || e.Pos <= oldest || e.Pos > newest ||
			!e.PDU.IsState() && ignored[e.PDU.Sender]
	})
	slices.SortFunc(events, func(a, b *store.Event) int {
		if q.Forward {
			a, b = b, a
		}
		return int(b.Pos - a.Pos)
	})
	seen, err := s.Visible(ctx, r, rd.User, events)
	if err != nil {
		return nil, err
	}
	answer := &RelatingAnswer{Prev: q.From}
	if q.Recurse {
		answer.Depth = depth
	}
	if len(seen) > q.Limit {
		seen = seen[:q.Limit]
		last := seen[q.Limit-1].Pos
		if !q.Forward {
			last--
		}
		answer.Next = Token(last)
	}
	answer.Chunk, err = s.Clients(ctx, rd, seen)
	return answer, err
}

// bounds turns the tokens into places.
func (q Relating) bounds() (from, to int64, err error) {
	from, to = math.MaxInt64, math.MinInt64
	if q.Forward {
		from, to = to, from
	}
	if q.From != "" {
		if from, err = ParseToken(q.From); err != nil {
			return 0, 0, err
		}
	}
	if q.To != "" {
		to, err = ParseToken(q.To)
	}
	return from, to, err
}

// related lists the events of a room that refer to q's, and how deep it looked.
func (s *Service) related(ctx context.Context, r *store.Room, q Relating) ([]*store.Event, int, error) {
	var all []*store.Event
	level := []matrix.EventID{q.Event}
	relType, depth := q.RelType, 0
	for len(level) > 0 && depth < deepestRelation {
		depth++
		var nums []store.EventNum
		for _, id := range level {
			list, err := s.Store.Related(ctx, id, relType)
			if err != nil {
				return nil, 0, err
			}
			nums = append(nums, list...)
		}
		found, err := s.Store.EventsOf(ctx, r.Num, nums)
		if err != nil {
			return nil, 0, err
		}
		level, relType = nil, ""
		for _, e := range found {
			if e.Pos == 0 || slices.Contains(all, e) {
				continue
			}
			all = append(all, e)
			level = append(level, e.PDU.ID)
		}
		if !q.Recurse {
			break
		}
	}
	return all, depth, nil
}

// relation is how an event relates to another one, empty if it does not.
func relation(e *store.Event) (typ string, parent matrix.EventID) {
	if e.PDU.ContentValue("m.relates_to") == nil {
		return "", ""
	}
	var c struct {
		Relates struct {
			Type  string         `json:"rel_type"`
			Event matrix.EventID `json:"event_id"`
		} `json:"m.relates_to"`
	}
	if json.Unmarshal(e.PDU.Content, &c) != nil {
		return "", ""
	}
	return c.Relates.Type, c.Relates.Event
}

// hops is how many relations are followed to find the thread of an event.
const hops = 3

// Thread gives the root of the thread that an event is in, "" for the main
// timeline, to which the roots themselves belong.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts
func (s *Service) Thread(ctx context.Context, e *store.Event) (matrix.EventID, error) {
	room := e.Room
	for range hops + 1 {
		typ, parent := relation(e)
		if typ == "m.thread" || parent == "" {
			return parent, nil
		}
		next, err := s.Store.Event(ctx, parent)
		if errors.Is(err, store.ErrNotFound) || err == nil && next.Room != room {
			break
		}
		if err != nil {
			return "", err
		}
		e = next
	}
	return "", nil
}
