package database

import (
	"strings"
	"testing"
)

func TestRewrite(t *testing.T) {
	tests := []struct{ in, sqlite, postgres string }{
		{`SELECT a FROM t WHERE b = $2 AND c = $1 AND d = $2`, `SELECT a FROM t WHERE b = ? AND c = ? AND d = ?`, ``},
		{`SELECT '$1', "$2", $1 -- $3`, `SELECT '$1', "$2", ? -- $3`, ``},
		{`SELECT 'it''s $1', $1 /* $2 '*/ + $2`, `SELECT 'it''s $1', ? /* $2 '*/ + ?`, ``},
		{`a IN LIST($1) AND b NOT IN LIST($2)`,
			`a IN (SELECT value FROM json_each(?)) AND b NOT IN (SELECT value FROM json_each(?))`,
			`a = ANY($1) AND b <> ALL($2)`},
		{`SELECT a FROM t limit $2 OFFSET $1`, `SELECT a FROM t LIMIT ? + 0 OFFSET ?`, ``},
		{`'open $1`, `'open $1`, ``},
		{`$10 $9 $8 $7 $6 $5 $4 $3 $2 $1`, `? ? ? ? ? ? ? ? ? ?`, ``},
	}
	for _, tt := range tests {
		if tt.postgres == "" {
			tt.postgres = tt.in
		}
		for d, want := range map[Dialect]string{SQLite: tt.sqlite, PostgreSQL: tt.postgres} {
			st, err := rewrite(d, tt.in)
			if err != nil || st.text != want {
				t.Errorf("%s: %s became %s, %v, want %s", d, tt.in, st.text, err, want)
			}
		}
	}
}

func TestRewriteScript(t *testing.T) {
	const in = "CREATE TABLE a (n bigint  PRIMARY KEY, x BLOB, y TEXT DEFAULT 'BLOB') WITHOUT ROWID; -- BLOB\nCREATE TABLE blobs (BIGINT BIGINT)"
	for d, want := range map[Dialect]string{
		SQLite:     strings.Replace(in, "bigint  PRIMARY", "INTEGER  PRIMARY", 1),
		PostgreSQL: strings.Replace(strings.Replace(in, "x BLOB", "x BYTEA", 1), " WITHOUT ROWID", "", 1),
	} {
		if got := rewriteScript(d, in); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}

// FuzzRewrite checks that all that is quoted stays as it is, and that SQLite
// gets as many placeholders as there are arguments in order.
func FuzzRewrite(f *testing.F) {
	f.Add(`SELECT '$1', "x" FROM t WHERE a NOT IN LIST ( $2 ) AND b = $1 -- $3`)
	f.Add(`/* ' */ $1 '--' "`)
	f.Fuzz(func(t *testing.T, q string) {
		if same := mapCode(q, func(code string) string { return code }); same != q {
			t.Errorf("%q was cut into %q", q, same)
		}
		quoted := func(q string) (all []string) {
			for i := 0; i < len(q); i++ {
				if end := quotedEnd(q, i); end > i {
					all = append(all, q[i:end])
					i = end - 1
				}
			}
			return all
		}
		for _, d := range []Dialect{SQLite, PostgreSQL} {
			st, err := rewrite(d, q)
			if err != nil {
				continue
			}
			if a, b := strings.Join(quoted(q), "|"), strings.Join(quoted(st.text), "|"); a != b {
				t.Errorf("%q has the quoted parts %q, and then %q", q, a, b)
			}
			if d == PostgreSQL && len(st.order) != st.args {
				t.Errorf("%q: %d placeholders for %d arguments", q, len(st.order), st.args)
			}
		}
	})
}
