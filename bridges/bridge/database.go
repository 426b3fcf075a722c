package bridge

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/rs/zerolog"
	"go.mau.fi/util/dbutil"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// conns is how many connections a bridge keeps to PostgreSQL at most.
const conns = 8

// openDatabase opens a bridge's database and creates it if need be. The second
// result closes what belongs to it.
func openDatabase(ctx context.Context, address, schema string) (*dbutil.Database, func(), error) {
	scheme, rest, _ := strings.Cut(address, ":")
	switch scheme {
	case "sqlite":
		return openSQLite(ctx, rest)
	case "postgres", "postgresql":
		return openPostgres(ctx, address, schema)
	default:
		// The URL may hold a password: do not repeat it.
		return nil, nil, errors.New(`the database of a bridge must start with "sqlite:" or "postgres://"`)
	}
}

func openSQLite(ctx context.Context, path string) (*dbutil.Database, func(), error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open database of the bridge: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, nil, fmt.Errorf("open database of the bridge: %w", err)
	}
	// A writer waits for the others for two minutes, because mautrix drops what it can
	// not write down. On the cards of small machines one write takes a second.
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() +
		"?_pragma=busy_timeout(120000)&_pragma=foreign_keys(1)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"
	raw, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, nil, fmt.Errorf("open database of the bridge: %w", err)
	}
	raw.SetMaxOpenConns(conns)
	raw.SetMaxIdleConns(2)
	return wrap(ctx, raw, "sqlite", func() { _ = raw.Close() })
}

func openPostgres(ctx context.Context, address, schema string) (*dbutil.Database, func(), error) {
	cfg, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, nil, errors.New("the database URL of the bridge cannot be parsed") // err may show the password
	}
	cfg.MaxConns = conns
	name := pgx.Identifier{schema}.Sanitize()
	cfg.ConnConfig.RuntimeParams["search_path"] = name
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("open database of the bridge: %w", err)
	}
	if _, err := pool.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+name); err != nil {
		pool.Close()
		return nil, nil, fmt.Errorf("create schema %s: %w", schema, err)
	}
	// mautrix looks for its tables of versions in all schemas, and would believe
	// those of another bridge to be its own.
	for _, table := range []string{"version", "mx_version"} {
		if _, err := pool.Exec(ctx, "CREATE TABLE IF NOT EXISTS "+name+"."+table+" (version INTEGER, compat INTEGER)"); err != nil {
			pool.Close()
			return nil, nil, fmt.Errorf("create table %s.%s: %w", schema, table, err)
		}
	}
	raw := stdlib.OpenDBFromPool(pool)
	return wrap(ctx, raw, "pgx", func() { _ = raw.Close(); pool.Close() })
}

func wrap(ctx context.Context, raw *sql.DB, dialect string, closer func()) (*dbutil.Database, func(), error) {
	db, err := dbutil.NewWithDB(raw, dialect)
	if err == nil {
		err = raw.PingContext(ctx)
	}
	if err != nil {
		closer()
		return nil, nil, fmt.Errorf("open database of the bridge: %w", err)
	}
	db.Log = dbutil.ZeroLogger(zerolog.Ctx(ctx).With().Str("part", "database").Logger())
	return db, closer, nil
}

// secrets are random values that a bridge makes once and keeps.
type secrets struct {
	asToken, hsToken      string // of the bridge
	puppetToken, puppetHS string // of its registration for double puppets
	mediaKey              string // signs links to media
}

// loadSecrets reads the secrets, and makes them the first time.
func loadSecrets(ctx context.Context, db *dbutil.Database, random func() string) (secrets, error) {
	const create = `CREATE TABLE IF NOT EXISTS bridge_secret (name TEXT PRIMARY KEY, value TEXT NOT NULL)`
	if _, err := db.Exec(ctx, create); err != nil {
		return secrets{}, fmt.Errorf("create table of secrets: %w", err)
	}
	var s secrets
	for name, value := range map[string]*string{
		"as_token": &s.asToken, "hs_token": &s.hsToken,
		"puppet_as_token": &s.puppetToken, "puppet_hs_token": &s.puppetHS, "media_key": &s.mediaKey,
	} {
		// Several processes may start at once on PostgreSQL: the first wins.
		const put = `INSERT INTO bridge_secret (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`
		if _, err := db.Exec(ctx, put, name, random()); err != nil {
			return secrets{}, fmt.Errorf("keep secret: %w", err)
		}
		const get = `SELECT value FROM bridge_secret WHERE name = $1`
		if err := db.QueryRow(ctx, get, name).Scan(value); err != nil {
			return secrets{}, fmt.Errorf("read secret: %w", err)
		}
	}
	return s, nil
}
