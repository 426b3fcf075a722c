package federation

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

const (
	mostWalked   = 1000 // rooms of a space that one walk finds
	mostDepth    = 10
	mostHopAsked = 3 // servers that are asked for one room of a space
)

// SpaceQuery asks for a part of a space.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy
type SpaceQuery struct {
	Room      matrix.RoomID
	Suggested bool   // only suggested rooms
	Depth     int    // how many levels below the room; negative for all
	Limit     int    // rooms in the answer
	From      string // a SpacePage's Next; "" from the beginning
}

// SpacePage is a part of a space.
type SpacePage struct {
	Rooms []SpaceRoom `json:"rooms"`
	Next  string      `json:"next_batch,omitempty"`
}

// SpaceRoom is a room of a space as clients get it.
type SpaceRoom struct {
	fedclient.SpaceRoom
	Children []json.RawMessage `json:"children_state"`
}

// token is the place behind the first n rooms of the answer to q.
func (q *SpaceQuery) token(n int) string {
	return fmt.Sprintf("h%d_%d_%t", n, q.Depth, q.Suggested)
}

// start reads the place in q.From.
func (q *SpaceQuery) start() (n int, err error) {
	if q.From == "" {
		return 0, nil
	}
	place, _, _ := strings.Cut(q.From, ".")
	if _, err := fmt.Sscanf(place, "h%d_", &n); err != nil || n < 0 || place != q.token(n) {
		return 0, matrix.Errorf(matrix.InvalidParam, "from is not a token of this query")
	}
	return n, nil
}

// UserHierarchy gives the rooms of a space that a user of this server may see,
// each behind the space in which it is. Rooms that this server is not in are
// asked for at others. The errors are M_FORBIDDEN and M_INVALID_PARAM.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy
func (s *Service) UserHierarchy(ctx context.Context, user matrix.UserID, q SpaceQuery) (*SpacePage, error) {
	if q.Depth < 0 || q.Depth > mostDepth {
		q.Depth = mostDepth
	}
	start, err := q.start()
	if err != nil {
		return nil, err
	}
	w := s.walks.find(walkKey{user, q.Room, q.From})
	if w == nil {
		if w, err = s.walk(ctx, user, q); err != nil {
			return nil, err
		}
	}
	end := start - w.shown + q.Limit
	if err := w.find(ctx, end+1); err != nil {
		return nil, err
	}
	if w.shown+len(w.found) == 0 {
		return nil, matrix.Errorf(matrix.Forbidden, "there is no such space, or you may not see it")
	}
	end = min(end, len(w.found))
	page := &SpacePage{Rooms: append([]SpaceRoom{}, w.found[min(start-w.shown, end):end]...)}
	w.found, w.shown = slices.Clone(w.found[end:]), w.shown+end
	if len(w.found) > 0 {
		page.Next = q.token(w.shown) + "." + rand.Text()
		s.walks.keep(walkKey{user, q.Room, page.Next}, w)
	}
	return page, nil
}

// walk begins one at the top of a space.
func (s *Service) walk(ctx context.Context, user matrix.UserID, q SpaceQuery) (*walk, error) {
	via, err := s.candidates(ctx, room.Change{Room: q.Room, Actor: user}, nil)
	return &walk{
		s: s, user: user, query: q, begun: time.Now(), next: []step{{q.Room, via, 0}},
		seen: map[matrix.RoomID]bool{}, told: map[matrix.RoomID]*fedclient.SpaceRoom{},
	}, err
}

// walk goes through a space, the rooms in a room before its next ones.
type walk struct {
	s     *Service
	user  matrix.UserID
	query SpaceQuery
	begun time.Time
	shown int         // rooms of the pages before
	found []SpaceRoom // rooms behind these
	next  []step      // what is to be visited, the first one last
	seen  map[matrix.RoomID]bool
	told  map[matrix.RoomID]*fedclient.SpaceRoom // by other servers, without their children
}

// step is a room to visit.
type step struct {
	room  matrix.RoomID
	via   []matrix.ServerName
	depth int
}

// find goes on until so many rooms are found, or all.
func (w *walk) find(ctx context.Context, enough int) error {
	for len(w.next) > 0 && len(w.found) < min(enough, mostWalked-w.shown) {
		to := w.next[len(w.next)-1]
		w.next = w.next[:len(w.next)-1]
		if w.seen[to.room] {
			continue
		}
		w.seen[to.room] = true
		if err := w.visit(ctx, to); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// visit adds a room, and those in it to what is to be visited.
func (w *walk) visit(ctx context.Context, to step) error {
	d, err := w.describe(ctx, to.room, to.via)
	delete(w.told, to.room)
	if err != nil || d == nil {
		return err
	}
	if is, err := w.is(ctx, to.room); err != nil || is == event.Ban && !d.WorldReadable {
		return err
	}
	found := SpaceRoom{*d, []json.RawMessage{}}
	found.SpaceRoom.Children = nil
	var below []step
	if d.Type == "m.space" {
		for _, raw := range d.Children[:min(len(d.Children), mostChildren)] {
			if c, ok := readChild(raw); ok && (c.Content.Suggested || !w.query.Suggested) {
				found.Children = append(found.Children, raw)
				below = append(below, step{c.Room, c.Content.Via, to.depth + 1})
			}
		}
	}
	w.found = append(w.found, found)
	if to.depth < w.query.Depth {
		slices.Reverse(below)
		w.next = append(w.next, below...)
	}
	return nil
}

// child is an m.space.child event.
type child struct {
	Room    matrix.RoomID `json:"state_key"`
	Content struct {
		Via       []matrix.ServerName `json:"via"`
		Suggested bool                `json:"suggested"`
	} `json:"content"`
}

func readChild(raw json.RawMessage) (c child, ok bool) {
	if json.Unmarshal(raw, &c) != nil {
		return c, false
	}
	_, err := matrix.ParseRoomID(string(c.Room))
	return c, err == nil && len(c.Content.Via) > 0
}

// describe describes a room with its children, nil if the user may not see it or
// nobody knows it.
func (w *walk) describe(ctx context.Context, id matrix.RoomID, via []matrix.ServerName) (*fedclient.SpaceRoom, error) {
	resident, err := w.s.resident(ctx, id)
	if err != nil {
		return nil, err
	}
	if resident {
		return w.own(ctx, id)
	}
	told := w.told[id]
	if told != nil && told.Type != "m.space" {
		return w.visible(ctx, told)
	}
	asked := 0
	for _, name := range via {
		if _, err := matrix.ParseServerName(string(name)); err != nil || name == w.s.ServerName {
			continue
		}
		if asked++; asked > mostHopAsked {
			break
		}
		h, err := w.s.Client.Hierarchy(ctx, name, id, w.query.Suggested)
		if err != nil {
			zerolog.Ctx(ctx).Debug().Err(err).Str("room", string(id)).Str("server", string(name)).Msg("a server does not tell of a room of a space")
			continue
		}
		for i := range h.Children {
			if d := &h.Children[i]; !w.seen[d.ID] {
				w.told[d.ID] = d
			}
		}
		return w.visible(ctx, &h.Room)
	}
	if told != nil { // what is in it remains unknown
		return w.visible(ctx, told)
	}
	return nil, nil
}

// own describes a room that this server is in.
func (w *walk) own(ctx context.Context, id matrix.RoomID) (*fedclient.SpaceRoom, error) {
	sum, err := w.s.Rooms.Preview(ctx, id, w.user)
	var refused *matrix.Error
	if errors.As(err, &refused) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := &fedclient.SpaceRoom{PublishedRoom: published(sum), AllowedRooms: sum.Allowed, Encryption: sum.Encryption, Version: sum.Version}
	r, err := w.s.Store.Room(ctx, id)
	if err != nil {
		return nil, err
	}
	links, err := w.s.children(ctx, r)
	for _, l := range links {
		d.Children = append(d.Children, l.stripped)
	}
	return d, err
}

// visible gives back a room that another server described if the user may see
// it, else nil.
func (w *walk) visible(ctx context.Context, d *fedclient.SpaceRoom) (*fedclient.SpaceRoom, error) {
	if d.WorldReadable || slices.Contains([]string{"public", "knock", "knock_restricted"}, d.JoinRule) {
		return d, nil
	}
	is, err := w.is(ctx, d.ID)
	if err != nil || is == event.Invite || is == event.Join {
		return d, err
	}
	for _, id := range d.AllowedRooms {
		if is, err := w.is(ctx, id); err != nil || is == event.Join {
			return d, err
		}
	}
	return nil, nil
}

// is tells what the user is in a room.
func (w *walk) is(ctx context.Context, id matrix.RoomID) (string, error) {
	r, err := w.s.Store.Room(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return w.s.Store.Membership(w.user, r.Num).Membership, nil
}
