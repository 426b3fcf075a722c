package database

import (
	"errors"
	"fmt"
)

// readAhead is how many rows a query reads before its caller sees the first.
// Most queries are done by then and hold no connection while the caller works.
const readAhead = 256

// cursor yields the rows of one query.
type cursor interface {
	// next appends the columns of the next row to row; at the end it returns
	// row as it is.
	next(row []value) ([]value, error)
	columns() int
	close()
}

// Rows is the answer to a query. Call Next before each row, then Scan; at the
// end look at Err. Rows that are read to the end are closed; others need Close.
//
// A goroutine must not ask for other rows on a *DB while it holds open ones:
// a long answer keeps a connection, and there are only so many.
type Rows struct {
	width int
	ahead []value // rows that were read, one after the other
	at    int     // index in ahead of the row after the current one
	cur   cursor  // nil when there is nothing more to read
	err   error
}

// Row is the answer to a query for one row.
type Row struct {
	values []value
	err    error
}

func newRows(cur cursor) *Rows {
	r := &Rows{width: cur.columns(), cur: cur}
	r.fill()
	return r
}

// fill reads the next rows.
func (r *Rows) fill() {
	r.ahead, r.at = r.ahead[:0], 0
	for range readAhead {
		n := len(r.ahead)
		if r.ahead, r.err = r.cur.next(r.ahead); r.err != nil || len(r.ahead) == n {
			r.cur.close()
			r.cur = nil
			return
		}
	}
}

// Next goes to the next row and reports whether there is one.
func (r *Rows) Next() bool {
	if r.at == len(r.ahead) && r.cur != nil {
		r.fill()
	}
	if r.at == len(r.ahead) {
		return false
	}
	r.at += r.width
	return true
}

// Scan stores the columns of the current row in what dest points to. NULL
// needs a pointer to a pointer, a slice of bytes or an any.
func (r *Rows) Scan(dest ...any) error {
	if r.at < r.width || r.at == 0 {
		return errors.New("scan: Next was not called")
	}
	return scan(r.ahead[r.at-r.width:r.at], dest)
}

// Err returns the error that ended Next early, or nil.
func (r *Rows) Err() error { return r.err }

// Close frees the connection. It may be called more than once.
func (r *Rows) Close() {
	r.at = len(r.ahead)
	if r.cur != nil {
		r.cur.close()
		r.cur = nil
	}
}

// Scan stores the columns of the row in what dest points to. It returns
// ErrNoRows if there is none. Further rows of the answer are ignored.
func (r *Row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	return scan(r.values, dest)
}

// newRow takes the first row of cur and closes it.
func newRow(cur cursor) *Row {
	defer cur.close()
	r := &Row{}
	r.values, r.err = cur.next(make([]value, 0, cur.columns()))
	if r.err == nil && len(r.values) == 0 {
		r.err = ErrNoRows
	}
	return r
}

func scan(row []value, dest []any) error {
	if len(row) != len(dest) {
		return fmt.Errorf("scan: %d columns into %d destinations", len(row), len(dest))
	}
	for i := range dest {
		if err := assign(dest[i], row[i]); err != nil {
			return fmt.Errorf("scan column %d: %w", i+1, err)
		}
	}
	return nil
}
