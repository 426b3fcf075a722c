package database_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
)

// BenchmarkUpdate stores events with five statements each, fully durable, and
// reports events a second for a number of writers that each wait for their
// own.
func BenchmarkUpdate(b *testing.B) {
	for _, server := range []struct {
		name string
		url  func(testing.TB) string
	}{{"SQLite", databasetest.SQLite}, {"PostgreSQL", databasetest.PostgreSQL}} {
		for _, writers := range []int{1, 8, 32, 128} {
			b.Run(fmt.Sprintf("%s/writers=%d", server.name, writers), func(b *testing.B) {
				benchmarkUpdate(b, server.url(b), writers)
			})
		}
	}
}

func benchmarkUpdate(b *testing.B, url string, writers int) {
	ctx := b.Context()
	db, err := database.Open(ctx, url, database.Options{})
	must(b, err)
	defer func() { must(b, db.Close()) }()
	blob := "BLOB"
	if db.Dialect() == database.PostgreSQL {
		blob = "BYTEA"
	}
	for _, q := range []string{
		`CREATE TABLE events (pos ` + map[bool]string{true: "INTEGER", false: "BIGINT"}[blob == "BLOB"] + ` PRIMARY KEY, id TEXT NOT NULL UNIQUE, room BIGINT NOT NULL, json ` + blob + ` NOT NULL)`,
		`CREATE TABLE edges (child BIGINT NOT NULL, parent BIGINT NOT NULL, PRIMARY KEY (child, parent))`,
		`CREATE TABLE heads (room BIGINT PRIMARY KEY, pos BIGINT NOT NULL)`,
		`CREATE TABLE txns (device BIGINT NOT NULL, txn TEXT NOT NULL, pos BIGINT NOT NULL, PRIMARY KEY (device, txn))`,
	} {
		exec(b, db, q)
	}
	var next atomic.Int64
	body := make([]byte, 800)
	store := func(tx *database.Tx, w int, n int64) error {
		pos, err := tx.NextPosition(ctx)
		if err != nil {
			return err
		}
		if err := tx.Exec(ctx, `INSERT INTO events (pos, id, room, json) VALUES ($1, $2, $3, $4)`, pos, fmt.Sprintf("$%040d", pos), w, body); err != nil {
			return err
		}
		if err := tx.Exec(ctx, `INSERT INTO edges (child, parent) VALUES ($1, $2)`, pos, pos-1); err != nil {
			return err
		}
		if err := tx.Exec(ctx, `INSERT INTO heads (room, pos) VALUES ($1, $2) ON CONFLICT (room) DO UPDATE SET pos = excluded.pos`, w, pos); err != nil {
			return err
		}
		return tx.Exec(ctx, `INSERT INTO txns (device, txn, pos) VALUES ($1, $2, $3)`, w, fmt.Sprint(n), pos)
	}
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				if err := db.Update(ctx, func(tx *database.Tx) error { return store(tx, w, n) }); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkQueryRow reads one row by its key.
func BenchmarkQueryRow(b *testing.B) {
	for _, server := range []struct {
		name string
		url  func(testing.TB) string
	}{{"SQLite", databasetest.SQLite}, {"PostgreSQL", databasetest.PostgreSQL}} {
		b.Run(server.name, func(b *testing.B) {
			ctx := b.Context()
			db, err := database.Open(ctx, server.url(b), database.Options{Volatile: true})
			must(b, err)
			defer func() { must(b, db.Close()) }()
			exec(b, db, notes)
			exec(b, db, `INSERT INTO notes (k, v, pos) VALUES ('a', 'b', 1)`)
			b.ReportAllocs()
			for b.Loop() {
				var v string
				var pos int64
				if err := db.QueryRow(ctx, `SELECT v, pos FROM notes WHERE k = $1`, "a").Scan(&v, &pos); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
