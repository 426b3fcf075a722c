package room

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// TestConcurrentSends checks that what many write at the same time is stored
// once each, one behind the other.
func TestConcurrentSends(t *testing.T) {
	const writers, each1 = 16, 12
	each(t, func(w world) {
		var rooms []matrix.RoomID
		for range 3 {
			id := w.create(Creation{Preset: "public_chat"})
			w.ok(w.Join(w.ctx(), Change{Room: id, Actor: bob}))
			rooms = append(rooms, id)
		}
		sent := make([][]matrix.EventID, writers)
		var group sync.WaitGroup
		for i := range writers {
			group.Go(func() {
				user := []matrix.UserID{alice, bob}[i%2]
				for n := range each1 {
					d := Sending{User: user, Device: "D", Room: rooms[(i+n)%3], Type: "m.room.message", Content: object{"body": fmt.Sprint(i, "-", n)}.raw()}
					if n%3 == 2 {
						d.Txn = fmt.Sprint(i, "-", n)
					}
					if n%5 == 4 {
						key := fmt.Sprint("k", i)
						d.StateKey, d.User, d.Txn = &key, alice, ""
					}
					for range 1 + n%3/2 { // some twice
						id, err := w.Send(w.ctx(), d)
						if err != nil {
							t.Error(err)
							return
						}
						sent[i] = append(sent[i], id)
					}
				}
			})
		}
		group.Wait()
		want := map[matrix.EventID]bool{}
		for _, list := range sent {
			for _, id := range list {
				want[id] = true
			}
		}
		if len(want) != writers*each1 {
			t.Errorf("%d events for %d requests", len(want), writers*each1)
		}
		for _, id := range rooms {
			r, err := w.Store.Room(w.ctx(), id)
			w.ok(err)
			events, err := w.Store.Newest(w.ctx(), r.Num, math.MinInt64, math.MaxInt64, 10_000)
			w.ok(err)
			w.linear(r, events)
			for _, e := range events {
				delete(want, e.PDU.ID)
			}
		}
		if len(want) > 0 {
			t.Errorf("%d events are not in the log", len(want))
		}
	})
}

// linear checks that the events of a room form a chain with one end.
func (w world) linear(r *store.Room, events []*store.Event) {
	w.Helper()
	for i, e := range events {
		if e.PDU.Depth != int64(i+1) {
			w.Errorf("event %d has the depth %d", i, e.PDU.Depth)
		}
		var prev []matrix.EventID
		if i > 0 {
			prev = []matrix.EventID{events[i-1].PDU.ID}
			if e.Pos <= events[i-1].Pos {
				w.Errorf("event %d stands at %d, that before it at %d", i, e.Pos, events[i-1].Pos)
			}
		}
		if !slices.Equal(e.PDU.PrevEvents, prev) {
			w.Errorf("event %d follows %v, want %v", i, e.PDU.PrevEvents, prev)
		}
	}
	last := events[len(events)-1]
	if !slices.Equal(r.Heads, []store.EventNum{last.Num}) || r.Last != last.Pos || r.Current != last.Current {
		w.Errorf("the room ends with %v at %d, the log with %d at %d", r.Heads, r.Last, last.Num, last.Pos)
	}
}

// TestManyMembers checks counts, lists and state of a room in which everybody
// comes at the same time.
func TestManyMembers(t *testing.T) {
	const many = 500
	each(t, func(w world) {
		id := w.create(Creation{Preset: "public_chat"})
		user := func(i int) matrix.UserID { return matrix.UserID(fmt.Sprintf("@u%03d:a.test", i)) }
		var group sync.WaitGroup
		for part := range 10 {
			group.Go(func() {
				for i := part; i < many; i += 10 {
					if err := w.Join(w.ctx(), Change{Room: id, Actor: user(i)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		for i := range 50 {
			w.ok(w.Leave(w.ctx(), Change{Room: id, Actor: user(i)}))
		}
		r, err := w.Store.Room(w.ctx(), id)
		w.ok(err)
		members, err := w.JoinedMembers(w.ctx(), alice, nil, id)
		w.ok(err)
		if want := many + 1 - 50; r.Joined != want || len(members) != want || len(w.Store.LocalMembers(r.Num)) != want {
			t.Errorf("%d are joined, %d listed, %d in memory, want %d", r.Joined, len(members), len(w.Store.LocalMembers(r.Num)), want)
		}
		left, err := w.Members(w.ctx(), Reader{User: alice}, id, MembersAsked{Is: "leave"})
		w.ok(err)
		if len(left) != 50 {
			t.Errorf("%d have left", len(left))
		}
		events, err := w.Store.Newest(w.ctx(), r.Num, math.MinInt64, math.MaxInt64, 10_000)
		w.ok(err)
		w.linear(r, events)

		// The state at each event is the one that its predecessors make.
		for _, n := range []int{5, 6, 100, 304, len(events) - 1} {
			want := map[string]store.EventNum{}
			for _, e := range events[:n+1] {
				if e.PDU.IsState() {
					want[e.PDU.Type+" "+*e.PDU.StateKey] = e.Num
				}
			}
			state, err := w.StateEvents(w.ctx(), events[n].State)
			w.ok(err)
			if len(state) != len(want) {
				t.Errorf("at event %d there are %d state events, want %d", n, len(state), len(want))
			}
			for _, e := range state {
				if want[e.PDU.Type+" "+*e.PDU.StateKey] != e.Num {
					t.Errorf("at event %d: %s %s is %d", n, e.PDU.Type, *e.PDU.StateKey, e.Num)
				}
			}
		}
	})
}

// TestConcurrentMemberships checks that the counts of a room are right whatever
// is done to its members at the same time.
func TestConcurrentMemberships(t *testing.T) {
	each(t, func(w world) {
		id := w.create(Creation{Preset: "public_chat"})
		var group sync.WaitGroup
		users := []matrix.UserID{bob, carol, "@dave:a.test", "@eve:a.test"}
		for i := range 8 {
			group.Go(func() {
				for n := range 20 {
					c := Change{Room: id, Actor: users[(i+n)%4], Target: users[(i*n)%4]}
					var err error
					switch (i + n) % 5 {
					case 0, 1:
						err = w.Join(w.ctx(), c)
					case 2:
						err = w.Leave(w.ctx(), c)
					case 3:
						c.Actor = alice
						err = w.Invite(w.ctx(), c)
					default:
						c.Actor = alice
						err = w.Kick(w.ctx(), c)
					}
					var refused *matrix.Error
					if err != nil && !errors.As(err, &refused) {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		r, err := w.Store.Room(w.ctx(), id)
		w.ok(err)
		joined, invited := 0, 0
		state, err := w.StateEvents(w.ctx(), r.Current)
		w.ok(err)
		for _, e := range state {
			joined += count(e.PDU.Membership(), "join")
			invited += count(e.PDU.Membership(), "invite")
			if e.PDU.Type == "m.room.member" {
				if m := w.Store.Membership(matrix.UserID(*e.PDU.StateKey), r.Num); m.Membership != e.PDU.Membership() || m.Event != e.Num {
					t.Errorf("%s is %s in memory, %s in the state", m.User, m.Membership, e.PDU.Membership())
				}
			}
		}
		if r.Joined != joined || r.Invited != invited {
			t.Errorf("%d joined and %d invited, the state has %d and %d", r.Joined, r.Invited, joined, invited)
		}
	})
}
