package database_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
)

const notes = `CREATE TABLE notes (k TEXT NOT NULL PRIMARY KEY, v TEXT NOT NULL, pos BIGINT NOT NULL)`

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// exec runs one statement in a transaction of its own.
func exec(t testing.TB, db *database.DB, q string, args ...any) {
	t.Helper()
	must(t, db.Update(t.Context(), func(tx *database.Tx) error { return tx.Exec(t.Context(), q, args...) }))
}

func count(t testing.TB, q database.Querier, table string) int {
	t.Helper()
	var n int
	must(t, q.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n))
	return n
}

// together runs fs in one transaction and returns the errors of their Updates:
// all queue while the lane is held.
func together(t testing.TB, db *database.DB, fs ...func(tx *database.Tx) error) []error {
	t.Helper()
	held, free := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	var once sync.Once
	wg.Go(func() {
		_ = db.Update(t.Context(), func(*database.Tx) error {
			once.Do(func() { close(held); <-free })
			return nil
		})
	})
	<-held
	errs := make([]error, len(fs))
	for i, f := range fs {
		before := db.Waiting()
		wg.Go(func() { errs[i] = db.Update(t.Context(), f) })
		for db.Waiting() == before { // keep their order
			yield()
		}
	}
	close(free)
	wg.Wait()
	return errs
}

func put(ctx context.Context, tx *database.Tx, k string) error {
	pos, err := tx.NextPosition(ctx)
	if err != nil {
		return err
	}
	return tx.Exec(ctx, `INSERT INTO notes (k, v, pos) VALUES ($1, $2, $3)`, k, "v", pos)
}

func TestUpdateIsolatesFailures(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		ctx := t.Context()
		exec(t, db, notes)
		boom := errors.New("boom")
		errs := together(t, db,
			func(tx *database.Tx) error { return put(ctx, tx, "a") },
			func(tx *database.Tx) error { // its own error, after a write
				must(t, put(ctx, tx, "b"))
				return boom
			},
			func(tx *database.Tx) error { return put(ctx, tx, "a") }, // violates the key
			func(tx *database.Tx) error { return put(ctx, tx, "c") },
			func(tx *database.Tx) error { // its own error, after a write and a read
				if err := put(ctx, tx, "d"); err != nil {
					return err
				}
				if err := tx.QueryRow(ctx, `SELECT count(*) FROM notes`).Scan(new(int)); err != nil {
					return err
				}
				return boom
			},
			func(tx *database.Tx) error {
				must(t, put(ctx, tx, "e"))
				panic("ouch")
			},
			func(tx *database.Tx) error { // ignores the error of its statement
				_ = tx.Exec(ctx, `INSERT INTO nowhere VALUES (1)`)
				return nil
			},
			func(tx *database.Tx) error { return put(ctx, tx, "f") },
			func(tx *database.Tx) error { return boom },
		)
		var panicked *database.PanicError
		for i, want := range []bool{true, false, false, true, false, false, false, true, false} {
			if (errs[i] == nil) != want {
				t.Errorf("closure %d: %v", i, errs[i])
			}
		}
		if errs[1] != boom || errs[4] != boom || errs[8] != boom {
			t.Errorf("own errors: %v, %v, %v", errs[1], errs[4], errs[8])
		}
		if !errors.As(errs[5], &panicked) || panicked.Value != "ouch" {
			t.Errorf("panic: %v", errs[5])
		}
		rows, err := db.Query(ctx, `SELECT k, pos FROM notes ORDER BY pos`)
		must(t, err)
		var got []string
		last := int64(0)
		for rows.Next() {
			var k string
			var pos int64
			must(t, rows.Scan(&k, &pos))
			got = append(got, k)
			if pos <= last {
				t.Errorf("position %d after %d", pos, last)
			}
			last = pos
		}
		must(t, rows.Err())
		if strings.Join(got, "") != "acf" {
			t.Errorf("stored %v, want a, c, f", got)
		}
		if db.Position() < last {
			t.Errorf("Position() = %d, stored %d", db.Position(), last)
		}
		// The lane goes on.
		must(t, db.Update(ctx, func(tx *database.Tx) error { return put(ctx, tx, "g") }))
	})
}

func TestUpdateSharesCommit(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		ctx := t.Context()
		exec(t, db, notes)
		var order []int
		var seen int
		fs := make([]func(*database.Tx) error, 5)
		for i := range fs {
			fs[i] = func(tx *database.Tx) error {
				if i == 4 {
					if err := tx.QueryRow(ctx, `SELECT count(*) FROM notes`).Scan(&seen); err != nil {
						return err
					}
				}
				tx.OnCommit(func() { order = append(order, i) })
				if i == 2 {
					tx.OnCommit(func() { panic("a bell is broken") })
				}
				return put(ctx, tx, fmt.Sprint(i))
			}
		}
		for i, err := range together(t, db, fs...) {
			if err != nil {
				t.Errorf("closure %d: %v", i, err)
			}
		}
		if seen != 4 {
			t.Errorf("the last closure saw %d rows of those before it, want 4", seen)
		}
		if fmt.Sprint(order) != "[0 1 2 3 4]" {
			t.Errorf("OnCommit in order %v", order)
		}
	})
}

func TestUpdateContext(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		exec(t, db, notes)
		ctx, cancel := context.WithCancel(t.Context())
		held, free := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		var err1, err2 error
		wg.Go(func() {
			err1 = db.Update(ctx, func(tx *database.Tx) error {
				close(held)
				<-free
				return put(ctx, tx, "runs") // although ctx has ended
			})
		})
		<-held
		ran := false
		wg.Go(func() {
			err2 = db.Update(ctx, func(tx *database.Tx) error { ran = true; return nil })
		})
		for db.Waiting() == 0 {
			yield()
		}
		cancel()
		for db.Waiting() != 0 {
			yield()
		}
		close(free)
		wg.Wait()
		if err1 != nil || count(t, db, "notes") != 1 {
			t.Errorf("the running closure: %v", err1)
		}
		if !errors.Is(err2, context.Canceled) || ran {
			t.Errorf("the queued closure: %v, ran: %v", err2, ran)
		}
		if err := db.Update(ctx, func(*database.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("a dead context: %v", err)
		}
		exec(t, db, `DELETE FROM notes`)
	})
}

// TestUpdateManyWriters has many writers of which some fail, some give up and
// some panic, and checks that exactly the acknowledged rows are there.
func TestUpdateManyWriters(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		exec(t, db, notes)
		var wg sync.WaitGroup
		var stored, rung atomic.Int64
		for w := range 24 {
			wg.Go(func() {
				for i := range 40 {
					ctx, cancel := context.WithCancel(t.Context())
					if i%7 == 3 {
						go cancel()
					}
					key := fmt.Sprintf("%d/%d", w, i)
					err := db.Update(ctx, func(tx *database.Tx) error {
						if i%11 == 5 { // reads first
							if err := tx.QueryRow(ctx, `SELECT k FROM notes WHERE k = $1`, key).Scan(new(string)); !errors.Is(err, database.ErrNoRows) {
								return fmt.Errorf("found: %w", err)
							}
						}
						if err := put(ctx, tx, key); err != nil {
							return err
						}
						tx.OnCommit(func() { rung.Add(1) })
						switch {
						case i%13 == 1:
							return errors.New("changed its mind")
						case i%17 == 2:
							panic("oops")
						case i%19 == 4:
							return put(ctx, tx, key) // violates the key
						}
						return nil
					})
					cancel()
					if err == nil {
						stored.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if n := count(t, db, "notes"); int64(n) != stored.Load() || n == 0 {
			t.Errorf("%d rows for %d acknowledged writes", n, stored.Load())
		}
		if rung.Load() != stored.Load() {
			t.Errorf("%d OnCommit calls for %d acknowledged writes", rung.Load(), stored.Load())
		}
		var distinct, largest int64
		must(t, db.QueryRow(t.Context(), `SELECT count(DISTINCT pos), max(pos) FROM notes`).Scan(&distinct, &largest))
		if distinct != stored.Load() || largest > db.Position() {
			t.Errorf("%d positions for %d rows, largest %d, Position() %d", distinct, stored.Load(), largest, db.Position())
		}
	})
}

func TestClose(t *testing.T) {
	databasetest.EachURL(t, func(t *testing.T, url string) {
		db, err := database.Open(t.Context(), url, database.Options{Volatile: true})
		must(t, err)
		exec(t, db, notes)
		var wg sync.WaitGroup
		var stored atomic.Int64
		for i := range 20 {
			wg.Go(func() {
				err := db.Update(t.Context(), func(tx *database.Tx) error { return put(t.Context(), tx, fmt.Sprint(i)) })
				switch {
				case err == nil:
					stored.Add(1)
				case !errors.Is(err, database.ErrClosed):
					t.Errorf("Update: %v", err)
				}
			})
		}
		must(t, db.Close())
		wg.Wait()
		var n int
		err = db.QueryRow(t.Context(), `SELECT COUNT(*) FROM notes`).Scan(&n)
		if err == nil || db.Dialect() == database.SQLite && !errors.Is(err, database.ErrClosed) {
			t.Errorf("Query after Close: %v", err)
		}
		db, err = database.Open(t.Context(), url, database.Options{Volatile: true})
		must(t, err)
		defer func() { must(t, db.Close()) }()
		if n := count(t, db, "notes"); int64(n) != stored.Load() {
			t.Errorf("%d rows for %d acknowledged writes", n, stored.Load())
		}
	})
}

// yield lets other goroutines run.
func yield() { runtime.Gosched() }

// TestGoexit ends the goroutine of a closure, as t.FailNow does, and checks
// that nobody waits for ever.
func TestGoexit(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		exec(t, db, notes)
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = db.Update(t.Context(), func(tx *database.Tx) error {
				_ = put(t.Context(), tx, "lost")
				runtime.Goexit()
				return nil
			})
		})
		wg.Wait()
		must(t, db.Update(t.Context(), func(tx *database.Tx) error { return put(t.Context(), tx, "kept") }))
		if n := count(t, db, "notes"); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
	})
}

// TestTxIsOver uses a transaction after its closure.
func TestTxIsOver(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		ctx := t.Context()
		var kept *database.Tx
		must(t, db.Update(ctx, func(tx *database.Tx) error { kept = tx; return nil }))
		_, err1 := kept.Query(ctx, `SELECT 1`)
		_, err2 := kept.NextPosition(ctx)
		_, err3 := kept.NextNumber(ctx, "a")
		_, err4 := kept.ExecCount(ctx, `SELECT 1`)
		for i, err := range []error{kept.Exec(ctx, `SELECT 1`), err1, err2, err3, err4} {
			if err == nil {
				t.Errorf("%d: no error", i)
			}
		}
	})
}

func TestExecCount(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		ctx := t.Context()
		exec(t, db, notes)
		must(t, db.Update(ctx, func(tx *database.Tx) error {
			for _, k := range []string{"a", "b", "c"} {
				if err := put(ctx, tx, k); err != nil {
					return err
				}
			}
			for _, tt := range []struct {
				q    string
				want int64
			}{
				{`UPDATE notes SET v = 'w' WHERE k < 'c'`, 2},
				{`UPDATE notes SET v = 'w' WHERE k > 'c'`, 0},
				{`INSERT INTO notes (k, v, pos) VALUES ('a', '', 0) ON CONFLICT (k) DO NOTHING`, 0},
				{`INSERT INTO notes (k, v, pos) VALUES ('d', '', 0) ON CONFLICT (k) DO NOTHING`, 1},
			} {
				if n, err := tx.ExecCount(ctx, tt.q); err != nil || n != tt.want {
					t.Errorf("%s: %d, %v, want %d", tt.q, n, err, tt.want)
				}
			}
			var v string
			if err := tx.QueryRow(ctx, `DELETE FROM notes WHERE k = 'a' RETURNING v`).Scan(&v); err != nil || v != "w" {
				t.Errorf("RETURNING gave %q, %v", v, err)
			}
			return nil
		}))
		if n := count(t, db, "notes"); n != 3 {
			t.Errorf("%d rows, want 3", n)
		}
	})
}

// TestManyStatements queues more statements than are sent at once.
func TestManyStatements(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		ctx := t.Context()
		exec(t, db, notes)
		boom := errors.New("boom")
		many := func(prefix string, n int, result error) func(tx *database.Tx) error {
			return func(tx *database.Tx) error {
				for i := range n {
					if err := put(ctx, tx, fmt.Sprint(prefix, i)); err != nil {
						return err
					}
				}
				return result
			}
		}
		errs := together(t, db, many("a", 700, nil), many("b", 2500, boom), many("c", 700, nil), many("a", 1, nil))
		if errs[0] != nil || errs[1] != boom || errs[2] != nil || errs[3] == nil {
			t.Errorf("errors: %v", errs)
		}
		if n := count(t, db, "notes"); n != 1400 {
			t.Errorf("%d rows, want 1400", n)
		}
	})
}

func TestBusy(t *testing.T) {
	databasetest.EachURL(t, func(t *testing.T, url string) {
		db, err := database.Open(t.Context(), url, database.Options{Volatile: true, Waiting: 1})
		must(t, err)
		defer func() { must(t, db.Close()) }()
		nothing := func(*database.Tx) error { return nil }
		held, free := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = db.Update(t.Context(), func(*database.Tx) error { close(held); <-free; return nil })
		})
		<-held
		wg.Go(func() {
			if err := db.Update(t.Context(), nothing); err != nil {
				t.Errorf("the one who may wait: %v", err)
			}
		})
		for db.Waiting() == 0 {
			yield()
		}
		if err := db.Update(t.Context(), nothing); !errors.Is(err, database.ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
		close(free)
		wg.Wait()
	})
}

func TestOpenErrors(t *testing.T) {
	for _, url := range []string{"", "mysql://secret@x/y", "sqlite:", "sqlite::memory:", "sqlite:/does/not/exist/x.db", "postgres://user:secret@[bad/"} {
		db, err := database.Open(t.Context(), url, database.Options{})
		if err == nil {
			t.Errorf("Open(%q) succeeded", url)
			must(t, db.Close())
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q) shows a secret: %v", url, err)
		}
	}
}

// TestFileMode checks that others on the machine cannot read the database.
func TestFileMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a %20#?.db") // a path is not a URI
	db, err := database.Open(t.Context(), "sqlite:"+path, database.Options{})
	must(t, err)
	exec(t, db, notes)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("mode of the file with suffix %q is %o", suffix, info.Mode().Perm())
		}
	}
	var journal string
	var synchronous, keys int
	must(t, db.Update(t.Context(), func(tx *database.Tx) error {
		if err := tx.QueryRow(t.Context(), `SELECT * FROM pragma_journal_mode`).Scan(&journal); err != nil {
			return err
		}
		if err := tx.QueryRow(t.Context(), `SELECT * FROM pragma_synchronous`).Scan(&synchronous); err != nil {
			return err
		}
		return tx.QueryRow(t.Context(), `SELECT * FROM pragma_foreign_keys`).Scan(&keys)
	}))
	if journal != "wal" || synchronous != 2 || keys != 1 {
		t.Errorf("journal_mode %s, synchronous %d, foreign_keys %d", journal, synchronous, keys)
	}
	must(t, db.Close())
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the log is still there after Close: %v", err)
	}
}

// TestNoGoroutineIsLeft opens, uses and closes databases.
func TestNoGoroutineIsLeft(t *testing.T) {
	databasetest.EachURL(t, func(t *testing.T, url string) {
		before := runtime.NumGoroutine()
		db, err := database.Open(t.Context(), url, database.Options{Volatile: true})
		must(t, err)
		exec(t, db, notes)
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				if err := db.Update(t.Context(), func(tx *database.Tx) error { return put(t.Context(), tx, fmt.Sprint(i)) }); err != nil {
					t.Error(err)
				}
				count(t, db, "notes")
			})
		}
		wg.Wait()
		must(t, db.Close())
		for runtime.NumGoroutine() > before { // those that end right now; the test's own time limit ends the others
			yield()
		}
	})
}

// TestPositionComesLast checks that nobody is shown a position before OnCommit
// has put into memory what stands there.
func TestPositionComesLast(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		var pos, seen int64
		err := db.Update(t.Context(), func(tx *database.Tx) error {
			var err error
			pos, err = tx.NextPosition(t.Context())
			tx.OnCommit(func() { seen = db.Position() })
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if seen >= pos || db.Position() != pos {
			t.Errorf("position %d was shown as %d in OnCommit and as %d afterwards", pos, seen, db.Position())
		}
	})
}
