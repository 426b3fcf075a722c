package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func version(t *testing.T) *matrix.RoomVersion {
	t.Helper()
	v, ok := matrix.Version("11")
	if !ok {
		t.Fatal("no version 11")
	}
	return v
}

// pdu is an event as the store has it.
func pdu(t *testing.T, v *matrix.RoomVersion, room, id, content string) *event.PDU {
	t.Helper()
	p, err := event.Load(v, matrix.EventID(id), fmt.Appendf(nil,
		`{"auth_events":[],"content":%s,"depth":1,"hashes":{},"origin_server_ts":1,"prev_events":[],"room_id":%q,"sender":"@alice:a.test","signatures":{},"type":"m.room.message"}`, content, room))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// reopened runs f on a store, and checks with again on a second one on the same
// database, whose memory is empty.
func reopened(t *testing.T, f, again func(t *testing.T, st *store.Store)) {
	t.Helper()
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		for _, run := range []func(*testing.T, *store.Store){f, again} {
			st, err := store.New(t.Context(), db, storetest.Budget)
			if err != nil {
				t.Fatal(err)
			}
			run(t, st)
		}
	})
}

// TestRoomsAndMemberships checks that memory and database say the same after
// random changes, and after reopening.
func TestRoomsAndMemberships(t *testing.T) {
	type key struct {
		user matrix.UserID
		room store.RoomNum
	}
	rooms := map[store.RoomNum]store.Room{}
	members := map[key]store.Membership{}
	check := func(t *testing.T, st *store.Store) {
		t.Helper()
		ctx := t.Context()
		for num, want := range rooms {
			got := must(st.RoomByNum(ctx, num))(t)
			byID := must(st.Room(ctx, want.ID))(t)
			if !reflect.DeepEqual(*got, want) || got != byID {
				t.Errorf("room %+v, want %+v", *got, want)
			}
			var joined []matrix.UserID
			all := map[string][]matrix.UserID{}
			for k, m := range members {
				if k.room == num {
					all[m.Membership] = append(all[m.Membership], k.user)
					if m.Local && m.Membership == "join" {
						joined = append(joined, k.user)
					}
				}
			}
			local := st.LocalMembers(num)
			slices.Sort(local)
			slices.Sort(joined)
			if !slices.Equal(local, joined) {
				t.Errorf("room %d: local members %v, want %v", num, local, joined)
			}
			for _, is := range []string{"join", "invite", "leave", "ban", "knock"} {
				var got []matrix.UserID
				for _, m := range must(st.Members(ctx, num, is, 1000))(t) {
					got = append(got, m.User)
				}
				slices.Sort(got)
				slices.Sort(all[is])
				if !slices.Equal(got, all[is]) {
					t.Errorf("room %d, %s: %v, want %v", num, is, got, all[is])
				}
			}
		}
		for k, want := range members {
			if want.Local {
				if got := st.Membership(k.user, k.room); got != want {
					t.Errorf("membership %+v, want %+v", got, want)
				}
			} else if got := st.Membership(k.user, k.room); got != (store.Membership{}) {
				t.Errorf("another server's user is in memory: %+v", got)
			}
		}
	}
	reopened(t, func(t *testing.T, st *store.Store) {
		clear(rooms)
		clear(members)
		r := rand.New(rand.NewPCG(4, 2))
		for i := range 300 {
			num := store.RoomNum(1 + r.IntN(5))
			room := store.Room{Num: num, ID: matrix.RoomID(fmt.Sprintf("!%d:a.test", num)), Version: version(t), Current: statetree.ID(i),
				Heads: []store.EventNum{store.EventNum(i), store.EventNum(i + 1)}, Last: int64(i + 1), Joined: i, Invited: 2 * i, Open: i%2 == 0}
			local := r.IntN(4) > 0
			server := map[bool]string{true: "a.test", false: "b.test"}[local]
			m := store.Membership{User: matrix.UserID(fmt.Sprintf("@u%d:%s", r.IntN(6), server)), Room: num, Local: local, Event: store.EventNum(i), Pos: int64(i),
				Membership: []string{"join", "invite", "leave", "ban", "knock"}[r.IntN(5)], Forgotten: r.IntN(5) == 0}
			fail := errors.New("no")
			err := st.Update(t.Context(), func(tx *store.Tx) error {
				if err := tx.PutRoom(t.Context(), &room); err != nil {
					return err
				}
				if err := tx.PutMembership(t.Context(), m); err != nil || i%7 != 0 {
					return err
				}
				return fail
			})
			if i%7 == 0 {
				if !errors.Is(err, fail) {
					t.Fatal(err)
				}
				continue // nothing of it stays
			}
			if err != nil {
				t.Fatal(err)
			}
			rooms[num], members[key{m.User, num}] = room, m
		}
		check(t, st)
	}, check)
}

// TestOlderRoom checks that a room which was read late does not replace a newer one.
func TestOlderRoom(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		if _, err := st.Room(ctx, "!r:a.test"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		for last := range int64(3) {
			commit(t, st, func(tx *store.Tx) error {
				return tx.PutRoom(ctx, &store.Room{Num: 1, ID: "!r:a.test", Version: version(t), Last: last})
			})
			if r := must(st.Room(ctx, "!r:a.test"))(t); r.Last != last {
				t.Errorf("last %d, want %d", r.Last, last)
			}
		}
	})
}

// TestTimeline checks the reads of a timeline, out of memory and, after
// reopening, out of the database.
func TestTimeline(t *testing.T) {
	var events []*store.Event
	check := func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		ids := func(list []*store.Event, err error) []matrix.EventID {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			all := []matrix.EventID{}
			for _, e := range list {
				all = append(all, e.PDU.ID)
			}
			return all
		}
		want := func(since, upto int64, room store.RoomNum) []matrix.EventID {
			all := []matrix.EventID{}
			for _, e := range events {
				if e.Pos > since && e.Pos <= upto && (room == 0 || e.Room == room) && e.Pos != 0 {
					all = append(all, e.PDU.ID)
				}
			}
			return all
		}
		for since := int64(0); since < 45; since += 4 {
			for _, upto := range []int64{since, since + 7, 1000} {
				for _, limit := range []int{1, 3, 100} {
					all := want(since, upto, 1)
					if got := ids(st.Newest(ctx, 1, since, upto, limit)); !slices.Equal(got, all[max(0, len(all)-limit):]) {
						t.Errorf("newest %d of (%d, %d]: %v of %v", limit, since, upto, got, all)
					}
					if got := ids(st.Oldest(ctx, 1, since, upto, limit)); !slices.Equal(got, all[:min(len(all), limit)]) {
						t.Errorf("oldest %d of (%d, %d]: %v of %v", limit, since, upto, got, all)
					}
				}
			}
			all := want(since, math.MaxInt64, 0)
			if got := ids(st.Log(ctx, since, 5)); !slices.Equal(got, all[:min(len(all), 5)]) {
				t.Errorf("log behind %d: %v, want %v", since, got, all)
			}
		}
		for _, e := range events {
			got := must(st.Event(ctx, e.PDU.ID))(t)
			if got.Num != e.Num || got.Pos != e.Pos || got.Room != e.Room || got.State != e.State || got.Current != e.Current ||
				got.RedactedBy != e.RedactedBy || got.Replaces != e.Replaces || string(got.PDU.JSON) != string(e.PDU.JSON) || got.PDU.ID != e.PDU.ID {
				t.Errorf("event %+v, want %+v", got, e)
			}
		}
	}
	reopened(t, func(t *testing.T, st *store.Store) {
		events = nil
		ctx := t.Context()
		v := version(t)
		commit(t, st, func(tx *store.Tx) error {
			return errors.Join(tx.PutRoom(ctx, &store.Room{Num: 1, ID: "!r:a.test", Version: v}), tx.PutRoom(ctx, &store.Room{Num: 2, ID: "!s:a.test", Version: v}))
		})
		for i := range 40 {
			var e *store.Event
			commit(t, st, func(tx *store.Tx) error {
				pos, err := tx.NextPosition(ctx)
				if err != nil {
					return err
				}
				e = &store.Event{PDU: pdu(t, v, []string{"!r:a.test", "!s:a.test"}[i%3/2], fmt.Sprintf("$%d", i), fmt.Sprintf(`{"n":%d}`, i)), Num: store.EventNum(pos), Pos: pos, Room: store.RoomNum(1 + i%3/2),
					State: statetree.ID(i), Current: statetree.ID(i + i%2), Replaces: store.EventNum(i % 4)}
				if i%9 == 8 {
					e.Pos = 0 // kept aside
				}
				return tx.AppendEvent(ctx, e)
			})
			events = append(events, e)
		}
		for _, i := range []int{3, 20} {
			e := *events[i]
			redacted, err := e.PDU.Redacted()
			if err != nil {
				t.Fatal(err)
			}
			commit(t, st, func(tx *store.Tx) error { return tx.Redact(ctx, events[i], redacted, 39) })
			e.PDU, e.RedactedBy = redacted, 39
			events[i] = &e
		}
		check(t, st)
	}, check)
}

func TestRelationsOfStore(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		v := version(t)
		commit(t, st, func(tx *store.Tx) error { return tx.PutRoom(ctx, &store.Room{Num: 1, ID: "!r:a.test", Version: v}) })
		contents := []string{
			`{"m.relates_to":{"event_id":"$x","rel_type":"m.thread"}}`, `{"m.relates_to":{"event_id":"$x","rel_type":"m.reference"}}`,
			`{"m.relates_to":{"event_id":"$x"}}`, `{"m.relates_to":{"rel_type":"m.thread"}}`, `{"m.relates_to":5}`, `{}`,
			`{"m.relates_to":{"event_id":"$x","rel_type":"\u0000"}}`, `{"m.relates_to":{"event_id":5,"rel_type":"m.thread"}}`,
		}
		for i, c := range contents {
			commit(t, st, func(tx *store.Tx) error {
				pos, err := tx.NextPosition(ctx)
				if err != nil {
					return err
				}
				return tx.AppendEvent(ctx, &store.Event{PDU: pdu(t, v, "!r:a.test", fmt.Sprintf("$%d", i), c), Num: store.EventNum(pos), Pos: pos, Room: 1})
			})
		}
		for rel, want := range map[string]int{"": 2, "m.thread": 1, "m.reference": 1, "m.none": 0} {
			if got := must(st.Related(ctx, store.Relating{Room: 1, Target: "$x", RelType: rel, Upto: 1000}, 10))(t); len(got) != want {
				t.Errorf("%q: %v, want %d", rel, got, want)
			}
		}
	})
}

func TestRequests(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		v := version(t)
		r := store.Request{User: alice, Device: "D", Endpoint: "send", Txn: "1"}
		if _, err := st.Answered(ctx, r); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		var e *store.Event
		commit(t, st, func(tx *store.Tx) error {
			pos, err := tx.NextPosition(ctx)
			if err != nil {
				return err
			}
			e = &store.Event{PDU: pdu(t, v, "!r:a.test", "$e", `{}`), Num: store.EventNum(pos), Pos: pos, Room: 1}
			return errors.Join(tx.PutRoom(ctx, &store.Room{Num: 1, ID: "!r:a.test", Version: v}), tx.AppendEvent(ctx, e), tx.PutRequest(ctx, r, e, 1000))
		})
		if id := must(st.Answered(ctx, r))(t); id != "$e" {
			t.Errorf("got %s", id)
		}
		for _, other := range []store.Request{{User: bob, Device: "D", Endpoint: "send", Txn: "1"}, {User: alice, Device: "E", Endpoint: "send", Txn: "1"},
			{User: alice, Device: "D", Endpoint: "redact", Txn: "1"}, {User: alice, Device: "D", Endpoint: "send", Txn: "2"}} {
			if _, err := st.Answered(ctx, other); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%+v: got %v", other, err)
			}
		}
		for who, want := range map[[2]string]string{{string(alice), "D"}: "1", {string(alice), "E"}: "", {string(bob), "D"}: ""} {
			if got := must(st.Transactions(ctx, matrix.UserID(who[0]), matrix.DeviceID(who[1]), []*store.Event{e}))(t)[e.Num]; got.Txn != want {
				t.Errorf("%v: %q, want %q", who, got, want)
			}
		}
		// One that was delayed is known to all devices of its sender, also when it has
		// to be read, and also for a state event.
		commit(t, st, func(tx *store.Tx) error {
			return errors.Join(tx.DropRequests(ctx, 1001), tx.PutDelayedEvent(ctx, store.DelayedEvent{ID: "x", User: alice, Content: json.RawMessage(`{}`)}),
				tx.PutRequest(ctx, store.Request{User: alice, Device: "D", Endpoint: store.DelayedEndpoint, Txn: "x"}, e, 1000))
		})
		read := *e
		read.Request = nil
		for who, want := range map[[2]string]string{{string(alice), "D"}: "x", {string(alice), "E"}: "x", {string(bob), "D"}: ""} {
			for _, e := range []*store.Event{e, &read} {
				got := must(st.Transactions(ctx, matrix.UserID(who[0]), matrix.DeviceID(who[1]), []*store.Event{e}))(t)[e.Num]
				if got != (store.Sent{Delay: want}) {
					t.Errorf("%v: %+v, want %q", who, got, want)
				}
			}
		}
		commit(t, st, func(tx *store.Tx) error {
			return errors.Join(tx.DropRequests(ctx, 1001), tx.PutRequest(ctx, r, e, 1000))
		})
		commit(t, st, func(tx *store.Tx) error { return tx.DropRequests(ctx, 1000) })
		must(st.Answered(ctx, r))(t)
		commit(t, st, func(tx *store.Tx) error { return tx.DropRequests(ctx, 1001) })
		if _, err := st.Answered(ctx, r); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}

// TestNodes checks that one name never stands for two contents.
func TestNodes(t *testing.T) {
	put := func(st *store.Store, ctx context.Context, nodes ...statetree.Node) error {
		return st.Update(ctx, func(tx *store.Tx) error { return tx.PutNodes(ctx, nodes) })
	}
	reopened(t, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		if err := put(st, ctx, statetree.Node{ID: 1, Data: []byte("one")}, statetree.Node{ID: 2, Data: []byte{0, 255}}); err != nil {
			t.Fatal(err)
		}
		if err := put(st, ctx, statetree.Node{ID: 1, Data: []byte("one")}); err != nil {
			t.Errorf("the same again: %v", err)
		}
		if err := put(st, ctx, statetree.Node{ID: 3, Data: []byte("three")}, statetree.Node{ID: 1, Data: []byte("other")}); err == nil {
			t.Error("another content under one name was taken")
		}
		if _, err := st.Nodes(ctx).Nodes([]statetree.ID{3}); err == nil {
			t.Error("a part of the refused transaction stays")
		}
	}, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		if err := put(st, ctx, statetree.Node{ID: 1, Data: []byte("other")}); err == nil {
			t.Error("another content under one name was taken after reopening")
		}
		got, err := st.Nodes(ctx).Nodes([]statetree.ID{2, 1, 2})
		if err != nil || string(got[0]) != "\x00\xff" || string(got[1]) != "one" || string(got[2]) != "\x00\xff" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func TestStateKeys(t *testing.T) {
	pairs := [][2]string{{"m.room.member", "@a:x"}, {"m.room.member", ""}, {"m.room.name", ""}, {"", "m.room.name"}, {"a", "b"}, {"ab", ""}}
	numbers := map[[2]string]statetree.Key{}
	reopened(t, func(t *testing.T, st *store.Store) {
		clear(numbers)
		ctx := t.Context()
		for range 2 {
			for _, p := range pairs {
				var k statetree.Key
				commit(t, st, func(tx *store.Tx) error {
					var err error
					k, err = tx.StateKey(ctx, p[0], p[1])
					return err
				})
				if old, ok := numbers[p]; ok && old != k {
					t.Errorf("%q has the numbers %d and %d", p, old, k)
				}
				numbers[p] = k
			}
		}
		fail := errors.New("no")
		err := st.Update(ctx, func(tx *store.Tx) error {
			if _, err := tx.StateKey(ctx, "never", ""); err != nil {
				return err
			}
			return fail
		})
		if !errors.Is(err, fail) {
			t.Fatal(err)
		}
		if _, ok, _ := st.StateKey(ctx, "never", ""); ok {
			t.Error("a number stays of a transaction that failed")
		}
	}, func(t *testing.T, st *store.Store) {
		seen := map[statetree.Key]bool{}
		for p, want := range numbers {
			k, ok, err := st.StateKey(t.Context(), p[0], p[1])
			if err != nil || !ok || k != want || seen[k] {
				t.Errorf("%q: %d, %v, %v, want %d", p, k, ok, err, want)
			}
			seen[k] = true
		}
	})
}
