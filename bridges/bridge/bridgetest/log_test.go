package bridgetest

import (
	"fmt"
	"testing"
)

// TestLateLog writes into the log of a test that has ended, which must not panic.
func TestLateLog(t *testing.T) {
	var l *log
	inner := testing.InternalTest{Name: "TestInner", F: func(t *testing.T) { l = logOf(t) }}
	if !testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{inner}) {
		t.Fatal("the inner test failed")
	}
	if _, err := fmt.Fprintln(l, "the last words of TestInner"); err != nil {
		t.Error(err)
	}
}
