// Package instance builds and runs the real switchboard binary for tests that
// must treat it as a whole: kill it, feed it rubbish. It talks to it as a
// client does, over HTTP, and knows none of its packages.
package instance

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"switchboard/cmd/dev/child"
)

// patience is how long a server may take to start or to stop.
const patience = 3 * time.Minute

// Binary returns the path of the program that SWITCHBOARD_BIN names or, without
// that, of one that it builds for this test.
func Binary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("SWITCHBOARD_BIN"); path != "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "switchboard")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "goolm", "-o", path, "switchboard/cmd/switchboard")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// Server is a switchboard that can be started, killed and started again over
// the same data. The test ends it.
type Server struct {
	// URL is the address of the client API, without a slash at its end. It
	// stays the same when the server is started again.
	URL string

	t       testing.TB
	binary  string
	config  string
	client  *http.Client
	log     child.Output
	process *child.Process // nil until it is started
}

// New prepares a server in a directory of its own. database is the URL of an
// empty database, "" for SQLite in that directory.
func New(t testing.TB, binary, database string) *Server {
	t.Helper()
	dir := t.TempDir()
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		URL:    fmt.Sprintf("http://127.0.0.1:%d", port),
		t:      t,
		binary: binary,
		config: filepath.Join(dir, "switchboard.yaml"),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}},
	}
	if err := os.WriteFile(s.config, configuration(dir, port, database), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		if s.Running() {
			s.Kill()
		}
		if t.Failed() {
			t.Logf("the server's log:\n%s", s.Log())
		}
	})
	return s
}

// Start starts the server and returns when it answers.
func (s *Server) Start() {
	s.t.Helper()
	cmd := exec.Command(s.binary, "serve", "--config", s.config)
	cmd.Dir = filepath.Dir(s.config)
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	var err error
	if s.process, err = child.Start(cmd, syscall.SIGKILL); err != nil {
		s.t.Fatalf("start the server: %v", err)
	}
	s.awaitAnswer()
}

// awaitAnswer returns once the server answers requests.
func (s *Server) awaitAnswer() {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		answer, err := s.client.Get(s.URL + "/_matrix/client/versions")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-s.process.Exited():
			s.t.Fatalf("the server ended: %v\n%s", s.process.Err(), s.Log())
		case <-deadline:
			s.t.Fatalf("the server does not answer\n%s", s.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Running tells whether the process has been started and has not ended.
func (s *Server) Running() bool {
	if s.process == nil {
		return false
	}
	select {
	case <-s.process.Exited():
		return false
	default:
		return true
	}
}

// Kill ends the process at once (SIGKILL): it cannot finish anything. No later
// request takes a connection to it.
func (s *Server) Kill() {
	s.t.Helper()
	if err := s.process.Stop(syscall.SIGKILL, patience); err != nil {
		s.t.Error(err)
	}
	s.client.CloseIdleConnections()
}

// Stop asks the process to end and fails the test if it does not, or not well.
func (s *Server) Stop() {
	s.t.Helper()
	err := s.process.Stop(syscall.SIGTERM, patience)
	s.client.CloseIdleConnections()
	if err == nil {
		err = s.process.Err()
	}
	if err != nil {
		s.t.Errorf("the server: %v\n%s", err, s.Log())
	}
}

// Log returns everything that the server has written since New.
func (s *Server) Log() string { return s.log.String() }

// Run runs another command of the binary with the server's configuration, for
// example "token create", and returns what it prints.
func (s *Server) Run(args ...string) string {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), s.binary, append(args, "--config", s.config)...)
	cmd.Dir = filepath.Dir(s.config)
	var failure bytes.Buffer
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("switchboard %s: %v\n%s%s", strings.Join(args, " "), err, out, failure.Bytes())
	}
	return string(out)
}

// configuration is a server where everybody may register and nobody is told to
// be slower.
func configuration(dir string, port int, database string) []byte {
	return fmt.Appendf(nil, `data_dir: %q
database:
  url: %q
registration:
  mode: open
rate_limits:
  enabled: false
listeners:
  - address: "127.0.0.1:%d"
log:
  format: json
`, filepath.Join(dir, "data"), database, port)
}
