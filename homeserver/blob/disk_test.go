package blob

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, dir string) *Disk {
	t.Helper()
	d, err := OpenDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// uploads returns how many unfinished files there are.
func uploads(t *testing.T, d *Disk) int {
	t.Helper()
	entries, err := os.ReadDir(d.uploads())
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestDiskFiles: nobody else may read what is on the disk, and nothing unfinished
// stays.
func TestDiskFiles(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "media"))
	if _, _, err := d.Put(t.Context(), strings.NewReader("a"), -1, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Put(t.Context(), strings.NewReader("too large"), 3, nil); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	if n := uploads(t, d); n != 0 {
		t.Errorf("%d unfinished files", n)
	}
	err := filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[e.IsDir()]; err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestDiskWalk passes over files that are no blobs, and goes in order.
func TestDiskWalk(t *testing.T) {
	d := open(t, t.TempDir())
	for i := range 20 {
		if _, _, err := d.Put(t.Context(), strings.NewReader(strings.Repeat("x", i)), -1, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"README", "ab/README"} {
		if err := os.WriteFile(filepath.Join(d.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(t, d); len(got) != 20 || !slices.IsSorted(got) {
		t.Errorf("Walk gave %v", got)
	}
}

func TestDiskCleans(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	for name, age := range map[string]time.Duration{"crashed": 2 * time.Hour, "running": time.Minute} {
		path := filepath.Join(d.uploads(), name)
		if err := os.WriteFile(path, []byte("half of a picture"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Clean(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(d.uploads())
	if err != nil || len(entries) != 1 || entries[0].Name() != "running" {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// FuzzParseDigest checks that an accepted digest is spelled as String does.
func FuzzParseDigest(f *testing.F) {
	f.Add(Digest{1, 2, 255}.String())
	f.Add(strings.ToUpper(Digest{255}.String()))
	f.Add("../../etc/passwd")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if err == nil && d.String() != s {
			t.Errorf("%q came back as %q", s, d)
		}
	})
}
