package database

import (
	"context"
	"fmt"
	"strings"
)

// Schema returns today's tables and indexes as text, always in the same order
// and form, for a test that compares it with a file.
func (db *DB) Schema(ctx context.Context) (string, error) {
	s, err := db.store.schema(ctx, db)
	if err != nil {
		return "", fmt.Errorf("schema: %w", err)
	}
	return s, nil
}

// schema implements backend: SQLite keeps the text of what was created.
func (b *sqliteBackend) schema(ctx context.Context, db *DB) (string, error) {
	return lines(ctx, db, `
		SELECT sql || ';' FROM sqlite_schema
		WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'
		ORDER BY tbl_name, type DESC, name`)
}

// schema implements backend.
func (b *postgresBackend) schema(ctx context.Context, db *DB) (string, error) {
	return lines(ctx, db, `
		SELECT line FROM (
			SELECT c.relname AS rel, 1 AS part, a.attnum::bigint AS n, '' AS name,
				c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
				|| CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
				|| coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '') AS line
			FROM pg_class c
			JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
			LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
			WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
			UNION ALL
			SELECT c.relname, 2, 0, k.conname,
				c.relname || ': ' || pg_get_constraintdef(k.oid)
			FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
			WHERE c.relnamespace = current_schema()::regnamespace
			UNION ALL
			SELECT tablename, 3, 0, indexname, indexdef FROM pg_indexes
			WHERE schemaname = current_schema()
			AND indexname NOT IN (SELECT conname FROM pg_constraint)
		) AS parts ORDER BY rel COLLATE "C", part, n, name COLLATE "C"`)
}

// lines returns the first columns of an answer below each other.
func lines(ctx context.Context, db *DB, q string) (string, error) {
	rows, err := db.Query(ctx, q)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var out strings.Builder
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return "", err
		}
		out.WriteString(line + "\n")
	}
	return out.String(), rows.Err()
}
