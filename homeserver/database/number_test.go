package database_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
)

// TestPositionsOfProcesses writes from two DBs at once, as two processes would,
// and reads all the while: nothing may appear below what a reader has seen.
func TestPositionsOfProcesses(t *testing.T) {
	databasetest.EachURL(t, func(t *testing.T, url string) {
		ctx := t.Context()
		var dbs []*database.DB
		for range 2 {
			// On SQLite one of both may get in seldom while the other one writes.
			db, err := database.Open(ctx, url, database.Options{Volatile: true, WriteTimeout: 10 * time.Minute})
			must(t, err)
			defer func() { must(t, db.Close()) }()
			dbs = append(dbs, db)
		}
		exec(t, dbs[0], `CREATE TABLE log (pos BIGINT PRIMARY KEY, n BIGINT NOT NULL UNIQUE)`)
		var writers, reader sync.WaitGroup
		var written atomic.Int64
		boom := errors.New("boom")
		for w := range 8 {
			writers.Go(func() {
				for i := range 60 {
					err := dbs[w%2].Update(ctx, func(tx *database.Tx) error {
						if i%5 == 1 { // inside of a savepoint, if there is one
							if err := tx.Exec(ctx, `DELETE FROM log WHERE pos < 0`); err != nil {
								return err
							}
						}
						pos, err := tx.NextPosition(ctx)
						if err != nil {
							return err
						}
						n, err := tx.NextNumber(ctx, "event")
						if err != nil {
							return err
						}
						if err := tx.Exec(ctx, `INSERT INTO log (pos, n) VALUES ($1, $2)`, pos, n); err != nil {
							return err
						}
						if i%7 == 3 {
							return boom
						}
						return nil
					})
					switch {
					case err == nil:
						written.Add(1)
					case err != boom:
						t.Error(err)
					}
				}
			})
		}
		done := make(chan struct{})
		reader.Go(func() {
			seen, last := 0, int64(0)
			for {
				var over bool
				select {
				case <-done:
					over = true
				default:
				}
				var n int
				var largest int64
				must(t, dbs[0].QueryRow(ctx, `SELECT count(*) FROM log WHERE pos <= $1`, last).Scan(&n))
				if n != seen {
					t.Errorf("%d positions up to %d, after a reader had seen %d", n, last, seen)
				}
				must(t, dbs[1].QueryRow(ctx, `SELECT count(*), coalesce(max(pos), 0) FROM log`).Scan(&seen, &largest))
				last = largest
				if over {
					return
				}
			}
		})
		writers.Wait()
		close(done)
		reader.Wait()
		var rows int64
		must(t, dbs[0].QueryRow(ctx, `SELECT count(*) FROM log`).Scan(&rows))
		if rows != written.Load() {
			t.Errorf("%d rows for %d acknowledged writes", rows, written.Load())
		}
	})
}

// TestLockIsTakenAgain undoes a closure that was the first to take the lock of
// the log, inside its savepoint, and goes on in the same transaction.
func TestLockIsTakenAgain(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		ctx := t.Context()
		exec(t, db, notes)
		boom := errors.New("boom")
		fail := func(tx *database.Tx) error {
			if err := tx.Exec(ctx, `DELETE FROM notes`); err != nil {
				return err
			}
			if _, err := tx.NextPosition(ctx); err != nil {
				return err
			}
			if _, err := tx.NextNumber(ctx, "room"); err != nil {
				return err
			}
			return boom
		}
		var first, second int64
		ok := func(n *int64) func(tx *database.Tx) error {
			return func(tx *database.Tx) (err error) {
				if err := put(ctx, tx, fmt.Sprintf("%p", n)); err != nil {
					return err
				}
				*n, err = tx.NextNumber(ctx, "room")
				return err
			}
		}
		errs := together(t, db, fail, ok(&first), fail, ok(&second), fail)
		if errs[0] != boom || errs[1] != nil || errs[2] != boom || errs[3] != nil || errs[4] != boom {
			t.Errorf("errors: %v", errs)
		}
		if first < 1 || second <= first {
			t.Errorf("numbers %d and %d", first, second)
		}
		if n := count(t, db, "notes"); n != 2 {
			t.Errorf("%d rows, want 2", n)
		}
		var pos int64
		must(t, db.QueryRow(ctx, `SELECT max(pos) FROM notes`).Scan(&pos))
		if db.Position() < pos {
			t.Errorf("Position() = %d, stored %d", db.Position(), pos)
		}
	})
}

func TestNumbersAreKept(t *testing.T) {
	databasetest.EachURL(t, func(t *testing.T, url string) {
		var last, position int64
		for range 3 {
			db, err := database.Open(t.Context(), url, database.Options{Volatile: true})
			must(t, err)
			if db.Position() != position {
				t.Errorf("opened at %d, want %d", db.Position(), position)
			}
			for range 3 {
				must(t, db.Update(t.Context(), func(tx *database.Tx) error {
					for _, name := range []string{"a", "b", "a"} {
						n, err := tx.NextNumber(t.Context(), name)
						if err != nil {
							return err
						}
						if name == "a" {
							if n <= last {
								t.Errorf("number %d after %d", n, last)
							}
							last = n
						}
					}
					_, err := tx.NextPosition(t.Context())
					return err
				}))
			}
			position = db.Position()
			must(t, db.Close())
		}
		if last != 18 || position != 9 {
			t.Errorf("ended with number %d and position %d, want 18 and 9", last, position)
		}
	})
}

// TestFailedPosition: a position of a transaction that failed is not shown, since
// the next one gets it: who has read up to there would miss what it writes.
func TestFailedPosition(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		boom := errors.New("boom")
		next := func(fail error) (pos int64) {
			err := db.Update(t.Context(), func(tx *database.Tx) (err error) {
				if pos, err = tx.NextPosition(t.Context()); err != nil {
					return err
				}
				return fail
			})
			if !errors.Is(err, fail) {
				t.Fatal(err)
			}
			return pos
		}
		for range 3 {
			first := next(nil)
			next(boom)
			if seen := db.Position(); seen != first {
				t.Errorf("readers see %d after a failure, want %d", seen, first)
			}
			if second := next(nil); second <= first || db.Position() != second {
				t.Errorf("the next is %d after %d, and readers see %d", second, first, db.Position())
			}
		}
	})
}
