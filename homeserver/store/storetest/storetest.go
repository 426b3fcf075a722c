// Package storetest opens fresh stores for tests, on SQLite and on PostgreSQL.
// It puts nothing into them.
package storetest

import (
	"testing"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/store"
)

// Budget is what the caches of a store for tests may take, in bytes.
const Budget = 16 << 20

// Each runs f as a subtest on a store on SQLite and, if
// SWITCHBOARD_TEST_POSTGRES is set, on one on PostgreSQL.
func Each(t *testing.T, f func(t *testing.T, st *store.Store)) {
	t.Helper()
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		st, err := store.New(t.Context(), db, Budget)
		if err != nil {
			t.Fatal(err)
		}
		f(t, st)
	})
}

// Watched opens a store on the database of a URL, and tells watch of each query.
// It is closed with the test.
func Watched(t *testing.T, url string, watch func(query string)) *store.Store {
	t.Helper()
	db, err := database.Open(t.Context(), url, database.Options{Volatile: true, Watch: watch})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	st, err := store.New(t.Context(), db, Budget)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// Bench runs f as a sub-benchmark on a store on SQLite.
func Bench(b *testing.B, f func(b *testing.B, st *store.Store)) {
	b.Run("SQLite", func(b *testing.B) {
		db, err := database.Open(b.Context(), databasetest.SQLite(b), database.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		st, err := store.New(b.Context(), db, Budget)
		if err != nil {
			b.Fatal(err)
		}
		f(b, st)
	})
}
