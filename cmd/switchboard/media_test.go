package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"switchboard/cmd/dev/s3"
)

// mediaConfig writes a configuration with files in a bucket.
func mediaConfig(t *testing.T, server *s3.Server, storage, secret string) {
	t.Helper()
	text := fmt.Sprintf("media:\n  storage: %s\n  s3: {endpoint: %q, bucket: %s, access_key: %s, secret_key: %s}\n", storage, server.URL, s3.Bucket, s3.AccessKey, secret)
	if err := os.WriteFile(configFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// upload stores a file and gives its URI.
func (s *serving) upload(token, content string) string {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), "POST", s.url+"/_matrix/media/v3/upload", strings.NewReader(content))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	uri := regexp.MustCompile(`mxc://[^"]+`).FindString(string(b))
	if err != nil || uri == "" {
		s.t.Fatalf("upload: %d %s %v", a.StatusCode, b, err)
	}
	return uri
}

// download tells the status of asking for a file.
func (s *serving) download(token, uri string) int {
	s.t.Helper()
	status, _ := s.ask("GET", "/_matrix/client/v1/media/download/"+strings.TrimPrefix(uri, "mxc://"), token, nil)
	return status
}

// files counts the files of a pattern.
func files(t *testing.T, pattern string) int {
	t.Helper()
	list, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestMediaCommands lists, quarantines, deletes and moves files of a server
// that runs.
func TestMediaCommands(t *testing.T) {
	bucket := s3.Start(t)
	t.Chdir(t.TempDir())
	mediaConfig(t, bucket, "disk", s3.SecretKey)
	s := serve(t)
	mustCommand(t, "token", "create", "mine")
	token := s.register("alice", "mine")
	first, second := s.upload(token, "first"), s.upload(token, "second")
	want := func(pattern string, args ...string) {
		t.Helper()
		if out := mustCommand(t, args...); !regexp.MustCompile(pattern).MatchString(out) {
			t.Errorf("%v printed\n%s", args, out)
		}
	}
	wantStatus := func(want int, uri string) {
		t.Helper()
		if got := s.download(token, uri); got != want {
			t.Errorf("%s: %d, want %d", uri, got, want)
		}
	}
	want(`@alice:localhost +5 .*`+first, "media", "list")
	want(`@alice:localhost +6 .*`+second, "media", "list", "--user", "alice")
	want(`in quarantine: 2 files`, "media", "quarantine", "--user", "@alice:localhost")
	wantStatus(404, first)
	want(first, "media", "list", "--quarantined")
	want(`no longer in quarantine: 1 file\n`, "media", "unquarantine", first)
	wantStatus(200, first)
	wantStatus(404, second)
	want(`ok: .*disk`, "doctor", "media")
	want(`deleted: 0 files`, "media", "purge-remote", "--unused", "1d")

	s.stop()
	mediaConfig(t, bucket, "s3", s3.SecretKey)
	s = serve(t)
	wantStatus(200, first) // it lies on the disk
	third := s.upload(token, "third")
	if n := files(t, "data/media/??/*"); n != 2 {
		t.Errorf("%d files on the disk, want 2", n)
	}
	want(`(?s)moved: 2 files.*all files are where they are kept`, "media", "move")
	if n := files(t, "data/media/??/*"); n != 0 {
		t.Errorf("%d files stayed on the disk", n)
	}
	want(`ok: .*s3`, "doctor", "media")
	for _, uri := range []string{first, third} {
		wantStatus(200, uri)
	}
	want(`deleted: 1 file\n`, "media", "delete", first)
	wantStatus(404, first)
	want(`deleted: 2 files`, "media", "delete", "--user", "@alice:localhost")
	wantStatus(404, third)
	// The server deletes them, too: the command leaves alone what it is just at.
	for end := time.Now().Add(patience); bucket.Objects() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d objects are left in the bucket", bucket.Objects())
		}
	}
	for _, args := range [][]string{{"delete"}, {"delete", "x"}, {"delete", first}, {"quarantine", first, "--user", "@a:b"}, {"quarantine", "--room", "!nothing:localhost"}, {"list", "--user", "@a:b"}} {
		if status, _, errs := command(t, "", append([]string{"media"}, args...)...); status == 0 || errs == "" {
			t.Errorf("%v: status %d, %s", args, status, errs)
		}
	}
}

// TestMediaStart: with wrong keys the server does not start; without the bucket
// it does, and takes no file that it could not keep.
func TestMediaStart(t *testing.T) {
	bucket := s3.Start(t)
	t.Chdir(t.TempDir())
	mediaConfig(t, bucket, "s3", "wrong")
	if status, _, errs := command(t, "", "serve"); status != 1 || !strings.Contains(errs, "secret_key does not belong to access_key") {
		t.Errorf("status %d, %s", status, errs)
	}
	if status, _, errs := command(t, "", "doctor", "media"); status != 1 || !strings.Contains(errs, "secret_key does not belong to access_key") {
		t.Errorf("doctor: status %d, %s", status, errs)
	}
	mediaConfig(t, bucket, "s3", s3.SecretKey)
	bucket.Kill()
	s := serve(t)
	mustCommand(t, "token", "create", "mine")
	token := s.register("alice", "mine")
	if status, v := s.ask("POST", "/_matrix/media/v3/upload", token, "content"); status != http.StatusServiceUnavailable {
		t.Errorf("upload: %d %v", status, v)
	}
	if out := mustCommand(t, "media", "list"); strings.Contains(out, "alice") {
		t.Errorf("an upload that failed is listed:\n%s", out)
	}
	bucket.Run()
	if uri := s.upload(token, "content"); s.download(token, uri) != http.StatusOK {
		t.Error("a file is not there when the bucket is")
	}
}
