package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// TestEventIDs stores events whose IDs look like hashes, or like what the
// database has for one.
func TestEventIDs(t *testing.T) {
	ids := []matrix.EventID{
		"$old:example.org", "$", "no dollar",
		"$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "$__________________________________________8",
		"$++++++++++++++++++++++++++++++++++++++++++8",       // room version 3
		"$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB",       // bits that no hash has
		"$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",      // too long
		matrix.EventID("$" + strings.Repeat("x", 29) + ":y"), // as long as a hash
		matrix.EventID("$" + strings.Repeat("x", 30) + ":y"), // one more
	}
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		v := version(t)
		commit(t, st, func(tx *store.Tx) error {
			err := tx.PutRoom(t.Context(), &store.Room{Num: 1, ID: "!r:a.test", Version: v})
			for i, id := range ids {
				if err == nil {
					err = tx.AppendAside(t.Context(), []*store.Event{{PDU: pdu(t, v, "!r:a.test", string(id), `{}`), Num: store.EventNum(i + 1), Room: 1}})
				}
			}
			return err
		})
		found := must(st.EventsByID(t.Context(), append(ids, "$unknown")))(t)
		for i, id := range ids {
			if e := found[id]; e == nil || e.Num != store.EventNum(i+1) || e.PDU.ID != id {
				t.Errorf("%s was found as %+v", id, e)
			}
		}
		if len(found) != len(ids) {
			t.Errorf("%d events were found, want %d", len(found), len(ids))
		}
	})
}

// TestAppendAside stores more state at once than one statement takes. Of one of the
// state keys it was known before that it had no number.
func TestAppendAside(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		v, ctx := version(t), t.Context()
		made := make([]*store.Event, 700)
		for i := range made {
			p, err := event.Load(v, matrix.EventID(fmt.Sprintf("$%d", i)), fmt.Appendf(nil,
				`{"auth_events":[],"content":{"n":%d},"depth":1,"hashes":{},"origin_server_ts":1,"prev_events":[],"room_id":"!r:a.test",`+
					`"sender":"@alice:a.test","signatures":{},"state_key":"k%d","type":"t%d"}`, i, i/2, i%2))
			if err != nil {
				t.Fatal(err)
			}
			made[i] = &store.Event{PDU: p, Num: store.EventNum(i + 1), Room: 1, Status: store.Status(i % 3)}
		}
		var known statetree.Key
		commit(t, st, func(tx *store.Tx) (err error) {
			if err = tx.PutRoom(ctx, &store.Room{Num: 1, ID: "!r:a.test", Version: v}); err == nil {
				known, err = tx.StateKey(ctx, "t1", "k7")
			}
			return err
		})
		if _, ok, err := st.StateKey(ctx, "t0", "k9"); ok || err != nil {
			t.Fatalf("a state key of no event: %v, %v", ok, err)
		}
		commit(t, st, func(tx *store.Tx) error { return tx.AppendAside(ctx, made) })
		var ids []matrix.EventID
		var keys []statetree.Key
		for _, e := range made {
			ids = append(ids, e.PDU.ID)
			keys = append(keys, e.Key)
		}
		found := must(st.EventsByID(ctx, ids))(t)
		for _, e := range made {
			got := found[e.PDU.ID]
			if got == nil || got.Num != e.Num || got.Pos != 0 || got.Status != e.Status || got.Key != e.Key || string(got.PDU.JSON) != string(e.PDU.JSON) {
				t.Fatalf("got %+v, want %+v", got, e)
			}
			if k, ok, err := st.StateKey(ctx, e.PDU.Type, *e.PDU.StateKey); k != e.Key || !ok || err != nil {
				t.Fatalf("the key of %s is %d, %v, %v, want %d", e.PDU.ID, k, ok, err, e.Key)
			}
		}
		if made[15].Key != known {
			t.Errorf("a known state key got the number %d, not %d", made[15].Key, known)
		}
		slices.Sort(keys)
		if n := len(slices.Compact(keys)); n != len(made) {
			t.Errorf("%d events of different state have %d numbers", len(made), n)
		}
	})
}
