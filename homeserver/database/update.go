package database

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/rs/zerolog"
)

// ErrUnclear is returned by Update when the connection was lost while the
// database committed, and the database is closed before it has told what came
// of it: the changes may be stored or not.
var ErrUnclear = errors.New("the connection was lost during COMMIT; whether it took place is not known")

// PanicError is returned by Update for a closure that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

// Error implements error.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Update runs f in a transaction and commits it. Several callers share a
// transaction and its commit: f sees what the closures before it wrote, and
// its own part alone is undone when it returns an error, which Update returns
// as it is, or panics (*PanicError).
//
// f may be run more than once, so it must have no effect outside of tx but
// variables that it sets anew each time; for all else there is tx.OnCommit.
// It must not call Update, wait for anything slow, or keep tx.
//
// When ctx ends while the caller still queues, nothing is done and its error
// is returned. Once f has begun ctx does not interrupt it. When the connection
// is lost during COMMIT, Update waits until the database answers again and
// tells whether it took place; if it did not, f is run again. Those who queue
// meanwhile get an error after a few seconds.
func (db *DB) Update(ctx context.Context, f func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j := &job{f: f, ctx: ctx, turn: make(chan struct{}, 2)}
	leads, err := db.lane.enter(j)
	if err != nil {
		return err
	}
	if leads {
		db.lead()
	}
	for {
		select {
		case <-j.turn:
		case <-ctx.Done():
			if db.lane.leave(j) {
				return ctx.Err()
			}
			<-j.turn
		}
		if db.finished(j) {
			return j.err
		}
		db.lead()
	}
}

func (db *DB) finished(j *job) bool {
	db.lane.mu.Lock()
	defer db.lane.mu.Unlock()
	return j.done
}

// lead commits one batch and hands the lane on.
func (db *DB) lead() {
	jobs := db.lane.take()
	complete := false
	defer func() {
		if !complete { // runtime.Goexit in a closure: leave nobody waiting
			db.lane.answer(jobs, errExited)
		}
		db.lane.handOver()
	}()
	db.commit(jobs)
	complete = true
}

// retries is how often a transaction is tried again when that is safe, over
// seven seconds.
const retries = 5

// commit runs jobs in one transaction and answers them. If one of them breaks
// the transaction of all, it is run again alone after the others.
func (db *DB) commit(jobs []*job) {
	var alone []*job
	careful := false
	for tried := 0; len(jobs) > 0; {
		g := &group{db: db, jobs: jobs, careful: careful, guilty: -1}
		f := g.run()
		if f != nil && f.outcome != nil {
			f = db.settle(jobs[0].ctx, f)
		}
		switch {
		case f == nil:
			g.finish()
			jobs = nil
		case f.careful:
			careful = true
		case f.retry && tried < retries:
			pause(tried)
			tried++
		case f.unclear || f.lost || len(jobs) == 1:
			db.lane.answer(jobs, f.err)
			jobs = nil
		case g.guilty >= 0:
			alone = append(alone, jobs[g.guilty])
			jobs = append(jobs[:g.guilty:g.guilty], jobs[g.guilty+1:]...)
		default:
			alone = append(jobs, alone...)
			jobs = nil
		}
	}
	for _, j := range alone {
		db.commit([]*job{j})
	}
}

// finish runs what the closures wanted to have run, in their order, shows the
// new position, and answers them. Who reads up to a position may therefore rely
// on what OnCommit keeps in memory.
func (g *group) finish() {
	for _, j := range g.jobs {
		if j.err == nil {
			for _, f := range j.commits {
				j.notify(f)
			}
		}
	}
	if g.numbers.pos > 0 {
		g.db.position.Store(g.numbers.pos)
	}
	g.db.lane.answer(g.jobs, nil)
}

// notify calls f, which must not spoil a commit that took place.
func (j *job) notify(f func()) {
	defer func() {
		if v := recover(); v != nil {
			zerolog.Ctx(j.ctx).Error().Any("err", v).Bytes("stack", debug.Stack()).Msg("panic after a commit")
		}
	}()
	f()
}
