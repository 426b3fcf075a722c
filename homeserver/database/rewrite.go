package database

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Dialect is the kind of a database.
type Dialect int

// The databases that we know.
const (
	SQLite Dialect = iota
	PostgreSQL
)

// String returns the dialect's name as its own makers write it.
func (d Dialect) String() string {
	if d == PostgreSQL {
		return "PostgreSQL"
	}
	return "SQLite"
}

// statement is an SQL text in the words of one dialect.
type statement struct {
	text  string
	order []placeholder // what the database's placeholders stand for
	args  int           // how many arguments the caller gives
}

type placeholder struct {
	arg  int // from 0
	list bool
}

// rewriter translates SQL texts and remembers them. The texts of a program are
// constants, so the memory is bounded; maxTexts guards against texts that are
// made up as they go.
type rewriter struct {
	dialect Dialect
	known   sync.Map // string -> *statement
	count   atomic.Int64
}

const maxTexts = 4096

var (
	listPattern        = regexp.MustCompile(`(?i)\b(NOT\s+)?IN\s+LIST\s*\(\s*\$([0-9]+)\s*\)`)
	limitPattern       = regexp.MustCompile(`(?i)\bLIMIT\s+(\$[0-9]+)`)
	placeholderPattern = regexp.MustCompile(`\$[0-9]+`)
	blobPattern        = regexp.MustCompile(`(?i)\bBLOB\b`)
	rowidPattern       = regexp.MustCompile(`(?i)\s*\bWITHOUT\s+ROWID\b`)
	bigKeyPattern      = regexp.MustCompile(`(?i)\bBIGINT(\s+)PRIMARY\s+KEY\b`)
)

// statement returns q in the words of the dialect.
func (r *rewriter) statement(q string) (*statement, error) {
	if st, ok := r.known.Load(q); ok {
		return st.(*statement), nil
	}
	st, err := rewrite(r.dialect, q)
	if err != nil {
		return nil, err
	}
	if r.count.Load() < maxTexts {
		if _, loaded := r.known.LoadOrStore(q, st); !loaded {
			r.count.Add(1)
		}
	}
	return st, nil
}

func rewrite(d Dialect, q string) (*statement, error) {
	st := &statement{}
	lists := map[int]bool{}
	q = mapCode(q, func(code string) string {
		return listPattern.ReplaceAllStringFunc(code, func(m string) string {
			sub := listPattern.FindStringSubmatch(m)
			n, _ := strconv.Atoi(sub[2])
			lists[n-1] = true
			switch {
			case d == SQLite:
				return sub[1] + "IN (SELECT value FROM json_each($" + sub[2] + "))"
			case sub[1] != "":
				return "<> ALL($" + sub[2] + ")"
			default:
				return "= ANY($" + sub[2] + ")"
			}
		})
	})
	used := map[int]bool{}
	st.text = mapCode(q, func(code string) string {
		code = d.fullText(code)
		if d == SQLite { // which plans for each value of a limit anew, unless it is an expression
			code = limitPattern.ReplaceAllString(code, "LIMIT ${1} + 0")
		}
		return placeholderPattern.ReplaceAllStringFunc(code, func(m string) string {
			n, _ := strconv.Atoi(m[1:])
			st.args = max(st.args, n)
			used[n-1] = true
			if d == SQLite {
				st.order = append(st.order, placeholder{arg: n - 1, list: lists[n-1]})
				return "?"
			}
			return m
		})
	})
	for i := range st.args {
		if !used[i] {
			return nil, fmt.Errorf("placeholder $%d is not used in %q", i+1, q)
		}
		if d == PostgreSQL {
			st.order = append(st.order, placeholder{arg: i, list: lists[i]})
		}
	}
	if used[-1] {
		return nil, fmt.Errorf("placeholders start at $1 in %q", q)
	}
	return st, nil
}

// rewriteScript translates the text of a migration.
func rewriteScript(d Dialect, q string) string {
	return mapCode(q, func(code string) string {
		if d == SQLite {
			return bigKeyPattern.ReplaceAllString(code, "INTEGER${1}PRIMARY KEY")
		}
		code = blobPattern.ReplaceAllString(code, "BYTEA")
		return rowidPattern.ReplaceAllString(code, "")
	})
}

// mapCode returns q with f applied to all that is neither a string, a quoted
// name nor a comment.
func mapCode(q string, f func(code string) string) string {
	var out strings.Builder
	start := 0 // of the code that is not yet written
	for i := 0; i < len(q); {
		end := quotedEnd(q, i)
		if end == i {
			i++
			continue
		}
		out.WriteString(f(q[start:i]))
		out.WriteString(q[i:end])
		i, start = end, end
	}
	out.WriteString(f(q[start:]))
	return out.String()
}

// quotedEnd returns the end of the string, quoted name or comment that starts
// at i, or i when none does.
func quotedEnd(q string, i int) int {
	until := func(from int, mark string) int {
		if n := strings.Index(q[from:], mark); n >= 0 {
			return from + n + len(mark)
		}
		return len(q)
	}
	switch {
	case q[i] == '\'':
		return until(i+1, "'") // a doubled quote starts the next string at once
	case q[i] == '"':
		return until(i+1, `"`)
	case strings.HasPrefix(q[i:], "--"):
		return until(i, "\n")
	case strings.HasPrefix(q[i:], "/*"):
		return until(i+2, "*/")
	}
	return i
}
