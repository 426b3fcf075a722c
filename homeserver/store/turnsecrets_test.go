package store_test

import (
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestTURNSecrets(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		add := func(value string, made, before int64) {
			t.Helper()
			commit(t, st, func(tx *store.Tx) error {
				return tx.AddTURNSecret(t.Context(), store.TURNSecret{Value: []byte(value), MadeTS: made}, before)
			})
		}
		want := func(values ...string) {
			t.Helper()
			list, err := st.TURNSecrets(t.Context())
			if err != nil || len(list) != len(values) {
				t.Fatalf("%v, %v; want %v", list, err, values)
			}
			for i, s := range list {
				if string(s.Value) != values[i] {
					t.Errorf("secret %d is %q, want %q", i, s.Value, values[i])
				}
			}
		}
		want()
		add("first", 10, 0)
		add("second", 20, 10)
		want("second", "first")
		add("third", 30, 20)
		want("third", "second")
	})
}
