package browser

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"switchboard/cmd/dev/instance"
)

// password is that of everybody.
const password = "correct horse battery staple 7"

// world is a homeserver and the application that people use it with, each with
// an origin of its own.
type world struct {
	*instance.Server
	t       *testing.T
	app     string // URL of the application
	address string // of the homeserver, as the application knows it

	mu      sync.Mutex // tier 1; guards what follows
	refused []string   // requests of the application that did not succeed
}

// buildApp builds the application and returns the directory where it is.
func buildApp(t *testing.T) string {
	t.Helper()
	if os.Getenv("SWITCHBOARD_TEST_BROWSER") == "" {
		t.Skip("SWITCHBOARD_TEST_BROWSER is not set, as \"make browser\" sets it")
	}
	dir := t.TempDir()
	build := exec.Command("node", "build.js", dir)
	build.Dir = "page"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the application: %v\n%s", err, out)
	}
	return dir
}

// newWorld starts a server and serves the application in a directory. A database
// is the URL of an empty one.
func newWorld(t *testing.T, binary, app, database string) *world {
	t.Helper()
	w := &world{Server: instance.New(t, binary, database), t: t}
	w.Start()
	target, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	w.app = serve(t, http.FileServer(http.Dir(app)))
	w.address = serve(t, &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		ModifyResponse: w.note,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) {}, // a page went away
	})
	return w
}

// serve serves on loopback until the test ends, and returns the URL.
func serve(t *testing.T, h http.Handler) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// note keeps what the server refuses.
func (w *world) note(r *http.Response) error {
	if r.StatusCode >= http.StatusBadRequest {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.refused = append(w.refused, fmt.Sprintf("%s %s: %d", r.Request.Method, r.Request.URL.Path, r.StatusCode))
	}
	return nil
}

// refusals are what the application asks for in vain on every server.
var refusals = regexp.MustCompile(`/org.matrix.msc2965/auth_issuer: 404$` + // nobody logs in by OAuth 2.0
	`|^POST /_matrix/client/v3/register: 401$` + // asks for its stages
	`|^GET /_matrix/client/v3/room_keys/version: 404$` + // before there is one
	`|/dehydrated_device: 404$` + // the same
	`|^GET /_matrix/client/v3/user/[^/]*/account_data/[^/]*: 404$` + // the same, before the first sync has ended
	`|^GET /_matrix/client/v3/rooms/[^/]*/members: 403$`) // of a room that one is invited to

// succeeded fails the test for each other request that did not succeed.
func (w *world) succeeded() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.refused {
		if !refusals.MatchString(r) {
			w.t.Errorf("the application asked in vain: %s", r)
		}
	}
}

// createUser makes an account as an administrator does.
func (w *world) createUser(name string) {
	w.t.Helper()
	w.Run("user", "create", name, "--password-file", w.file("password", []byte(password+"\n")))
}

// file writes a file and returns its path.
func (w *world) file(name string, content []byte) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// picture makes a picture of 240 by 160 pixels, a sky, and returns its path.
func (w *world) picture() string {
	w.t.Helper()
	sky := image.NewNRGBA(image.Rect(0, 0, 240, 160))
	for y := range 160 {
		for x := range 240 {
			sky.SetNRGBA(x, y, color.NRGBA{R: uint8(40 + y), G: uint8(110 + y/2), B: 220, A: 255})
		}
	}
	var file bytes.Buffer
	if err := png.Encode(&file, sky); err != nil {
		w.t.Fatal(err)
	}
	return w.file("sky.png", file.Bytes())
}
