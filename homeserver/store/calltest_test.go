package store_test

import (
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestCallTestLinks(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		commit(t, st, func(tx *store.Tx) error {
			if err := tx.AddCallTestLink(t.Context(), []byte("old"), 100, 1); err != nil {
				return err
			}
			return tx.AddCallTestLink(t.Context(), []byte("new"), 200, 1)
		})
		for _, tt := range []struct {
			link string
			now  int64
			want bool
		}{{"other", 50, false}, {"old", 100, false}, {"new", 199, true}, {"new", 199, false}} {
			if has, err := st.HasCallTestLink(t.Context(), []byte(tt.link), tt.now); err != nil || has != tt.want {
				t.Errorf("there is %q at %d: %v, %v", tt.link, tt.now, has, err)
			}
			commit(t, st, func(tx *store.Tx) error {
				got, err := tx.TakeCallTestLink(t.Context(), []byte(tt.link), tt.now)
				if got != tt.want {
					t.Errorf("%q at %d: %v", tt.link, tt.now, got)
				}
				return err
			})
		}
	})
}
