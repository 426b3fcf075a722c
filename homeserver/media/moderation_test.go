package media

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"switchboard/cmd/dev/s3"
	"switchboard/homeserver/blob"
	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient/fedclienttest"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// small asks for a thumbnail.
func (s *Service) small(t *testing.T, id string) error {
	t.Helper()
	f, err := s.Thumbnail(t.Context(), here, id, Frame{Width: 32, Height: 32}, false, 0)
	if err == nil {
		err = f.Close()
	}
	return err
}

// TestDelete: with a file goes all that was made of it, but no bytes that another
// file has.
func TestDelete(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, dir := start(t, st, nil)
		picture := encoded(t, "image/png", pictureOf(200, 100, 255))
		first, second := s.mustPut(t, alice, picture), s.mustPut(t, bob, picture)
		if err := s.small(t, first); err != nil {
			t.Fatal(err)
		}
		wantFiles := func(want int) {
			t.Helper()
			if err := s.Reap(t.Context(), quietly); err != nil {
				t.Fatal(err)
			}
			if n := countFiles(t, dir); n != want {
				t.Errorf("%d files on the disk, want %d", n, want)
			}
		}
		wantFiles(2)
		if err := s.Delete(t.Context(), Name{here, first}); err != nil {
			t.Fatal(err)
		}
		wantFiles(2)
		wantCode(t, s.small(t, first), matrix.NotFound)
		wantCode(t, s.Delete(t.Context(), Name{here, first}), matrix.NotFound)
		if err := s.small(t, second); err != nil {
			t.Error(err)
		}
		if n, err := s.DeleteOf(t.Context(), bob, time.Now().Add(-time.Hour), quietly); n != 0 || err != nil {
			t.Errorf("%d young files deleted, %v", n, err)
		}
		if n, err := s.DeleteOf(t.Context(), bob, time.Now().Add(time.Hour), quietly); n != 1 || err != nil {
			t.Errorf("%d files deleted, %v", n, err)
		}
		wantFiles(0)
		if list, err := st.DroppedBlobs(t.Context(), 10); err != nil || len(list) > 0 {
			t.Errorf("still to be deleted: %v, %v", list, err)
		}
	})
}

// TestDeleteCrash kills the server between forgetting a file and deleting its
// bytes, and takes the place of the bytes away meanwhile.
func TestDeleteCrash(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		server := s3.Start(t)
		open := func() *Service {
			blobs, err := blob.OpenS3(blob.S3Config{Endpoint: server.URL, Region: s3.Region, Bucket: s3.Bucket, AccessKey: s3.AccessKey, SecretKey: s3.SecretKey}, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return New(st, &notify.Bell{}, blobs, here, DefaultConfig())
		}
		s := open()
		id := s.mustPut(t, alice, encoded(t, "image/png", pictureOf(200, 100, 255)))
		kept := s.mustPut(t, alice, []byte("kept"))
		if err := s.small(t, id); err != nil {
			t.Fatal(err)
		}
		if n := server.Objects(); n != 3 {
			t.Fatalf("%d objects, want 3", n)
		}
		if err := s.Delete(t.Context(), Name{here, id}); err != nil {
			t.Fatal(err)
		}

		server.Kill()
		s = open()
		if err := s.Reap(t.Context(), quietly); !errors.Is(err, blob.ErrUnavailable) {
			t.Errorf("without the bucket: %v", err)
		}
		_, err := s.Open(t.Context(), here, kept, 0)
		var e *matrix.Error
		if !errors.As(err, &e) || e.HTTPStatus() != 503 {
			t.Errorf("a file that cannot be read now: %v", err)
		}
		_, err = s.Put(t.Context(), alice, Upload{Length: -1, Body: strings.NewReader("lost")})
		if !errors.As(err, &e) || e.HTTPStatus() != 503 {
			t.Errorf("a file that cannot be stored now: %v", err)
		}

		server.Run()
		if err := s.Reap(t.Context(), quietly); err != nil {
			t.Fatal(err)
		}
		if n := server.Objects(); n != 1 {
			t.Errorf("%d objects, want 1", n)
		}
		if content, _ := s.mustRead(t, here, kept); content != "kept" {
			t.Errorf("got %q", content)
		}
	})
}

// TestDeleteRace deletes a content again and again while others upload it: who
// was told that the upload succeeded has the file.
func TestDeleteRace(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, _ := start(t, st, nil)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 25 {
					id, err := s.Put(t.Context(), alice, Upload{Length: -1, Body: strings.NewReader("the same")})
					if err != nil {
						t.Error(err)
						continue
					}
					f, err := s.Open(t.Context(), here, id, 0)
					if err != nil {
						t.Error(err)
						continue
					}
					f.Close()
					if err := errors.Join(s.Delete(t.Context(), Name{here, id}), s.Reap(t.Context(), quietly)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestQuarantine(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		e := newElsewhere(t)
		s, _ := start(t, st, nil)
		s.Client = fedclienttest.Client(t, here, st)
		picture := encoded(t, "image/png", pictureOf(200, 100, 255))
		id := s.mustPut(t, alice, picture)
		theirs, unknown := e.mustPut(t, bob, picture), e.mustPut(t, bob, []byte("never fetched"))
		if err := s.small(t, id); err != nil {
			t.Fatal(err)
		}
		s.mustRead(t, e.name, theirs)
		late, _, err := s.Create(t.Context(), alice)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Quarantine(t.Context(), Name{here, id}, Name{e.name, unknown}, Name{here, late}); err != nil {
			t.Fatal(err)
		}
		if err := s.Fill(t.Context(), alice, late, Upload{Length: -1, Body: strings.NewReader("late")}); err != nil {
			t.Fatal(err)
		}
		again := s.mustPut(t, bob, picture)
		status := func(server matrix.ServerName, id string) error {
			f, err := s.Open(t.Context(), server, id, 0)
			if err == nil {
				err = f.Close()
			}
			return err
		}
		asked := e.asked.Load()
		for _, name := range []Name{{here, id}, {here, again}, {here, late}, {e.name, theirs}, {e.name, unknown}} {
			wantCode(t, status(name.Server, name.ID), matrix.NotFound)
		}
		wantCode(t, s.small(t, id), matrix.NotFound)
		wantCode(t, s.small(t, again), matrix.NotFound)
		if n := e.asked.Load(); n != asked {
			t.Error("what is in quarantine was fetched")
		}
		if list, err := s.InQuarantine(t.Context(), 10); err != nil || len(list) != 3 {
			t.Errorf("in quarantine: %v, %v", list, err)
		}
		// Through another file with the same content it ends for all.
		if n, err := s.Unquarantine(t.Context(), Name{e.name, theirs}); n != 1 || err != nil {
			t.Errorf("%d ended, %v", n, err)
		}
		for _, name := range []Name{{here, id}, {here, again}, {e.name, theirs}} {
			if err := status(name.Server, name.ID); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n, err := s.QuarantineOf(t.Context(), alice); n != 2 || err != nil {
			t.Errorf("%d files of alice, %v", n, err)
		}
		wantCode(t, status(here, id), matrix.NotFound)
	})
}

// TestQuarantinedPreview: a page cannot bring an image back.
func TestQuarantinedPreview(t *testing.T) {
	picture := string(encoded(t, "image/png", pictureOf(30, 20, 255)))
	server := newSite(t, web{
		"/page":    text("text/html", `<title>ok</title><meta property="og:image" content="pic.png">`),
		"/pic.png": text("image/png", picture),
	})
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, dir := start(t, st, previewing)
		s.Web = server.Client()
		if err := s.Quarantine(t.Context(), Name{here, s.mustPut(t, alice, []byte(picture))}); err != nil {
			t.Fatal(err)
		}
		if b, err := s.Preview(t.Context(), server.URL+"/page"); err != nil || string(b) != `{"og:title":"ok"}` {
			t.Errorf("%s, %v", b, err)
		}
		if n := countFiles(t, dir); n != 1 {
			t.Errorf("%d files", n)
		}
	})
}

func TestFilesOf(t *testing.T) {
	for content, want := range map[string]string{
		`{"url":"mxc://a.test/x","info":{"thumbnail_url":"mxc://b.test:8448/y_-1"}}`: "[mxc://a.test/x mxc://b.test:8448/y_-1]",
		`{"file":{"url":"mxc://[::1]:80/z"}}`:                                        "[mxc://[::1]:80/z]",
		`{"formatted_body":"<img src=\"mxc://a.test/emoji\">"}`:                      "[mxc://a.test/emoji]",
		`{"body":"mxc:// and mxc://a.test/ and mxc://a.test/../b"}`:                  "[]",
	} {
		if got := fmt.Sprint(filesOf(&event.PDU{Type: "m.room.message", Content: json.RawMessage(content)})); got != want {
			t.Errorf("%s: %s, want %s", content, got, want)
		}
	}
	if got := filesOf(&event.PDU{Type: "m.room.member", Content: json.RawMessage(`{"avatar_url":"mxc://a.test/x"}`)}); got != nil {
		t.Errorf("avatar of a member: %v", got)
	}
}

// FuzzURI: what is accepted is spelled as String does and names no other folder.
func FuzzURI(f *testing.F) {
	for _, s := range []string{"mxc://a.test/x", "mxc://a.test/../x", "mxc://[::1]:80/x", "mxc:///x", "mxc://a/b/c", "http://a.test/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := ParseURI(s)
		if err == nil && (name.String() != s || strings.ContainsAny(name.ID, "/.\\%")) {
			t.Errorf("%q came back as %q", s, name)
		}
	})
}

// TestLocalKeep: files for which nobody asks go, avatars and what is in use stay.
func TestLocalKeep(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, dir := start(t, st, func(c *Config) { c.LocalKeep = 48 * time.Hour })
		old, used, avatar := s.mustPut(t, alice, []byte("old")), s.mustPut(t, alice, []byte("used")), s.mustPut(t, alice, []byte("avatar"))
		waiting, _, err := s.Create(t.Context(), alice)
		if err != nil {
			t.Fatal(err)
		}
		err = st.Update(t.Context(), func(tx *store.Tx) error {
			long := time.Now().Add(-30 * time.Hour).UnixMilli()
			err := errors.Join(tx.UseMedia(t.Context(), old, long), tx.UseMedia(t.Context(), used, long), tx.UseMedia(t.Context(), avatar, long))
			value, _ := json.Marshal(s.URI(avatar))
			return errors.Join(err, tx.SetProfileField(t.Context(), alice, "avatar_url", value))
		})
		if err != nil {
			t.Fatal(err)
		}
		s.mustRead(t, here, used)
		if err := errors.Join(s.Sweep(t.Context(), time.Now().Add(20*time.Hour)), s.Reap(t.Context(), quietly)); err != nil {
			t.Fatal(err)
		}
		_, err = s.Open(t.Context(), here, old, 0)
		wantCode(t, err, matrix.NotFound)
		_, err = s.Open(t.Context(), here, waiting, 0)
		wantCode(t, err, matrix.NotYetUploaded)
		if s.mustRead(t, here, used); countFiles(t, dir) != 2 {
			t.Errorf("%d files stayed", countFiles(t, dir))
		}
		s.mustRead(t, here, avatar)
	})
}

// TestMoveFiles moves while files are read, and deletes in the middle.
func TestMoveFiles(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		server := s3.Start(t)
		near, err := blob.OpenDisk(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		far, err := blob.OpenS3(blob.S3Config{Endpoint: server.URL, Region: s3.Region, Bucket: s3.Bucket, AccessKey: s3.AccessKey, SecretKey: s3.SecretKey}, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		s := New(st, &notify.Bell{}, blob.Both{Main: near, Other: far}, here, DefaultConfig())
		var ids []string
		for i := range 30 {
			ids = append(ids, s.mustPut(t, alice, bytes.Repeat([]byte{byte(i)}, i)))
		}
		s = New(st, &notify.Bell{}, blob.Both{Main: far, Other: near}, here, DefaultConfig())
		ctx, cancel := context.WithCancel(t.Context())
		n, _, err := s.Move(ctx, func(int, int64) { cancel() })
		if n != 1 || !errors.Is(err, context.Canceled) {
			t.Errorf("ended after one: %d files, %v", n, err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for i, id := range slices.Backward(ids) {
				f, err := s.Open(t.Context(), here, id, 0)
				if err != nil {
					t.Error(err)
					continue
				}
				if b, err := io.ReadAll(f); err != nil || len(b) != i {
					t.Errorf("%d bytes, want %d, %v", len(b), i, err)
				}
				f.Close()
				if i%3 == 0 {
					if err := errors.Join(s.Delete(t.Context(), Name{here, id}), s.Reap(t.Context(), quietly)); err != nil {
						t.Error(err)
					}
				}
			}
		})
		last := 0
		if n, _, err := s.Move(t.Context(), func(n int, _ int64) { last = n }); n == 0 || n != last || err != nil {
			t.Errorf("%d files, %d told, %v", n, last, err)
		}
		wg.Wait()
		if err := s.Reap(t.Context(), quietly); err != nil { // what was on its way when it was to be deleted
			t.Error(err)
		}
		if n := server.Objects(); n != 20 {
			t.Errorf("%d objects, want 20", n)
		}
		if err := near.Walk(t.Context(), func(i blob.Info) error { return fmt.Errorf("%s is left", i.Digest) }); err != nil {
			t.Error(err)
		}
	})
}
