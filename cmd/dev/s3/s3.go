// Package s3 runs a server that speaks Amazon's S3, for tests: versitygw, which
// keeps objects in a folder. It knows nothing of what is stored there.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"switchboard/cmd/dev/checkout"
	"switchboard/cmd/dev/child"
)

// version of versitygw that tests use.
const version = "v1.8.0"

// Bucket is the one that a server has, and the keys are those of who may do
// everything in it.
const (
	Bucket    = "media"
	AccessKey = "switchboard"
	SecretKey = "secret-of-tests"
	Region    = "us-east-1"
)

// patience is how long a server may take to start or to stop.
const patience = 2 * time.Minute

// Server is a server on the loopback interface.
type Server struct {
	// URL is its address, which stays the same when it is started again.
	URL string

	t       testing.TB
	program string
	dir     string
	port    string
	process *child.Process
}

// Start runs a server with an empty bucket until the test ends. The program is
// built the first time, which takes minutes; a test by itself is skipped then,
// unless CI or SWITCHBOARD_TEST_S3 is set.
func Start(t testing.TB) *Server {
	t.Helper()
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, ".cache", "versitygw-"+version, "installed")); err != nil && os.Getenv("CI") == "" && os.Getenv("SWITCHBOARD_TEST_S3") == "" {
		t.Skip("versitygw is not built yet: set SWITCHBOARD_TEST_S3=1 to build it")
	}
	programs, err := checkout.InstallModule(t.Context(), root, "github.com/versity/versitygw", version, false, "cmd/versitygw")
	if err != nil {
		t.Fatal(err)
	}
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, program: filepath.Join(programs, "versitygw"), dir: t.TempDir(), port: strconv.Itoa(port)}
	s.URL = "http://" + net.JoinHostPort("127.0.0.1", s.port)
	for _, folder := range []string{"objects", "attributes", "objects/" + Bucket} {
		if err := os.Mkdir(filepath.Join(s.dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.Run()
	t.Cleanup(s.Kill)
	return s
}

// Run starts the server again after Kill and waits until it answers.
func (s *Server) Run() {
	s.t.Helper()
	// The attributes of objects lie in files of their own, since not every file
	// system of a machine for tests has room for them beside the objects.
	cmd := exec.Command(s.program, "--port", "127.0.0.1:"+s.port, "--access", AccessKey, "--secret", SecretKey, "--region", Region, "--quiet",
		"posix", "--sidecar", filepath.Join(s.dir, "attributes"), filepath.Join(s.dir, "objects"))
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if s.process, err = child.Start(cmd, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), patience)
	defer cancel()
	for !s.listens() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-s.process.Exited():
			s.t.Fatal(s.complaint("ended at once"))
		case <-ctx.Done():
			s.t.Fatal(s.complaint("does not answer"))
		}
	}
}

func (s *Server) listens() bool {
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", s.port))
	if err == nil {
		conn.Close()
	}
	return err == nil
}

func (s *Server) complaint(text string) string {
	log, _ := os.ReadFile(filepath.Join(s.dir, "log")) // what there is of it helps
	return fmt.Sprintf("versitygw %s\n%s", text, log)
}

// Kill ends the server as a crash does. What it stored stays.
func (s *Server) Kill() {
	if s.process != nil {
		_ = s.process.Stop(syscall.SIGKILL, patience)
		s.process = nil
	}
}

// Objects counts what is in the bucket.
func (s *Server) Objects() (n int) {
	s.t.Helper()
	err := filepath.WalkDir(filepath.Join(s.dir, "objects", Bucket), func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // it is being deleted
			return nil
		}
		if err == nil && e.Type().IsRegular() {
			n++
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}
