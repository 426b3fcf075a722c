package database

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// sqliteBackend is one SQLite file: a connection that writes and a few that
// read. The driver's connections are used without database/sql, which would
// prepare statements again for each of its connections.
type sqliteBackend struct {
	dsn     string
	timeout time.Duration // of the wait for another process's lock
	setup   []string      // for connections that read
	write   *sqliteConn

	tokens chan struct{} // one for each reader at work
	closed chan struct{} // closed when all readers have come back for good
	mu     sync.Mutex    // tier 1; guards idle
	idle   []*sqliteConn
}

// sqliteConn is a connection with its prepared statements.
type sqliteConn struct {
	driver.Conn
	stmts map[string]*sqliteStmt
	args  []driver.NamedValue
}

// sqliteStmt is a prepared statement; busy while rows are read from it.
type sqliteStmt struct {
	driver.Stmt
	busy bool
}

// openSQLite opens the file at path, and creates it for its owner alone.
func openSQLite(ctx context.Context, path string, opts Options) (*sqliteBackend, error) {
	path = strings.TrimPrefix(path, "//")
	if path == "" || strings.HasPrefix(path, ":") {
		return nil, errors.New(`"sqlite:" needs the path of a file`)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	readers := opts.Readers
	if readers <= 0 {
		readers = 8
	}
	cache := opts.CacheBytes
	if cache <= 0 {
		cache = 64 << 20
	}
	synchronous := "FULL"
	if opts.Volatile {
		synchronous = "OFF"
	}
	common := []string{
		fmt.Sprintf("PRAGMA busy_timeout = %d", opts.WriteTimeout.Milliseconds()),
		fmt.Sprintf("PRAGMA cache_size = -%d", cache/int64(readers+3)*3>>10), // the writer's; see below
		"PRAGMA foreign_keys = ON",
		"PRAGMA temp_store = MEMORY",
	}
	b := &sqliteBackend{
		dsn:     "file:" + (&url.URL{Path: path}).EscapedPath(),
		timeout: opts.WriteTimeout,
		tokens:  make(chan struct{}, readers),
		closed:  make(chan struct{}),
		setup: append(common[:len(common):len(common)],
			fmt.Sprintf("PRAGMA cache_size = -%d", cache/int64(readers+3)>>10),
			"PRAGMA query_only = ON"),
	}
	b.write, err = b.connect(ctx, append(common,
		"PRAGMA journal_mode = WAL",
		"PRAGMA synchronous = "+synchronous,
		"PRAGMA wal_autocheckpoint = 4000",     // pages: 16 MB
		"PRAGMA journal_size_limit = 67108864", // what a long reader made it grow to is given back
	))
	return b, err
}

func (b *sqliteBackend) connect(ctx context.Context, setup []string) (*sqliteConn, error) {
	conn, err := (&sqlite.Driver{}).Open(b.dsn)
	if err != nil {
		return nil, err
	}
	c := &sqliteConn{Conn: conn, stmts: map[string]*sqliteStmt{}}
	start := time.Now()
	for _, q := range setup {
		err := c.run(ctx, q)
		// Two processes that make a file at once: here SQLite does not wait
		// of itself.
		for isBusy(err) && time.Since(start) < b.timeout {
			time.Sleep(20 * time.Millisecond)
			err = c.run(ctx, q)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", q, err), conn.Close())
		}
	}
	return c, nil
}

// isBusy reports whether err says that another process has a lock.
func isBusy(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_BUSY
}

// run runs one or more statements that are not worth keeping.
func (c *sqliteConn) run(ctx context.Context, q string) error {
	_, err := c.Conn.(driver.ExecerContext).ExecContext(ctx, q, nil)
	return err
}

// maxStatements bounds the prepared statements of a connection.
const maxStatements = 1024

// prepare returns the prepared statement of q. If rows are still read from
// it, it makes another one, which is closed after use.
func (c *sqliteConn) prepare(q string) (st *sqliteStmt, once bool, err error) {
	st = c.stmts[q]
	if st != nil && !st.busy {
		return st, false, nil
	}
	stmt, err := c.Prepare(q)
	if err != nil {
		return nil, false, err
	}
	if st != nil || len(c.stmts) >= maxStatements {
		return &sqliteStmt{Stmt: stmt}, true, nil
	}
	st = &sqliteStmt{Stmt: stmt}
	c.stmts[q] = st
	return st, false, nil
}

// bind returns args for the driver. The slice is used again by the next call.
func (c *sqliteConn) bind(args []any) ([]driver.NamedValue, error) {
	c.args = c.args[:0]
	for i, a := range args {
		switch x := a.(type) {
		case json.RawMessage:
			a = string(x)
		case []string, []int64: // for json_each
			list, err := json.Marshal(x)
			if err != nil {
				return nil, err
			}
			a = string(list)
		}
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return c.args, nil
}

func (c *sqliteConn) exec(ctx context.Context, q string, args []any) (int64, error) {
	st, once, err := c.prepare(q)
	if err != nil {
		return 0, in(err, q)
	}
	if once {
		defer st.Close()
	}
	values, err := c.bind(args)
	if err != nil {
		return 0, err
	}
	res, err := st.Stmt.(driver.StmtExecContext).ExecContext(ctx, values)
	if err != nil {
		return 0, in(err, q)
	}
	return res.RowsAffected()
}

// query runs q; done is called when the cursor is closed.
func (c *sqliteConn) query(ctx context.Context, q string, args []any, done func()) (cursor, error) {
	st, once, err := c.prepare(q)
	if err != nil {
		return nil, in(err, q)
	}
	values, err := c.bind(args)
	if err != nil {
		return nil, err
	}
	rows, err := st.Stmt.(driver.StmtQueryContext).QueryContext(ctx, values)
	if err != nil {
		if once {
			_ = st.Close()
		}
		return nil, in(err, q)
	}
	st.busy = true
	return &sqliteCursor{rows: rows, st: st, once: once, done: done, ctx: ctx,
		dest: make([]driver.Value, len(rows.Columns()))}, nil
}

func (c *sqliteConn) close() error {
	var errs []error
	for _, st := range c.stmts {
		errs = append(errs, st.Close())
	}
	return errors.Join(append(errs, c.Conn.Close())...)
}

// sqliteCursor implements cursor.
type sqliteCursor struct {
	ctx  context.Context //nolint:containedctx // of the query, as in sql.Rows
	rows driver.Rows
	st   *sqliteStmt
	once bool
	done func()
	dest []driver.Value
}

func (c *sqliteCursor) columns() int { return len(c.dest) }

func (c *sqliteCursor) next(row []value) ([]value, error) {
	if err := c.ctx.Err(); err != nil {
		return row, err
	}
	if err := c.rows.Next(c.dest); err == io.EOF {
		return row, nil
	} else if err != nil {
		return row, err
	}
	for _, v := range c.dest {
		row = append(row, sqliteValue(v))
	}
	return row, nil
}

func sqliteValue(v driver.Value) value {
	switch x := v.(type) {
	case int64:
		return value{kind: integer, n: x}
	case string:
		return value{kind: text, s: x}
	case []byte:
		return value{kind: bytes, b: x}
	case float64:
		return value{kind: float, n: int64(math.Float64bits(x))}
	}
	return value{}
}

func (c *sqliteCursor) close() {
	if c.st == nil {
		return
	}
	_ = c.rows.Close() // it repeats the error of the last step
	c.st.busy = false
	if c.once {
		_ = c.st.Close()
	}
	c.st = nil
	if c.done != nil {
		c.done()
	}
}

// query implements backend.
func (b *sqliteBackend) query(ctx context.Context, st *statement, args []any) (cursor, error) {
	c, err := b.reader(ctx)
	if err != nil {
		return nil, err
	}
	cur, err := c.query(ctx, st.text, args, func() { b.free(c) })
	if err != nil {
		b.free(c)
		return nil, err
	}
	return cur, nil
}

// reader takes a free connection or opens one.
func (b *sqliteBackend) reader(ctx context.Context) (*sqliteConn, error) {
	select {
	case b.tokens <- struct{}{}:
	default:
		select {
		case b.tokens <- struct{}{}:
		case <-b.closed:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	b.mu.Lock()
	if n := len(b.idle); n > 0 {
		c := b.idle[n-1]
		b.idle = b.idle[:n-1]
		b.mu.Unlock()
		return c, nil
	}
	b.mu.Unlock()
	c, err := b.connect(context.WithoutCancel(ctx), b.setup)
	if err != nil {
		<-b.tokens
	}
	return c, err
}

func (b *sqliteBackend) free(c *sqliteConn) {
	b.mu.Lock()
	b.idle = append(b.idle, c)
	b.mu.Unlock()
	<-b.tokens
}

// begin implements backend.
func (b *sqliteBackend) begin(ctx context.Context) (session, error) {
	if _, err := b.write.exec(ctx, "BEGIN IMMEDIATE", nil); err != nil {
		return nil, &failure{err: err, owner: -1, lost: true} // another process writes for too long
	}
	return &sqliteSession{c: b.write}, nil
}

// close implements backend.
func (b *sqliteBackend) close() error {
	var errs []error
	for range cap(b.tokens) { // all readers have come back
		b.tokens <- struct{}{}
	}
	close(b.closed)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.idle {
		errs = append(errs, c.close())
	}
	b.idle = nil
	// The last connection moves everything from the log into the file.
	return errors.Join(append(errs, b.write.close())...)
}

// sqliteSession implements session. A statement that fails undoes itself
// alone; only if SQLite gave up the whole transaction the next end of a
// savepoint fails.
type sqliteSession struct {
	c         *sqliteConn
	savepoint bool
}

func (s *sqliteSession) mark(ctx context.Context, savepoint bool) error {
	s.savepoint = savepoint
	if !savepoint {
		return nil
	}
	return s.plain(ctx, "SAVEPOINT s")
}

func (s *sqliteSession) release(ctx context.Context) error {
	if !s.savepoint {
		return nil
	}
	return s.plain(ctx, "RELEASE s")
}

func (s *sqliteSession) undo(ctx context.Context) (bool, error) {
	if !s.savepoint {
		return false, nil
	}
	if err := s.plain(ctx, "ROLLBACK TO s"); err != nil {
		return false, err
	}
	return true, s.release(ctx)
}

func (s *sqliteSession) plain(ctx context.Context, q string) error {
	_, err := s.c.exec(ctx, q, nil)
	return err
}

func (s *sqliteSession) exec(ctx context.Context, _ int, st *statement, args []any) error {
	_, err := s.c.exec(ctx, st.text, args)
	return err
}

func (s *sqliteSession) count(ctx context.Context, _ int, st *statement, args []any) (int64, error) {
	return s.c.exec(ctx, st.text, args)
}

func (s *sqliteSession) query(ctx context.Context, _ int, st *statement, args []any) (cursor, error) {
	return s.c.query(ctx, st.text, args, nil)
}

func (s *sqliteSession) script(ctx context.Context, _ int, text string) error {
	return s.c.run(ctx, text)
}

func (s *sqliteSession) commit(ctx context.Context) error {
	return s.plain(ctx, "COMMIT")
}

func (s *sqliteSession) rollback(ctx context.Context) {
	_ = s.plain(ctx, "ROLLBACK") // fails when SQLite has done it already
}
