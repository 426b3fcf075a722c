package database

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
)

// lockMigrations keeps processes that start at once from migrating at once.
const lockMigrations = `SELECT pg_advisory_xact_lock(736377)`

// bootstrap makes the tables of this package.
func (db *DB) bootstrap(ctx context.Context) error {
	exists := `SELECT count(*) FROM sqlite_schema WHERE name = 'migrations'`
	if db.dialect == PostgreSQL {
		exists = `SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'migrations'`
	}
	return db.Update(ctx, func(tx *Tx) error {
		if err := tx.lockMigrations(ctx); err != nil {
			return err
		}
		var n int64
		if err := tx.QueryRow(ctx, exists).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			if err := tx.script(ctx, bootstrapScript); err != nil {
				return err
			}
		}
		// A process that was killed may have left a transaction that PostgreSQL is
		// still committing. The lock waits for it, so that none of its positions
		// appears behind those that are shown from now on.
		if err := tx.lock(ctx); err != nil {
			return err
		}
		return nil
	})
}

const bootstrapScript = `
CREATE TABLE migrations (
	number BIGINT NOT NULL PRIMARY KEY,
	name   TEXT   NOT NULL
);
CREATE TABLE streams (
	name TEXT   NOT NULL PRIMARY KEY,
	pos  BIGINT NOT NULL
);
INSERT INTO streams (name, pos) VALUES ('log', 0);
CREATE TABLE counters (
	name TEXT   NOT NULL PRIMARY KEY,
	n    BIGINT NOT NULL
);`

func (tx *Tx) lockMigrations(ctx context.Context) error {
	if tx.g.db.dialect != PostgreSQL {
		return nil // the write transaction is the lock
	}
	return tx.Exec(ctx, lockMigrations)
}

// script runs several statements in the words of the dialect.
func (tx *Tx) script(ctx context.Context, text string) error {
	if _, _, err := tx.writes(ctx, "", nil); err != nil {
		return err
	}
	text = rewriteScript(tx.g.db.dialect, text)
	return tx.check(tx.g.s.script(context.WithoutCancel(ctx), tx.g.current, text))
}

// migration is one step of the schema, in the words of one dialect.
type migration struct {
	number int64
	name   string
	text   string
}

var migrationName = regexp.MustCompile(`^([0-9]{4})_([a-z0-9_]+)(?:\.(sqlite|postgres))?\.sql$`)

// Migrate brings the tables of db to the newest migration in fsys, each in a
// transaction of its own. The files stand in the root of fsys and are called
// 0001_name.sql and so on without a gap; where the databases must differ, a
// pair 0002_name.sqlite.sql and 0002_name.postgres.sql. Migrations are only
// ever added: a database that knows others than fsys is an error that says
// what to do.
func Migrate(ctx context.Context, db *DB, fsys fs.FS) error {
	list, err := readMigrations(fsys, db.dialect)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	done := 0
	for {
		more := false
		err := db.Update(ctx, func(tx *Tx) error {
			var err error
			more, err = tx.migrate(ctx, list, &done)
			return err
		})
		if err != nil || !more {
			return err
		}
	}
}

// migrate applies the first migration of list that is missing, and reports
// whether there was one.
func (tx *Tx) migrate(ctx context.Context, list []migration, done *int) (bool, error) {
	if err := tx.lockMigrations(ctx); err != nil {
		return false, err
	}
	rows, err := tx.Query(ctx, `SELECT number, name FROM migrations ORDER BY number`)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var m migration
		if err := rows.Scan(&m.number, &m.name); err != nil {
			return false, err
		}
		switch {
		case n >= len(list):
			return false, fmt.Errorf("the database has migration %04d_%s and this program only knows %d: start a newer program, or restore a backup of the database made with this one",
				m.number, m.name, len(list))
		case m.number != int64(n+1):
			return false, fmt.Errorf("the database lacks migration %04d but has %04d_%s: it was changed by hand; restore a backup", n+1, m.number, m.name)
		case m.name != list[n].name:
			return false, fmt.Errorf("migration %04d is %s in the database and %s in this program: it was made by another program, or by an unreleased one", m.number, m.name, list[n].name)
		}
	}
	if err := rows.Err(); err != nil {
		return false, err
	}
	*done = n
	if n == len(list) {
		return false, nil
	}
	m := list[n]
	if err := tx.script(ctx, m.text); err != nil {
		return false, fmt.Errorf("migration %04d_%s: %w", m.number, m.name, err)
	}
	return true, tx.Exec(ctx, `INSERT INTO migrations (number, name) VALUES ($1, $2)`, m.number, m.name)
}

// readMigrations returns the migrations of a dialect by number.
func readMigrations(fsys fs.FS, d Dialect) ([]migration, error) {
	entries, err := fs.ReadDir(fsys, ".") // sorted
	if err != nil {
		return nil, err
	}
	mine, other := "sqlite", "postgres"
	if d == PostgreSQL {
		mine, other = other, mine
	}
	var list []migration
	var errs []error
	pairs := map[string]int{} // name with number: halves seen
	for _, e := range entries {
		sub := migrationName.FindStringSubmatch(e.Name())
		if sub == nil {
			errs = append(errs, fmt.Errorf("%s is not called NNNN_name.sql, NNNN_name.sqlite.sql or NNNN_name.postgres.sql", e.Name()))
			continue
		}
		if sub[3] != "" {
			pairs[sub[1]+"_"+sub[2]]++
		}
		if sub[3] == other {
			continue
		}
		text, err := fs.ReadFile(fsys, e.Name())
		if err != nil {
			return nil, err
		}
		number, _ := strconv.ParseInt(sub[1], 10, 64)
		list = append(list, migration{number: number, name: sub[2], text: string(text)})
		if want := int64(len(list)); number != want {
			errs = append(errs, fmt.Errorf("%s follows number %04d: numbers go up by one, from 0001", e.Name(), want-1))
			break
		}
	}
	for name, halves := range pairs {
		if halves != 2 {
			errs = append(errs, fmt.Errorf("%s needs both a .sqlite.sql and a .postgres.sql (%s)", name, mine))
		}
	}
	return list, errors.Join(errs...)
}
