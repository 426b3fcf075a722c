//go:build linux

package database_test

import (
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"switchboard/homeserver/database"
)

// TestDiskFull lets an SQLite file grow no more at a COMMIT: its callers get an
// error, nothing of it is there, also not after a restart, and when there is room
// again the same goes well.
func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	open := func() *database.DB {
		db, err := database.Open(t.Context(), "sqlite:"+path, database.Options{})
		must(t, err)
		return db
	}
	db := open()
	ctx := t.Context()
	exec(t, db, notes)
	must(t, db.Update(ctx, func(tx *database.Tx) error { return put(ctx, tx, "0") }))
	begun, told := db.Position(), 0
	big := strings.Repeat("x", 1<<20)
	store := func(k string) func(tx *database.Tx) error {
		return func(tx *database.Tx) error {
			tx.OnCommit(func() { told++ })
			if err := put(ctx, tx, k); err != nil {
				return err
			}
			return tx.Exec(ctx, `UPDATE notes SET v = $1 WHERE k = $2`, big, k)
		}
	}
	log, err := os.Stat(path + "-wal")
	must(t, err)
	free := limit(t, uint64(log.Size())+100_000)
	errs := together(t, db, store("a"), store("b"))
	free()
	for _, err := range errs {
		if err == nil {
			t.Error("stored on a full disk")
		}
	}
	if n := count(t, db, "notes"); n != 1 || told != 0 || db.Position() != begun {
		t.Errorf("%d rows and told %d times at position %d, want 1 row at %d", n, told, db.Position(), begun)
	}
	must(t, db.Update(ctx, store("a")))
	must(t, db.Close())
	db = open()
	defer func() { must(t, db.Close()) }()
	if n := count(t, db, "notes"); n != 2 || told != 1 || db.Position() != begun+1 {
		t.Errorf("%d rows and told %d times at position %d, want 2 rows at %d", n, told, db.Position(), begun+1)
	}
	var sound string
	must(t, db.QueryRow(ctx, `PRAGMA integrity_check`).Scan(&sound))
	if sound != "ok" {
		t.Error(sound)
	}
}

// limit keeps all files of this process below a size until the function that it
// returns is called.
func limit(t *testing.T, size uint64) (free func()) {
	t.Helper()
	var old syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old))
	signal.Ignore(syscall.SIGXFSZ)
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: old.Max}))
	return func() {
		t.Helper()
		must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old))
		signal.Reset(syscall.SIGXFSZ)
	}
}
