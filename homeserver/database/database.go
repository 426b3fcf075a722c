package database

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// Options tune a database. The zero value is right for a small server.
type Options struct {
	// Readers is how many queries may run at once beside the writer. 0 means
	// 8 on SQLite and 16 on PostgreSQL.
	Readers int

	// CacheBytes bounds the page caches of all connections to an SQLite file
	// together. 0 means 64 MiB. PostgreSQL has its own.
	CacheBytes int64

	// Batch is how many closures are committed together at most. 0 means 256.
	Batch int

	// Waiting is how many writers may wait; one more gets ErrBusy. 0 means
	// 16384.
	Waiting int

	// WriteTimeout ends a transaction whose database does not answer. 0
	// means a minute. SQLite uses it for the wait for another process's lock.
	WriteTimeout time.Duration

	// Volatile lets a power cut take the last commits, or the whole file. It
	// is for tests.
	Volatile bool

	// Watch is called with the text of each query outside of transactions,
	// from any goroutine. It is for tests; nil for nobody.
	Watch func(q string)
}

// DB is an open database. Its methods may be called from several goroutines.
type DB struct {
	rewriter
	store    backend
	lane     lane
	position atomic.Int64
	watch    func(q string) // Options.Watch
}

// Querier is what reads: a *DB reads what is committed, a *Tx also what it
// wrote itself.
type Querier interface {
	Query(ctx context.Context, q string, args ...any) (*Rows, error)
	QueryRow(ctx context.Context, q string, args ...any) *Row
}

var (
	_ Querier = (*DB)(nil)
	_ Querier = (*Tx)(nil)
)

// backend is one of the two databases.
type backend interface {
	// query runs st on a read connection. The cursor must be closed.
	query(ctx context.Context, st *statement, args []any) (cursor, error)

	// begin starts a transaction on the write connection, of which there is
	// only one: the lane calls it for one transaction at a time.
	begin(ctx context.Context) (session, error)

	// schema returns today's tables as text.
	schema(ctx context.Context, db *DB) (string, error)

	close() error
}

// Open opens the database at url: "sqlite:/path/to/file.db", which is created
// if needed (its folder must exist), or "postgres://user@host/name". It makes
// the tables that this package needs itself; see Migrate for the others.
func Open(ctx context.Context, url string, opts Options) (*DB, error) {
	if opts.WriteTimeout == 0 {
		opts.WriteTimeout = time.Minute
	}
	if opts.Waiting == 0 {
		opts.Waiting = 16384
	}
	if opts.Batch == 0 {
		opts.Batch = 256
	}
	db := &DB{watch: opts.Watch}
	var err error
	switch scheme, rest, _ := strings.Cut(url, ":"); scheme {
	case "sqlite":
		db.dialect = SQLite
		db.store, err = openSQLite(ctx, rest, opts)
	case "postgres", "postgresql":
		db.dialect = PostgreSQL
		db.store, err = openPostgres(ctx, url, opts)
	default:
		// The URL may hold a password: do not repeat it.
		err = errors.New(`the URL must start with "sqlite:" or "postgres://"`)
	}
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db.lane.batch, db.lane.limit = opts.Batch, opts.Waiting
	if err := db.bootstrap(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", err), db.store.close())
	}
	return db, nil
}

// Close lets the writers that wait finish, refuses new ones with ErrClosed and
// closes all connections. It waits for connections that are in use.
func (db *DB) Close() error {
	db.lane.close()
	return db.store.close()
}

// Dialect says which database this is.
func (db *DB) Dialect() Dialect { return db.dialect }

// Position returns the last committed position of the log, as far as this
// process knows: the last one that it wrote itself, or found when it opened
// the database. All rows up to it can be read.
func (db *DB) Position() int64 { return db.position.Load() }

// Query runs q on a connection for reading. See Rows for how long it is kept.
func (db *DB) Query(ctx context.Context, q string, args ...any) (*Rows, error) {
	cur, err := db.cursor(ctx, q, args)
	if err != nil {
		return nil, err
	}
	return newRows(cur), nil
}

// QueryRow runs q, which should find at most one row. Errors come with Scan.
func (db *DB) QueryRow(ctx context.Context, q string, args ...any) *Row {
	cur, err := db.cursor(ctx, q, args)
	if err != nil {
		return &Row{err: err}
	}
	return newRow(cur)
}

func (db *DB) cursor(ctx context.Context, q string, args []any) (cursor, error) {
	if db.watch != nil {
		db.watch(q)
	}
	st, args, err := db.prepare(q, args)
	if err != nil {
		return nil, err
	}
	return db.store.query(ctx, st, args)
}

// prepare returns q and its arguments as the database wants them.
func (db *DB) prepare(q string, args []any) (*statement, []any, error) {
	st, err := db.statement(q)
	if err != nil {
		return nil, nil, err
	}
	if args, err = st.arguments(args); err != nil {
		return nil, nil, in(err, q)
	}
	return st, args, nil
}
