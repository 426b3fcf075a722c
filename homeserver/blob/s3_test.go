package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"switchboard/cmd/dev/s3"
)

func writeOver(file, content string) error { return os.WriteFile(file, []byte(content), 0o600) }

// TestS3Refuses: who configured something wrongly is told what.
func TestS3Refuses(t *testing.T) {
	server := s3.Start(t)
	port, closed := server.URL, "http://127.0.0.1:1"
	for name, tt := range map[string]struct {
		edit func(*S3Config)
		want error
		text string
	}{
		"right":      {func(*S3Config) {}, nil, ""},
		"access key": {func(c *S3Config) { c.AccessKey = "somebody" }, ErrRefused, "access key"},
		"secret key": {func(c *S3Config) { c.SecretKey = "wrong" }, ErrRefused, "secret_key does not belong to access_key"},
		"bucket":     {func(c *S3Config) { c.Bucket = "nothing" }, ErrRefused, "make it, or correct bucket"},
		"region":     {func(c *S3Config) { c.Region = "eu-central-7" }, ErrRefused, "region is wrong"},
		"nobody":     {func(c *S3Config) { c.Endpoint = closed }, ErrUnavailable, closed},
		"no TLS":     {func(c *S3Config) { c.Endpoint = strings.Replace(port, "http:", "https:", 1) }, ErrUnavailable, "https://"},
	} {
		t.Run(name, func(t *testing.T) {
			s := bucket(t, server, tt.edit)
			err := s.Reach(t.Context())
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v and %q", err, tt.want, tt.text)
			}
			if err != nil && strings.Contains(err.Error(), s3.SecretKey) {
				t.Error("the secret is told")
			}
			if err := Probe(t.Context(), s); !errors.Is(err, tt.want) {
				t.Errorf("probe: got %v, want %v", err, tt.want)
			}
		})
	}
}

// TestS3Dies has the server die while a file is stored and while one is read.
func TestS3Dies(t *testing.T) {
	server := s3.Start(t)
	s := bucket(t, server, nil)
	content := make([]byte, 40<<20)
	rand.NewChaCha8([32]byte{1}).Read(content)
	name, _, err := s.Put(t.Context(), bytes.NewReader(content), -1, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, len(content))
	if _, err := io.ReadFull(r, got[:5<<20]); err != nil {
		t.Fatal(err)
	}

	server.Kill()
	if _, _, err := s.Put(t.Context(), strings.NewReader("lost"), -1, nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("put: %v", err)
	}
	if _, _, err := s.Open(t.Context(), name); !errors.Is(err, ErrUnavailable) {
		t.Errorf("open: %v", err)
	}
	if err := s.Delete(t.Context(), name); !errors.Is(err, ErrUnavailable) {
		t.Errorf("delete: %v", err)
	}
	if err := s.Walk(t.Context(), func(Info) error { return nil }); !errors.Is(err, ErrUnavailable) {
		t.Errorf("walk: %v", err)
	}

	server.Run()
	if _, err := io.ReadFull(r, got[5<<20:]); err != nil || !bytes.Equal(got, content) {
		t.Errorf("reading did not go on: %v", err)
	}
	if n := len(list(t, s)); n != 1 {
		t.Errorf("%d blobs, want 1", n)
	}
	if names, err := os.ReadDir(s.spool); err != nil || len(names) > 0 {
		t.Errorf("left in the spool: %v, %v", names, err)
	}
}

// TestS3Large stores and reads what is much larger than the memory for it.
func TestS3Large(t *testing.T) {
	s := bucket(t, s3.Start(t), nil)
	const size = 300 << 20
	source := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{2}), size) }
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	name, n, err := s.Put(t.Context(), source(), size, nil)
	if err != nil || n != size {
		t.Fatalf("%d bytes, %v", n, err)
	}
	r, _, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err = io.Copy(io.Discard, r); err != nil || n != size {
		t.Fatalf("%d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > size/2 {
		t.Errorf("%d MB of memory for %d MB", allocated>>20, size>>20)
	}
	const from = 123456789
	want := make([]byte, from+1000)
	if _, err := io.ReadFull(source(), want); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1000)
	if _, err := r.Seek(from, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, want[from:]) {
		t.Errorf("another part: %v", err)
	}
}

// TestS3Cleans gives up uploads in parts that crashed long ago.
func TestS3Cleans(t *testing.T) {
	s := bucket(t, s3.Start(t), nil)
	key := s.key(Digest{1})
	if _, err := s.client.NewMultipartUpload(t.Context(), s3.Bucket, key, minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	left := func() int {
		page, err := s.client.ListMultipartUploads(t.Context(), s3.Bucket, s.config.Prefix, "", "", "", 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Uploads)
	}
	for _, tt := range []struct {
		later time.Duration
		want  int
	}{{time.Hour, 1}, {unfinished + time.Hour, 0}} {
		if err := s.Clean(t.Context(), time.Now().Add(tt.later)); err != nil {
			t.Fatal(err)
		}
		if n := left(); n != tt.want {
			t.Errorf("after %s: %d uploads, want %d", tt.later, n, tt.want)
		}
	}
}

// TestS3Leaves: what the asker does not wait for is not the server's fault.
func TestS3Leaves(t *testing.T) {
	s := bucket(t, s3.Start(t), nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.Open(ctx, Digest{}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) {
		t.Errorf("open: %v", err)
	}
}

func TestS3Config(t *testing.T) {
	good := S3Config{Endpoint: "https://s3.example.org:9000", Region: "eu", Bucket: "b", AccessKey: "a", SecretKey: "s"}
	for name, tt := range map[string]struct {
		edit func(*S3Config)
		want string
	}{
		"good":     {func(*S3Config) {}, ""},
		"no host":  {func(c *S3Config) { c.Endpoint = "s3.example.org" }, "endpoint"},
		"bucket":   {func(c *S3Config) { c.Endpoint += "/bucket" }, "endpoint"},
		"no key":   {func(c *S3Config) { c.AccessKey = "" }, "access_key"},
		"absolute": {func(c *S3Config) { c.Prefix = "/media" }, "prefix"},
	} {
		c := good
		tt.edit(&c)
		var wrong []string
		c.Check(func(key, _ string) { wrong = append(wrong, key) })
		if got := strings.Join(wrong, " "); got != tt.want {
			t.Errorf("%s: complains of %q, want %q", name, got, tt.want)
		}
	}
}
