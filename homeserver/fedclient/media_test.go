package fedclient

import (
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

// mixed answers with the two parts of a file.
func mixed(parts ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", `multipart/mixed; boundary="x y"`)
		for _, p := range parts {
			_, _ = io.WriteString(w, "--x y\r\n"+p+"\r\n")
		}
		_, _ = io.WriteString(w, "--x y--\r\n")
	}
}

const about = "Content-Type: application/json\r\n\r\n{}"

func TestDownload(t *testing.T) {
	large := strings.Repeat("x", 1000)
	endless := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", `multipart/mixed; boundary=x`)
		_, _ = io.WriteString(w, "--x\r\n"+about+"\r\n--x\r\n\r\n")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, large); err != nil {
				return
			}
		}
	}
	old := func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/_matrix/federation/") {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"errcode":"M_UNRECOGNIZED"}`)
			return
		}
		if r.URL.RequestURI() != "/_matrix/media/v3/download/b.test/a%2Fb?allow_remote=false&timeout_ms=1000" || r.Header.Get("Authorization") != "" {
			t.Errorf("asked %s", r.URL)
		}
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "old")
	}
	redirect := func(to string) http.HandlerFunc { return mixed(about, "Location: "+to+"\r\n\r\n") }
	tests := []struct {
		name, typ, body string // body "": an error
		h               http.HandlerFunc
		size            bool // the error is about the size
	}{
		{"good", "image/png", "PNG", mixed(about, "Content-Type: image/png\r\n\r\nPNG"), false},
		{"no types", "", "PNG", mixed("\r\n{}", "\r\nPNG"), false},
		{"more parts", "", "PNG", mixed(about, "\r\nPNG", "\r\nmore"), false},
		{"encoding is left", "", "a=3D", mixed(about, "Content-Transfer-Encoding: quoted-printable\r\n\r\na=3D"), false},
		{"as large as allowed", "", large[:100], mixed(about, "\r\n"+large[:100]), false},
		{"too large", "", "", mixed(about, "\r\n"+large[:101]), true},
		{"says that it is too large", "", "", mixed(about, "Content-Length: 101\r\n\r\nx"), true},
		{"endless", "", "", endless, true},
		{"endless about", "", "", mixed("\r\n"+strings.Repeat("x", 2*maxErrorAnswer), "\r\nPNG"), true},
		{"one part", "", "", mixed(about), false},
		{"no parts", "", "", mixed(), false},
		{"no multipart", "", "", says(`{}`, "Content-Type", "application/json"), false},
		{"no boundary", "", "", says(`x`, "Content-Type", "multipart/mixed"), false},
		{"old form", "text/plain", "old", old, false},
		{"elsewhere", "text/css", "css", redirect("https://cdn.test/file"), false},
		{"elsewhere over plain HTTP", "", "", redirect("http://cdn.test/file"), false},
		{"elsewhere inside", "", "", redirect("https://inside.test/"), false},
		{"elsewhere at an address inside", "", "", redirect("https://127.0.0.1/"), false},
		{"elsewhere, where it is not", "", "", redirect("https://cdn.test/missing"), false},
		{"elsewhere, too large", "", "", redirect("https://cdn.test/large"), true},
		{"no such file", "", "", says(``, "X", "y"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, c := asker(t, nil, tt.h)
			n.host("cdn.test", "5.5.5.8")
			n.host("inside.test", "10.0.0.1")
			n.serve("5.5.5.8:443", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "" {
					t.Error("a signature for a host that is no server")
				}
				w.Header().Set("Content-Type", "text/css")
				switch r.URL.Path {
				case "/file":
					_, _ = io.WriteString(w, "css")
				case "/large":
					_, _ = io.WriteString(w, large)
				default:
					http.NotFound(w, r)
				}
			}), "cdn.test")
			file, err := c.Download(t.Context(), "b.test", "a/b", time.Second, 100)
			var body []byte
			if err == nil {
				if body, err = io.ReadAll(file); err != nil {
					if n, again := file.Read(make([]byte, 10)); n != 0 || again == nil {
						t.Errorf("reading on: %d, %v", n, again)
					}
				}
				_ = file.Close()
				_ = file.Close()
			}
			if (err == nil) != (tt.body != "") || err == nil && (string(body) != tt.body || file.Type != tt.typ) {
				t.Errorf("%q, %v", body, err)
			}
			if errors.Is(err, ErrAnswerSize) != tt.size || len(body) > 100 {
				t.Errorf("%d bytes, %v", len(body), err)
			}
		})
	}
}

// TestDownloadDisposition finds the file name with the file, or before both parts.
func TestDownloadDisposition(t *testing.T) {
	for _, tt := range []struct{ inside, outside, want string }{
		{"inline; filename=a", "", "inline; filename=a"},
		{"", "inline; filename=b", "inline; filename=b"},
		{"inline; filename=a", "inline; filename=b", "inline; filename=a"},
	} {
		_, c := asker(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Disposition", tt.outside)
			mixed(about, "Content-Disposition: "+tt.inside+"\r\n\r\nPNG")(w, r)
		}))
		file, err := c.Download(t.Context(), "b.test", "id", 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		if file.Disposition != tt.want {
			t.Errorf("%q and %q: %q", tt.inside, tt.outside, file.Disposition)
		}
		_ = file.Close()
	}
}

// TestDownloadWithoutLimit has the largest limit that can be said.
func TestDownloadWithoutLimit(t *testing.T) {
	_, c := asker(t, nil, mixed(about, "\r\nPNG"))
	file, err := c.Download(t.Context(), "b.test", "id", 0, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if body, err := io.ReadAll(file); err != nil || string(body) != "PNG" {
		t.Errorf("%q, %v", body, err)
	}
}

// TestDownloadStandsStill has a server that begins a file, or what comes before
// it, and does not go on.
func TestDownloadStandsStill(t *testing.T) {
	head := "--x\r\n" + about + "\r\n--x\r\n\r\n"
	for _, begin := range []string{head + "begin", head[:5]} {
		_, c := asker(t, nil, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", `multipart/mixed; boundary=x`)
			_, _ = io.WriteString(w, begin)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		ticks := ticking(c)
		read := func() error {
			_, err := c.Download(t.Context(), "b.test", "id", 0, 1000)
			return err
		}
		if len(begin) > len(head) {
			file, err := c.Download(t.Context(), "b.test", "id", 0, 1000)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			body := make([]byte, 5)
			if _, err := io.ReadFull(file, body); err != nil || string(body) != "begin" {
				t.Errorf("%q, %v", body, err)
			}
			read = func() error { _, err := file.Read(body); return err }
		}
		failed := make(chan error, 1)
		go func() { failed <- read() }()
		for len(failed) == 0 {
			select {
			case ticks <- time.Time{}:
			case <-time.After(time.Millisecond):
			}
		}
		var gone *UnreachableError
		if err := <-failed; !errors.As(err, &gone) || !errors.Is(err, errStall) {
			t.Errorf("behind %q: %v", begin, err)
		}
		if at, err := c.RetryAt(t.Context(), "b.test"); err != nil || at.IsZero() {
			t.Errorf("behind %q it does not count: %v", begin, err)
		}
	}
}
