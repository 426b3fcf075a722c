// Package databasetest opens fresh databases for tests: an SQLite file, and a
// PostgreSQL database when there is a server for it. It knows no tables.
package databasetest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"switchboard/homeserver/database"
)

// Env names the environment variable with the URL of a PostgreSQL server on
// which tests may create databases.
const Env = "SWITCHBOARD_TEST_POSTGRES"

// patience is how long a connection and a transaction may take on a machine that
// does much else.
const patience = 10 * time.Minute

// Each runs f as a subtest on a fresh SQLite file and, if Env is set, on an
// empty PostgreSQL database that no other test uses meanwhile. Where the
// variable CI is set PostgreSQL must not be missing.
func Each(t *testing.T, f func(t *testing.T, db *database.DB)) {
	t.Helper()
	EachURL(t, func(t *testing.T, url string) {
		db, err := database.Open(t.Context(), url, database.Options{Volatile: true, WriteTimeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Errorf("close the database: %v", err)
			}
		})
		f(t, db)
	})
}

// EachURL is Each for tests that open the database themselves: url leads to
// an empty one.
func EachURL(t *testing.T, f func(t *testing.T, url string)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) { f(t, SQLite(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, PostgreSQL(t)) })
}

// SQLite returns the URL of a database file that does not exist yet.
func SQLite(t testing.TB) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "test.db")
}

// PostgreSQL returns the URL of an empty database of the server, which belongs
// to this test until its end. It skips the test if there is no server.
//
// The databases are called switchboard_test_1 and so on. They are emptied, not
// dropped: to create one takes a hundred times as long.
func PostgreSQL(t testing.TB) string {
	t.Helper()
	server := os.Getenv(Env)
	if server == "" {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not set", Env)
		}
		t.Skipf("%s is not set", Env)
	}
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("%s is not a URL", Env)
	}
	// The context of the test ends before its cleanup.
	ctx := context.WithoutCancel(t.Context())
	conn := connect(ctx, t, server)
	t.Cleanup(func() { _ = conn.Close(ctx) }) // gives the database back
	u.Path = "/" + reserve(ctx, t, conn)
	query := u.Query()
	query.Set("connect_timeout", strconv.Itoa(int(patience.Seconds())))
	u.RawQuery = query.Encode()
	empty(ctx, t, u.String())
	return u.String()
}

// databases is how many tests may have a database at once on one server.
const databases = 200

// reserve finds a database that no other test has, in this process or
// another, and creates it if needed. It is free again when conn is closed.
func reserve(ctx context.Context, t testing.TB, conn *pgx.Conn) string {
	t.Helper()
	for n := 1; n <= databases; n++ {
		var mine, exists bool
		name := fmt.Sprintf("switchboard_test_%d", n)
		// The lock first: what it guards must be read after it.
		err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock(736378, $1)`, n).Scan(&mine)
		if err == nil && mine {
			err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)`, name).Scan(&exists)
			if err == nil && !exists {
				_, err = conn.Exec(ctx, "CREATE DATABASE "+name)
			}
		}
		if err != nil {
			t.Fatalf("create %s: %v", name, err)
		}
		if mine {
			return name
		}
	}
	t.Fatalf("%d tests use databases at the same time", databases)
	return ""
}

// empty removes all schemas, and connections that a crashed test left.
func empty(ctx context.Context, t testing.TB, url string) {
	t.Helper()
	conn := connect(ctx, t, url)
	defer conn.Close(ctx)
	var drop string
	err := conn.QueryRow(ctx, `
		SELECT coalesce(string_agg(format('DROP SCHEMA %I CASCADE;', nspname), ' '), '')
		FROM pg_namespace WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\_%'`).Scan(&drop)
	for _, q := range []string{
		`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`,
		drop + `CREATE SCHEMA public`,
	} {
		if err == nil {
			_, err = conn.Exec(ctx, q)
		}
	}
	if err != nil {
		t.Fatalf("empty a database: %v", err)
	}
}

func connect(ctx context.Context, t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatalf("connect to the server of %s: %v", Env, err)
	}
	return conn
}
