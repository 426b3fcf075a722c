// Package databasetest opens fresh databases for tests: an SQLite file, and a
// PostgreSQL database when there is a server for it. It knows no tables.
package databasetest

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"switchboard/homeserver/database"
)

// Env names the environment variable with the URL of a PostgreSQL server on
// which tests may create databases.
const Env = "SWITCHBOARD_TEST_POSTGRES"

// Each runs f as a subtest on a fresh SQLite file and, if Env is set, on a
// fresh PostgreSQL database, which is dropped at the end. Where the variable
// CI is set PostgreSQL must not be missing.
func Each(t *testing.T, f func(t *testing.T, db *database.DB)) {
	t.Helper()
	EachURL(t, func(t *testing.T, url string) {
		db, err := database.Open(t.Context(), url, database.Options{Volatile: true})
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

// PostgreSQL creates a database, which is dropped at the end of the test, and
// returns its URL. It skips the test if there is no server.
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
	name := "switchboard_test_" + strings.ToLower(rand.Text()[:16])
	admin(t, server, "CREATE DATABASE "+name)
	t.Cleanup(func() { admin(t, server, "DROP DATABASE "+name+" WITH (FORCE)") })
	u.Path = "/" + name
	return u.String()
}

// admin runs one statement on the server's own database. The test's context
// may have ended already.
func admin(t testing.TB, server, statement string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		t.Fatalf("connect to %s: %v", Env, err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
