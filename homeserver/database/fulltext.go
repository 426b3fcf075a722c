package database

import (
	"regexp"
	"strings"
)

// A full-text index is a table with the columns rowid and words: a virtual table
// of FTS5 on SQLite, whose tokenizer splits at spaces, and a TSVECTOR with a GIN
// index on PostgreSQL. "words HOLD $1" asks it, with the text that Question makes;
// WORDS($1) writes it, with the text that Words makes.

var (
	holdPattern  = regexp.MustCompile(`(?i)\b(\w+)\.words\s+HOLD\s+(\$[0-9]+)`)
	wordsPattern = regexp.MustCompile(`(?i)\bWORDS\((\$[0-9]+)\)`)
)

// fullText gives code with the dialect's own words for full-text indexes.
func (d Dialect) fullText(code string) string {
	if d == SQLite {
		return wordsPattern.ReplaceAllString(holdPattern.ReplaceAllString(code, "${1} MATCH ${2}"), "${1}")
	}
	return wordsPattern.ReplaceAllString(holdPattern.ReplaceAllString(code, "${1}.words @@ ${2}::text::tsquery"), "${1}::text::tsvector")
}

// Words is the argument of WORDS. Words have neither spaces nor quotes.
func (d Dialect) Words(list []string) string {
	if d == SQLite {
		return strings.Join(list, " ")
	}
	var b strings.Builder
	for _, w := range list {
		b.WriteString("'" + w + "' ")
	}
	return b.String()
}

// Word is a word to look for.
type Word struct {
	Text   string
	Prefix bool // any word that begins so will do
}

// Question is the argument of HOLD for the rows that have, of each of the lists, one
// of its words. No list may be empty.
func (d Dialect) Question(all [][]Word) string {
	quote, prefix, or, and := `"`, " * ", " OR ", " AND "
	if d == PostgreSQL {
		quote, prefix, or, and = "'", ":*", " | ", " & "
	}
	var b strings.Builder
	for i, any := range all {
		if i > 0 {
			b.WriteString(and)
		}
		for j, w := range any {
			if b.WriteString(map[bool]string{true: "(", false: or}[j == 0]); w.Prefix {
				b.WriteString(quote + w.Text + quote + prefix)
			} else {
				b.WriteString(quote + w.Text + quote)
			}
		}
		b.WriteByte(')')
	}
	return b.String()
}
