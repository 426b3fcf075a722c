package room

import (
	"context"
	"encoding/json"
	"maps"
	"math"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// ThreadsAsked asks for the threads of a room.
type ThreadsAsked struct {
	Room  matrix.RoomID
	From  string // a token; "" for the newest
	Own   bool   // only those in which the user wrote
	Limit int
}

// ThreadsAnswer is the answer to ThreadsAsked.
type ThreadsAnswer struct {
	Chunk []json.RawMessage `json:"chunk"`
	Next  string            `json:"next_batch,omitempty"`
}

// Threads gives the roots of a room's threads, those with the newest events
// first, of those that the user may see. The root of an ignored user comes redacted,
// and what ignored users wrote does not count.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidthreads
func (s *Service) Threads(ctx context.Context, rd Reader, q ThreadsAsked) (*ThreadsAnswer, error) {
	a, err := s.access(ctx, q.Room, rd.User)
	if err != nil {
		return nil, err
	}
	ignored, err := s.Ignored(ctx, rd.User)
	if err != nil {
		return nil, err
	}
	ask := store.ThreadQuery{Room: a.room.Num, Before: math.MaxInt64, Without: slices.Collect(maps.Keys(ignored))}
	if ask.Upto, err = s.horizon(ctx, a.room, rd.User); err != nil {
		return nil, err
	}
	if q.Own {
		ask.Of = rd.User
	}
	if q.From != "" {
		if ask.Before, err = ParseToken(q.From); err != nil {
			return nil, err
		}
	}
	answer := &ThreadsAnswer{}
	var roots []Seen
pages:
	for {
		list, err := s.Store.Threads(ctx, ask, q.Limit+1)
		if err != nil {
			return nil, err
		}
		for _, t := range list {
			if len(roots) == q.Limit {
				answer.Next = Token(ask.Before)
				break pages
			}
			seen, err := s.ThreadRoot(ctx, a.room, rd.User, t.Root)
			if err != nil {
				return nil, err
			}
			roots, ask.Before = append(roots, seen...), t.Last
		}
		if len(list) <= q.Limit {
			break
		}
	}
	answer.Chunk, err = s.Clients(ctx, rd, roots)
	return answer, err
}

// ThreadRoot gives the root of a thread as user sees it, if they do. That of an
// ignored user comes redacted.
func (s *Service) ThreadRoot(ctx context.Context, r *store.Room, user matrix.UserID, root *store.Event) ([]Seen, error) {
	ignored, err := s.Ignored(ctx, user)
	if err != nil {
		return nil, err
	}
	if ignored[root.PDU.Sender] {
		redacted, err := root.PDU.Redacted()
		if err != nil {
			return nil, err
		}
		c := *root
		c.PDU, root = redacted, &c
	}
	return s.Visible(ctx, r, user, []*store.Event{root})
}
