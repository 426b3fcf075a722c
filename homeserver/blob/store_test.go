package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"switchboard/cmd/dev/s3"
)

// each runs f on each kind of store.
func each(t *testing.T, f func(t *testing.T, s Store)) {
	t.Helper()
	t.Run("disk", func(t *testing.T) { f(t, open(t, t.TempDir())) })
	t.Run("both", func(t *testing.T) { f(t, Both{open(t, t.TempDir()), open(t, t.TempDir())}) })
	t.Run("S3", func(t *testing.T) { f(t, bucket(t, s3.Start(t), nil)) })
}

// bucket opens the bucket of a server, perhaps with another configuration.
func bucket(t *testing.T, server *s3.Server, edit func(*S3Config)) *S3 {
	t.Helper()
	c := S3Config{Endpoint: server.URL, Region: s3.Region, Bucket: s3.Bucket, Prefix: "some/", AccessKey: s3.AccessKey, SecretKey: s3.SecretKey}
	if edit != nil {
		edit(&c)
	}
	s, err := OpenS3(c, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// list gives the names and sizes of all blobs.
func list(t *testing.T, s Store) (found []string) {
	t.Helper()
	err := s.Walk(t.Context(), func(i Info) error {
		found = append(found, fmt.Sprint(i.Digest, i.Size))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestPutOpen(t *testing.T) {
	each(t, func(t *testing.T, s Store) {
		ctx := t.Context()
		for _, content := range []string{"", "a", "a", strings.Repeat("switchboard", 100000)} {
			name, size, err := s.Put(ctx, iotest.HalfReader(strings.NewReader(content)), int64(len(content)), nil)
			if err != nil {
				t.Fatal(err)
			}
			if name != sha256.Sum256([]byte(content)) || size != int64(len(content)) {
				t.Errorf("%d bytes have the digest %s and the size %d", len(content), name, size)
			}
			f, size, err := s.Open(ctx, name)
			if err != nil {
				t.Fatal(err)
			}
			if size != int64(len(content)) {
				t.Errorf("%d of %d bytes", size, len(content))
			}
			for _, from := range []int64{size / 2, 0, size, size / 3} {
				if _, err := f.Seek(from-size, io.SeekEnd); err != nil {
					t.Fatal(err)
				}
				if rest, err := io.ReadAll(f); err != nil || string(rest) != content[from:] {
					t.Errorf("read %d of %d bytes from %d: %v", len(rest), size, from, err)
				}
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := Probe(ctx, s); err != nil {
			t.Error(err)
		}
		if n := len(list(t, s)); n != 3 {
			t.Errorf("%d blobs, want 3", n)
		}
	})
}

func TestPutFails(t *testing.T) {
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
	each(t, func(t *testing.T, s Store) {
		for _, tt := range tests {
			if _, _, err := s.Put(tt.ctx, tt.r, tt.limit, nil); !errors.Is(err, tt.want) {
				t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
			}
			if left := list(t, s); len(left) > 0 {
				t.Errorf("%s: stored %v", tt.name, left)
			}
			if again, ok := tt.r.(io.Seeker); ok { // for the next store
				if _, err := again.Seek(0, io.SeekStart); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, limit := range []int64{-1, 1<<63 - 1} {
			if _, _, err := s.Put(t.Context(), strings.NewReader("12345"), limit, nil); err != nil {
				t.Errorf("limit %d: %v", limit, err)
			}
		}
	})
}

func TestDeleteWalk(t *testing.T) {
	each(t, func(t *testing.T, s Store) {
		ctx := t.Context()
		started := time.Now().Add(-time.Minute).UnixMilli() // whatever parts of a second a place keeps
		var want []string
		for i := range 20 {
			name, _, err := s.Put(ctx, bytes.NewReader(make([]byte, i)), 100, nil)
			if err != nil {
				t.Fatal(err)
			}
			if i%3 == 0 {
				for range 2 { // the second time it is gone
					if err := s.Delete(ctx, name); err != nil {
						t.Fatal(err)
					}
				}
				if _, _, err := s.Open(ctx, name); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("a deleted blob: %v", err)
				}
				continue
			}
			want = append(want, fmt.Sprint(name, i))
		}
		slices.Sort(want)
		got := list(t, s)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("Walk gave %v, want %v", got, want)
		}
		stop := errors.New("stop")
		err := s.Walk(ctx, func(i Info) error {
			if i.Put < started {
				t.Errorf("put at %d", i.Put)
			}
			return stop
		})
		if err != stop {
			t.Errorf("Walk returned %v", err)
		}
	})
}

func TestPutAtOnce(t *testing.T) {
	each(t, func(t *testing.T, s Store) {
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				name, _, err := s.Put(t.Context(), strings.NewReader(strings.Repeat("x", i%4)), 10, nil)
				if err != nil {
					t.Error(err)
					return
				}
				f, _, err := s.Open(t.Context(), name)
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
	})
}

// TestMove brings blobs from a disk to S3 and back.
func TestMove(t *testing.T) {
	disk, far := open(t, t.TempDir()), bucket(t, s3.Start(t), nil)
	name, _, err := disk.Put(t.Context(), strings.NewReader("moved"), -1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []Both{{far, disk}, {disk, far}} {
		if err := b.Move(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if n := len(list(t, b.Main)); n != 1 || len(list(t, b.Other)) != 0 {
			t.Errorf("%d blobs arrived", n)
		}
	}
	file, _ := disk.path(name)
	if err := writeOver(file, "other"); err != nil {
		t.Fatal(err)
	}
	if err := (Both{far, disk}).Move(t.Context(), name); err == nil || len(list(t, disk)) != 1 || len(list(t, far)) != 0 {
		t.Errorf("a damaged blob was moved: %v", err)
	}
}
