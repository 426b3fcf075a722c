package unread

import (
	"cmp"
	"container/heap"
	"context"
	"encoding/json"
	"math"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/pushrule"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// Asked asks for what a user was notified of.
type Asked struct {
	From      string // a token; "" for the newest
	Limit     int
	Highlight bool // only what was highlighted
}

// Notifications is the answer to Asked, the newest first.
type Notifications struct {
	List []Notification `json:"notifications"`
	Next string         `json:"next_token,omitempty"`
}

// Notification is an event of which a user was notified, read or not.
type Notification struct {
	Actions json.RawMessage `json:"actions"`
	Event   json.RawMessage `json:"event"`
	Read    bool            `json:"read"`
	Room    matrix.RoomID   `json:"room_id"`
	TS      int64           `json:"ts"` // milliseconds
}

const (
	// mostLooked bounds the events that one request looks at. Who gets less than
	// they asked for goes on with the token.
	mostLooked = 2000

	// roomPage is how many events of a room are read at once.
	roomPage = 50
)

// Notifications lists what a user was notified of in the rooms that they are in,
// as their push rules are now.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3notifications
func (s *Service) Notifications(ctx context.Context, rd room.Reader, q Asked) (*Notifications, error) {
	before := int64(math.MaxInt64)
	if q.From != "" {
		var err error
		if before, err = room.ParseToken(q.From); err != nil {
			return nil, err
		}
	}
	ignored, err := s.Rooms.Ignored(ctx, rd.User)
	if err != nil {
		return nil, err
	}
	h, err := s.histories(ctx, rd.User, before)
	if err != nil {
		return nil, err
	}
	answer := &Notifications{List: []Notification{}}
	rd.Sync = true
	for looked := 0; h.Len() > 0; looked++ {
		if len(answer.List) == q.Limit || looked == mostLooked {
			answer.Next = room.Token(h.list[0].next + 1)
			break
		}
		p := h.list[0]
		e, err := p.take(ctx)
		if err != nil {
			return nil, err
		}
		if p.next == math.MinInt64 {
			heap.Pop(h)
		} else {
			heap.Fix(h, 0)
		}
		if e == nil || e.PDU.Sender == rd.User || ignored[e.PDU.Sender] || e.RedactedBy != 0 || e.PDU.Silent {
			continue
		}
		act, err := p.judge(ctx, e)
		if err != nil {
			return nil, err
		}
		if !act.Notify || q.Highlight && !act.Highlight {
			continue
		}
		n, err := p.notification(ctx, rd, e, act)
		if err != nil {
			return nil, err
		}
		answer.List = append(answer.List, *n)
	}
	return answer, nil
}

// past reads one room's timeline backwards.
type past struct {
	*Service
	user matrix.UserID
	room *store.Room
	stay int64          // where the user came into the room
	next int64          // the place of the next event, or not before it; MinInt64: there is none
	page []*store.Event // what was read, the oldest first

	rules func(*store.Event) pushrule.Actions // nil until an event was judged
	marks marks
}

// histories are the rooms that a user is in, that with the newest event first.
func (s *Service) histories(ctx context.Context, user matrix.UserID, before int64) (*pasts, error) {
	h := &pasts{}
	for _, m := range s.Store.Memberships(user) {
		if m.Membership != "join" {
			continue
		}
		r, err := s.Store.RoomByNum(ctx, m.Room)
		if err != nil {
			return nil, err
		}
		stay, err := s.arrival(ctx, m)
		if err != nil {
			return nil, err
		}
		if next := min(r.Last, before-1); next > stay {
			h.list = append(h.list, &past{Service: s, user: user, room: r, stay: stay, next: next})
		}
	}
	heap.Init(h)
	return h, nil
}

// take gives the newest event that was not taken, nil if there is none.
func (p *past) take(ctx context.Context) (*store.Event, error) {
	if len(p.page) == 0 {
		var err error
		if p.page, err = p.Store.Newest(ctx, p.room.Num, p.stay, p.next, roomPage); err != nil {
			return nil, err
		}
	}
	last := len(p.page) - 1
	if last < 0 {
		p.next = math.MinInt64
		return nil, nil
	}
	if e := p.page[last]; e.Pos == p.next {
		p.page, p.next = p.page[:last], e.Pos-1
		if last > 0 {
			p.next = p.page[last-1].Pos
		}
		return e, nil
	}
	p.next = p.page[last].Pos // other rooms may have newer ones
	return nil, nil
}

func (p *past) judge(ctx context.Context, e *store.Event) (_ pushrule.Actions, err error) {
	if p.rules == nil {
		if p.rules, err = p.Judge(ctx, p.room, p.user); err != nil {
			return pushrule.Actions{}, err
		}
		if p.marks, err = p.readUpTo(ctx, p.room, p.user, counted{}); err != nil {
			return pushrule.Actions{}, err
		}
	}
	return p.rules(e), nil
}

func (p *past) notification(ctx context.Context, rd room.Reader, e *store.Event, act pushrule.Actions) (*Notification, error) {
	thread, err := p.Rooms.Thread(ctx, e)
	if err != nil {
		return nil, err
	}
	shaped, err := p.Rooms.Clients(ctx, rd, []room.Seen{{Event: e, Membership: "join"}})
	if err != nil {
		return nil, err
	}
	return &Notification{Actions: act.List, Event: shaped[0], Read: p.marks.covers(e.Pos, thread), Room: p.room.ID, TS: e.PDU.OriginServerTS}, nil
}

// pasts is a heap of rooms, that with the newest event first.
type pasts struct{ list []*past }

func (h *pasts) Len() int           { return len(h.list) }
func (h *pasts) Less(i, j int) bool { return cmp.Compare(h.list[i].next, h.list[j].next) > 0 }
func (h *pasts) Swap(i, j int)      { h.list[i], h.list[j] = h.list[j], h.list[i] }
func (h *pasts) Push(x any)         { h.list = append(h.list, x.(*past)) }

// Pop implements heap.Interface.
func (h *pasts) Pop() any {
	last := len(h.list) - 1
	x := h.list[last]
	h.list = h.list[:last]
	return x
}
