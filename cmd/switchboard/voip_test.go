package main

import (
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// TestHasLeft tells of whom an account was that may not be used any more.
func TestHasLeft(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		for _, u := range []store.User{{ID: "@here:a.test"}, {ID: "@gone:a.test"}, {ID: "@locked:a.test"}} {
			err := st.Update(t.Context(), func(tx *store.Tx) error {
				if _, err := tx.AddUser(t.Context(), u); err != nil {
					return err
				}
				u.Deactivated, u.Locked = u.ID == "@gone:a.test", u.ID == "@locked:a.test"
				return tx.SetUser(t.Context(), u)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		left := hasLeft(st)
		for user, want := range map[matrix.UserID]bool{"@here:a.test": false, "@gone:a.test": true, "@locked:a.test": true, "1795336693": false, "trial-x": false} {
			if got := left(t.Context(), string(user)); got != want {
				t.Errorf("%s: %v", user, got)
			}
		}
	})
}
