package database

import (
	"context"
	"fmt"
)

// numbers are the position and the counters inside one transaction. They are
// read under a lock at the first use, counted here, and written once.
//
// The lock is the row of the log in streams. It is taken before any counter is
// read, so that two processes can not wait for each other.
type numbers struct {
	locked   bool
	lockedBy int // the closure whose savepoint holds the lock
	pos      int64
	stored   int64 // pos in the database

	counters map[string]*counter // nil until one is needed
}

type counter struct{ n, stored int64 }

const (
	lockLog       = `SELECT pos FROM streams WHERE name = 'log'`
	lockLogShared = lockLog + ` FOR UPDATE`
	storeLog      = `UPDATE streams SET pos = $1 WHERE name = 'log'`
	readCounters  = `SELECT name, n FROM counters`
	storeCounter  = `INSERT INTO counters (name, n) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET n = excluded.n`
)

// NextPosition returns the next position of the log of the server. Positions
// become visible in order: once a reader has seen one, no smaller one appears
// later. Those of a closure that failed are skipped, or given to the next one.
func (tx *Tx) NextPosition(ctx context.Context) (int64, error) {
	if err := tx.lock(ctx); err != nil {
		return 0, err
	}
	tx.g.numbers.pos++
	return tx.g.numbers.pos, nil
}

// SkipPositions leaves the next n positions of the log free, for what is to stand
// before all that comes from now on, and returns the last one of them.
func (tx *Tx) SkipPositions(ctx context.Context, n int64) (int64, error) {
	if err := tx.lock(ctx); err != nil {
		return 0, err
	}
	tx.g.numbers.pos += n
	return tx.g.numbers.pos, nil
}

// NextNumber returns the next number of the counter called name: 1, then more,
// never the same twice, perhaps with gaps.
func (tx *Tx) NextNumber(ctx context.Context, name string) (int64, error) {
	if err := tx.lock(ctx); err != nil {
		return 0, err
	}
	n := &tx.g.numbers
	if n.counters == nil {
		if err := tx.readCounters(ctx); err != nil {
			return 0, err
		}
	}
	c := n.counters[name]
	if c == nil {
		if err := checkText(name); err != nil {
			return 0, err
		}
		c = &counter{}
		n.counters[name] = c
	}
	c.n++
	return c.n, nil
}

// lock takes the lock of the log, once for the whole transaction.
func (tx *Tx) lock(ctx context.Context) error {
	if tx.g == nil {
		return errOver
	}
	if tx.err != nil {
		return tx.err
	}
	n := &tx.g.numbers
	if n.locked {
		return nil
	}
	q := lockLog
	if tx.g.db.dialect == PostgreSQL {
		q = lockLogShared
	}
	if err := tx.QueryRow(ctx, q).Scan(&n.pos); err != nil {
		return fmt.Errorf("position: %w", err)
	}
	n.locked, n.stored, n.lockedBy = true, n.pos, -1
	if tx.g.marked {
		n.lockedBy = tx.g.current
	}
	return nil
}

func (tx *Tx) readCounters(ctx context.Context) error {
	rows, err := tx.Query(ctx, readCounters)
	if err != nil {
		return err
	}
	defer rows.Close()
	counters := map[string]*counter{}
	for rows.Next() {
		var name string
		var c counter
		if err := rows.Scan(&name, &c.n); err != nil {
			return err
		}
		c.stored = c.n
		counters[name] = &c
	}
	if err := rows.Err(); err != nil {
		return err
	}
	tx.g.numbers.counters = counters
	return nil
}

// undone forgets everything when the savepoint of closure i is undone in which
// the lock was taken: the database gives such a lock back.
func (n *numbers) undone(i int) {
	if n.locked && n.lockedBy == i {
		*n = numbers{}
	}
}

// store writes what was counted, as the last statements of the transaction.
func (n *numbers) store(ctx context.Context, g *group) error {
	exec := func(q string, args ...any) error {
		st, args, err := g.db.prepare(q, args)
		if err != nil {
			return err
		}
		return g.s.exec(ctx, -1, st, args)
	}
	if n.pos != n.stored {
		if err := exec(storeLog, n.pos); err != nil {
			return err
		}
	}
	for name, c := range n.counters {
		if c.n != c.stored {
			if err := exec(storeCounter, name, c.n); err != nil {
				return err
			}
		}
	}
	return nil
}
