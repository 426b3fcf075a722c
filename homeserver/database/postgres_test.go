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

// openNotes opens a PostgreSQL database with the table notes.
func openNotes(t *testing.T, url string) *database.DB {
	t.Helper()
	db, err := database.Open(t.Context(), url, database.Options{Volatile: true, WriteTimeout: 10 * time.Minute})
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	if count(t, db, "pg_tables WHERE tablename = 'notes'") == 0 {
		exec(t, db, notes)
	}
	return db
}

// TestConnectionLost ends the connection in the middle of a transaction, and
// between two: the closures are run again.
func TestConnectionLost(t *testing.T) {
	db := openNotes(t, databasetest.PostgreSQL(t))
	ctx := t.Context()
	runs := 0
	kill := func(tx *database.Tx) error {
		runs++
		if err := put(ctx, tx, "a"); err != nil {
			return err
		}
		var pid int
		if err := tx.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
			return err
		}
		if runs == 1 {
			must(t, db.QueryRow(ctx, `SELECT pg_terminate_backend($1::int)::text`, pid).Scan(new(string)))
		}
		return put(ctx, tx, "b")
	}
	for i, err := range together(t, db, kill, func(tx *database.Tx) error { return put(ctx, tx, "c") }) {
		if err != nil {
			t.Errorf("closure %d: %v", i, err)
		}
	}
	if n := count(t, db, "notes"); n != 3 || runs != 2 {
		t.Errorf("%d rows after %d runs, want 3 after 2", n, runs)
	}
	var ended int
	must(t, db.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`).Scan(&ended))
	must(t, db.Update(ctx, func(tx *database.Tx) error { return put(ctx, tx, "d") }))
	if ended == 0 {
		t.Error("no connection was ended")
	}
}

// TestDeadlock has the transactions of two processes wait for each other: both
// succeed in the end.
func TestDeadlock(t *testing.T) {
	server := databasetest.PostgreSQL(t)
	one, two := openNotes(t, server), openNotes(t, server)
	ctx := t.Context()
	exec(t, one, `INSERT INTO notes (k, v, pos) VALUES ('a', '', 0), ('b', '', 0)`)
	var both sync.WaitGroup
	both.Add(2)
	var wg sync.WaitGroup
	var runs atomic.Int64
	lock := func(db *database.DB, first, second string) {
		var once sync.Once
		err := db.Update(ctx, func(tx *database.Tx) error {
			runs.Add(1)
			if _, err := tx.ExecCount(ctx, `UPDATE notes SET v = v || 'x' WHERE k = $1`, first); err != nil {
				return err
			}
			once.Do(func() { both.Done(); both.Wait() })
			return tx.Exec(ctx, `UPDATE notes SET v = v || 'x' WHERE k = $1`, second)
		})
		if err != nil {
			t.Error(err)
		}
	}
	wg.Go(func() { lock(one, "a", "b") })
	wg.Go(func() { lock(two, "b", "a") })
	wg.Wait()
	if n := count(t, one, "notes WHERE v = 'xx'"); n != 2 || runs.Load() < 3 {
		t.Errorf("%d rows were changed twice in %d runs, want 2 in at least 3", n, runs.Load())
	}
}

// TestServerStopsAnswering has a server that takes statements and never
// answers: the writer gives up.
func TestServerStopsAnswering(t *testing.T) {
	server := databasetest.PostgreSQL(t)
	one, two := openNotes(t, server), openNotes(t, server)
	ctx := t.Context()
	exec(t, one, `INSERT INTO notes (k, v, pos) VALUES ('a', '', 0)`)
	held, free := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		must(t, one.Update(ctx, func(tx *database.Tx) error {
			if _, err := tx.ExecCount(ctx, `UPDATE notes SET v = 'one'`); err != nil {
				return err
			}
			close(held)
			<-free
			return nil
		}))
	})
	<-held
	two.SetWriteTimeout(time.Second)
	err := two.Update(ctx, func(tx *database.Tx) error {
		_, err := tx.ExecCount(ctx, `UPDATE notes SET v = 'two'`)
		return err
	})
	two.SetWriteTimeout(10 * time.Minute)
	if err == nil {
		t.Error("a row was changed that another transaction had locked")
	}
	close(free)
	wg.Wait()
	must(t, two.Update(ctx, func(tx *database.Tx) error { return tx.Exec(ctx, `UPDATE notes SET v = v || '+two'`) }))
	if n := count(t, one, "notes WHERE v = 'one+two'"); n != 1 {
		t.Error("the writer did not go on")
	}
}

// TestSchemaOfItsOwn opens a database in which the tables live in a schema
// other than public.
func TestSchemaOfItsOwn(t *testing.T) {
	server := databasetest.PostgreSQL(t)
	public := openNotes(t, server)
	exec(t, public, `CREATE SCHEMA other`)
	other := openNotes(t, server+"&search_path=other")
	must(t, database.Migrate(t.Context(), other, files("0001_rooms.sql", rooms)))
	a, err := public.Schema(t.Context())
	must(t, err)
	b, err := other.Schema(t.Context())
	must(t, err)
	if a == b || fmt.Sprint(count(t, other, "rooms")) != "1" {
		t.Errorf("the schemas are not apart:\n%s\n%s", a, b)
	}
}

// TestLeftTransaction opens a database while a process that was killed still has
// a transaction there: what that one commits is behind the position that is shown.
func TestLeftTransaction(t *testing.T) {
	url := databasetest.PostgreSQL(t)
	dead := openNotes(t, url)
	ctx := t.Context()
	opened := make(chan *database.DB)
	err := dead.Update(ctx, func(tx *database.Tx) error {
		if _, err := tx.NextPosition(ctx); err != nil {
			return err
		}
		go func() {
			db, err := database.Open(ctx, url, database.Options{Volatile: true})
			if err != nil {
				t.Error(err)
			}
			opened <- db
		}()
		for count(t, dead, "pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())") == 0 {
			select {
			case db := <-opened:
				must(t, db.Close())
				return errors.New("the database was opened beside a transaction")
			case <-time.After(5 * time.Millisecond):
			}
		}
		return nil
	})
	must(t, err)
	db := <-opened
	if db == nil {
		t.FailNow()
	}
	defer db.Close()
	if db.Position() != dead.Position() || db.Position() == 0 {
		t.Errorf("position %d, want %d", db.Position(), dead.Position())
	}
}
