package room

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
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
	oldest, newest, err := q.bounds()
	if err != nil {
		return nil, err
	}
	seen, err := s.related(ctx, r, rd.User, q, store.Relating{
		Room: r.Num, Target: q.Event, RelType: q.RelType, Depth: q.depth(), Since: oldest, Upto: newest, Forward: q.Forward,
	})
	if err != nil {
		return nil, err
	}
	answer := &RelatingAnswer{Prev: q.From}
	if q.Recurse {
		answer.Depth = q.depth()
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

// related lists the events that user may see, one more than q's limit if there
// are so many.
func (s *Service) related(ctx context.Context, r *store.Room, user matrix.UserID, q Relating, w store.Relating) ([]Seen, error) {
	ignored, err := s.Ignored(ctx, user)
	if err != nil {
		return nil, err
	}
	var list []Seen
	for len(list) <= q.Limit {
		events, err := s.Store.Related(ctx, w, q.Limit+1)
		if err != nil {
			return nil, err
		}
		last := len(events) <= q.Limit
		if !last && q.Forward {
			w.Since = events[q.Limit].Pos
		} else if !last {
			w.Upto = events[q.Limit].Pos - 1
		}
		events = slices.DeleteFunc(events, func(e *store.Event) bool {
			return q.Type != "" && e.PDU.Type != q.Type || !e.PDU.IsState() && ignored[e.PDU.Sender]
		})
		seen, err := s.Visible(ctx, r, user, events)
		if list = append(list, seen...); err != nil || last {
			return list, err
		}
	}
	return list, nil
}

// depth is how far q goes.
func (q Relating) depth() int {
	if q.Recurse {
		return deepestRelation
	}
	return 1
}

// bounds turns the tokens into places: what is behind the one and not behind the
// other is asked for.
func (q Relating) bounds() (oldest, newest int64, err error) {
	oldest, newest = math.MinInt64, math.MaxInt64
	from, to := &newest, &oldest
	if q.Forward {
		from, to = to, from
	}
	if q.From != "" {
		if *from, err = ParseToken(q.From); err != nil {
			return 0, 0, err
		}
	}
	if q.To != "" {
		*to, err = ParseToken(q.To)
	}
	return oldest, newest, err
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

// checkRelation refuses a thread that begins inside of a relation, and a second
// annotation with the same key.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#validation-of-mthread-relationships
// Spec: https://spec.matrix.org/v1.19/client-server-api/#avoiding-duplicate-annotations
func (s *Service) checkRelation(ctx context.Context, r *store.Room, d Sending) error {
	var c annotation
	if d.StateKey != nil || !bytes.Contains(d.Content, []byte(`"m.relates_to"`)) || json.Unmarshal(d.Content, &c) != nil {
		return nil
	}
	e, err := s.Store.Event(ctx, c.Relates.Event)
	if errors.Is(err, store.ErrNotFound) || err == nil && e.Room != r.Num {
		return nil
	}
	if err != nil {
		return err
	}
	switch c.Relates.Type {
	case store.Threaded:
		if typ, _ := relation(e); typ != "" {
			return &matrix.Error{Code: matrix.Unknown, Status: http.StatusBadRequest,
				Text: "a thread cannot begin at an event that refers to another one: name the root of its thread, or an event with no rel_type"}
		}
	case "m.annotation":
		return s.checkAnnotation(ctx, e, d, c)
	}
	return nil
}

// annotation is a content that refers to another event with a key.
type annotation struct {
	Relates struct {
		Type  string         `json:"rel_type"`
		Event matrix.EventID `json:"event_id"`
		Key   string         `json:"key"`
	} `json:"m.relates_to"`
}

// checkAnnotation refuses the annotation c of an event that the user made already.
func (s *Service) checkAnnotation(ctx context.Context, e *store.Event, d Sending, c annotation) error {
	made, err := s.Store.Annotations(ctx, e, d.User)
	if err != nil {
		return err
	}
	for _, old := range made {
		var oc annotation
		if old.PDU.Type == d.Type && json.Unmarshal(old.PDU.Content, &oc) == nil && oc.Relates.Key == c.Relates.Key {
			return matrix.Errorf(matrix.DuplicateAnnotation, "you have annotated this event so already: redact %s first", old.PDU.ID)
		}
	}
	return nil
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
