package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestResults counts the events of four packages: one that passes, one with a
// failed test, one that does not build and one that dies in a test.
func TestResults(t *testing.T) {
	const events = `go: downloading example.org v1.0.0
{"Action":"start","Package":"a"}
{"Action":"run","Package":"a","Test":"TestOne"}
{"Action":"output","Package":"a","Test":"TestOne/sub","Output":"quiet\n"}
{"Action":"pass","Package":"a","Test":"TestOne/sub","Elapsed":0.1}
{"Action":"pass","Package":"a","Test":"TestOne","Elapsed":0.1}
{"Action":"skip","Package":"a","Test":"TestPeer","Elapsed":0}
{"Action":"pass","Package":"a","Elapsed":0.5}
{"Action":"output","Package":"b","Test":"TestTwo/sub","Output":"got 1, want 2\n"}
{"Action":"fail","Package":"b","Test":"TestTwo/sub","Elapsed":0.1}
{"Action":"fail","Package":"b","Test":"TestTwo","Elapsed":0.1}
{"Action":"fail","Package":"b","Elapsed":0.5}
{"ImportPath":"c_test [c.test]","Action":"build-output","Output":"c.go:1: undefined: x\n"}
{"ImportPath":"c_test [c.test]","Action":"build-fail"}
{"Action":"fail","Package":"c","Elapsed":0,"FailedBuild":"c_test [c.test]"}
{"Action":"skip","Package":"empty","Elapsed":0}
{"Action":"run","Package":"d","Test":"TestFour"}
{"Action":"output","Package":"d","Test":"TestFour","Output":"panic: four\n"}
{"Action":"fail","Package":"d","Elapsed":0.5}
`
	var lines, blocks []string
	r := newResults(func(s string) { lines = append(lines, s) }, func(s string) { blocks = append(blocks, s) })
	for line := range strings.Lines(events) {
		r.take([]byte(line))
	}
	if want := (tally{passed: 1, failed: 3, skipped: 1}); r.sum != want {
		t.Errorf("counted %+v, want %+v", r.sum, want)
	}
	if got, want := strings.Join(blocks, "|"), "got 1, want 2\n|c.go:1: undefined: x\n|panic: four\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	if got, want := strings.Join(lines, "\n"), "go: downloading example.org v1.0.0\nskip a TestPeer\nok   a 0.5s\nFAIL b 0.5s\nFAIL c 0.0s\nFAIL d 0.5s"; got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
	if len(r.outputs) != 1 { // of the build, which other packages may fail for, too
		t.Errorf("kept %d outputs", len(r.outputs))
	}
}

// TestFailure tells which tests are run again, and how.
func TestFailure(t *testing.T) {
	const events = `{"Action":"fail","Package":"a","Test":"TestOne/x.y/z"}
{"Action":"fail","Package":"a","Test":"TestOne/x.y"}
{"Action":"pass","Package":"a","Test":"TestOne/w"}
{"Action":"output","Package":"a","Test":"TestOne","Output":"--- FAIL: TestOne\n"}
{"Action":"fail","Package":"a","Test":"TestOne"}
{"Action":"fail","Package":"a","Test":"TestOneMore"}
{"Action":"fail","Package":"a"}
{"Action":"output","Package":"b","Test":"TestTwo","Output":"WARNING: DATA RACE\n--- FAIL: TestTwo\n"}
{"Action":"fail","Package":"b","Test":"TestTwo"}
{"Action":"fail","Package":"b"}
`
	var printed strings.Builder
	print := func(s string) { printed.WriteString(s) }
	r := newResults(print, print)
	r.repeated = true
	for line := range strings.Lines(events) {
		r.take([]byte(line))
	}
	a, b := r.failed["a"], r.failed["b"]
	if got := strings.Join(a.tests, " "); got != "TestOne TestOneMore" || a.final || !b.final {
		t.Errorf("failed: %s; %v %v", got, a.final, b.final)
	}
	if got, want := printed.String(), "--- to be repeated: TestOne\nagain a 0.0sWARNING: DATA RACE\n--- FAIL: TestTwo\nFAIL b 0.0s"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	if got, want := pattern(a.leaves), `^TestOne$/^x\.y$/^z$|^TestOneMore$`; got != want {
		t.Errorf("to repeat: %s, want %s", got, want)
	}
}

// TestOwn tells races between libraries from those of the project.
func TestOwn(t *testing.T) {
	const (
		header  = "WARNING: DATA RACE\n"
		std     = "  runtime.mapassign_faststr()\n      /usr/local/go/src/runtime/map.go:1 +0x1\n  slices.SortFunc[go.shape.struct { example.org/x.T }]()\n      /usr/local/go/src/slices/sort.go:1 +0x1\n"
		library = "  go.mau.fi/whatsmeow/socket.(*FrameSocket).Close()\n      /mod/go.mau.fi/whatsmeow@v0/socket.go:90 +0x384\n"
		ours    = "  switchboard/bridges/irc_test.TestX.func1()\n      /src/bridges/irc/x_test.go:1 +0x1\n"
		read    = "Read at 0x00c000156690 by goroutine 2214:\n"
		write   = "\nPrevious write at 0x00c000156690 by goroutine 2212:\n"
		origin  = "\nGoroutine 2214 (running) created at:\n" + ours + "==================\n"
	)
	for _, c := range []struct {
		name, read, write string
		want              bool
	}{
		{"two of a library", std + library + ours, library + ours, false},
		{"a library and what calls it", library, std + ours + library, true},
		{"ours", ours, ours, true},
		{"a library and a lost stack", library, "  [failed to restore the stack]\n", false},
		{"nothing of either", std, "  [failed to restore the stack]\n", true},
	} {
		found := races.FindAllString("a line\n==================\n"+header+read+c.read+write+c.write+origin+"another\n", -1)
		if len(found) != 1 || own(found[0]) != c.want {
			t.Errorf("%s: %d races, %v", c.name, len(found), !c.want)
		}
	}
}

// TestDeath: where a process dies in one test, another that failed before is not
// repeated, because those behind have not run.
func TestDeath(t *testing.T) {
	const events = `{"Action":"run","Package":"a","Test":"TestOne"}
{"Action":"fail","Package":"a","Test":"TestOne"}
{"Action":"run","Package":"a","Test":"TestTwo"}
{"Action":"output","Package":"a","Test":"TestTwo","Output":"panic: two\n"}
{"Action":"fail","Package":"a"}
`
	var printed strings.Builder
	print := func(s string) { printed.WriteString(s + "|") }
	r := newResults(print, print)
	r.repeated = true
	for line := range strings.Lines(events) {
		r.take([]byte(line))
	}
	if f := r.failed["a"]; !f.final || r.sum.failed != 1 {
		t.Errorf("failed: %+v, %+v", f, r.sum)
	}
	if got, want := printed.String(), "|FAIL a 0.0s|panic: two\n|"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}

// TestRepeat runs a test that fails the first time, one that always does, and
// one that never does.
func TestRepeat(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example\n",
		"x_test.go": `package x
import ("os"; "testing")
func TestShaky(t *testing.T) {
	t.Run("sub", func(t *testing.T) {
		if os.Mkdir("been", 0o700) == nil {
			t.Error("the first time")
		}
	})
	t.Run("sound", func(*testing.T) {})
}
func TestSound(t *testing.T) {}
`,
		"y/y_test.go": `package y
import "testing"
func TestBroken(t *testing.T) { t.Error("always") }
`,
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, of := range []struct {
		tests tests
		shaky string
	}{
		{tests{packages: []string{"./..."}}, "test: example TestShaky"},
		{tests{packages: []string{"./..."}, flags: []string{"-count=1"}, apart: true}, "test: example TestShaky/sub"},
	} {
		c := &check{root: dir, env: os.Environ(), out: &printer{start: time.Now()}}
		sum := c.goTest(t.Context(), "test", of.tests)
		if want := (tally{passed: 2, failed: 1}); sum != want {
			t.Errorf("counted %+v, want %+v", sum, want)
		}
		if len(c.shaky) != 1 || !strings.HasPrefix(c.shaky[0], of.shaky+": ") {
			t.Errorf("shaky: %q, want %s", c.shaky, of.shaky)
		}
		if want := []string{"FAIL test: example/y TestBroken"}; !slices.Equal(c.failures, want) {
			t.Errorf("failed: %q", c.failures)
		}
		if err := os.Remove(filepath.Join(dir, "been")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestShorten cuts a long output and keeps what matters of it.
func TestShorten(t *testing.T) {
	noise := strings.Repeat("noise\n", most)
	for in, want := range map[string]string{
		"": "", "a\nb\n": "a\nb\n",
		noise + "    x_test.go:7: broken\n" + noise + "end":  "… 120 lines\n    x_test.go:7: broken\n… 1 lines\n" + strings.Repeat("noise\n", most-1) + "end",
		"--- FAIL: TestX (0.1s)\n" + noise + noise + "end\n": "--- FAIL: TestX (0.1s)\n… 122 lines\n" + strings.Repeat("noise\n", most-2) + "end\n",
	} {
		if got := shorten(in); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

// TestNext lets two lanes take suites: their own first, then from the end.
func TestNext(t *testing.T) {
	c := &check{left: []suite{{name: "a", lane: 0}, {name: "x", lane: 1}, {name: "y", lane: 1, tied: true}, {name: "z", lane: 1}}}
	var order string
	for _, lane := range []int{0, 1, 0, 0, 1, 1} {
		s, ok := c.next(lane)
		if !ok {
			s.name = "-"
		}
		order += s.name
	}
	if order != "axz-y-" {
		t.Errorf("the order is %s", order)
	}
}
