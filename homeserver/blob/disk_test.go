package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
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

func TestPutOpen(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "media"))
	ctx := t.Context()
	for _, content := range []string{"", "a", "a", strings.Repeat("switchboard", 100000)} {
		name, size, err := d.Put(ctx, iotest.HalfReader(strings.NewReader(content)), int64(len(content)))
		if err != nil {
			t.Fatal(err)
		}
		if name != sha256.Sum256([]byte(content)) || size != int64(len(content)) {
			t.Errorf("%d bytes have the digest %s and the size %d", len(content), name, size)
		}
		f, size, err := d.Open(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Seek(size/2, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		half, err := io.ReadAll(f)
		if err != nil || string(half) != content[size/2:] || size != int64(len(content)) {
			t.Errorf("read %d of %d bytes: %v", len(half), size, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
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

func TestPutFails(t *testing.T) {
	d := open(t, t.TempDir())
	dead, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("the client hung up")
	tests := []struct {
		name  string
		ctx   context.Context
		r     io.Reader
		limit int64
		want  error
	}{
		{"too large", t.Context(), strings.NewReader("12345"), 4, ErrTooLarge},
		{"nothing allowed", t.Context(), strings.NewReader("1"), 0, ErrTooLarge},
		{"reader fails", t.Context(), io.MultiReader(strings.NewReader("123"), iotest.ErrReader(broken)), 100, broken},
		{"context ended", dead, strings.NewReader("123"), 100, context.Canceled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := d.Put(tt.ctx, tt.r, tt.limit); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if n := uploads(t, d); n != 0 {
				t.Errorf("%d unfinished files", n)
			}
			if err := d.Walk(t.Context(), func(i Info) error { return fmt.Errorf("stored %s", i.Digest) }); err != nil {
				t.Error(err)
			}
		})
	}
	for _, limit := range []int64{-1, 1<<63 - 1} {
		if _, _, err := d.Put(t.Context(), strings.NewReader("12345"), limit); err != nil {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

func TestDeleteWalk(t *testing.T) {
	d := open(t, t.TempDir())
	ctx := t.Context()
	var want []string
	for i := range 20 {
		name, _, err := d.Put(ctx, bytes.NewReader(make([]byte, i)), 100)
		if err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			for range 2 { // the second time it is gone
				if err := d.Delete(ctx, name); err != nil {
					t.Fatal(err)
				}
			}
			if _, _, err := d.Open(ctx, name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a deleted blob: %v", err)
			}
			continue
		}
		want = append(want, fmt.Sprint(name, i))
	}
	if err := os.WriteFile(filepath.Join(d.dir, "README"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	var got []string
	started := time.Now().Add(-time.Minute).UnixMilli()
	err := d.Walk(ctx, func(i Info) error {
		got = append(got, fmt.Sprint(i.Digest, i.Size))
		if i.Put < started {
			t.Errorf("put at %d", i.Put)
		}
		return nil
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Walk gave %v, want %v, error %v", got, want, err)
	}
	stop := errors.New("stop")
	if err := d.Walk(ctx, func(Info) error { return stop }); err != stop {
		t.Errorf("Walk returned %v", err)
	}
}

func TestOpenDiskCleans(t *testing.T) {
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
	d = open(t, dir)
	entries, err := os.ReadDir(d.uploads())
	if err != nil || len(entries) != 1 || entries[0].Name() != "running" {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestPutAtOnce(t *testing.T) {
	d := open(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			name, _, err := d.Put(t.Context(), strings.NewReader(strings.Repeat("x", i%4)), 10)
			if err != nil {
				t.Error(err)
				return
			}
			f, _, err := d.Open(t.Context(), name)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if b, err := io.ReadAll(f); err != nil || len(b) != i%4 {
				t.Errorf("%d bytes, want %d, %v", len(b), i%4, err)
			}
		})
	}
	wg.Wait()
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
