// Package leaktest finds goroutines that outlive the tests of a package. It
// knows which goroutines are ours by the functions on their stacks, and nothing
// of what they do.
package leaktest

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// patience is how long goroutines may take to end after the last test. Those
// that were told to stop are still on their way.
const patience = 2 * time.Minute

// Main runs the tests of a package, then fails if one of our goroutines is
// still there. Use it as
//
//	func TestMain(m *testing.M) { leaktest.Main(m) }
func Main(m *testing.M) {
	status := m.Run()
	if left := wait(patience); status == 0 && len(left) > 0 {
		fmt.Fprintf(os.Stderr, "leaktest: %d goroutines are still running after the tests:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
		status = 1
	}
	os.Exit(status)
}

// wait returns the stacks of our goroutines that are there when they have had
// time to end. It looks often, so it returns soon when there are none.
func wait(patience time.Duration) []string {
	left := ours()
	for deadline := time.Now().Add(patience); len(left) > 0 && time.Now().Before(deadline); left = ours() {
		time.Sleep(20 * time.Millisecond)
	}
	return left
}

// ours returns the stacks of all goroutines but this one that run a function of
// the module, or were started by one.
func ours() []string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	var found []string
	for i, stack := range bytes.Split(buf, []byte("\n\n")) {
		if i > 0 && isOurs(string(stack)) { // the first is the caller's own
			found = append(found, string(stack))
		}
	}
	return found
}

// isOurs reports whether a stack has a function of the module on it, and is not
// the one that runs the tests.
func isOurs(stack string) bool {
	if strings.Contains(stack, "\ntesting.(*M).Run(") {
		return false
	}
	for line := range strings.Lines(stack) {
		if strings.HasPrefix(strings.TrimPrefix(line, "created by "), "switchboard/") {
			return true
		}
	}
	return false
}
