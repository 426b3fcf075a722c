package store_test

import (
	"reflect"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestDestinations(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		want := func(d store.Destination) {
			t.Helper()
			got, ok, err := st.Destination(t.Context(), d.Server)
			if err != nil || !ok || got != d {
				t.Errorf("got %+v, %v, %v; want %+v", got, ok, err, d)
			}
		}
		if d, ok, err := st.Destination(t.Context(), "b.test"); err != nil || ok || d.Server != "b.test" {
			t.Errorf("unknown server: %+v, %v, %v", d, ok, err)
		}
		down := store.Destination{Server: "b.test", Failures: 3, FailingTS: 10, RetryTS: 30, SuccessTS: 5}
		commit(t, st, func(tx *store.Tx) error { return tx.PutReach(t.Context(), down) })
		want(down)

		// The position and the reach do not touch each other.
		commit(t, st, func(tx *store.Tx) error { return tx.PutSent(t.Context(), "b.test", 7) })
		down.Pos = 7
		want(down)
		up := store.Destination{Server: "b.test", SuccessTS: 40}
		commit(t, st, func(tx *store.Tx) error { return tx.PutReach(t.Context(), up) })
		up.Pos = 7
		want(up)
		commit(t, st, func(tx *store.Tx) error { return tx.PutSent(t.Context(), "a.test", 9) })
		want(store.Destination{Server: "a.test", Pos: 9})

		var names []matrix.ServerName
		for after := matrix.ServerName(""); ; {
			page, err := st.Destinations(t.Context(), after, 1)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			after = page[0].Server
			names = append(names, after)
		}
		if !reflect.DeepEqual(names, []matrix.ServerName{"a.test", "b.test"}) {
			t.Errorf("servers %v", names)
		}
	})
}
