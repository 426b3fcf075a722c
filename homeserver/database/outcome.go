package database

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"
)

// settle finds out what came of a transaction whose connection was lost, as f
// says. It returns nil if it was committed, and else what to do about it.
//
// As long as that is unclear it asks again and again, and nothing else is
// written: what is in the database must not be ahead of what OnCommit keeps in
// memory. A transaction of which COMMIT was not sent only keeps its locks.
func (db *DB) settle(ctx context.Context, f *failure) *failure {
	log := zerolog.Ctx(ctx)
	if f.unclear {
		log.Warn().Err(f.err).Msg("the connection to the database was lost during COMMIT: asking it what came of it")
	}
	ctx = context.WithoutCancel(ctx)
	for tried := 0; ; tried++ {
		committed, err := f.outcome(ctx)
		if err == nil && f.unclear {
			log.Info().Bool("committed", committed).Msg("the database told what came of the COMMIT")
		}
		switch {
		case err == nil && committed:
			return nil
		case err == nil:
			return &failure{err: f.err, owner: -1, lost: true, retry: f.retry}
		case !f.unclear && tried == retries:
			return &failure{err: f.err, owner: -1, lost: true}
		case f.unclear && (db.lane.isClosed() || errors.Is(err, errForgotten)):
			return &failure{err: fmt.Errorf("%w: %w: %w", ErrUnclear, f.err, err), owner: -1, lost: true}
		case f.unclear && tried >= retries:
			db.lane.refuse(fmt.Errorf("the database does not answer: %w", err))
		}
		pause(min(tried, 3))
	}
}

// errForgotten is what a database says of a transaction of long ago.
var errForgotten = errors.New("the database has forgotten the transaction")

const (
	// selectID is the ID of the transaction, which it keeps for ever.
	selectID = `SELECT pg_current_xact_id()::text`

	// endTransaction ends the connection that still has a transaction: the server
	// may not have noticed that nobody is there any more. A COMMIT that it has
	// begun is not interrupted by that.
	endTransaction = `SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE backend_xid = $1::text::xid8::xid`

	selectStatus = `SELECT coalesce(pg_xact_status($1::text::xid8), '')`
)

// outcome tells whether the transaction id was committed, and ends it if it
// still goes on.
func (b *postgresBackend) outcome(ctx context.Context, id string) (committed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, min(b.timeout, 20*time.Second))
	defer cancel()
	conn, err := b.write.Acquire(ctx)
	if err != nil {
		return false, fmt.Errorf("connect: %w", err)
	}
	defer conn.Release()
	_, _ = conn.Exec(ctx, endTransaction, id) // the status shows whether it went well
	var status string
	err = conn.QueryRow(ctx, selectStatus, id).Scan(&status)
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == "22023": // of the future: another server took over, without it
		return false, nil
	case err != nil:
		return false, err
	case status == "":
		return false, errForgotten
	case status == "in progress":
		return false, errors.New("the database does not end the transaction of the lost connection")
	}
	return status == "committed", nil
}
