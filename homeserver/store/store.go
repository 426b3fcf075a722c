// Package store holds all SQL of the homeserver, a file for each noun. Methods
// of Store read, methods of Tx write. It answers what is asked and decides
// nothing: what may be written is the business of the services above.
package store

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"switchboard/homeserver/database"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is the homeserver's memory. Its methods read; they may be called from
// several goroutines.
type Store struct {
	db      *database.DB
	inserts inserts
	memory
}

// Tx is a transaction that writes. It lives as long as the function that
// Update calls, which may be run more than once: it must not change anything
// but the database.
type Tx struct {
	*database.Tx
	s *Store
}

// querier reads: a DB what is committed, a Tx also what it has itself written.
type querier = database.Querier

// New brings the schema of db up to date and reads what the store keeps in
// memory. The store does not close db.
//
// Budget is how many bytes of memory the caches may take.
func New(ctx context.Context, db *database.DB, budget int) (*Store, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := database.Migrate(ctx, db, files); err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	s := &Store{db: db}
	if err := s.load(ctx, budget); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	return s, nil
}

// Update runs f in a transaction and returns when it is durable, together with
// others that wait (group commit). If f returns an error, nothing of it stays.
func (s *Store) Update(ctx context.Context, f func(tx *Tx) error) error {
	return s.db.Update(ctx, func(tx *database.Tx) error { return f(&Tx{Tx: tx, s: s}) })
}

// Position is the newest position of the log that readers may see.
func (s *Store) Position() int64 { return s.db.Position() }
