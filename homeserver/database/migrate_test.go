package database_test

import (
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
)

// files makes a file system of pairs of name and content.
func files(pairs ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		fsys[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return fsys
}

const (
	rooms = `
-- It's a comment; with "quotes" and BLOB.
CREATE TABLE rooms (
	n    BIGINT PRIMARY KEY,
	name TEXT NOT NULL DEFAULT 'a ''BLOB'' -- no comment',
	icon BLOB
);
CREATE TABLE members (room BIGINT NOT NULL, who TEXT NOT NULL, PRIMARY KEY (room, who)) WITHOUT ROWID;
INSERT INTO rooms (n) VALUES (1);`
	index = `CREATE INDEX members_by_who ON members (who);`
)

func TestMigrate(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		ctx := t.Context()
		one := files("0001_rooms.sql", rooms)
		two := files("0001_rooms.sql", rooms, "0002_index.sqlite.sql", index+"-- sqlite", "0002_index.postgres.sql", index+"/* postgres */")
		must(t, database.Migrate(ctx, db, files()))
		must(t, database.Migrate(ctx, db, one))
		exec(t, db, `INSERT INTO members (room, who) VALUES (1, 'alice')`)
		for range 2 {
			must(t, database.Migrate(ctx, db, two))
		}
		if count(t, db, "members") != 1 || count(t, db, "migrations") != 2 {
			t.Error("the rows of before are not there, or not once")
		}
		var name string
		must(t, db.QueryRow(ctx, `SELECT name FROM rooms WHERE icon IS NULL`).Scan(&name))
		if name != "a 'BLOB' -- no comment" {
			t.Errorf("a string in a migration became %q", name)
		}
		before, err := db.Schema(ctx)
		must(t, err)
		for _, want := range []string{"members", "members_by_who", "rooms", "icon", "streams", "counters", "migrations"} {
			if !strings.Contains(before, want) {
				t.Errorf("the schema lacks %s:\n%s", want, before)
			}
		}

		for name, tt := range map[string]struct {
			fsys fstest.MapFS
			want string
		}{
			"newer database":  {one, "start a newer program"},
			"renamed":         {files("0001_rooms.sql", rooms, "0002_indexes.sql", index), "another program"},
			"gap":             {files("0001_rooms.sql", rooms, "0003_x.sql", ""), "go up by one"},
			"start":           {files("0002_rooms.sql", rooms), "go up by one"},
			"twice":           {files("0001_a.sql", "", "0001_b.sql", ""), "go up by one"},
			"half a pair":     {files("0001_rooms.sql", rooms, "0002_index.sqlite.sql", index), ".postgres.sql"},
			"other half":      {files("0001_rooms.sql", rooms, "0002_index.postgres.sql", index), ".sqlite.sql"},
			"shared and pair": {files("0001_a.sql", "", "0001_a.sqlite.sql", "", "0001_a.postgres.sql", ""), "go up by one"},
			"name":            {files("1_rooms.sql", rooms), "NNNN_name.sql"},
			"wrong SQL":       {files("0001_rooms.sql", rooms, "0002_index.sql", index, "0003_bad.sql", "CREATE TABLE later (n BIGINT); CREATE NONSENSE;"), "0003_bad"},
		} {
			err := database.Migrate(ctx, db, tt.fsys)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want an error with %q", name, err, tt.want)
			}
		}
		after, err := db.Schema(ctx)
		must(t, err)
		if after != before {
			t.Errorf("refused migrations changed the schema:\n%s\nto\n%s", before, after)
		}
	})
}

// TestMigrateAtOnce starts several processes at the same time on an empty
// database.
func TestMigrateAtOnce(t *testing.T) {
	databasetest.EachURL(t, func(t *testing.T, url string) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				db, err := database.Open(t.Context(), url, database.Options{Volatile: true, WriteTimeout: 10 * time.Minute})
				if err != nil {
					t.Error(err)
					return
				}
				if err := database.Migrate(t.Context(), db, files("0001_rooms.sql", rooms, "0002_index.sql", index)); err != nil {
					t.Error(err)
				}
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}
