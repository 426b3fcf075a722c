package bridgetest

import (
	"os"
	"sync"
	"testing"

	"github.com/rs/zerolog"
)

// log is the log of a test while the test runs, and standard error after that: a
// goroutine of a network's library may outlive the bridge, and what it says then
// to the log of a test is a panic.
type log struct {
	mu    sync.Mutex // tier 2; guards ended, also while writing
	ended bool
	test  zerolog.TestWriter
}

func logOf(t *testing.T) *log {
	l := &log{test: zerolog.NewTestWriter(t)}
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ended = true
	})
	return l
}

// Write implements io.Writer.
func (l *log) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return os.Stderr.Write(line)
	}
	return l.test.Write(line)
}
