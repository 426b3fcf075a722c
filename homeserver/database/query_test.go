package database_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
)

type (
	userID string
	number int64
	state  uint64
	flag   bool
	hash   [4]byte
	raw    []byte
)

func ptr[T any](v T) *T { return &v }

// TestValues stores arguments of all kinds and reads them back in all ways
// that make sense, on both databases alike.
func TestValues(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		ctx := t.Context()
		createValues(t, db)
		store := func(column string, v any) {
			t.Helper()
			exec(t, db, `DELETE FROM kinds`)
			exec(t, db, `INSERT INTO kinds (`+column+`) VALUES ($1)`, v)
		}
		load := func(column string, dest any) {
			t.Helper()
			must(t, db.QueryRow(ctx, `SELECT `+column+` FROM kinds`).Scan(dest))
			var inTx error
			must(t, db.Update(ctx, func(tx *database.Tx) error {
				inTx = tx.QueryRow(ctx, `SELECT `+column+` FROM kinds`).Scan(dest)
				return nil
			}))
			must(t, inTx)
		}
		const long = "ünïcödé 🎉 'quoted' $1"
		for _, in := range []any{long, userID(long), ptr(long), json.RawMessage(long), ptr(userID(long))} {
			store("t", in)
			var s string
			var u userID
			var p *string
			var pu *userID
			var b []byte
			var j json.RawMessage
			var r raw
			var a any
			for _, dest := range []any{&s, &u, &p, &pu, &b, &j, &r, &a} {
				load("t", dest)
			}
			if s != long || string(u) != long || *p != long || string(*pu) != long || string(b) != long || string(j) != long || string(r) != long || a != long {
				t.Errorf("%T: got %q %q %q %q %q %q %q %q", in, s, u, *p, *pu, b, j, r, a)
			}
			var n int
			must(t, db.QueryRow(ctx, `SELECT count(*) FROM kinds WHERE t = $1`, in).Scan(&n))
			if n != 1 {
				t.Errorf("%T does not compare as text", in)
			}
		}
		for _, in := range []any{int64(math.MinInt64), number(math.MaxInt64), 42, state(7), uint32(1), ptr(int64(5)), int8(-3)} {
			store("n", in)
			want := strings.TrimPrefix(fmt.Sprint(in), "&")
			if p, ok := in.(*int64); ok {
				want = fmt.Sprint(*p)
			}
			var n int64
			var m number
			var p *int64
			load("n", &n)
			load("n", &m)
			load("n", &p)
			if fmt.Sprint(n, m, *p) != fmt.Sprint(want, want, want) && fmt.Sprint(n) != want {
				t.Errorf("%T %v: got %d %d %d", in, in, n, m, *p)
			}
		}
		for _, in := range []any{true, flag(true), ptr(true)} {
			store("f", in)
			var b bool
			var f flag
			load("f", &b)
			load("f", &f)
			if !b || !bool(f) {
				t.Errorf("%T: got %v %v", in, b, f)
			}
		}
		bytes := string([]byte{0, 1, 0xff, 0})
		for _, in := range []any{[]byte(bytes), raw(bytes), hash{0, 1, 0xff, 0}} {
			store("b", in)
			var b []byte
			var r raw
			load("b", &b)
			load("b", &r)
			if string(b) != bytes || string(r) != bytes {
				t.Errorf("%T: got %x %x", in, b, r)
			}
		}
		store("b", []byte{})
		b := []byte("old")
		if load("b", &b); b == nil || len(b) != 0 {
			t.Errorf("empty bytes became %v", b)
		}
	})
}

func createValues(t *testing.T, db *database.DB) {
	t.Helper()
	blob := map[database.Dialect]string{database.SQLite: "BLOB", database.PostgreSQL: "BYTEA"}[db.Dialect()]
	exec(t, db, `CREATE TABLE kinds (t TEXT, n BIGINT, f BOOLEAN, b `+blob+`)`)
}

func TestNull(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		createValues(t, db)
		exec(t, db, `INSERT INTO kinds (t, n, f, b) VALUES ($1, $2, $3, $4)`, (*string)(nil), nil, (*bool)(nil), []byte(nil))
		s, n, b, a := ptr("old"), ptr(int64(1)), []byte("old"), any("old")
		must(t, db.QueryRow(t.Context(), `SELECT t, n, b, f FROM kinds`).Scan(&s, &n, &b, &a))
		if s != nil || n != nil || b != nil || a != nil {
			t.Errorf("got %v %v %v %v", s, n, b, a)
		}
		for _, dest := range []any{new(string), new(int64), new(bool), new(userID)} {
			if err := db.QueryRow(t.Context(), `SELECT t FROM kinds`).Scan(dest); err == nil {
				t.Errorf("NULL was scanned into %T", dest)
			}
		}
	})
}

// TestAggregates reads what the databases themselves disagree in.
func TestAggregates(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		createValues(t, db)
		exec(t, db, `INSERT INTO kinds (n) VALUES (1), (2), (3000000000)`)
		var sum, one, coalesced int64
		var exists, is bool
		var avg float64
		must(t, db.QueryRow(t.Context(), `SELECT sum(n), 1, coalesce(max(n), 0), EXISTS (SELECT 1 FROM kinds), 1 = 1, avg(n) * 1.0e0 FROM kinds`).
			Scan(&sum, &one, &coalesced, &exists, &is, new(any)))
		must(t, db.QueryRow(t.Context(), `SELECT CAST(0.5 AS DOUBLE PRECISION)`).Scan(&avg))
		if sum != 3000000003 || one != 1 || coalesced != 3000000000 || !exists || !is || avg != 0.5 {
			t.Errorf("got %d %d %d %v %v %v", sum, one, coalesced, exists, is, avg)
		}
	})
}

func TestBadArguments(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		ctx := t.Context()
		createValues(t, db)
		tests := []struct {
			name string
			q    string
			args []any
			want error // nil: any
		}{
			{"U+0000", `SELECT t FROM kinds WHERE t = $1`, []any{"a\x00b"}, database.ErrText},
			{"UTF-8", `SELECT t FROM kinds WHERE t = $1`, []any{userID("a\xff")}, database.ErrText},
			{"in JSON", `SELECT t FROM kinds WHERE t = $1`, []any{json.RawMessage("\x00")}, database.ErrText},
			{"in a list", `SELECT t FROM kinds WHERE t IN LIST($1)`, []any{[]string{"a", "\x00"}}, database.ErrText},
			{"too few", `SELECT t FROM kinds WHERE t = $1`, nil, nil},
			{"too many", `SELECT t FROM kinds WHERE t = $1`, []any{"a", "b"}, nil},
			{"list without LIST", `SELECT t FROM kinds WHERE t = $1`, []any{[]string{"a"}}, nil},
			{"LIST without list", `SELECT t FROM kinds WHERE t IN LIST($1)`, []any{"a"}, nil},
			{"unused", `SELECT t FROM kinds WHERE t = $2`, []any{"a", "b"}, nil},
			{"zero", `SELECT t FROM kinds WHERE t = $0`, nil, nil},
			{"struct", `SELECT t FROM kinds WHERE t = $1`, []any{struct{}{}}, nil},
			{"large", `SELECT t FROM kinds WHERE n = $1`, []any{uint64(math.MaxUint64)}, nil},
			{"syntax", `SELECT FROM WHERE`, nil, nil},
			{"no table", `SELECT 1 FROM nowhere`, nil, nil},
		}
		for _, tt := range tests {
			_, err := readAll(db.Query(ctx, tt.q, tt.args...))
			row := db.QueryRow(ctx, tt.q, tt.args...).Scan(new(any))
			update := db.Update(ctx, func(tx *database.Tx) error {
				_ = tx.QueryRow(ctx, tt.q, tt.args...).Scan(new(any)) // the closure fails all the same
				return nil
			})
			for _, err := range []error{err, row, update} {
				if err == nil || errors.Is(err, database.ErrNoRows) || tt.want != nil && !errors.Is(err, tt.want) {
					t.Errorf("%s: %v", tt.name, err)
				}
			}
		}
		if err := db.QueryRow(ctx, `SELECT t FROM kinds`).Scan(new(any)); !errors.Is(err, database.ErrNoRows) {
			t.Errorf("no rows: %v", err)
		}
		if err := db.QueryRow(ctx, `SELECT 1, 2`).Scan(new(any)); err == nil {
			t.Error("two columns were scanned into one")
		}
	})
}

// readAll returns the first columns of rows as texts.
func readAll(rows *database.Rows, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}

func TestList(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		createValues(t, db)
		for i, s := range []string{"a", `b"\<>&`, "ü", ""} {
			exec(t, db, `INSERT INTO kinds (t, n) VALUES ($1, $2)`, s, i)
		}
		tests := []struct {
			q    string
			args []any
			want string
		}{
			{`SELECT t FROM kinds WHERE t IN LIST($1) ORDER BY n`, []any{[]string{"ü", `b"\<>&`, "x"}}, `b"\<>& ü`},
			{`SELECT t FROM kinds WHERE t in  list ( $1 ) ORDER BY n`, []any{[]userID{"a"}}, `a`},
			{`SELECT t FROM kinds WHERE t NOT IN LIST($1) ORDER BY n`, []any{[]string{"a", ""}}, `b"\<>& ü`},
			{`SELECT t FROM kinds WHERE t IN LIST($1)`, []any{[]string{}}, ``},
			{`SELECT t FROM kinds WHERE t IN LIST($1)`, []any{[]string(nil)}, ``},
			{`SELECT t FROM kinds WHERE t NOT IN LIST($1) AND n = 0`, []any{[]string(nil)}, `a`},
			{`SELECT t FROM kinds WHERE n = $2 AND t <> $3 AND n IN LIST($1) AND n = $2`, []any{[]number{1, 2, 9}, 2, "IN LIST($1)"}, `ü`},
			{`SELECT t FROM kinds WHERE n IN LIST($1) AND t <> 'IN LIST($2)' -- $3 IN LIST($4)`, []any{[]int64{0}}, `a`},
		}
		for _, tt := range tests {
			got, err := readAll(db.Query(t.Context(), tt.q, tt.args...))
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("%s: %q, want %q, error %v", tt.q, got, tt.want, err)
			}
		}
	})
}

// TestLongAnswers reads more rows than are read ahead, in and out of a
// transaction, nested and left early, with a single connection for reading.
func TestLongAnswers(t *testing.T) {
	databasetest.EachURL(t, func(t *testing.T, url string) {
		db, err := database.Open(t.Context(), url, database.Options{Volatile: true, Readers: 1})
		must(t, err)
		defer func() { must(t, db.Close()) }()
		ctx := t.Context()
		createValues(t, db)
		const n = 1000
		must(t, db.Update(ctx, func(tx *database.Tx) error {
			for i := range n {
				if err := tx.Exec(ctx, `INSERT INTO kinds (t, n) VALUES ($1, $2)`, fmt.Sprint(i), i); err != nil {
					return err
				}
			}
			return nil
		}))
		const all, one = `SELECT n FROM kinds ORDER BY n`, `SELECT n FROM kinds WHERE n <= $1 ORDER BY n`
		check := func(q database.Querier, nested bool) {
			t.Helper()
			rows, err := q.Query(ctx, all)
			must(t, err)
			i := 0
			for ; rows.Next(); i++ {
				var got int
				must(t, rows.Scan(&got))
				if got != i {
					t.Fatalf("row %d is %d", i, got)
				}
				if nested && i%300 == 0 {
					inner, err := readAll(q.Query(ctx, `SELECT t FROM kinds WHERE n < 500`))
					if err != nil || len(inner) != 500 {
						t.Fatal(len(inner), err)
					}
					same, err := q.Query(ctx, all)
					must(t, err)
					same.Next()
					same.Close()
				}
			}
			must(t, rows.Err())
			if i != n {
				t.Errorf("%d rows", i)
			}
		}
		check(db, false)
		must(t, db.Update(ctx, func(tx *database.Tx) error { check(tx, true); return nil }))

		// One that is left open ends with its transaction.
		var left *database.Rows
		for range 3 {
			must(t, db.Update(ctx, func(tx *database.Tx) (err error) { left, err = tx.Query(ctx, all); return err }))
			for left.Next() && db.Dialect() == database.SQLite {
				t.Error("rows outlive their transaction")
			}
		}

		// A short answer and one that was closed keep no connection.
		short, err := db.Query(ctx, one, 10)
		must(t, err)
		long, err := db.Query(ctx, all)
		must(t, err)
		long.Next()
		long.Close()
		long.Close()
		if long.Next() {
			t.Error("Next after Close")
		}
		check(db, false)
		if got, err := readAll(short, nil); err == nil || len(got) != 0 { // integers are no texts
			t.Errorf("an integer was scanned into a string: %v", got)
		}

		// Whoever waits for a connection can give up.
		long, err = db.Query(ctx, all)
		must(t, err)
		impatient, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := db.Query(impatient, all); !errors.Is(err, context.Canceled) {
			t.Errorf("without a connection: %v", err)
		}
		long.Close()
	})
}
