package media

import (
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/fedclient/fedclienttest"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// elsewhere is a media service as another server, reached through the network.
type elsewhere struct {
	*Service
	name  matrix.ServerName
	asked atomic.Int64
	hold  chan struct{} // answers wait until it is closed; nil: they do not
}

// newElsewhere makes one with a store of its own.
func newElsewhere(t *testing.T) *elsewhere {
	t.Helper()
	db, err := database.Open(t.Context(), databasetest.SQLite(t), database.Options{Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	st, err := store.New(t.Context(), db, storetest.Budget)
	if err != nil {
		t.Fatal(err)
	}
	e := &elsewhere{}
	e.name = fedclienttest.Server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.asked.Add(1)
		if e.hold != nil {
			<-e.hold
		}
		id, ok := strings.CutPrefix(r.URL.Path, "/_matrix/federation/v1/media/download/")
		if !ok || r.Header.Get("Authorization") == "" {
			http.Error(w, `{"errcode":"M_UNRECOGNIZED"}`, http.StatusNotFound)
			return
		}
		f, err := e.Open(r.Context(), here, id, 0)
		if err != nil {
			http.Error(w, `{"errcode":"M_NOT_FOUND"}`, http.StatusNotFound)
			return
		}
		defer f.Close()
		writeParts(t, w, f)
	}))
	e.Service, _ = start(t, st, nil)
	return e
}

// writeParts answers with a file as servers do.
func writeParts(t *testing.T, w http.ResponseWriter, f *File) {
	t.Helper()
	parts := multipart.NewWriter(w)
	w.Header().Set("Content-Type", "multipart/mixed; boundary="+parts.Boundary())
	about, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/json"}})
	if err == nil {
		_, err = io.WriteString(about, "{}")
	}
	if err != nil {
		t.Error(err)
		return
	}
	content, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {f.Type}, "Content-Disposition": {f.Disposition("")}})
	if err == nil {
		_, err = io.Copy(content, f)
	}
	if err = errors.Join(err, parts.Close()); err != nil {
		t.Log("the other side went away:", err) // a file that is too large is not read to its end
	}
}

func (s *Service) mustRead(t *testing.T, server matrix.ServerName, id string) (content string, f *File) {
	t.Helper()
	f, err := s.Open(t.Context(), server, id, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), f
}

func TestRemote(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		e := newElsewhere(t)
		s, dir := start(t, st, func(c *Config) { c.MaxRemote = 1 << 20 })

		id, err := e.Put(t.Context(), bob, Upload{Type: "text/plain", Name: "Grüße.txt", Length: -1, Body: strings.NewReader("hello")})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Open(t.Context(), e.name, id, 0)
		wantCode(t, err, matrix.NotFound) // there is no client
		s.Client = fedclienttest.Client(t, here, st)

		for range 2 {
			content, f := s.mustRead(t, e.name, id)
			if content != "hello" || f.Type != "text/plain" || f.Name != "Grüße.txt" || !f.Inline {
				t.Errorf("got %q, %+v", content, f)
			}
		}
		// Who looked before it was here, and begins to fetch it when it is, need not.
		if m, err := s.fetch(t.Context(), e.name, id); err != nil || m.Size != 5 {
			t.Errorf("fetched later: %+v, %v", m, err)
		}
		if n := e.asked.Load(); n != 1 {
			t.Errorf("the file was fetched %d times", n)
		}
		if n := countFiles(t, dir); n != 1 {
			t.Errorf("%d files are kept", n)
		}

		big := e.mustPut(t, bob, make([]byte, 1<<20+1))
		_, err = s.Open(t.Context(), e.name, big, 0)
		wantCode(t, err, matrix.TooLarge)
		picture := e.mustPut(t, bob, encoded(t, "image/png", pictureOf(200, 100, 255)))
		f, err := s.Thumbnail(t.Context(), e.name, picture, Frame{Width: 32, Height: 32}, false, 0)
		if err != nil {
			t.Fatal(err)
		}
		if f.Type != "image/png" {
			t.Errorf("the thumbnail is %s", f.Type)
		}
		f.Close()
		for _, c := range []struct {
			server matrix.ServerName
			id     string
			code   matrix.Code
		}{
			{e.name, "nothing", matrix.NotFound},
			{e.name, "../../x", matrix.NotFound},
			{"not a name", id, matrix.NotFound},
			{fedclienttest.Absent, id, matrix.Unknown},
		} {
			_, err := s.Open(t.Context(), c.server, c.id, 0)
			wantCode(t, err, c.code)
		}
	})
}

// TestRemoteOld asks servers that know only the endpoints without signatures.
func TestRemoteOld(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, _ := start(t, st, nil)
		s.Client = fedclienttest.Client(t, here, st)
		for _, c := range []struct {
			status int
			body   string
			known  bool // the server is not taken for an old one
		}{
			{404, `{"errcode":"M_UNRECOGNIZED"}`, false},
			{404, `<h1>Not Found`, false},
			{400, `what?`, false},
			{404, `{"errcode":"M_NOT_FOUND"}`, true},
			{403, `{"errcode":"M_FORBIDDEN"}`, true},
		} {
			var server matrix.ServerName
			server = fedclienttest.Server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/_matrix/media/v3/download/"+string(server)+"/old" || r.URL.Query().Get("allow_remote") != "false" {
					http.Error(w, c.body, c.status)
					return
				}
				w.Header().Set("Content-Type", "text/html")
				w.Header().Set("Content-Disposition", `inline; filename="../a.html"`)
				fmt.Fprint(w, "<p>")
			}))
			if c.known {
				_, err := s.Open(t.Context(), server, "old", 0)
				wantCode(t, err, matrix.NotFound)
				continue
			}
			content, f := s.mustRead(t, server, "old")
			if content != "<p>" || f.Type != "text/html" || f.Name != ".._a.html" || f.Inline {
				t.Errorf("%d: got %q, %+v", c.status, content, f)
			}
		}
	})
}

// TestRemoteTogether has many ask for the same file at once.
func TestRemoteTogether(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		e := newElsewhere(t)
		e.hold = make(chan struct{})
		s, _ := start(t, st, nil)
		s.Client = fedclienttest.Client(t, here, st)
		id := e.mustPut(t, bob, []byte("hello"))
		var wg sync.WaitGroup
		for range mostOfOne {
			wg.Go(func() {
				f, err := s.Open(t.Context(), e.name, id, 0)
				if err != nil {
					t.Error(err)
					return
				}
				f.Close()
			})
		}
		for { // until all wait
			s.fetches.mu.Lock()
			n := s.fetches.byServer[e.name]
			s.fetches.mu.Unlock()
			if n == mostOfOne {
				break
			}
			time.Sleep(time.Millisecond)
		}
		_, err := s.Open(t.Context(), e.name, id, 0)
		wantCode(t, err, matrix.LimitExceeded)
		close(e.hold)
		wg.Wait()
		if n := e.asked.Load(); n != 1 {
			t.Errorf("the file was fetched %d times", n)
		}
		if len(s.fetches.byServer) != 0 || s.fetches.total != 0 {
			t.Errorf("still counted: %+v", s.fetches.byServer)
		}
	})
}

// TestRemoteBreaks has another server fall silent in the middle of a file.
func TestRemoteBreaks(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		server := fedclienttest.Server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "multipart/mixed; boundary=x")
			fmt.Fprint(w, "--x\r\n\r\n{}\r\n--x\r\nContent-Type: text/plain\r\n\r\nhalf of")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}))
		s, dir := start(t, st, nil)
		s.Client = fedclienttest.Client(t, here, st)
		_, err := s.Open(t.Context(), server, "broken", 0)
		wantCode(t, err, matrix.Unknown)
		if n := countFiles(t, dir); n != 0 {
			t.Errorf("%d files are kept of what broke off", n)
		}
	})
}

// TestRemoteQuota looks at what is forgotten when there is too much, and when
// nobody asks for it.
func TestRemoteQuota(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		e := newElsewhere(t)
		s, dir := start(t, st, func(c *Config) { c.MaxRemote, c.RemoteQuota, c.RemoteKeep = 4000, 10000, time.Hour })
		s.Client = fedclienttest.Client(t, here, st)
		var ids []string
		for i := range 5 {
			id := e.mustPut(t, bob, []byte(strings.Repeat(fmt.Sprint(i), 3000)))
			ids = append(ids, id)
			s.mustRead(t, e.name, id)
			err := st.Update(t.Context(), func(tx *store.Tx) error { // each is older than the next
				return tx.UseRemoteMedia(t.Context(), e.name, id, time.Now().Add(time.Duration(i-10)*time.Minute).UnixMilli())
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for i, id := range ids {
			_, ok, err := st.RemoteMedia(t.Context(), e.name, id)
			if err != nil || ok != (i >= 2) {
				t.Errorf("file %d is here: %v, %v", i, ok, err)
			}
		}
		if n := countFiles(t, dir); n != 3 {
			t.Errorf("%d files on the disk", n)
		}
		s.mustRead(t, e.name, ids[0])

		// A file of our own with the same content stays.
		own := s.mustPut(t, alice, []byte(strings.Repeat("4", 3000)))
		if err := errors.Join(s.Sweep(t.Context(), time.Now().Add(2*time.Hour)), s.Reap(t.Context(), quietly)); err != nil {
			t.Fatal(err)
		}
		if n := countFiles(t, dir); n != 1 {
			t.Errorf("%d files on the disk", n)
		}
		s.mustRead(t, here, own)
		if size, err := st.RemoteMediaSize(t.Context()); err != nil || size != 0 {
			t.Errorf("%d bytes are left, %v", size, err)
		}
	})
}

// TestRemoteHostile: another server that answers with nonsense, too much or
// never to the end costs a bounded amount, leaves nothing behind, and is told of
// as a bad gateway.
func TestRemoteHostile(t *testing.T) {
	const kind = "multipart/mixed; boundary=x"
	const about = "--x\r\nContent-Type: application/json\r\n\r\n{}\r\n"
	endless := func(w http.ResponseWriter, text string) {
		for {
			if _, err := io.WriteString(w, text); err != nil {
				return
			}
		}
	}
	fill := strings.Repeat("y", 1<<16)
	cases := map[string]struct {
		kind, begin, repeat string
		code                matrix.Code
	}{
		"endless file":       {kind, about + "--x\r\nContent-Type: text/plain\r\n\r\n", fill, matrix.TooLarge},
		"endless first part": {kind, "--x\r\n\r\n", fill, matrix.TooLarge},
		"endless preamble":   {kind, "", fill, matrix.Unknown},
		"endless header":     {kind, about + "--x\r\nA: ", fill, matrix.Unknown},
		"one part":           {kind, about + "--x--\r\n", "", matrix.Unknown},
		"no end":             {kind, about + "--x\r\nContent-Type: text/plain\r\n\r\nhalf", "", matrix.Unknown},
		"no boundary":        {"multipart/mixed", about, "", matrix.Unknown},
		"other boundary":     {"multipart/mixed; boundary=z", about, "", matrix.Unknown},
		"no parts":           {"text/plain", "the file", "", matrix.Unknown},
		"nothing":            {kind, "", "", matrix.Unknown},
		"inward":             {kind, about + "--x\r\nLocation: https://127.0.0.1/secret\r\n\r\n\r\n--x--\r\n", "", matrix.Unknown},
		"lying length":       {kind, about + "--x\r\nContent-Length: 99999999999\r\n\r\nx\r\n--x--\r\n", "", matrix.TooLarge},
	}
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, dir := start(t, st, func(c *Config) { c.MaxRemote = 1 << 20 })
		s.Client = fedclienttest.Client(t, here, st)
		for name, tt := range cases {
			server := fedclienttest.Server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", tt.kind)
				io.WriteString(w, tt.begin)
				if tt.repeat != "" {
					endless(w, tt.repeat)
				}
			}))
			_, err := s.Open(t.Context(), server, "x", 0)
			var e *matrix.Error
			if !errors.As(err, &e) || e.Code != tt.code || e.HTTPStatus() != http.StatusBadGateway {
				t.Errorf("%s: got %v, want %s with status 502", name, err, tt.code)
			}
			if n := countFiles(t, dir); n != 0 {
				t.Errorf("%s: %d files are kept", name, n)
			}
		}
	})
}
