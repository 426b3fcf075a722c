package search

import (
	"encoding/json"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// Answer is what a search found.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3search
type Answer struct {
	Count      int                                 `json:"count"` // of all pages, as far as it is known
	Highlights []string                            `json:"highlights"`
	Results    []Result                            `json:"results"`
	State      map[matrix.RoomID][]json.RawMessage `json:"state,omitempty"`
	Groups     map[string]map[string]*Group        `json:"groups,omitempty"`
	Next       string                              `json:"next_batch,omitempty"`
}

// Result is an event that a search found.
type Result struct {
	Rank    float64         `json:"rank"`
	Event   json.RawMessage `json:"result"`
	Context *Context        `json:"context,omitempty"`
}

// Context is what surrounds a result.
type Context struct {
	Start    string                    `json:"start"`
	End      string                    `json:"end"`
	Profiles map[matrix.UserID]Profile `json:"profile_info,omitempty"`
	Before   []json.RawMessage         `json:"events_before"`
	After    []json.RawMessage         `json:"events_after"`
}

// Profile is what the sender of an event was called then.
type Profile struct {
	DisplayName string `json:"displayname,omitempty"`
	AvatarURL   string `json:"avatar_url,omitempty"`
}

// Group is a part of the results that have something in common.
type Group struct {
	Order   int              `json:"order"` // the first group has the least
	Results []matrix.EventID `json:"results"`
	Next    string           `json:"next_batch,omitempty"`
}

func newAnswer() *Answer { return &Answer{Highlights: []string{}, Results: []Result{}} }

// answer is the page of hits, all of a window, that begins at a cursor.
func (f *finder) answer(hits []hit, c cursor) (*Answer, error) {
	a := newAnswer()
	a.Count = c.Given + len(hits)
	begin := 0
	if c.Last != nil {
		for begin < len(hits) && f.q.compare(hits[begin].standing(), *c.Last) <= 0 {
			begin++
		}
	}
	end := min(begin+f.q.Limit, len(hits))
	page := hits[begin:end]
	if len(page) == f.q.Limit || end < len(hits) || c.Since != 0 {
		a.Next = c.behind(end, hits).token()
	}
	for _, h := range page {
		_, text := textOf(h.Text.PDU)
		for _, w := range f.term.Found(text) {
			if !slices.Contains(a.Highlights, w) {
				a.Highlights = append(a.Highlights, w)
			}
		}
	}
	if err := f.results(a, page); err != nil {
		return nil, err
	}
	for _, key := range f.q.Groups {
		if a.Groups == nil {
			a.Groups = map[string]map[string]*Group{}
		}
		a.Groups[key] = groups(key, hits, page, end, c)
	}
	return a, nil
}

// behind is the cursor behind the first n hits of its window.
func (c cursor) behind(n int, hits []hit) cursor {
	if n < len(hits) || c.Since == 0 {
		if n > 0 {
			c.Last = new(hits[n-1].standing())
		}
		return c
	}
	return cursor{Upto: c.Since, Given: c.Given + n, Key: c.Key, Group: c.Group}
}

// results shapes the events of a page with all that was asked for.
func (f *finder) results(a *Answer, page []hit) error {
	events := make([]room.Seen, len(page))
	for i, h := range page {
		events[i] = h.Seen
	}
	shaped, err := f.Rooms.Clients(f.ctx, f.rd, events)
	if err != nil {
		return err
	}
	members := map[matrix.UserID]bool{}
	for i, h := range page {
		members[h.PDU.Sender] = true
		r := Result{Rank: h.rank, Event: shaped[i]}
		if f.q.Around != nil {
			if r.Context, err = f.context(h, members); err != nil {
				return err
			}
		}
		a.Results = append(a.Results, r)
	}
	if !f.q.State {
		return nil
	}
	a.State = map[matrix.RoomID][]json.RawMessage{}
	for _, h := range page {
		id := h.PDU.Room
		if a.State[id] != nil {
			continue
		}
		a.State[id], err = f.Rooms.SomeState(f.ctx, f.rd, id, func(e *store.Event) bool {
			return !f.q.Filter.Lazy() || e.PDU.Type != "m.room.member" || members[matrix.UserID(*e.PDU.StateKey)]
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// context is what surrounds a hit. It adds those who speak there to members.
func (f *finder) context(h hit, members map[matrix.UserID]bool) (*Context, error) {
	w := room.Surroundings{Before: f.q.Around.Before, After: f.q.Around.After, Filter: everything{}}
	around, err := f.Rooms.Around(f.ctx, f.rd.User, f.rooms[h.Room], h.Seen, w)
	if err != nil {
		return nil, err
	}
	c := &Context{Start: around.Start, End: around.End}
	if c.Before, err = f.Rooms.Clients(f.ctx, f.rd, around.Before); err != nil {
		return nil, err
	}
	if c.After, err = f.Rooms.Clients(f.ctx, f.rd, around.After); err != nil {
		return nil, err
	}
	all := slices.Concat(around.Before, []room.Seen{h.Seen}, around.After)
	for _, e := range all {
		members[e.PDU.Sender] = true
	}
	if !f.q.Around.Profiles {
		return c, nil
	}
	c.Profiles = map[matrix.UserID]Profile{}
	senders, err := f.Rooms.Senders(f.ctx, all)
	for _, m := range senders {
		c.Profiles[matrix.UserID(*m.PDU.StateKey)] = Profile{m.PDU.ContentString("displayname"), m.PDU.ContentString("avatar_url")}
	}
	return c, err
}

// everything is a filter that wants all.
type everything struct{}

func (everything) Wants(*store.Event) bool { return true }
func (everything) Lazy() bool              { return false }

// groups are the groups by a key of a page of hits, which ends behind the first end
// hits of the window.
func groups(key string, hits, page []hit, end int, c cursor) map[string]*Group {
	all := map[string]*Group{}
	for _, h := range page {
		g := all[h.of(key)]
		if g == nil {
			g = &Group{Order: len(all) + 1}
			all[h.of(key)] = g
		}
		g.Results = append(g.Results, h.PDU.ID)
	}
	for name, g := range all {
		var own []hit
		given := 0
		for i, h := range hits {
			if h.of(key) == name {
				if own = append(own, h); i < end {
					given++
				}
			}
		}
		if given < len(own) || c.Since != 0 {
			in := cursor{Upto: c.Upto, Since: c.Since, Key: key, Group: name}
			g.Next = in.behind(given, own).token()
		}
	}
	return all
}
