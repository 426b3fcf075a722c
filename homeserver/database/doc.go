// Package database gives the homeserver one small querier over two databases:
// SQLite in the process (no cgo) and PostgreSQL through pgx's own pool. It
// knows connections, the differences of the two dialects, transactions,
// migrations and positions. It knows no table of the homeserver but its own
// three: streams, counters and migrations.
//
// # SQL
//
// One text serves both databases. Placeholders are $1, $2 …; "IN LIST($2)"
// and "NOT IN LIST($2)" take a slice of strings or integers. Migrations write
// BLOB for bytes, BIGINT PRIMARY KEY for a table that is ordered by its
// number, and may end a table with WITHOUT ROWID; each database gets its own
// words for it.
//
// A full-text index is a table with the columns rowid and words, which each
// database makes its own way: "words HOLD $1" asks it with what
// [Dialect.Question] makes, WORDS($1) writes what [Dialect.Words] makes.
//
// Arguments may be integers, strings, booleans, []byte, json.RawMessage, named
// types of these kinds and pointers to them (nil is NULL, as is a nil slice of
// bytes). json.RawMessage is text, []byte is bytes. Time is int64
// milliseconds. The same destinations can be scanned. Text must be valid UTF-8
// and without U+0000, because PostgreSQL cannot hold anything else; see
// [ErrText].
//
// # Writing
//
// All writes of a process go through one lane, see [DB.Update]: writers queue,
// and whoever is first takes everything that waits and commits it at once. No
// goroutine is needed for that: the first of the waiting callers does the work
// for the others and then hands the lane on. A process may have any number of
// writers; more of them make larger commits, not more of them.
//
// Update knows what came of a COMMIT also when the connection was lost before
// its answer: PostgreSQL keeps the fate of each transaction under its ID, which
// is asked for before COMMIT is sent. So what a caller does after Update, and
// what OnCommit keeps in memory, is never behind the database.
//
// # Positions
//
// The server has one log with one position, see [Tx.NextPosition]. Numbers for
// surrogate keys come from named counters, see [Tx.NextNumber]. Both are
// serialized by one locked row, so that they are correct with several
// processes over one PostgreSQL.
package database
