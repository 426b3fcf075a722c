package room

import (
	"context"
	"math"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// Replacements finds, of one room, the newest valid event that replaces each of
// those that user sees, by their numbers. Those that nothing replaces are left out.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-aggregation-of-mreplace-relationships
func (s *Service) Replacements(ctx context.Context, r *store.Room, user matrix.UserID, parents []Seen) (map[store.EventNum]Seen, error) {
	newest := map[store.EventNum]Seen{}
	if len(parents) == 0 {
		return newest, nil
	}
	byID := make(map[matrix.EventID]Seen, len(parents))
	nums := make([]store.EventNum, len(parents))
	for i, p := range parents {
		byID[p.PDU.ID], nums[i] = p, p.Num
	}
	list, err := s.Store.ChildrenBy(ctx, nums, store.Replacing, mostChildren)
	if err != nil {
		return nil, err
	}
	seen, err := s.Visible(ctx, r, user, list)
	for _, e := range seen {
		_, id := relation(e.Event)
		p := byID[id]
		if !replaces(e.Event, p.Event) {
			continue
		}
		if old, ok := newest[p.Num]; !ok || later(e.Event, old.Event) {
			newest[p.Num] = e
		}
	}
	return newest, err
}

// Version is an event with the one whose content it has today.
type Version struct {
	Seen
	Text *store.Event // the event itself, or what replaces it
}

// Versions gives those events of a room that user sees and that nothing replaces
// for that user. In the place of one that replaces another, there is that one.
func (s *Service) Versions(ctx context.Context, r *store.Room, user matrix.UserID, events []*store.Event) ([]Version, error) {
	seen, err := s.Visible(ctx, r, user, events)
	if err != nil {
		return nil, err
	}
	replaced, err := s.replacedBy(ctx, r, user, seen)
	if err != nil {
		return nil, err
	}
	parents := make([]Seen, 0, len(seen))
	for _, e := range seen {
		if typ, _ := relation(e.Event); typ != store.Replacing {
			parents = append(parents, e)
		}
	}
	for _, p := range replaced {
		parents = append(parents, p)
	}
	newest, err := s.Replacements(ctx, r, user, parents)
	if err != nil {
		return nil, err
	}
	var list []Version
	for _, e := range seen {
		v := Version{e, e.Event}
		if typ, id := relation(e.Event); typ == store.Replacing {
			v.Seen = replaced[id]
		}
		if v.Event == nil {
			continue
		}
		if by, ok := newest[v.Num]; ok && by.Num != e.Num || !ok && v.Num != e.Num {
			continue
		}
		list = append(list, v)
	}
	return list, nil
}

// replacedBy finds the events of a room that others are to replace, as far as user
// sees them.
func (s *Service) replacedBy(ctx context.Context, r *store.Room, user matrix.UserID, events []Seen) (map[matrix.EventID]Seen, error) {
	var ids []matrix.EventID
	for _, e := range events {
		if typ, id := relation(e.Event); typ == store.Replacing {
			ids = append(ids, id)
		}
	}
	found, err := s.Store.EventsByID(ctx, ids)
	if err != nil {
		return nil, err
	}
	list := make([]*store.Event, 0, len(found))
	for _, p := range found {
		if p.Room == r.Num && p.Pos != 0 && p.RedactedBy == 0 {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *store.Event) int { return int(a.Num - b.Num) })
	seen, err := s.Visible(ctx, r, user, list)
	parents := make(map[matrix.EventID]Seen, len(seen))
	for _, p := range seen {
		parents[p.PDU.ID] = p
	}
	return parents, err
}

// Surroundings says how many events before and after another one are wanted, and
// which.
type Surroundings struct {
	Before, After int
	Filter        Filter
}

// Around is what surrounds an event, the nearest first, and tokens for where to read
// on.
type Around struct {
	Before, After []Seen
	Start, End    string
}

// with is the surroundings with the event in their midst.
func (a Around) with(e Seen) []Seen { return slices.Concat(a.Before, []Seen{e}, a.After) }

// Around gives what user may see of what surrounds an event in a room.
func (s *Service) Around(ctx context.Context, user matrix.UserID, r *store.Room, e Seen, w Surroundings) (Around, error) {
	around, a := Around{Start: Token(0), End: Token(r.Last)}, access{room: r, upto: r.Last}
	before, start, err := s.collect(ctx, user, a, Page{Limit: w.Before, Filter: w.Filter}, e.Pos-1, math.MinInt64)
	if err != nil {
		return around, err
	}
	after, end, err := s.collect(ctx, user, a, Page{Limit: w.After, Filter: w.Filter, Forward: true}, e.Pos, r.Last)
	if around.Before, around.After = before, after; start != nil {
		around.Start = Token(*start)
	}
	if end != nil {
		around.End = Token(*end)
	}
	return around, err
}
