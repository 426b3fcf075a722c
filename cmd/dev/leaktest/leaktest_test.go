package leaktest

import (
	"strings"
	"testing"
	"time"
)

// TestMain uses the package on itself.
func TestMain(m *testing.M) { Main(m) }

// TestLeak lets a goroutine hang, and then go.
func TestLeak(t *testing.T) {
	hang := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		<-hang
		close(ended)
	}()
	left := wait(50 * time.Millisecond)
	// The goroutine of this test itself is one of ours that runs, but it is the
	// first on the list, which is left out.
	if len(left) != 1 || !strings.Contains(left[0], "TestLeak") {
		t.Errorf("%d goroutines found:\n%s", len(left), strings.Join(left, "\n\n"))
	}
	close(hang)
	<-ended
	if left := wait(patience); len(left) != 0 {
		t.Errorf("found after their end:\n%s", strings.Join(left, "\n\n"))
	}
}

// TestIsOurs tells stacks apart.
func TestIsOurs(t *testing.T) {
	for stack, want := range map[string]bool{
		"goroutine 7 [select]:\nswitchboard/homeserver/store.(*Store).run(0x1)\n\t/x/store.go:1 +0x1\n":                                     true,
		"goroutine 7 [IO wait]:\ninternal/poll.runtime_pollWait(0x1)\n\t/x\ncreated by switchboard/bridges/irc.dial in goroutine 3\n\t/x\n": true,
		"goroutine 7 [IO wait]:\nnet/http.(*persistConn).readLoop(0x1)\n\t/x\ncreated by net/http.(*Transport).dialConn in goroutine 3\n":   false,
	} {
		if got := isOurs(stack); got != want {
			t.Errorf("%v for\n%s", got, stack)
		}
	}
}
