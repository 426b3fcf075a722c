package database

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Tx is the transaction of one closure of Update. It is valid until the
// closure returns and for one goroutine.
type Tx struct {
	g    *group
	job  *job
	err  error   // the first error of a statement: the closure has failed
	open []*Rows // that may not have been read to the end
}

var errOver = errors.New("the transaction is over")

// Exec runs a statement. PostgreSQL may get it only with the next query or at
// the end, so that an error of the database may show there; the closure fails
// in any case.
func (tx *Tx) Exec(ctx context.Context, q string, args ...any) error {
	st, args, err := tx.writes(ctx, q, args)
	if err != nil {
		return err
	}
	return tx.check(tx.g.s.exec(context.WithoutCancel(ctx), tx.g.current, st, args))
}

// ExecCount runs a statement and returns how many rows it affected.
func (tx *Tx) ExecCount(ctx context.Context, q string, args ...any) (int64, error) {
	st, args, err := tx.writes(ctx, q, args)
	if err != nil {
		return 0, err
	}
	n, err := tx.g.s.count(context.WithoutCancel(ctx), tx.g.current, st, args)
	return n, tx.check(err)
}

// Query runs q, which may also write and return rows. On PostgreSQL the whole
// answer is read into memory. The rows end with the closure.
func (tx *Tx) Query(ctx context.Context, q string, args ...any) (*Rows, error) {
	cur, err := tx.cursor(ctx, q, args)
	if err != nil {
		return nil, err
	}
	rows := newRows(cur)
	if rows.cur != nil {
		tx.open = append(tx.open, rows)
	}
	return rows, tx.check(rows.err)
}

// QueryRow runs q, which should find at most one row. Errors come with Scan.
func (tx *Tx) QueryRow(ctx context.Context, q string, args ...any) *Row {
	cur, err := tx.cursor(ctx, q, args)
	if err != nil {
		return &Row{err: err}
	}
	row := newRow(cur)
	if row.err != nil && !errors.Is(row.err, ErrNoRows) {
		row.err = tx.check(row.err)
	}
	return row
}

// OnCommit has f called after the commit, before Update returns: the functions
// of all closures one after the other, in the order of their positions. It is
// not called when the closure fails. f must be quick and must not call Update.
func (tx *Tx) OnCommit(f func()) { tx.job.commits = append(tx.job.commits, f) }

func (tx *Tx) cursor(ctx context.Context, q string, args []any) (cursor, error) {
	prepare := tx.prepare
	if !isSelect(q) {
		prepare = tx.writes
	}
	st, args, err := prepare(ctx, q, args)
	if err != nil {
		return nil, err
	}
	cur, err := tx.g.s.query(context.WithoutCancel(ctx), tx.g.current, st, args)
	return cur, tx.check(err)
}

// writes is prepare for a statement that may change something.
func (tx *Tx) writes(ctx context.Context, q string, args []any) (*statement, []any, error) {
	st, args, err := tx.prepare(ctx, q, args)
	if err == nil {
		err = tx.check(tx.g.mark(context.WithoutCancel(ctx)))
	}
	return st, args, err
}

func (tx *Tx) prepare(_ context.Context, q string, args []any) (*statement, []any, error) {
	if tx.g == nil {
		return nil, nil, errOver
	}
	if tx.err != nil {
		return nil, nil, tx.err
	}
	st, args, err := tx.g.db.prepare(q, args)
	return st, args, tx.check(err)
}

// check makes the closure fail if a statement did, even if it goes on as if
// nothing had happened.
func (tx *Tx) check(err error) error {
	if err == nil {
		return nil
	}
	var f *failure
	if errors.As(err, &f) {
		tx.g.broken = f
	}
	if tx.err == nil {
		tx.err = err
	}
	return err
}

// isSelect reports whether q only reads.
func isSelect(q string) bool {
	q = strings.TrimLeft(q, " \t\r\n")
	return len(q) > 6 && strings.EqualFold(q[:6], "SELECT")
}

// in adds the beginning of the statement q to its error.
func in(err error, q string) error {
	q = strings.Join(strings.Fields(q), " ")
	if len(q) > 80 {
		q = q[:80] + "…"
	}
	return fmt.Errorf("%w (in %s)", err, q)
}
