package room

import (
	"context"
	"encoding/json"
	"math"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// Page asks for a part of a room's timeline.
type Page struct {
	Room     matrix.RoomID
	From, To string // tokens; "" for the end where the direction begins
	Forward  bool
	Limit    int
	Filter   Filter

	// Open timelines may go on before their first event, so that the answer has
	// an End even there.
	Open bool

	// unbroken ends the page before an event that the user may not see, and
	// where events are missing here.
	unbroken bool
}

// Filter decides which events a client wants. The zero value wants all.
type Filter interface {
	// Wants tells whether an event is wanted.
	Wants(e *store.Event) bool
	// Lazy tells whether only the members who sent something are wanted.
	Lazy() bool
}

// PageAnswer is the answer to Page.
type PageAnswer struct {
	Chunk []json.RawMessage `json:"chunk"`
	Start string            `json:"start"`
	End   string            `json:"end,omitempty"`
	State []json.RawMessage `json:"state,omitempty"`
}

// mostRead bounds how many events one request looks at for those it wants.
const mostRead = 2000

// Messages gives a part of a room's timeline.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages
func (s *Service) Messages(ctx context.Context, rd Reader, p Page) (*PageAnswer, error) {
	a, err := s.access(ctx, p.Room, rd.User)
	if err != nil {
		return nil, err
	}
	from, to, err := p.bounds(a.upto)
	if err != nil {
		return nil, err
	}
	found, end, err := s.collect(ctx, rd.User, a, p, from, to)
	if err != nil {
		return nil, err
	}
	answer := &PageAnswer{Start: Token(from)}
	if answer.Chunk, err = s.Clients(ctx, rd, found); err != nil {
		return nil, err
	}
	if end != nil {
		answer.End = Token(*end)
	}
	if p.Filter.Lazy() && len(found) > 0 {
		members, err := s.Senders(ctx, found)
		if err != nil {
			return nil, err
		}
		if answer.State, err = s.Clients(ctx, rd, seen(members)); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// bounds turns the tokens into places: from is where reading begins, to where it ends.
func (p Page) bounds(last int64) (from, to int64, err error) {
	if p.Forward {
		from, to = math.MinInt64, last
	} else {
		from, to = last, math.MinInt64
	}
	if p.From != "" {
		if from, err = ParseToken(p.From); err != nil {
			return 0, 0, err
		}
	}
	if p.To != "" {
		if to, err = ParseToken(p.To); err != nil {
			return 0, 0, err
		}
	}
	if p.Forward {
		return from, min(to, last), nil
	}
	return min(from, last), to, nil
}

// collect reads on until there are enough events that user sees and wants. End
// is where the next page begins, nil at the end of the timeline.
func (s *Service) collect(ctx context.Context, user matrix.UserID, a access, p Page, from, to int64) (found []Seen, end *int64, err error) {
	ignored, err := s.Ignored(ctx, user)
	if err != nil {
		return nil, nil, err
	}
	at := from
	for read := 0; len(found) < p.Limit && read < mostRead; {
		want := min(max(p.Limit-len(found), read), mostRead-read) // more each time, where little is wanted
		var events []*store.Event
		if p.Forward {
			events, err = s.Store.Oldest(ctx, a.room.Num, at, to, want)
		} else {
			events, err = s.Store.Newest(ctx, a.room.Num, to, at, want)
			slices.Reverse(events)
		}
		if err != nil {
			return nil, nil, err
		}
		torn := false
		if p.unbroken {
			if i := slices.IndexFunc(events, func(e *store.Event) bool { return s.Store.BehindGap(e.Num) }); i >= 0 {
				events, torn = events[:i+1], true
			}
		}
		visible, err := s.Visible(ctx, a.room, user, events)
		if err != nil {
			return nil, nil, err
		}
		broken := p.unbroken && len(visible) < len(events)
		if broken {
			i := slices.IndexFunc(events, func(e *store.Event) bool {
				return !slices.ContainsFunc(visible, func(v Seen) bool { return v.Event == e })
			})
			events, visible = events[:i+1], visible[:i]
		}
		for _, e := range visible {
			if len(found) == p.Limit {
				break
			}
			if (e.PDU.IsState() || !ignored[e.PDU.Sender]) && p.Filter.Wants(e.Event) {
				found = append(found, e)
			}
		}
		if len(found) == p.Limit && p.Limit > 0 {
			at = found[len(found)-1].Pos
		} else if len(events) > 0 {
			at = events[len(events)-1].Pos
		}
		if !p.Forward && len(events) > 0 {
			at--
		}
		if broken || torn {
			break
		}
		if len(events) < want && len(found) < p.Limit {
			if p.Open && !p.Forward {
				break
			}
			return found, nil, nil // the timeline ends here
		}
		read += len(events)
	}
	return found, &at, nil
}

// Senders gives the m.room.member events of those who sent events, as they were
// at the first event of each.
func (s *Service) Senders(ctx context.Context, events []Seen) ([]*store.Event, error) {
	done := map[matrix.UserID]bool{}
	var list []*store.Event
	for _, e := range events {
		u := e.PDU.Sender
		if done[u] {
			continue
		}
		done[u] = true
		m, err := s.StateEvent(ctx, e.State, "m.room.member", string(u))
		if err != nil {
			return nil, err
		}
		if m == nil && e.PDU.Local { // who sent it came later
			r, err := s.Store.RoomByNum(ctx, e.Room)
			if err != nil {
				return nil, err
			}
			if m, err = s.StateEvent(ctx, r.Current, "m.room.member", string(u)); err != nil {
				return nil, err
			}
		}
		if m != nil {
			list = append(list, m)
		}
	}
	return list, nil
}

// ContextAnswer is what surrounds an event.
type ContextAnswer struct {
	Start  string            `json:"start"`
	End    string            `json:"end"`
	Event  json.RawMessage   `json:"event"`
	Before []json.RawMessage `json:"events_before"`
	After  []json.RawMessage `json:"events_after"`
	State  []json.RawMessage `json:"state"`
}

// Context gives an event that user may see, and up to limit events around it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid
func (s *Service) Context(ctx context.Context, rd Reader, room matrix.RoomID, id matrix.EventID, limit int, f Filter) (*ContextAnswer, error) {
	r, e, err := s.MaySee(ctx, room, rd.User, id)
	if err != nil {
		return nil, err
	}
	around, err := s.Around(ctx, rd.User, r, e, Surroundings{Before: limit - limit/2, After: limit / 2, Filter: f})
	if err != nil {
		return nil, err
	}
	answer := &ContextAnswer{Start: around.Start, End: around.End}
	if answer.Before, err = s.Clients(ctx, rd, around.Before); err != nil {
		return nil, err
	}
	if answer.After, err = s.Clients(ctx, rd, around.After); err != nil {
		return nil, err
	}
	all := around.with(e)
	last := all[len(all)-1]
	own, err := s.Clients(ctx, rd, []Seen{e})
	if err != nil {
		return nil, err
	}
	answer.Event = own[0]
	answer.State, err = s.contextState(ctx, rd, last.State, all, f)
	return answer, err
}

// contextState is the state at the last event that the client gets.
func (s *Service) contextState(ctx context.Context, rd Reader, root statetree.ID, all []Seen, f Filter) ([]json.RawMessage, error) {
	state, err := s.StateEvents(ctx, root)
	if err != nil {
		return nil, err
	}
	senders := map[matrix.UserID]bool{}
	for _, e := range all {
		senders[e.PDU.Sender] = true
	}
	state = slices.DeleteFunc(state, func(e *store.Event) bool {
		return !f.Wants(e) || f.Lazy() && e.PDU.Type == "m.room.member" && !senders[matrix.UserID(*e.PDU.StateKey)]
	})
	return s.Clients(ctx, rd, seen(state))
}

// Recent gives the newest events of a room behind since and not behind upto
// that user sees and wants, in order, at most limit. There is none among them
// before one that user does not see or before which events are missing here: the
// state at the first and all of them give the state at the end. Limited tells
// that there are more, or may be.
func (s *Service) Recent(ctx context.Context, user matrix.UserID, r *store.Room, since, upto int64, limit int, f Filter) (found []Seen, limited bool, err error) {
	p := Page{Limit: limit + 1, Filter: f, unbroken: true}
	found, end, err := s.collect(ctx, user, access{room: r, upto: upto}, p, upto, since)
	if err != nil {
		return nil, false, err
	}
	found = found[:min(limit, len(found))]
	slices.Reverse(found)
	return found, end != nil, nil
}
