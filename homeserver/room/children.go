package room

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"math"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// mostChildren bounds how many replacements or references of one page are looked
// at, the newest ones.
const mostChildren = 1000

// children are what refers to an event, as clients get it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events
type children struct {
	Replacement json.RawMessage `json:"m.replace,omitempty"`
	Thread      *thread         `json:"m.thread,omitempty"`
	References  *references     `json:"m.reference,omitempty"`
}

type thread struct {
	Latest json.RawMessage `json:"latest_event"`
	Count  int             `json:"count"`
	Own    bool            `json:"current_user_participated"`
}

type references struct {
	Chunk []reference `json:"chunk"`
}

type reference struct {
	Event matrix.EventID `json:"event_id"`
}

// family finds the children of a page of events of one room for one reader.
type family struct {
	*Service
	ctx     context.Context
	rd      Reader
	room    *store.Room
	parents map[matrix.EventID]Seen
	found   map[store.EventNum]*children
}

// children finds what refers to events, by the numbers of these. State events
// have nothing of the kind. Threads are left out where deep is not set: inside
// of what refers to another event.
func (s *Service) children(ctx context.Context, rd Reader, events []Seen, deep bool) (map[store.EventNum]*children, error) {
	ignored, err := s.Ignored(ctx, rd.User)
	if err != nil {
		return nil, err
	}
	var nums []store.EventNum
	for _, e := range events {
		if !e.PDU.IsState() {
			nums = append(nums, e.Num)
		}
	}
	if len(nums) == 0 {
		return nil, nil
	}
	without := slices.Collect(maps.Keys(ignored))
	counts, err := s.Store.ChildrenOf(ctx, nums, rd.User, without, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	rooms := map[store.RoomNum][]Seen{}
	for _, e := range events {
		if counts[e.Num] != nil {
			rooms[e.Room] = append(rooms[e.Room], e)
		}
	}
	all := map[store.EventNum]*children{}
	for num, list := range rooms {
		r, err := s.Store.RoomByNum(ctx, num)
		if err != nil {
			return nil, err
		}
		end, err := s.horizon(ctx, r, rd.User)
		upto := counts
		if err == nil && end != 0 {
			upto, err = s.Store.ChildrenOf(ctx, nums, rd.User, without, end)
		}
		if err != nil {
			return nil, err
		}
		f := &family{s, ctx, rd, r, map[matrix.EventID]Seen{}, all}
		if err := f.find(list, upto, ignored, deep); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// find fills in what refers to events.
func (f *family) find(events []Seen, counts map[store.EventNum]map[string]store.Children, ignored map[matrix.UserID]bool, deep bool) error {
	var replaced []Seen
	var referred []store.EventNum
	threads := map[store.EventNum]store.Children{}
	for _, e := range events {
		f.parents[e.PDU.ID] = e
		for typ, c := range counts[e.Num] {
			switch {
			case typ == store.Replacing && e.RedactedBy == 0:
				replaced = append(replaced, e)
			case typ == store.Referring:
				referred = append(referred, e.Num)
			case typ == store.Threaded && deep:
				threads[e.Num] = c
			}
		}
	}
	if err := f.replacements(replaced); err != nil {
		return err
	}
	if err := f.references(referred, ignored); err != nil {
		return err
	}
	return f.threads(threads)
}

// of is where the children of an event are gathered.
func (f *family) of(num store.EventNum) *children {
	if f.found[num] == nil {
		f.found[num] = &children{}
	}
	return f.found[num]
}

// seen reads children by one type of relation that the reader may see, the newest
// first.
func (f *family) seen(parents []store.EventNum, typ string) ([]Seen, error) {
	if len(parents) == 0 {
		return nil, nil
	}
	list, err := f.Store.ChildrenBy(f.ctx, parents, typ, mostChildren)
	if err != nil {
		return nil, err
	}
	return f.Visible(f.ctx, f.room, f.rd.User, list)
}

// replacements finds for each event the newest valid one that replaces it.
func (f *family) replacements(parents []Seen) error {
	newest, err := f.Replacements(f.ctx, f.room, f.rd.User, parents)
	if err != nil {
		return err
	}
	for num, e := range newest {
		shaped, err := f.shape(f.ctx, f.rd, []Seen{e}, nil)
		if err != nil {
			return err
		}
		f.of(num).Replacement = shaped[0]
	}
	return nil
}

// replaces tells whether e validly replaces p.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events
func replaces(e, p *store.Event) bool {
	typ, _ := relation(p)
	return typ != store.Replacing && e.PDU.Sender == p.PDU.Sender && e.PDU.Type == p.PDU.Type && !e.PDU.IsState() &&
		(e.PDU.Type == "m.room.encrypted" || bytes.HasPrefix(e.PDU.ContentValue("m.new_content"), []byte("{")))
}

// later tells whether the replacement a counts before b.
func later(a, b *store.Event) bool {
	if a.PDU.OriginServerTS != b.PDU.OriginServerTS {
		return a.PDU.OriginServerTS > b.PDU.OriginServerTS
	}
	return a.PDU.ID > b.PDU.ID
}

// references lists what refers to events.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-aggregation-of-mreference
func (f *family) references(parents []store.EventNum, ignored map[matrix.UserID]bool) error {
	list, err := f.seen(parents, store.Referring)
	if err != nil {
		return err
	}
	for _, e := range slices.Backward(list) {
		if ignored[e.PDU.Sender] {
			continue
		}
		_, id := relation(e.Event)
		c := f.of(f.parents[id].Num)
		if c.References == nil {
			c.References = &references{}
		}
		c.References.Chunk = append(c.References.Chunk, reference{e.PDU.ID})
	}
	return nil
}

// threads tells of the threads that begin at events.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-aggregation-of-mthread-relationships
func (f *family) threads(counts map[store.EventNum]store.Children) error {
	for _, root := range f.parents {
		c, ok := counts[root.Num]
		if !ok {
			continue
		}
		latest, err := f.latest(root.PDU.ID, c.Last)
		if err != nil {
			return err
		}
		if len(latest) == 0 {
			continue // nothing that the reader may see
		}
		inner, err := f.children(f.ctx, f.rd, latest, false)
		if err != nil {
			return err
		}
		shaped, err := f.shape(f.ctx, f.rd, latest, inner)
		if err != nil {
			return err
		}
		f.of(root.Num).Thread = &thread{Latest: shaped[0], Count: c.Count, Own: c.Own || root.PDU.Sender == f.rd.User}
	}
	return nil
}

// latest gives the newest event of a thread that the reader may see, if there is
// one. The newest of all stands at a place.
func (f *family) latest(root matrix.EventID, place int64) ([]Seen, error) {
	list, err := f.Store.Newest(f.ctx, f.room.Num, place-1, place, 1)
	if err != nil {
		return nil, err
	}
	seen, err := f.Visible(f.ctx, f.room, f.rd.User, list)
	if err != nil || len(seen) > 0 {
		return seen, err
	}
	seen, err = f.related(f.ctx, f.room, f.rd.User, Relating{Limit: 20}, store.Relating{
		Room: f.room.Num, Target: root, RelType: store.Threaded, Depth: 1, Since: math.MinInt64, Upto: place - 1,
	})
	return seen[:min(1, len(seen))], err
}
