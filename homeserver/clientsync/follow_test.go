package clientsync

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// follower is a client that keeps what it is told and asks for what is left out.
type follower struct {
	*client
	rooms map[matrix.RoomID]*followed
}

// followed is a room as a follower knows it.
type followed struct {
	state    map[string]matrix.EventID // by type and state key
	timeline []matrix.EventID
	torn     bool // the user was out when the client asked for what is missing
	unread   unreadCounts
	summary  summary
}

// step syncs once with a limit of the timeline.
func (f *follower) step(limit int) *Answer {
	f.Helper()
	f.filter = fmt.Sprintf(`{"room":{"timeline":{"limit":%d}}}`, limit)
	since := f.since
	a := f.sync()
	if a.Rooms == nil {
		return a
	}
	for id := range a.Rooms.Leave {
		delete(f.rooms, id)
	}
	for id := range a.Rooms.Invite {
		delete(f.rooms, id)
	}
	for id, j := range a.Rooms.Join {
		f.take(id, j, since)
	}
	return a
}

// take applies what is told of a room.
func (f *follower) take(id matrix.RoomID, j *joined, since string) {
	f.Helper()
	r := f.rooms[id]
	if r == nil {
		r = &followed{state: map[string]matrix.EventID{}}
		f.rooms[id] = r
		since = ""
	}
	set := func(list []seenEvent) {
		for _, e := range list {
			if e.StateKey != nil {
				r.state[e.Type+" "+*e.StateKey] = e.ID
			}
		}
	}
	if j.Unread != nil {
		r.unread = *j.Unread
	}
	if j.Summary != nil {
		r.summary = *j.Summary
	}
	if f.after {
		set(read(f, list(j.StateAfter)))
	} else {
		set(read(f, list(j.State)))
	}
	if j.Timeline == nil {
		return
	}
	told := read(f, j.Timeline.Events)
	if !f.after {
		set(told)
	}
	var ids []matrix.EventID
	for _, e := range told {
		ids = append(ids, e.ID)
	}
	if j.Timeline.Limited {
		gap, ok := f.gap(id, j.Timeline.PrevBatch, since)
		ids, r.torn = append(gap, ids...), r.torn || !ok
	}
	r.timeline = append(r.timeline, ids...)
}

// gap asks for the events between two tokens, page by page; not ok if the user
// may not.
func (f *follower) gap(id matrix.RoomID, from, to string) (ids []matrix.EventID, ok bool) {
	f.Helper()
	for from != "" {
		p, err := f.Rooms.Messages(f.ctx(), room.Reader{User: f.user}, room.Page{Room: id, From: from, To: to, Limit: 3, Filter: &EventFilter{}})
		var refused *matrix.Error
		if errors.As(err, &refused) {
			return nil, false
		}
		f.ok(err)
		for _, e := range read(f, p.Chunk) {
			ids = append(ids, e.ID)
		}
		from = p.End
	}
	slices.Reverse(ids)
	return ids, true
}

// check compares what the follower knows with the server's own log and state.
func (f *follower) check() {
	f.Helper()
	in := map[matrix.RoomID]bool{}
	for _, m := range f.Store.Memberships(f.user) {
		r, err := f.Store.RoomByNum(f.ctx(), m.Room)
		f.ok(err)
		if m.Membership != "join" {
			continue
		}
		in[r.ID] = true
		known := f.rooms[r.ID]
		if known == nil {
			f.Errorf("%s is not told of %s", f.user, r.ID)
			continue
		}
		f.checkRoom(r, known)
	}
	for id := range f.rooms {
		if !in[id] {
			f.Errorf("%s believes to be in %s", f.user, id)
		}
	}
}

func (f *follower) checkRoom(r *store.Room, known *followed) {
	f.Helper()
	events, err := f.Store.Newest(f.ctx(), r.Num, math.MinInt64, math.MaxInt64, 100_000)
	f.ok(err)
	visible, err := f.Rooms.Visible(f.ctx(), r, f.user, events)
	f.ok(err)
	var want []matrix.EventID
	for _, e := range visible {
		want = append(want, e.PDU.ID)
	}
	if !known.torn && !slices.Equal(known.timeline, want) {
		f.Errorf("%s in %s: the timeline has %d events, the log %d that are visible", f.user, r.ID, len(known.timeline), len(want))
	}
	state, err := f.Rooms.StateEvents(f.ctx(), r.Current)
	f.ok(err)
	if len(state) != len(known.state) {
		f.Errorf("%s in %s: %d state events, want %d", f.user, r.ID, len(known.state), len(state))
	}
	for _, e := range state {
		if key := e.PDU.Type + " " + *e.PDU.StateKey; known.state[key] != e.PDU.ID {
			f.Errorf("%s in %s: state %s is %q, want %q", f.user, r.ID, key, known.state[key], e.PDU.ID)
		}
	}
	if known.summary.Joined != r.Joined || known.summary.Invited != r.Invited {
		f.Errorf("%s in %s: told of %d members and %d invited, there are %d and %d", f.user, r.ID, known.summary.Joined, known.summary.Invited, r.Joined, r.Invited)
	}
	fresh := *f.client
	fresh.since, fresh.filter = "", ""
	if u := fresh.sync().in(r.ID).Unread; *u != known.unread {
		f.Errorf("%s in %s: told of %+v unread, a first sync tells %+v", f.user, r.ID, known.unread, *u)
	}
}

// life does random things in rooms.
type life struct {
	*world
	rand  *rand.Rand
	users []matrix.UserID
	rooms []matrix.RoomID
	said  []said
	n     int
}

type said struct {
	room matrix.RoomID
	id   matrix.EventID
}

// do does one thing; what the room refuses is not done.
func (l *life) do() {
	l.Helper()
	l.n++
	actor, target := l.users[l.rand.IntN(len(l.users))], l.users[l.rand.IntN(len(l.users))]
	id := l.rooms[l.rand.IntN(len(l.rooms))]
	change := room.Change{Room: id, Actor: actor, Target: target}
	send := func(typ string, key *string, content string) error {
		e, err := l.Rooms.Send(l.ctx(), room.Sending{User: actor, Room: id, Type: typ, StateKey: key, Content: []byte(content)})
		if err == nil && key == nil {
			l.said = append(l.said, said{id, e})
		}
		return err
	}
	var err error
	switch k := l.rand.IntN(100); {
	case k < 45:
		err = send("m.room.message", nil, fmt.Sprintf(`{"msgtype":"m.text","body":"%d"}`, l.n))
	case k < 53:
		err = send("m.room.topic", new(string), fmt.Sprintf(`{"topic":"%d"}`, l.n))
	case k < 56:
		name := ""
		if l.rand.IntN(2) == 0 {
			name = fmt.Sprint(l.n)
		}
		err = send("m.room.name", new(string), fmt.Sprintf(`{"name":%q}`, name))
	case k < 60:
		key := string(actor)
		err = send("m.room.member", &key, fmt.Sprintf(`{"membership":"join","displayname":"%d"}`, l.n))
	case k < 73:
		err = l.Rooms.Join(l.ctx(), change)
	case k < 79:
		err = l.Rooms.Leave(l.ctx(), change)
	case k < 84:
		err = l.Rooms.Invite(l.ctx(), change)
	case k < 86:
		err = l.Rooms.Kick(l.ctx(), change)
	case k < 87:
		err = l.Rooms.Ban(l.ctx(), change)
	case k < 90:
		err = l.Rooms.Unban(l.ctx(), change)
	case k < 92:
		err = l.Rooms.Forget(l.ctx(), id, actor)
	case len(l.said) == 0:
	case k < 96:
		s := l.said[l.rand.IntN(len(l.said))]
		_, err = l.Rooms.Redact(l.ctx(), room.Sending{User: actor, Room: s.room, Redacts: s.id}, nil)
	default:
		s := l.said[l.rand.IntN(len(l.said))]
		err = l.Ephemeral.SetMarks(l.ctx(), actor, s.room, ephemeral.Mark{Type: ephemeral.Read, Event: s.id})
	}
	var refused *matrix.Error
	if err != nil && !errors.As(err, &refused) {
		l.Fatal(err)
	}
}

// newLife makes five users with two followers each, and four rooms.
func newLife(w *world, seed uint64) (*life, []*follower) {
	l := &life{world: w, rand: rand.New(rand.NewPCG(seed, 0)), users: []matrix.UserID{alice, bob, carol, "@dave:a.test", "@eve:a.test"}}
	for i, visibility := range []string{"shared", "joined", "invited", "world_readable"} {
		preset := []string{"public_chat", "public_chat", "private_chat", "trusted_private_chat"}[i]
		c := room.Creation{Preset: preset, InitialState: []room.InitialState{{Type: "m.room.history_visibility", Content: []byte(`{"history_visibility":"` + visibility + `"}`)}}}
		id := w.create(c)
		l.rooms = append(l.rooms, id)
		for _, u := range l.users[1:] {
			if preset != "public_chat" {
				w.invite(u, id)
			}
		}
	}
	var followers []*follower
	for _, u := range l.users {
		for _, after := range []bool{false, true} {
			f := &follower{client: w.client(u, ""), rooms: map[matrix.RoomID]*followed{}}
			f.after = after
			followers = append(followers, f)
		}
	}
	return l, followers
}

// TestFollow checks that clients which sync now and then, each with another limit
// at each time, all end with the server's state, and with each event that they
// may see once and in the order of the log.
func TestFollow(t *testing.T) {
	each(t, func(w *world) {
		w.newUser("dave")
		w.newUser("eve")
		for _, seed := range []uint64{3, 5, 8} {
			l, followers := newLife(w, seed)
			for range 500 {
				l.do()
				for _, f := range followers {
					if l.rand.IntN(15) == 0 {
						f.step(l.rand.IntN(6))
					}
				}
			}
			for _, f := range followers {
				f.step(l.rand.IntN(6))
				if a := f.step(5); !a.empty() {
					t.Errorf("%s is told more: %s", f.user, text(t, a))
				}
				f.check()
				for id, r := range f.rooms {
					if r.torn {
						t.Errorf("%s may not read %s", f.user, id)
					}
				}
			}
			for _, id := range l.rooms {
				for _, u := range l.users {
					w.Rooms.Leave(w.ctx(), room.Change{Room: id, Actor: u})
				}
			}
		}
	})
}

// TestFollowAtOnce is TestFollow with everybody acting and syncing at the same
// time.
func TestFollowAtOnce(t *testing.T) {
	each(t, func(w *world) {
		w.newUser("dave")
		w.newUser("eve")
		first, followers := newLife(w, 1)
		var writers, readers sync.WaitGroup
		for i := range 4 {
			l := *first
			l.rand = rand.New(rand.NewPCG(uint64(i), 1))
			writers.Go(func() {
				for range 150 {
					l.do()
				}
			})
		}
		done := make(chan struct{})
		for i, f := range followers {
			r := rand.New(rand.NewPCG(uint64(i), 2))
			readers.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
						f.step(r.IntN(6))
					}
				}
			})
		}
		writers.Wait()
		close(done)
		readers.Wait()
		for _, f := range followers {
			f.step(3)
			f.check()
		}
	})
}
