package store_test

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestServerKeys(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		public := bytes.Repeat([]byte{7}, 32)
		now := store.ServerKey{Server: "b.test", ID: "ed25519:now", Public: public, ValidUntilTS: 100, FetchedTS: 10, Answer: []byte(`{"a":1}`)}
		old := store.ServerKey{Server: "b.test", ID: "ed25519:old", Public: public, ValidUntilTS: 50, ExpiredTS: 50, FetchedTS: 10}
		commit(t, st, func(tx *store.Tx) error {
			return tx.PutServerKeys(t.Context(), "b.test", []store.ServerKey{now, old})
		})
		check := func(want ...store.ServerKey) {
			t.Helper()
			got, err := st.ServerKeys(t.Context(), "b.test")
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				want[i].Answer = nil
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		check(now, old)

		// The current key expires: its answer stays.
		expired := now
		expired.ExpiredTS, expired.FetchedTS, expired.Answer = 60, 20, nil
		commit(t, st, func(tx *store.Tx) error {
			return tx.PutServerKeys(t.Context(), "b.test", []store.ServerKey{expired})
		})
		check(expired, old)
		answers, err := st.ServerKeyAnswers(t.Context(), "b.test")
		if err != nil || len(answers) != 1 || string(answers[0].Answer) != `{"a":1}` {
			t.Errorf("answers %v, %v", answers, err)
		}
		if list, err := st.ServerKeys(t.Context(), "c.test"); err != nil || len(list) != 0 {
			t.Errorf("unknown server: %v, %v", list, err)
		}
	})
}

// TestServerKeysBound has a server that publishes new keys again and again.
func TestServerKeysBound(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		for round := range 4 {
			commit(t, st, func(tx *store.Tx) error {
				var keys []store.ServerKey
				for i := range 40 {
					keys = append(keys, store.ServerKey{
						Server: "b.test", ID: fmt.Sprintf("ed25519:%d_%d", round, i), Public: make([]byte, 32), FetchedTS: int64(round),
					})
				}
				return tx.PutServerKeys(t.Context(), "b.test", keys)
			})
		}
		list, err := st.ServerKeys(t.Context(), "b.test")
		if err != nil {
			t.Fatal(err)
		}
		newest := 0
		for _, k := range list {
			if k.FetchedTS == 3 {
				newest++
			}
		}
		if len(list) != 64 || newest != 40 {
			t.Errorf("%d keys stayed, %d of the newest 40", len(list), newest)
		}
	})
}
