package bridgetest

import (
	"database/sql"
	"fmt"
	"testing"
)

// Forget keeps a bridge from writing changes such as "BEFORE INSERT ON message" into
// its SQLite database, as if it had been killed right before each, until remember is
// called. The bridge must have stopped for both.
func Forget(t testing.TB, file string, changes ...string) (remember func()) {
	t.Helper()
	for i, change := range changes {
		execute(t, file, fmt.Sprintf("CREATE TRIGGER forget%d %s BEGIN SELECT RAISE(IGNORE); END", i, change))
	}
	return func() {
		t.Helper()
		for i := range changes {
			execute(t, file, fmt.Sprintf("DROP TRIGGER forget%d", i))
		}
	}
}

// execute changes a database whose bridge has stopped. What was under way there may
// hold it for a moment still.
func execute(t testing.TB, file, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(120000)")
	if err == nil {
		_, err = db.Exec(statement)
		_ = db.Close()
	}
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
