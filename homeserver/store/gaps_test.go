package store_test

import (
	"slices"
	"testing"

	"switchboard/homeserver/store"
)

// TestGaps opens and closes gaps, and finds those that are left after reopening.
func TestGaps(t *testing.T) {
	want := func(t *testing.T, st *store.Store, open ...store.EventNum) {
		t.Helper()
		if got := must(st.Gaps(t.Context(), 1))(t); !slices.Equal(got, open) {
			t.Errorf("gaps before %d, want %d", got, open)
		}
		for n := store.EventNum(1); n < 5; n++ {
			if st.BehindGap(n) != slices.Contains(open, n) {
				t.Errorf("%d is behind a gap: %v", n, st.BehindGap(n))
			}
		}
	}
	reopened(t, func(t *testing.T, st *store.Store) {
		put := func(n store.EventNum, open bool) {
			if err := st.Update(t.Context(), func(tx *store.Tx) error { return tx.PutGap(t.Context(), 1, n, open) }); err != nil {
				t.Fatal(err)
			}
		}
		want(t, st)
		put(2, true)
		put(3, true)
		put(3, true)
		want(t, st, 2, 3)
		put(2, false)
		want(t, st, 3)
	}, func(t *testing.T, st *store.Store) { want(t, st, 3) })
}
