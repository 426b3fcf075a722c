package database

// Waiting returns how many writers queue.
func (db *DB) Waiting() int {
	db.lane.mu.Lock()
	defer db.lane.mu.Unlock()
	return len(db.lane.queue)
}
