package database_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
)

// TestCommitWithoutAnswer loses the connection to PostgreSQL at COMMIT, before
// and after the server has got it: everything is stored once, and memory and
// callers are told.
func TestCommitWithoutAnswer(t *testing.T) {
	for _, c := range []struct {
		name  string
		fates []databasetest.Fate
		runs  int
	}{
		{"lost on the way", []databasetest.Fate{databasetest.Cut}, 2},
		{"answer lost", []databasetest.Fate{databasetest.Unheard}, 1},
		{"server waits for it", []databasetest.Fate{databasetest.Stuck}, 2},
		{"everything at once", []databasetest.Fate{databasetest.Cut, databasetest.Stuck, databasetest.Unheard}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := databasetest.StartProxy(t, databasetest.PostgreSQL(t))
			db := openNotes(t, p.URL)
			ctx := t.Context()
			boom := errors.New("boom")
			runs, begun, kept := 0, db.Position(), []string{}
			errs := together(t, db,
				func(tx *database.Tx) error {
					tx.OnCommit(func() { kept = append(kept, "a") })
					return put(ctx, tx, "a")
				},
				func(*database.Tx) error { return boom },
				func(tx *database.Tx) error {
					if runs++; runs == 1 { // the COMMIT of the transaction before is none of ours
						p.Next(c.fates...)
					}
					tx.OnCommit(func() { kept = append(kept, "b") })
					if _, err := tx.NextPosition(ctx); err != nil {
						return err
					}
					return put(ctx, tx, "b")
				})
			if errs[0] != nil || errs[1] != boom || errs[2] != nil {
				t.Errorf("errors: %v", errs)
			}
			if n := count(t, db, "notes"); n != 2 || runs != c.runs || p.Left() != 0 {
				t.Errorf("%d rows after %d runs, want 2 after %d; %d COMMITs were not lost", n, runs, c.runs, p.Left())
			}
			if !slices.Equal(kept, []string{"a", "b"}) || db.Position() <= begun {
				t.Errorf("memory holds %q at position %d behind %d", kept, db.Position(), begun)
			}
			must(t, db.Update(ctx, func(tx *database.Tx) error { return put(ctx, tx, "c") }))
		})
	}
}

// TestCommitOfWrites is TestCommitWithoutAnswer for a transaction that asks the
// database nothing, so that all of it is sent at the end.
func TestCommitOfWrites(t *testing.T) {
	p := databasetest.StartProxy(t, databasetest.PostgreSQL(t))
	db := openNotes(t, p.URL)
	ctx := t.Context()
	for i, fate := range []databasetest.Fate{databasetest.Cut, databasetest.Unheard, databasetest.Stuck} {
		p.Next(fate)
		must(t, db.Update(ctx, func(tx *database.Tx) error {
			return tx.Exec(ctx, `INSERT INTO notes (k, v, pos) VALUES ($1, '', 0)`, string(rune('a'+i)))
		}))
		if n := count(t, db, "notes"); n != i+1 || p.Left() != 0 {
			t.Errorf("%d rows, want %d", n, i+1)
		}
	}
}

// TestDatabaseGone has PostgreSQL leave at COMMIT and stay away for a while:
// whose changes may be stored wait for it, and all others get an error.
func TestDatabaseGone(t *testing.T) {
	p := databasetest.StartProxy(t, databasetest.PostgreSQL(t))
	db := openNotes(t, p.URL)
	ctx := t.Context()
	told := 0
	var first error
	var wg sync.WaitGroup
	leave := func(k string) {
		p.Next(databasetest.Gone)
		wg.Go(func() {
			first = db.Update(ctx, func(tx *database.Tx) error {
				tx.OnCommit(func() { told++ })
				return put(ctx, tx, k)
			})
		})
		for p.Left() > 0 {
			yield()
		}
	}
	leave("a")
	err := db.Update(ctx, func(tx *database.Tx) error { return put(ctx, tx, "b") })
	if err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("one who queued got %v", err)
	}
	p.Down(false)
	wg.Wait()
	if n := count(t, db, "notes"); first != nil || n != 1 || told != 1 {
		t.Errorf("%v; %d rows and told %d times, want 1", first, n, told)
	}

	leave("c")
	must(t, db.Close())
	wg.Wait()
	if !errors.Is(first, database.ErrUnclear) || told != 1 {
		t.Errorf("closed before the outcome was known: %v; told %d times", first, told)
	}
}
