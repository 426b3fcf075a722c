package clientsync

import (
	"context"
	"encoding/json"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// Following is one call of /events: what clients of before /sync use, and those
// of today for a room that they look into without being there.
type Following struct {
	room.Reader
	Room    matrix.RoomID // "" for all that concerns the user
	From    string        // a token; "" for now
	Timeout time.Duration
}

// Stretch is the answer to Following: what happened between two tokens.
type Stretch struct {
	Chunk []json.RawMessage `json:"chunk"`
	Start string            `json:"start,omitempty"`
	End   string            `json:"end"`
}

// mostFollowed is how many events of one room an answer holds. What it cuts off
// of one room that is followed, the next answer has.
const mostFollowed = 500

// Events answers with what is new, at once if there is something, else when there
// is or the time is up.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#peeking_get_matrixclientv3events
func (s *Service) Events(ctx context.Context, f Following) (*Stretch, error) {
	since, err := parseToken(f.From)
	if err != nil {
		return nil, err
	}
	if f.From == "" || since.pos > s.Store.Position() { // the future is as for Sync
		since = token{s.Store.Position(), s.Ephemeral.Serial()}
	}
	look, key := s.news, string(f.User)
	if f.Room != "" {
		look, key = s.follow, store.LogBell // who looks in is none of those for whom a room rings
	}
	timer := time.NewTimer(f.Timeout)
	defer timer.Stop()
	for {
		rung := s.Bell.Listen(key)
		st, err := look(ctx, f, since)
		if err != nil || len(st.Chunk) > 0 || f.Timeout <= 0 {
			return st, err
		}
		select {
		case <-rung:
		case <-timer.C:
			return st, nil
		case <-s.Stopping:
			return st, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// follow reads what came in one room.
func (s *Service) follow(ctx context.Context, f Following, since token) (*Stretch, error) {
	now := token{s.Store.Position(), since.typing}
	if _, err := s.Rooms.Readable(ctx, f.Room, f.User); err != nil {
		return nil, err
	}
	p, err := s.Rooms.Messages(ctx, f.Reader, room.Page{
		Room: f.Room, From: room.Token(since.pos), To: room.Token(now.pos), Forward: true, Limit: mostFollowed, Filter: &EventFilter{},
	})
	if err != nil {
		return nil, err
	}
	st := &Stretch{Chunk: p.Chunk, Start: since.String(), End: now.String()}
	if p.End != "" {
		pos, err := room.ParseToken(p.End)
		if err != nil {
			return nil, err
		}
		st.End = token{pos, since.typing}.String()
	}
	return st, nil
}

// news reads what a sync would tell, in one list. It has no device, so that no
// messages to devices count as delivered.
func (s *Service) news(ctx context.Context, f Following, since token) (*Stretch, error) {
	filter := &Filter{}
	filter.Room.Timeline.Limit = new(mostFollowed)
	a, err := s.read(ctx, Request{User: f.User, Since: since.String(), Filter: filter}, since)
	if err != nil {
		return nil, err
	}
	st := &Stretch{Chunk: []json.RawMessage{}, Start: since.String(), End: a.NextBatch}
	add := func(id matrix.RoomID, list *events) {
		if list == nil {
			return
		}
		for _, e := range list.Events {
			st.Chunk = append(st.Chunk, inRoom(id, e))
		}
	}
	add("", a.Presence)
	add("", a.AccountData)
	if a.Rooms == nil {
		return st, nil
	}
	for _, rooms := range []map[matrix.RoomID]*joined{a.Rooms.Join, a.Rooms.Leave} {
		for id, j := range rooms {
			if j.Timeline != nil {
				add(id, &events{j.Timeline.Events})
			}
			add(id, j.Ephemeral)
			add(id, j.AccountData)
		}
	}
	for _, rooms := range []map[matrix.RoomID]*outside{a.Rooms.Invite, a.Rooms.Knock} {
		for id := range rooms {
			e, err := s.membershipEvent(ctx, f.Reader, id)
			if err != nil {
				return nil, err
			}
			st.Chunk = append(st.Chunk, e)
		}
	}
	return st, nil
}

// inRoom adds the room ID to an event that a sync gives below that.
func inRoom(id matrix.RoomID, e json.RawMessage) json.RawMessage {
	if id == "" {
		return e
	}
	head, err := json.Marshal(map[string]matrix.RoomID{"room_id": id})
	if err != nil || len(e) < 3 { // "{}"
		return e
	}
	return append(append(head[:len(head)-1:len(head)-1], ','), e[1:]...)
}

// membershipEvent is the event that made a user what they are in a room.
func (s *Service) membershipEvent(ctx context.Context, rd room.Reader, id matrix.RoomID) (json.RawMessage, error) {
	r, err := s.Store.Room(ctx, id)
	if err != nil {
		return nil, err
	}
	m := s.Store.Membership(rd.User, r.Num)
	e, err := s.Store.EventByNum(ctx, m.Event)
	if err != nil {
		return nil, err
	}
	list, err := s.Rooms.Clients(ctx, rd, []room.Seen{{Event: e, Membership: m.Membership}})
	if err != nil {
		return nil, err
	}
	return list[0], nil
}
