package database

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// postgresBackend is a PostgreSQL database: a pool for reading, and one
// connection for writing, which thus has all its statements prepared.
type postgresBackend struct {
	read, write *pgxpool.Pool
	timeout     time.Duration
}

func openPostgres(ctx context.Context, url string, opts Options) (*postgresBackend, error) {
	pool := func(conns int) (*pgxpool.Pool, error) {
		cfg, err := pgxpool.ParseConfig(url)
		if err != nil {
			return nil, errors.New("the postgres URL cannot be parsed") // err may show the password
		}
		cfg.MaxConns = int32(conns)
		cfg.ConnConfig.StatementCacheCapacity = maxStatements
		if cfg.ConnConfig.ConnectTimeout == 0 {
			cfg.ConnConfig.ConnectTimeout = 10 * time.Second
		}
		params := cfg.ConnConfig.RuntimeParams
		if params["application_name"] == "" {
			params["application_name"] = "switchboard"
		}
		params["timezone"] = "UTC"
		if opts.Volatile {
			params["synchronous_commit"] = "off"
		}
		return pgxpool.NewWithConfig(ctx, cfg)
	}
	readers := opts.Readers
	if readers <= 0 {
		readers = 16
	}
	read, err := pool(readers)
	if err != nil {
		return nil, err
	}
	write, err := pool(1)
	if err != nil {
		read.Close()
		return nil, err
	}
	return &postgresBackend{read: read, write: write, timeout: opts.WriteTimeout}, nil
}

// close implements backend.
func (b *postgresBackend) close() error {
	b.read.Close()
	b.write.Close()
	return nil
}

// query implements backend.
func (b *postgresBackend) query(ctx context.Context, st *statement, args []any) (cursor, error) {
	rows, err := b.read.Query(ctx, st.text, args...)
	if err != nil {
		return nil, in(err, st.text)
	}
	cur := &postgresCursor{rows: rows, types: rows.Conn().TypeMap(), text: st.text}
	if cur.columns() == 0 { // an error that shows with the first row
		rows.Next()
		if err := cur.err(); err != nil {
			rows.Close()
			return nil, err
		}
	}
	return cur, nil
}

// postgresCursor implements cursor over an open query.
type postgresCursor struct {
	rows  pgx.Rows
	types *pgtype.Map
	text  string
}

func (c *postgresCursor) columns() int { return len(c.rows.FieldDescriptions()) }
func (c *postgresCursor) close()       { c.rows.Close() }

func (c *postgresCursor) err() error {
	if err := c.rows.Err(); err != nil {
		return in(err, c.text)
	}
	return nil
}

func (c *postgresCursor) next(row []value) ([]value, error) {
	if !c.rows.Next() {
		return row, c.err()
	}
	return appendPostgresRow(row, c.types, c.rows)
}

// appendPostgresRow appends the current row of rows. Its texts and bytes share
// one copy of what the connection received.
func appendPostgresRow(row []value, types *pgtype.Map, rows pgx.Rows) ([]value, error) {
	raw := rows.RawValues()
	size := 0
	for _, b := range raw {
		size += len(b)
	}
	arena := make([]byte, 0, size)
	for i, f := range rows.FieldDescriptions() {
		start := len(arena)
		arena = append(arena, raw[i]...)
		b := arena[start:len(arena):len(arena)]
		if raw[i] == nil {
			b = nil
		}
		v, err := postgresValue(types, f, b)
		if err != nil {
			return row, fmt.Errorf("column %s: %w", f.Name, err)
		}
		row = append(row, v)
	}
	return row, nil
}

func postgresValue(types *pgtype.Map, f pgconn.FieldDescription, b []byte) (value, error) {
	if b == nil {
		return value{}, nil
	}
	binaryForm := f.Format == pgtype.BinaryFormatCode
	switch f.DataTypeOID {
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.BPCharOID, pgtype.NameOID, pgtype.UnknownOID, pgtype.JSONOID:
		return value{kind: text, s: string(b)}, nil
	case pgtype.ByteaOID:
		if binaryForm {
			return value{kind: bytes, b: b}, nil
		}
	case pgtype.Int8OID:
		if binaryForm && len(b) == 8 {
			return value{kind: integer, n: int64(binary.BigEndian.Uint64(b))}, nil
		}
	case pgtype.BoolOID:
		if binaryForm && len(b) == 1 {
			return value{kind: boolean, n: int64(b[0])}, nil
		}
	case pgtype.Float4OID, pgtype.Float8OID:
		var x float64
		err := types.Scan(f.DataTypeOID, f.Format, b, &x)
		return value{kind: float, n: int64(math.Float64bits(x))}, err
	}
	// Everything else that our statements can yield is a number: smaller
	// integers, and numeric, which is the sum of BIGINTs.
	var n int64
	err := types.Scan(f.DataTypeOID, f.Format, b, &n)
	return value{kind: integer, n: n}, err
}

// postgresArguments returns args for pgx.
func postgresArguments(args []any) []any {
	for i, a := range args {
		if j, ok := a.(json.RawMessage); ok {
			args[i] = []byte(j)
		}
	}
	return args
}

// begin implements backend.
func (b *postgresBackend) begin(ctx context.Context) (session, error) {
	conn, err := b.write.Acquire(ctx)
	if err != nil {
		return nil, &failure{err: fmt.Errorf("connect: %w", err), owner: -1, lost: true, retry: true}
	}
	s := &postgresSession{b: b, conn: conn, batch: &pgx.Batch{}, marked: -1}
	s.deadline(time.Now().Add(b.timeout))
	s.queue(-1, "BEGIN")
	s.queue(-1, selectID)
	return s, nil
}

// maxQueued is how many statements are queued before they are sent anyway.
const maxQueued = 1000

// postgresSession implements session. Statements are queued and sent together
// when a result is needed.
type postgresSession struct {
	b      *postgresBackend
	conn   *pgxpool.Conn
	batch  *pgx.Batch
	owners []int  // of the queued statements
	begun  bool   // something was sent
	id     string // of the transaction, by which its outcome is found; "" until known
	ending bool   // COMMIT is in the queue

	savepoint bool // the current closure has one
	marked    int  // how long the queue was at its mark; -1 when it was sent since
}

func (s *postgresSession) deadline(t time.Time) {
	_ = s.conn.Conn().PgConn().Conn().SetDeadline(t) // a closed connection shows at its next use
}

func (s *postgresSession) queue(owner int, q string, args ...any) {
	s.batch.Queue(q, args...)
	s.owners = append(s.owners, owner)
}

func (s *postgresSession) mark(_ context.Context, savepoint bool) error {
	s.savepoint, s.marked = savepoint, s.batch.Len()
	if savepoint {
		s.queue(-1, "SAVEPOINT s")
	}
	return nil
}

func (s *postgresSession) release(context.Context) error {
	if s.savepoint {
		s.queue(-1, "RELEASE s")
	}
	return nil
}

// undo forgets what was not yet sent since the mark, if that is all of it.
func (s *postgresSession) undo(context.Context) (bool, error) {
	switch {
	case s.marked >= 0:
		s.batch.QueuedQueries = s.batch.QueuedQueries[:s.marked]
		s.owners = s.owners[:s.marked]
		return true, nil
	case s.savepoint:
		s.queue(-1, "ROLLBACK TO s")
		s.queue(-1, "RELEASE s")
		return true, nil
	}
	return false, nil
}

func (s *postgresSession) exec(ctx context.Context, owner int, st *statement, args []any) error {
	s.queue(owner, st.text, postgresArguments(args)...)
	if s.batch.Len() < maxQueued {
		return nil
	}
	_, err := s.flush(ctx, nil)
	return err
}

func (s *postgresSession) count(ctx context.Context, owner int, st *statement, args []any) (int64, error) {
	s.queue(owner, st.text, postgresArguments(args)...)
	tag, err := s.flush(ctx, nil)
	return tag.RowsAffected(), err
}

func (s *postgresSession) query(ctx context.Context, owner int, st *statement, args []any) (cursor, error) {
	s.queue(owner, st.text, postgresArguments(args)...)
	answer := &memory{}
	_, err := s.flush(ctx, answer)
	return answer, err
}

func (s *postgresSession) script(ctx context.Context, owner int, text string) error {
	if _, err := s.flush(ctx, nil); err != nil {
		return err
	}
	if _, err := s.conn.Conn().PgConn().Exec(ctx, text).ReadAll(); err != nil {
		return s.failure(owner, err)
	}
	return nil
}

// flush sends all queued statements. The rows of the last one go to answer,
// unless that is nil; its tag is returned.
func (s *postgresSession) flush(ctx context.Context, answer *memory) (tag pgconn.CommandTag, err error) {
	n := s.batch.Len()
	if n == 0 {
		return tag, nil
	}
	batch, owners, first := s.batch, s.owners, !s.begun
	s.batch, s.owners, s.marked, s.begun = &pgx.Batch{}, nil, -1, true
	res := s.conn.SendBatch(ctx, batch)
	for i := range n {
		if i == n-1 && answer != nil {
			err = answer.read(res, s.conn.Conn().TypeMap())
		} else if first && i == 1 {
			err = res.QueryRow().Scan(&s.id)
		} else {
			tag, err = res.Exec()
		}
		if err != nil {
			_ = res.Close() // the same error
			return tag, s.failure(guilty(owners, i), in(err, batch.QueuedQueries[i].SQL))
		}
	}
	if err := res.Close(); err != nil {
		return tag, s.failure(-1, err)
	}
	return tag, nil
}

// guilty returns whose statement failed, the i-th. An error of the first may
// be one of preparing any of them.
func guilty(owners []int, i int) int {
	if i > 0 && owners[i] >= 0 {
		return owners[i]
	}
	only := -1
	for _, o := range owners {
		if o >= 0 && only >= 0 && o != only {
			return -1
		}
		only = max(only, o)
	}
	return only
}

// failure says what is to be done about err.
func (s *postgresSession) failure(owner int, err error) *failure {
	f := &failure{err: err, owner: owner}
	var pg *pgconn.PgError
	switch {
	case s.conn.Conn().IsClosed(): // also after an error, when the server shuts down
		f.lost, f.retry, f.unclear = true, !pgconn.Timeout(err), s.ending
		if id := s.id; id != "" {
			f.outcome = func(ctx context.Context) (bool, error) { return s.b.outcome(ctx, id) }
		}
	case errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01"): // serialization failure, deadlock
		f.retry = true
	}
	return f
}

// commit implements session. COMMIT is not sent before the ID of the transaction
// is known: otherwise nobody could tell what came of it if the answer is lost.
func (s *postgresSession) commit(ctx context.Context) error {
	if s.id == "" {
		if _, err := s.flush(ctx, nil); err != nil {
			return err
		}
	}
	s.ending = true
	s.queue(-1, "COMMIT")
	tag, err := s.flush(ctx, nil)
	if err != nil {
		return err
	}
	if tag.String() != "COMMIT" {
		return &failure{err: fmt.Errorf("commit: the database answered %s", tag), owner: -1}
	}
	s.end()
	return nil
}

func (s *postgresSession) rollback(ctx context.Context) {
	if conn := s.conn.Conn(); s.begun && !conn.IsClosed() {
		if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
			_ = conn.Close(ctx) // the pool makes another one
		}
	}
	s.end()
}

func (s *postgresSession) end() {
	s.deadline(time.Time{})
	s.conn.Release()
}

// memory implements cursor over an answer that was read as a whole.
type memory struct {
	width  int
	values []value
}

func (m *memory) read(res pgx.BatchResults, types *pgtype.Map) error {
	rows, err := res.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	m.width = len(rows.FieldDescriptions())
	for rows.Next() {
		if m.values, err = appendPostgresRow(m.values, types, rows); err != nil {
			return err
		}
	}
	rows.Close()
	return rows.Err()
}

func (m *memory) columns() int { return m.width }
func (m *memory) close()       {}

func (m *memory) next(row []value) ([]value, error) {
	n := min(m.width, len(m.values))
	row = append(row, m.values[:n]...)
	m.values = m.values[n:]
	return row, nil
}
