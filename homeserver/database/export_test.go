package database

import "time"

// Waiting returns how many writers queue.
func (db *DB) Waiting() int {
	db.lane.mu.Lock()
	defer db.lane.mu.Unlock()
	return len(db.lane.queue)
}

// SetWriteTimeout changes Options.WriteTimeout of a PostgreSQL database, while
// nobody writes.
func (db *DB) SetWriteTimeout(d time.Duration) { db.store.(*postgresBackend).timeout = d }
