package database

import (
	"context"
	"errors"
	"runtime/debug"
	"time"
)

// session is one transaction on the write connection.
//
// Statements may be queued until a result is needed. Each has an owner, the
// index of the closure it belongs to, or -1. An error is a *failure when the
// transaction is lost.
type session interface {
	// mark comes before the first write of a closure; with savepoint, undo
	// works whatever comes after it. One of release and undo ends it.
	mark(ctx context.Context, savepoint bool) error
	release(ctx context.Context) error

	// undo goes back to the mark. It reports false if it could not, because
	// there is no savepoint.
	undo(ctx context.Context) (bool, error)

	exec(ctx context.Context, owner int, st *statement, args []any) error
	count(ctx context.Context, owner int, st *statement, args []any) (int64, error)
	query(ctx context.Context, owner int, st *statement, args []any) (cursor, error)
	script(ctx context.Context, owner int, text string) error

	// commit ends the transaction. After an error, and only then, it must be
	// rolled back.
	commit(ctx context.Context) error
	rollback(ctx context.Context)
}

// failure is an error that ended the transaction of a whole group.
type failure struct {
	err     error
	owner   int  // whose statement it was, or -1
	retry   bool // nothing was committed, and it may go well next time
	lost    bool // the connection is lost, which is no closure's fault
	unclear bool // whether it was committed is not known
	careful bool // again, but with savepoints

	// outcome ends what the lost connection may have left and tells whether it
	// was committed. It is nil if nothing was left.
	outcome func(context.Context) (committed bool, err error)
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// pause waits before another try, longer each time. The server may need it to
// come back, and the other side of a deadlock to get its locks.
func pause(tried int) { time.Sleep(20 * time.Millisecond << (2 * tried)) }

// group is one transaction for several closures.
//
// It runs them without savepoints first, which cost more than all else that
// SQLite does for a small write. When a closure fails that has written, all
// are run again with savepoints.
type group struct {
	db      *DB
	s       session
	jobs    []*job
	careful bool // with savepoints

	current int      // index of the closure that runs
	marked  bool     // the current closure may have written
	broken  *failure // the transaction is lost
	guilty  int      // which closure broke it, or -1
	numbers numbers
}

// run runs all closures and commits. It returns nil when each job has its
// outcome.
func (g *group) run() *failure {
	ctx := context.WithoutCancel(g.jobs[0].ctx)
	s, err := g.db.store.begin(ctx)
	if err != nil {
		return asFailure(err)
	}
	g.s = s
	over := false
	defer func() {
		if !over {
			s.rollback(ctx)
		}
	}()
	kept := 0
	for i, j := range g.jobs {
		g.current, g.marked = i, false
		j.err, j.commits = nil, nil
		if j.err = g.call(j); j.err == nil && g.broken == nil {
			kept++
		}
		if err := g.settle(ctx, j); err != nil {
			return err
		}
	}
	g.current = -1
	if kept == 0 {
		g.numbers = numbers{} // they will be given again: nobody may have seen them
		return nil
	}
	if err := g.numbers.store(ctx, g); err != nil {
		return asFailure(err)
	}
	if err := s.commit(ctx); err != nil {
		f := asFailure(err)
		g.guilty = f.owner
		return f
	}
	over = true
	return nil
}

// settle keeps or undoes what the current closure did.
func (g *group) settle(ctx context.Context, j *job) *failure {
	if g.broken != nil {
		g.guilty = g.broken.owner
		return g.broken
	}
	if !g.marked || len(g.jobs) == 1 { // a transaction of its own is rolled back as a whole
		return nil
	}
	if j.err == nil {
		if err := g.s.release(ctx); err != nil {
			g.guilty = g.current
			return asFailure(err)
		}
		return nil
	}
	g.numbers.undone(g.current)
	undone, err := g.s.undo(ctx)
	if err != nil {
		g.guilty = g.current
		return asFailure(err)
	}
	if !undone {
		return &failure{err: errCareful, owner: -1, careful: true}
	}
	return nil
}

// errCareful is never seen: the group is run again.
var errCareful = errors.New("a closure failed that had written")

// call runs the closure of j. A panic is its error.
func (g *group) call(j *job) (err error) {
	tx := &Tx{g: g, job: j}
	defer func() {
		tx.g = nil
		for _, r := range tx.open {
			r.Close()
		}
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	if err := j.f(tx); err != nil {
		return err
	}
	return tx.err
}

// mark prepares for the first write of the current closure.
func (g *group) mark(ctx context.Context) error {
	if g.marked {
		return nil
	}
	g.marked = true
	if len(g.jobs) == 1 {
		return nil
	}
	return g.s.mark(ctx, g.careful)
}

func asFailure(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	return &failure{err: err, owner: -1}
}
