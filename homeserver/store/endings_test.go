package store_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// TestEndings compares what is read of the ends of timelines for many rooms, and
// what Newest makes of that, with the events that were written: out of memory,
// after reopening, and when events came behind and among them.
func TestEndings(t *testing.T) {
	const rooms = 4 // the last one is empty
	lists := map[store.RoomNum][]*store.Event{}
	v := version(t)
	write := func(t *testing.T, st *store.Store, room store.RoomNum, aside bool) *store.Event {
		t.Helper()
		var e *store.Event
		commit(t, st, func(tx *store.Tx) error {
			pos, err := tx.NextPosition(t.Context())
			if err != nil {
				return err
			}
			id := matrix.EventID(fmt.Sprint("$", pos))
			e = &store.Event{PDU: pdu(t, v, fmt.Sprintf("!%d:a.test", room), string(id), `{}`), Num: store.EventNum(pos), Pos: pos, Room: room}
			if aside {
				e.Pos = 0
			}
			return tx.AppendEvent(t.Context(), e)
		})
		return e
	}
	same := func(t *testing.T, got []*store.Event, want []*store.Event, what ...any) {
		t.Helper()
		if !slices.EqualFunc(got, want, func(a, b *store.Event) bool { return a.Num == b.Num && a.Pos == b.Pos }) {
			t.Errorf("%v: got %d events, want %d", what, len(got), len(want))
		}
	}
	last := func(list []*store.Event, n int) []*store.Event { return list[max(0, len(list)-n):] }
	check := func(t *testing.T, st *store.Store) {
		t.Helper()
		for _, ahead := range []int{1, 4, 3, 50} {
			got := must(st.Endings(t.Context(), []store.RoomNum{1, 2, 3, 4}, ahead, 2*ahead-2))(t)
			for room := range store.RoomNum(rooms) {
				all := lists[room+1]
				same(t, got[room+1], last(all, ahead), "ending", room+1, ahead)
				for since := int64(-1); since < st.Position()+2; since += 3 {
					for _, upto := range []int64{since + 2, since + 9, math.MaxInt64} {
						for _, limit := range []int{1, 3, 50} {
							some := slices.DeleteFunc(slices.Clone(all), func(e *store.Event) bool { return e.Pos <= since || e.Pos > upto })
							same(t, must(st.Newest(t.Context(), room+1, since, upto, limit))(t), last(some, limit), "newest", room+1, since, upto, limit, ahead)
						}
					}
				}
			}
		}
	}
	var aside *store.Event
	reopened(t, func(t *testing.T, st *store.Store) {
		clear(lists)
		commit(t, st, func(tx *store.Tx) error {
			var errs []error
			for room := range store.RoomNum(rooms) {
				errs = append(errs, tx.PutRoom(t.Context(), &store.Room{Num: room + 1, ID: matrix.RoomID(fmt.Sprintf("!%d:a.test", room+1)), Version: v}))
			}
			return errors.Join(errs...)
		})
		for i, room := range []store.RoomNum{1, 1, 2, 1, 3, 3, 1, 3, 3, 3, 3, 1, 3, 3, 2} {
			if i == 6 {
				aside = write(t, st, 3, true)
			}
			lists[room] = append(lists[room], write(t, st, room, false))
		}
		check(t, st)
	}, func(t *testing.T, st *store.Store) {
		check(t, st)
		for _, room := range []store.RoomNum{1, 2, 2} {
			lists[room] = append(lists[room], write(t, st, room, false))
			check(t, st)
		}
		placed := *aside
		placed.Pos = int64(aside.Num)
		commit(t, st, func(tx *store.Tx) error { return tx.PlaceEvent(t.Context(), &placed) })
		lists[3] = slices.Insert(lists[3], 2, &placed)
		check(t, st)
	})
}

// shortLived is a context that is done after it was looked at a number of times.
type shortLived struct {
	context.Context
	left atomic.Int64
}

// Err implements context.Context.
func (c *shortLived) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// TestEndingBrokenOff ends the reading of the end of a timeline after any number
// of its events: what stays in memory is not taken for the whole.
func TestEndingBrokenOff(t *testing.T) {
	const events = 6
	v := version(t)
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		for left := range int64(3 * events) {
			st := must(store.New(t.Context(), db, storetest.Budget))(t)
			var last store.EventNum
			commit(t, st, func(tx *store.Tx) error {
				r := &store.Room{Num: store.RoomNum(left + 1), ID: matrix.RoomID(fmt.Sprintf("!%d:a.test", left)), Version: v}
				errs := []error{tx.PutRoom(t.Context(), r)}
				for range events {
					pos, err := tx.NextPosition(t.Context())
					e := &store.Event{PDU: pdu(t, v, string(r.ID), fmt.Sprint("$", pos), `{}`), Num: store.EventNum(pos), Pos: pos, Room: r.Num}
					errs, last = append(errs, err, tx.AppendEvent(t.Context(), e)), e.Num
				}
				return errors.Join(errs...)
			})
			st = must(store.New(t.Context(), db, storetest.Budget))(t) // which remembers nothing
			ctx := &shortLived{Context: context.Background()}
			ctx.left.Store(left)
			_, err := st.Endings(ctx, []store.RoomNum{store.RoomNum(left + 1)}, events, events)
			list := must(st.Newest(t.Context(), store.RoomNum(left+1), math.MinInt64, math.MaxInt64, 1))(t)
			if len(list) != 1 || list[0].Num != last {
				t.Fatalf("after %d looks, with %v: the newest is %v", left, err, list)
			}
		}
	})
}

// TestReadAhead checks what else is read of many rooms at once.
func TestReadAhead(t *testing.T) {
	v := version(t)
	users := []matrix.UserID{"@a:a.test", "@b:a.test", "@c:b.test"}
	var keys []statetree.Key
	check := func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		for range 2 { // read, and then in memory
			rooms := must(st.RoomsByNum(ctx, []store.RoomNum{3, 7, 1}))(t)
			if len(rooms) != 2 || rooms[0].ID != "!3:a.test" || rooms[1].ID != "!1:a.test" {
				t.Errorf("rooms %v", rooms)
			}
			members := must(st.AreMembers(ctx, append(keys, keys[0], 1<<40)))(t)
			for i, k := range keys {
				if members[k] != (i < len(users)) {
					t.Errorf("key %d: a member is %v", i, members[k])
				}
			}
			if len(members) != len(users) {
				t.Errorf("%d members", len(members))
			}
			if err := st.FindStateKeys(ctx, "m.room.member", []string{"@a:a.test", "@c:b.test", "nobody"}); err != nil {
				t.Error(err)
			}
			for i, want := range keys[:len(users)] {
				if k, ok, err := st.StateKey(ctx, "m.room.member", string(users[i])); k != want || !ok || err != nil {
					t.Errorf("key of %s: %d, %v, %v", users[i], k, ok, err)
				}
			}
			if _, ok, err := st.StateKey(ctx, "m.room.member", "nobody"); ok || err != nil {
				t.Error(ok, err)
			}
		}
		for limit, want := range [][]matrix.UserID{1: {"@c:b.test"}, 2: {"@c:b.test", "@b:a.test"}, 9: {"@c:b.test", "@b:a.test", "@a:a.test"}} {
			if limit == 0 || want == nil {
				continue
			}
			found := must(st.FirstMembers(ctx, []store.RoomNum{1, 2, 3}, "join", limit))(t)
			if !slices.Equal(found[1], want) || len(found[2]) > 0 || !slices.Equal(found[3], users[:1]) {
				t.Errorf("first %d members: %v", limit, found)
			}
		}
	}
	reopened(t, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		keys = nil
		commit(t, st, func(tx *store.Tx) error {
			keys = nil
			for _, u := range users {
				keys = append(keys, must(tx.StateKey(ctx, "m.room.member", string(u)))(t))
			}
			keys = append(keys, must(tx.StateKey(ctx, "m.room.name", ""))(t), must(tx.StateKey(ctx, "org.example", "@a:a.test"))(t))
			var errs []error
			for room := range store.RoomNum(3) {
				errs = append(errs, tx.PutRoom(ctx, &store.Room{Num: room + 1, ID: matrix.RoomID(fmt.Sprintf("!%d:a.test", room+1)), Version: v}))
			}
			for i, u := range users {
				errs = append(errs, tx.PutMembership(ctx, store.Membership{User: u, Room: 1, Membership: "join", Event: store.EventNum(10 - i), Pos: 1}))
			}
			return errors.Join(append(errs,
				tx.PutMembership(ctx, store.Membership{User: users[0], Room: 2, Membership: "leave", Event: 11, Pos: 1}),
				tx.PutMembership(ctx, store.Membership{User: users[0], Room: 3, Membership: "join", Event: 12, Pos: 1}))...)
		})
		check(t, st)
	}, check)
}
